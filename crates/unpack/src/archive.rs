//! An archive: its table of members, learnt in one pass that readers need not wait for.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::Instant;

use super::error::UnpackError;
use super::links;
use super::recognise::Container;
use super::source::{Pieces, Source};
use super::stream::{Codec, Stream, Unpacker};
use super::table::{Data, Entry, Full, Member, NodeKey, Table};
use super::{table, tar, zip};
use dupfs_base::sync::lock;
use dupfs_base::{ErrorKind, escape_bytes};
use dupfs_cache::index::Identity;
use dupfs_format::{EntryKind, EntryMeta};

/// How far the pass over an archive has come.
#[derive(Clone, Debug)]
pub enum Progress {
    /// It has not begun.
    Idle,
    /// It is under way: members may follow.
    Running,
    /// All members are known, and all of the archive was verified.
    Done,
    /// It ended here: what follows is not known.
    Failed(UnpackError),
}

/// An archive and what is known of its members.
#[derive(Debug)]
pub struct Archive {
    this: Weak<Self>,
    unpacker: Arc<Unpacker>,
    /// The archive's file, as members are named after it.
    name: Arc<str>,
    /// The tar stream, decompressed, or the zip file.
    source: Arc<dyn Source>,
    zip: bool,
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Debug)]
struct State {
    table: Table,
    progress: Progress,
}

impl Archive {
    /// The archive in `file`, which is a `container`.
    pub fn new(unpacker: &Arc<Unpacker>, file: Arc<dyn Source>, container: Container) -> Arc<Self> {
        let name = file.name();
        let source: Arc<dyn Source> = match container {
            Container::Tar(Some(codec)) => Stream::new(unpacker, file, codec),
            Container::Tar(None) | Container::Zip => file,
        };
        let limits = unpacker.limits();
        let (table, progress) = (Table::new(limits.members, limits.names), Progress::Idle);
        Arc::new_cyclic(|this| Self {
            this: Weak::clone(this),
            unpacker: Arc::clone(unpacker),
            name,
            source,
            zip: container == Container::Zip,
            state: Mutex::new(State { table, progress }),
            wake: Condvar::new(),
        })
    }

    /// What people call it: its file.
    pub fn name(&self) -> Arc<str> {
        Arc::clone(&self.name)
    }

    /// Whether its content begins as its kind demands; costs its first bytes.
    ///
    /// # Errors
    /// [`UnpackError`] if they cannot be read or decompressed.
    pub fn begins(&self) -> Result<bool, UnpackError> {
        let head = self.source.read_at(0, 512)?;
        Ok(if self.zip { zip::begins(&head) } else { tar::begins(&head) })
    }

    /// How far the pass has come.
    pub fn progress(&self) -> Progress {
        self.locked().progress.clone()
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// What `ask` finds in the table, as soon as there is something to be found; `None` once it is known that there is
    /// nothing.
    ///
    /// # Errors
    /// [`UnpackError`] if the pass ended early and nothing was found until then.
    pub fn find<T>(&self, ask: impl Fn(&Table) -> Option<T>) -> Result<Option<T>, UnpackError> {
        self.wait_for(|state| match (ask(&state.table), &state.progress) {
            (Some(found), _) => Some(Ok(Some(found))),
            (None, Progress::Done) => Some(Ok(None)),
            (None, Progress::Failed(error)) => Some(Err(error.clone())),
            (None, Progress::Idle | Progress::Running) => None,
        })?
    }

    /// Waits until the pass has ended, well or not.
    ///
    /// # Errors
    /// [`UnpackError`] if it has not by the deadline.
    pub fn settle(&self) -> Result<Progress, UnpackError> {
        self.wait_for(|state| match &state.progress {
            Progress::Idle | Progress::Running => None,
            ended => Some(ended.clone()),
        })
    }

    /// Asks the table as far as it is known.
    pub fn with_table<T>(&self, ask: impl FnOnce(&Table) -> T) -> T {
        ask(&self.locked().table)
    }

    /// Whether reading `key` to the end needs no further word from the pass: all members are known.
    pub fn is_settled(&self) -> bool {
        matches!(self.locked().progress, Progress::Done)
    }

    /// Number of the entry that `key` has by now; `None` for an implied directory, and what the pass has not met.
    pub fn entry_number(&self, key: NodeKey) -> Option<u32> {
        self.with_table(|table| table.node(key).and_then(|node| node.entry))
    }

    /// What `key` is, with an owner: archives without owners have their file's, `own`.
    pub fn meta(&self, key: NodeKey, own: &EntryMeta) -> Option<EntryMeta> {
        let state = self.locked();
        state.table.node(key)?;
        let implied = EntryMeta { kind: EntryKind::Dir, mode: dir_mode(own.mode), ..own.clone() };
        // The root is described by its file, whether or not the archive says something of `.`: nothing is unpacked for that.
        let entry = state.table.entry(key).filter(|_| key != NodeKey::ROOT);
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
    pub fn link_target(&self, key: NodeKey) -> Result<Option<Vec<u8>>, UnpackError> {
        let plain = self.with_table(|table| {
            let EntryKind::Symlink(target) = &table.entry(key)?.meta.kind else { return None };
            let depth = table.path(key).len().saturating_sub(1);
            links::is_plain(target, depth).then(|| target.to_vec())
        });
        if plain.is_some() {
            return Ok(plain);
        }
        self.settle()?;
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
    pub fn open(&self, key: NodeKey) -> Result<(Arc<dyn Source>, u32), UnpackError> {
        let name = self.path(key);
        let found = {
            let state = self.locked();
            let number = state.table.node(key).and_then(|node| node.entry);
            state.table.entry(key).map(|Entry { data, .. }| data.clone()).zip(number)
        };
        let Some((data, number)) = found else { return Err(UnpackError::unsupported(&name, "it is no regular file")) };
        let source = Arc::clone(&self.source);
        let content: Arc<dyn Source> = match data {
            Data::Nothing => return Err(UnpackError::unsupported(&name, "it is no regular file")),
            Data::Refused(reason) => return Err(UnpackError::unsupported(&name, &*reason)),
            Data::Pieces { size, pieces } => Arc::new(Pieces::new(name, source, Data::pieces(&pieces), size)),
            Data::Packed { header, packed, size, crc, deflated } => {
                let at = zip::data_at(&*source, header)?;
                let body = Pieces::range(name, source, at, packed);
                let codec = if deflated { Codec::Deflate { crc, size } } else { Codec::Stored { crc, size } };
                let stream = Stream::new(&self.unpacker, Arc::new(body), codec);
                // Nobody reads an empty file: that it is one has to be seen here.
                if size == 0 && (packed > 0 || crc != 0) {
                    stream.read_at(0, 1)?;
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
    pub fn confirm_end(&self, key: NodeKey, number: u32) -> Result<(), UnpackError> {
        let progress = self.settle()?;
        if self.entry_number(key) != Some(number) {
            return Err(UnpackError::Replaced { object: self.path(key) });
        }
        match progress {
            Progress::Failed(error) if !self.source.verified_early() && !self.zip => Err(error),
            Progress::Failed(_) | Progress::Done | Progress::Idle | Progress::Running => Ok(()),
        }
    }

    /// Waits until `question` has an answer. Starts the pass if need be.
    fn wait_for<T>(&self, question: impl Fn(&State) -> Option<T>) -> Result<T, UnpackError> {
        self.start();
        let deadline = Instant::now().checked_add(self.unpacker.limits().patience);
        let mut state = self.locked();
        loop {
            if let Some(answer) = question(&state) {
                return Ok(answer);
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            state = match left {
                Some(left) if left.is_zero() => return Err(UnpackError::Deadline { object: self.name() }),
                Some(left) => self.wake.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0,
                None => self.wake.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    /// Starts the pass, unless it is under way or over. One that failed for a reason that may pass is tried again.
    fn start(&self) {
        {
            let mut state = self.locked();
            let again = match &state.progress {
                Progress::Idle => true,
                Progress::Failed(error) => error.may_pass(),
                Progress::Running | Progress::Done => false,
            };
            if !again {
                return;
            }
            let limits = self.unpacker.limits();
            state.table = Table::new(limits.members, limits.names);
            state.progress = Progress::Running;
        }
        let Some(this) = self.this.upgrade() else { return };
        let run = move || Pass { archive: &this, ended: false }.run();
        if let Err(error) = thread::Builder::new().name("dupfs-members".into()).spawn(run) {
            let reason = format!("{}: no thread to read its members: {error}", self.name);
            self.end(Progress::Failed(UnpackError::Source { kind: ErrorKind::Io, reason: reason.into() }));
        }
    }

    fn end(&self, progress: Progress) {
        self.locked().progress = progress;
        self.wake.notify_all();
    }

    /// The key of its table, which any archive with the same content has; `None` if nothing tells its content.
    fn table_key(&self) -> Option<Identity> {
        let tag: &[u8] = if self.zip { b"zip" } else { b"tar" };
        Some(Identity::of(&[&self.source.identity()?, tag]))
    }

    /// Loads the table if it is still cached, else reads the archive and stores the table.
    fn learn(&self) -> Result<(), UnpackError> {
        let limits = self.unpacker.limits();
        let key = self.table_key();
        if let Some(table) = key.and_then(|key| self.unpacker.load_table(key)) {
            self.locked().table = table;
            return Ok(());
        }
        let mut add = |member: Member<'_>| {
            let added = self.locked().table.insert(member);
            self.wake.notify_all();
            added.map_err(|full| match full {
                Full::Members => UnpackError::limit(&self.name, format!("more than {} members", limits.members)),
                Full::Names => {
                    UnpackError::limit(&self.name, format!("names and links of more than {} bytes", limits.names))
                }
            })
        };
        if self.zip {
            zip::walk(&*self.source, limits, &mut add)?;
        } else {
            tar::walk(&*self.source, &mut add)?;
        }
        let shortened = self.with_table(Table::shortened);
        if shortened > 0 {
            log::warn!("{}: {shortened} names of more than 255 bytes are shown shortened", self.name);
        }
        // To the very end, where the stream's checks are, whether or not its length is known without that.
        self.source.check_end()?;
        if let Some(key) = key {
            let bytes = self.with_table(Table::encode);
            self.unpacker.store_table(key, &bytes);
        }
        Ok(())
    }
}

/// A pass over an archive; one that panics has failed.
struct Pass<'a> {
    archive: &'a Archive,
    ended: bool,
}

impl Pass<'_> {
    fn run(mut self) {
        let learnt = self.archive.learn();
        self.ended = true;
        if let Err(error) = &learnt {
            log::error!("the members of an archive are not all known: {error}");
        }
        self.archive.end(learnt.map_or_else(Progress::Failed, |()| Progress::Done));
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if !self.ended {
            let reason = format!("{}: dupfs met a defect of its own while it read the members", self.archive.name);
            let error = UnpackError::Source { kind: ErrorKind::Io, reason: reason.into() };
            self.archive.end(Progress::Failed(error));
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
