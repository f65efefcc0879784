//! An archive: its table of members, read in one pass that readers need not wait for.

use std::sync::Arc;

use super::error::UnpackError;
use super::links;
use super::pass::{ArchivePass, PassInterest, Progress};
use super::recognise::Container;
use super::source::{Pieces, Source};
use super::stream::{Codec, Stream, Unpacker};
use super::table::{Data, Entry, NodeKey, Table};
use super::{table, tar, zip};
use dupfs_base::{RequestContext, escape_bytes};
use dupfs_format::{EntryKind, EntryMeta};

/// An archive and what is known of its members.
#[derive(Debug)]
pub struct Archive {
    unpacker: Arc<Unpacker>,
    /// The archive's file, as members are named after it.
    name: Arc<str>,
    /// The tar stream, decompressed, or the zip file.
    source: Arc<dyn Source>,
    is_zip: bool,
    pass: Arc<ArchivePass>,
}

impl Archive {
    /// The archive in `file`, which is a `container`.
    pub fn new(unpacker: &Arc<Unpacker>, file: Arc<dyn Source>, container: Container) -> Arc<Self> {
        let name = file.name();
        let source: Arc<dyn Source> = match container {
            Container::Tar(Some(codec)) => Stream::new(unpacker, file, codec),
            Container::Tar(None) | Container::Zip => file,
        };
        let is_zip = container == Container::Zip;
        let pass = ArchivePass::new(unpacker, Arc::clone(&name), Arc::clone(&source), is_zip);
        Arc::new(Self { unpacker: Arc::clone(unpacker), name, source, is_zip, pass })
    }

    /// What people call it: its file.
    pub fn name(&self) -> Arc<str> {
        Arc::clone(&self.name)
    }

    /// Returns true if its content begins as its kind demands; costs its first bytes.
    ///
    /// # Errors
    /// [`UnpackError`] if they cannot be read or decompressed.
    pub fn begins(&self, context: &RequestContext) -> Result<bool, UnpackError> {
        let head = self.source.read_at(0, 512, context)?;
        Ok(if self.is_zip { zip::begins(&head) } else { tar::begins(&head) })
    }

    /// How far the pass has come.
    pub fn progress(&self) -> Progress {
        self.pass.look(|state| state.progress.clone())
    }

    #[cfg(test)]
    pub(super) fn pass(&self) -> &ArchivePass {
        &self.pass
    }

    /// Keeps the pass running until the returned interest is dropped; starts it if need be. An open file whose end depends on
    /// the pass holds it.
    pub fn join_pass(&self) -> PassInterest {
        self.pass.join()
    }

    /// What `ask` finds in the table, as soon as there is something to be found; `None` once it is known that there is
    /// nothing.
    ///
    /// # Errors
    /// [`UnpackError`] if the pass ended early and nothing was found until then, or the request ended.
    pub fn find<T>(
        &self,
        context: &RequestContext,
        ask: impl Fn(&Table) -> Option<T>,
    ) -> Result<Option<T>, UnpackError> {
        self.pass.wait(context, |state| match (ask(&state.table), &state.progress) {
            (Some(found), _) => Some(Ok(Some(found))),
            (None, Progress::Done) => Some(Ok(None)),
            (None, Progress::Failed(error)) => Some(Err(error.clone())),
            (None, Progress::Idle | Progress::Running) => None,
        })?
    }

    /// Waits until the pass has ended, successfully or not.
    ///
    /// # Errors
    /// [`UnpackError::Stopped`] if the request ends first.
    pub fn settle(&self, context: &RequestContext) -> Result<Progress, UnpackError> {
        self.pass.wait(context, |state| match &state.progress {
            Progress::Idle | Progress::Running => None,
            ended => Some(ended.clone()),
        })
    }

    /// Asks the table as far as it is known.
    pub fn with_table<T>(&self, ask: impl FnOnce(&Table) -> T) -> T {
        self.pass.look(|state| ask(&state.table))
    }

    /// Returns true if all members are known.
    pub fn is_settled(&self) -> bool {
        self.pass.look(|state| matches!(state.progress, Progress::Done))
    }

    /// Number of the entry that `key` has by now; `None` for an implied directory, and what the pass has not met.
    pub fn entry_number(&self, key: NodeKey) -> Option<u32> {
        self.with_table(|table| table.node(key).and_then(|node| node.entry))
    }

    /// What `key` is, with an owner: archives without owners have their file's, `own`.
    pub fn meta(&self, key: NodeKey, own: &EntryMeta) -> Option<EntryMeta> {
        self.with_table(|table| Self::meta_in(table, key, own))
    }

    fn meta_in(table: &Table, key: NodeKey, own: &EntryMeta) -> Option<EntryMeta> {
        table.node(key)?;
        let implied = EntryMeta { kind: EntryKind::Dir, mode: dir_mode(own.mode), ..own.clone() };
        // The root is described by its file, whether or not the archive says something of `.`: nothing is unpacked for that.
        let entry = table.entry(key).filter(|_| key != NodeKey::ROOT);
        let mut meta = entry.map_or(implied, |entry| entry.meta.clone());
        if !zip::has_owner(&meta) {
            (meta.uid, meta.gid) = (own.uid, own.gid);
            (meta.uname, meta.gname) = (own.uname.clone(), own.gname.clone());
        }
        Some(meta)
    }

    /// The target of the symbolic link `key`, which leads nowhere but into the archive.
    ///
    /// # Errors
    /// [`UnpackError`] if it depends on members that cannot be read.
    pub fn link_target(&self, key: NodeKey, context: &RequestContext) -> Result<Option<Vec<u8>>, UnpackError> {
        let plain = self.with_table(|table| {
            let EntryKind::Symlink(target) = &table.entry(key)?.meta.kind else { return None };
            let depth = table.path(key).len().saturating_sub(1);
            links::is_plain(target, depth).then(|| target.to_vec())
        });
        if plain.is_some() {
            return Ok(plain);
        }
        self.settle(context)?;
        let target = self.with_table(|table| links::inside(table, key).map(std::borrow::Cow::into_owned));
        if target.as_ref().is_some_and(|target| target.len() > table::TARGET) {
            let reason = format!("a symbolic link with a target of more than {} bytes", table::TARGET);
            return Err(UnpackError::unsupported(&self.path(key), reason));
        }
        Ok(target)
    }

    /// Size of the link target, or of the content of `key`, as its archive has it.
    pub fn size(&self, key: NodeKey) -> Option<u64> {
        self.with_table(|table| table.entry(key).map(|entry| entry.data.size()))
    }

    /// The path of member `key` for people, with the archive's own in front.
    pub fn path(&self, key: NodeKey) -> Arc<str> {
        let inner = self.with_table(|table| escape_bytes(&table.path(key).join(&b'/')));
        format!("{}/{inner}", self.name).into()
    }

    /// The content of the regular file `key`, and the number of its entry.
    ///
    /// # Errors
    /// [`UnpackError`] if it is of a form that cannot be read, or damaged.
    pub fn open(&self, key: NodeKey, context: &RequestContext) -> Result<(Arc<dyn Source>, u32), UnpackError> {
        let name = self.path(key);
        let found = self.with_table(|table| {
            let number = table.node(key).and_then(|node| node.entry);
            table.entry(key).map(|Entry { data, .. }| data.clone()).zip(number)
        });
        let Some((data, number)) = found else { return Err(UnpackError::unsupported(&name, "it is no regular file")) };
        let source = Arc::clone(&self.source);
        let content: Arc<dyn Source> = match data {
            Data::Nothing => return Err(UnpackError::unsupported(&name, "it is no regular file")),
            Data::Refused(reason) => return Err(UnpackError::unsupported(&name, &*reason)),
            Data::Pieces { size, pieces } => Arc::new(Pieces::new(name, source, Data::pieces(&pieces), size)),
            Data::Packed { header, packed, size, crc, deflated } => {
                let at = zip::data_at(&*source, header, context)?;
                let body = Pieces::range(name, source, at, packed);
                let codec = if deflated { Codec::Deflate { crc, size } } else { Codec::Stored { crc, size } };
                let stream = Stream::new(&self.unpacker, Arc::new(body), codec);
                // Nobody reads an empty file: that it is one has to be seen here.
                if size == 0 && (packed > 0 || crc != 0) {
                    stream.read_at(0, 1, context)?;
                }
                stream
            }
        };
        Ok((content, number))
    }

    /// Whether who has read `key` to its end, when its entry was `number`, may be told that this was all. Waits for the pass,
    /// as a later member of the same name replaces an earlier one.
    ///
    /// # Errors
    /// [`UnpackError`] if it was replaced, or if the archive's damage may have touched what was read.
    pub fn confirm_end(&self, key: NodeKey, number: u32, context: &RequestContext) -> Result<(), UnpackError> {
        let progress = self.settle(context)?;
        if self.entry_number(key) != Some(number) {
            return Err(UnpackError::Replaced { object: self.path(key) });
        }
        match progress {
            Progress::Failed(error) if !self.source.verified_early() && !self.is_zip => Err(error),
            Progress::Failed(_) | Progress::Done | Progress::Idle | Progress::Running => Ok(()),
        }
    }
}

/// The mode of a directory for what a file of `mode` holds: who may read may enter.
pub fn dir_mode(mode: u16) -> u16 {
    (mode & 0o777) | (mode & 0o444) >> 2
}

#[cfg(test)]
#[path = "archive/checks_tests.rs"]
mod checks_tests;
#[cfg(test)]
#[path = "archive/tests.rs"]
mod tests;
