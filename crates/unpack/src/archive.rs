//! An archive: its table of members, which is read in one pass. Readers need not wait for the end of the pass.

use std::sync::Arc;

use super::archive_pass::{ArchivePass, PassInterest, PassProgress};
use super::archive_table::member::{ArchiveEntry, EntryNumber, MemberData};
use super::archive_table::{ArchiveTable, NodeKey};
use super::byte_source::ByteSource;
use super::decompressed_stream::DecompressedStream;
use super::error::UnpackError;
use super::links;
use super::member_source::{MemberPiece, MemberSource};
use super::stream_codec::StreamCodec;
use super::suffix_hint::ArchiveFormat;
use super::unpacker::Unpacker;
use super::{archive_table, tar, zip};
use dupfs_base::{RequestContext, escape_bytes};
use dupfs_format::{EntryKind, EntryMeta};

/// An archive and its known members.
#[derive(Debug)]
pub struct Archive {
    unpacker: Arc<Unpacker>,
    /// The path of the archive's file, which precedes the paths of members in messages.
    name: Arc<str>,
    /// The tar stream, decompressed, or the zip file.
    source: Arc<dyn ByteSource>,
    is_zip: bool,
    pass: Arc<ArchivePass>,
}

impl Archive {
    /// The archive in `file`, which is a `container`.
    pub fn new(unpacker: &Arc<Unpacker>, file: Arc<dyn ByteSource>, container: ArchiveFormat) -> Arc<Self> {
        let name = file.name();
        let source: Arc<dyn ByteSource> = match container {
            ArchiveFormat::Tar(Some(codec)) => DecompressedStream::new(unpacker, file, codec),
            ArchiveFormat::Tar(None) | ArchiveFormat::Zip => file,
        };
        let is_zip = container == ArchiveFormat::Zip;
        let pass = ArchivePass::new(unpacker, Arc::clone(&name), Arc::clone(&source), is_zip);
        Arc::new(Self { unpacker: Arc::clone(unpacker), name, source, is_zip, pass })
    }

    /// The path of its file, for errors.
    pub fn name(&self) -> Arc<str> {
        Arc::clone(&self.name)
    }

    /// Returns true if its content begins as required for its kind. Reads its first bytes.
    ///
    /// # Errors
    /// [`UnpackError`] if they cannot be read or decompressed.
    pub fn begins(&self, context: &RequestContext) -> Result<bool, UnpackError> {
        let head = self.source.read_at(0, 512, context)?;
        if self.is_zip { zip::is_zip(&*self.source, &head, context) } else { Ok(tar::begins(&head)) }
    }

    /// The progress of the pass.
    pub fn progress(&self) -> PassProgress {
        self.pass.inspect(|state| state.progress.clone())
    }

    #[cfg(test)]
    pub(super) fn pass(&self) -> &ArchivePass {
        &self.pass
    }

    /// Keeps the pass running until the returned interest is dropped; starts it if need be. An open file whose end
    /// depends on the pass has such an interest.
    pub fn join_pass(&self) -> PassInterest {
        self.pass.join()
    }

    /// Returns the answer of `ask` as soon as it has one; `None` once it is known that it does not exist.
    ///
    /// # Errors
    /// [`UnpackError`] if the pass ended early and nothing was found until then, or the request ended.
    pub fn find<T>(
        &self,
        context: &RequestContext,
        ask: impl Fn(&ArchiveTable) -> Option<T>,
    ) -> Result<Option<T>, UnpackError> {
        self.pass.wait(context, |state| match (ask(&state.table), &state.progress) {
            (Some(found), _) => Some(Ok(Some(found))),
            (None, PassProgress::Done) => Some(Ok(None)),
            (None, PassProgress::Failed(error)) => Some(Err(error.clone())),
            (None, PassProgress::Idle | PassProgress::Running) => None,
        })?
    }

    /// Waits until the pass has ended, successfully or not.
    ///
    /// # Errors
    /// [`UnpackError::Stopped`] if the request ends first.
    pub fn wait_for_pass(&self, context: &RequestContext) -> Result<PassProgress, UnpackError> {
        self.pass.wait(context, |state| match &state.progress {
            PassProgress::Idle | PassProgress::Running => None,
            ended => Some(ended.clone()),
        })
    }

    /// Calls `ask` with the table as far as it is known.
    pub fn with_table<T>(&self, ask: impl FnOnce(&ArchiveTable) -> T) -> T {
        self.pass.inspect(|state| ask(&state.table))
    }

    /// Returns true if all members are known.
    pub fn is_complete(&self) -> bool {
        self.pass.inspect(|state| matches!(state.progress, PassProgress::Done))
    }

    /// Number of the current entry of `key`; `None` for an implied directory, and for a member that the pass has not
    /// reached.
    pub fn entry_number(&self, key: NodeKey) -> Option<EntryNumber> {
        self.with_table(|table| table.node(key).and_then(|node| node.entry))
    }

    /// The metadata of `key`. Members of archives without owners have the owner of the archive's file, `own`.
    pub fn meta(&self, key: NodeKey, own: &EntryMeta) -> Option<EntryMeta> {
        self.with_table(|table| Self::meta_in(table, key, own))
    }

    fn meta_in(table: &ArchiveTable, key: NodeKey, own: &EntryMeta) -> Option<EntryMeta> {
        table.node(key)?;
        let implied = EntryMeta { kind: EntryKind::Dir, mode: dir_mode(own.mode), ..own.clone() };
        // The root is described by its file, whether or not the archive has an entry `.`: nothing is unpacked for that.
        let entry = table.entry(key).filter(|_| key != NodeKey::ROOT);
        let mut meta = entry.map_or(implied, |entry| entry.meta.clone());
        if !zip::has_owner(&meta) {
            (meta.uid, meta.gid) = (own.uid, own.gid);
            (meta.uname, meta.gname) = (own.uname.clone(), own.gname.clone());
        }
        Some(meta)
    }

    /// The target of the symbolic link `key`, which stays within the archive.
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
        self.wait_for_pass(context)?;
        let target = self.with_table(|table| links::inside(table, key).map(std::borrow::Cow::into_owned));
        if target.as_ref().is_some_and(|target| target.len() > archive_table::names::TARGET) {
            let reason = format!("a symbolic link with a target of more than {} bytes", archive_table::names::TARGET);
            return Err(UnpackError::unsupported(&self.path(key), reason));
        }
        Ok(target)
    }

    /// Size of the link target, or of the content of `key`, as its archive has it.
    pub fn size(&self, key: NodeKey) -> Option<u64> {
        self.with_table(|table| table.entry(key).map(|entry| entry.data.size()))
    }

    /// The path of member `key` in messages, after the path of the archive.
    pub fn path(&self, key: NodeKey) -> Arc<str> {
        let inner = self.with_table(|table| escape_bytes(&table.path(key).join(&b'/')));
        format!("{}/{inner}", self.name).into()
    }

    /// The content of the regular file `key`, and the number of its entry.
    ///
    /// # Errors
    /// [`UnpackError`] if it is of a form that cannot be read, or damaged.
    pub fn open(
        &self,
        key: NodeKey,
        context: &RequestContext,
    ) -> Result<(Arc<dyn ByteSource>, EntryNumber), UnpackError> {
        let name = self.path(key);
        let found = self.with_table(|table| {
            let number = table.node(key).and_then(|node| node.entry);
            table.entry(key).map(|ArchiveEntry { data, .. }| data.clone()).zip(number)
        });
        let Some((data, number)) = found else { return Err(UnpackError::unsupported(&name, "not a regular file")) };
        let source = Arc::clone(&self.source);
        let content: Arc<dyn ByteSource> = match data {
            MemberData::Nothing => return Err(UnpackError::unsupported(&name, "not a regular file")),
            MemberData::Refused(reason) => return Err(UnpackError::unsupported(&name, &*reason)),
            MemberData::Damaged(what) => return Err(UnpackError::damaged(&name, None, &*what)),
            MemberData::Pieces { size, pieces } => {
                Arc::new(MemberSource::new(name, source, member_pieces(&pieces), size))
            }
            MemberData::Packed { header, packed, method, stated } => {
                let at = zip::data_at(&*source, header, context)?;
                let body = MemberSource::range(name, source, at, packed);
                let codec = StreamCodec::Zip(method, stated);
                let stream = DecompressedStream::new(&self.unpacker, Arc::new(body), codec);
                // No read of an empty file follows, so its emptiness is verified here.
                if stated.size == 0 && (packed > 0 || stated.crc != 0) {
                    stream.read_at(0, 1, context)?;
                }
                stream
            }
        };
        Ok((content, number))
    }

    /// Checks that a reader that has read `key` to its end, when its entry was `number`, may be given the end. Waits for the
    /// pass, as a later member of the same name replaces an earlier one.
    ///
    /// # Errors
    /// [`UnpackError`] if it was replaced, or if the archive's damage may have touched what was read.
    pub fn confirm_end(&self, key: NodeKey, number: EntryNumber, context: &RequestContext) -> Result<(), UnpackError> {
        let progress = self.wait_for_pass(context)?;
        if self.entry_number(key) != Some(number) {
            return Err(UnpackError::Replaced { object: self.path(key) });
        }
        match progress {
            PassProgress::Failed(error) if !self.source.verified_early() && !self.is_zip => Err(error),
            PassProgress::Failed(_) | PassProgress::Done | PassProgress::Idle | PassProgress::Running => Ok(()),
        }
    }
}

/// Pieces of a sparse member as its source needs them.
fn member_pieces(pieces: &[(u64, u64, u64)]) -> Box<[MemberPiece]> {
    pieces.iter().map(|&(start, len, at)| MemberPiece { start, len, at }).collect()
}

/// The mode of the directory of an archive file of `mode`: users who may read the file may search the directory.
pub fn dir_mode(mode: u16) -> u16 {
    (mode & 0o777) | (mode & 0o444) >> 2
}

#[cfg(test)]
#[path = "archive/checks_tests.rs"]
mod checks_tests;
#[cfg(test)]
#[path = "archive/tests.rs"]
mod tests;
