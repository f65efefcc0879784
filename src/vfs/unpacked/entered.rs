//! Files below `unpacked/` that may be unpacked, and archives that were entered.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, OnceLock, Weak};

use super::super::error::FsError;
use super::super::ops::{Attr, FileSystem, Ino};
use dupfs_base::sync::lock;
use dupfs_base::{HasKind, RequestContext};
use dupfs_format::{EntryKind, EntryMeta};
use dupfs_unpack::{Archive, Container, Kind, NodeKey, PassInterest, Progress, Source, Stream, UnpackError};

/// A file whose name promises that it can be unpacked.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) kind: Kind,
    /// The name it is shown under.
    pub(super) name: Vec<u8>,
    /// Number of its entry, if it is a member of an archive: a later entry of its name is another file with the same number.
    pub(super) entry: Option<u32>,
    /// Attributes of the stored file.
    pub(super) attr: Attr,
    pub(super) content: Arc<Content>,
}

/// What is learnt of a candidate's content.
#[derive(Debug, Default)]
pub(super) struct Content {
    /// Whether its content keeps the promise, once somebody looked.
    pub(super) confirmed: OnceLock<bool>,
    /// The decompressed content while it is in use.
    pub(super) stream: Mutex<Weak<Stream>>,
    /// Its exact length in bytes, once it was found and nothing could replace the file any more.
    pub(super) size: OnceLock<u64>,
}

impl Candidate {
    /// A file as it is met, of whose content nothing is known.
    pub(super) fn of(kind: Kind, name: &[u8], entry: Option<u32>, attr: Attr) -> Self {
        Self { kind, name: name.to_vec(), entry, attr, content: Arc::default() }
    }

    /// Whether somebody looked, and it is what its name promises.
    pub(super) fn is_confirmed(&self) -> bool {
        self.content.confirmed.get() == Some(&true)
    }

    /// Whether it is known to be what its name promises.
    pub(super) fn is_archive(&self) -> Option<Container> {
        match self.kind {
            Kind::Archive(container) if self.is_confirmed() => Some(container),
            Kind::Archive(_) | Kind::Compressed(_) => None,
        }
    }

    /// Whether it is shown decompressed.
    pub(super) fn is_unpacked(&self) -> bool {
        matches!(self.kind, Kind::Compressed(_)) && self.is_confirmed()
    }
}

/// An archive that was entered: what stays when its table was dropped. One that replaces it under its name has a gate of its
/// own, so that no number of a member ever means another archive's.
#[derive(Debug)]
pub(super) struct Gate {
    /// Its space.
    pub(super) id: u32,
    /// The number of its file, which is that of its root directory.
    pub(super) file: Ino,
    /// Number of its file's entry, if that is a member of an archive.
    pub(super) entry: Option<u32>,
    pub(super) container: Container,
    /// Archives around it, itself included.
    pub(super) depth: u32,
    /// What stands for owners and times that it does not tell.
    pub(super) own: EntryMeta,
    pub(super) archive: Mutex<Weak<Entered>>,
    /// Whether something of it was shown for good: from then on nothing is answered from a table that is not complete.
    pub(super) settled: AtomicBool,
}

/// An archive in use.
#[derive(Debug)]
pub(super) struct Entered {
    pub(super) archive: Arc<Archive>,
    /// The member that it is, in another archive.
    pub(super) outer: Option<Link>,
}

/// A member of an archive as it was found.
#[derive(Clone, Debug)]
pub(super) struct Link {
    pub(super) entered: Arc<Entered>,
    pub(super) key: NodeKey,
    /// Number of the entry that it had then.
    pub(super) entry: u32,
    /// The name that it was found under, if that is not its own.
    pub(super) shown: Option<Vec<u8>>,
}

impl Entered {
    /// Whether nothing can change in it any more, all the way up.
    pub(super) fn is_settled(&self) -> bool {
        self.archive.is_settled() && self.outer.as_ref().is_none_or(Link::is_settled)
    }

    /// Waits until the passes have ended, well or not, all the way up.
    ///
    /// # Errors
    /// [`UnpackError`] if something else has its name by then.
    pub(super) fn settle(&self, context: &RequestContext) -> Result<Progress, UnpackError> {
        let progress = self.archive.settle(context)?;
        if let Some(outer) = &self.outer {
            outer.entered.settle(context)?;
            if !outer.is_current() {
                return Err(UnpackError::Replaced { object: outer.entered.archive.path(outer.key) });
            }
        }
        Ok(progress)
    }

    /// Waits until it is sure that what is around it is sound, all the way up: names have no checks of their own.
    ///
    /// # Errors
    /// As [`Link::confirm`].
    pub(super) fn confirm_outer(&self, context: &RequestContext) -> Result<(), UnpackError> {
        self.outer.as_ref().map_or(Ok(()), |outer| outer.confirm(context))
    }
}

impl Link {
    /// Keeps the passes over its archive and those around it running until the result is dropped.
    pub(super) fn join_passes(&self) -> Vec<PassInterest> {
        let outer = self.entered.outer.as_ref().map(Link::join_passes);
        let mut all = outer.unwrap_or_default();
        all.push(self.entered.archive.join_pass());
        all
    }

    fn is_current(&self) -> bool {
        self.entered.archive.entry_number(self.key) == Some(self.entry)
    }

    /// Whether it is what has its name, and nothing can change that any more, all the way up.
    pub(super) fn is_settled(&self) -> bool {
        self.entered.is_settled() && self.is_current()
    }

    /// Waits until nothing can change it any more, all the way up.
    ///
    /// # Errors
    /// [`UnpackError`] if something else has its name by then, or damage may have touched it.
    pub(super) fn confirm(&self, context: &RequestContext) -> Result<(), UnpackError> {
        let archive = &self.entered.archive;
        archive.confirm_end(self.key, self.entry, context)?;
        let still_shown = archive.with_table(|table| match (&self.shown, table.node(self.key)) {
            (Some(shown), Some(node)) => super::members::shown_in(table, node.parent, &node.name) == *shown,
            _ => true,
        });
        if !still_shown {
            return Err(UnpackError::Replaced { object: archive.path(self.key) });
        }
        self.entered.confirm_outer(context)
    }
}

/// A regular file of the file system below, open as long as this lives.
pub(super) struct Stored {
    below: Arc<dyn FileSystem>,
    ino: Ino,
    handle: u64,
    size: u64,
    name: Arc<str>,
    identity: Option<Arc<[u8]>>,
}

impl Stored {
    /// Opens it, which finds its exact size.
    pub(super) fn open(below: &Arc<dyn FileSystem>, ino: Ino, context: &RequestContext) -> Result<Self, FsError> {
        let attr = below.getattr(ino, context)?;
        let handle = below.open(ino, context)?.handle;
        let name: Arc<str> = below.path(ino).unwrap_or_else(|| format!("inode {ino}")).into();
        let identity = below.content_identity(ino, context).map(Arc::from);
        Ok(Self { below: Arc::clone(below), ino, handle, size: attr.size, name, identity })
    }
}

impl Drop for Stored {
    fn drop(&mut self) {
        self.below.release(self.ino, self.handle);
    }
}

impl std::fmt::Debug for Stored {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stored").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Source for Stored {
    fn name(&self) -> Arc<str> {
        Arc::clone(&self.name)
    }

    fn read_at(&self, offset: u64, len: usize, context: &RequestContext) -> Result<Vec<u8>, UnpackError> {
        self.below
            .read(self.ino, self.handle, offset, len, context)
            .map_err(|error| UnpackError::Source { kind: error.kind(), reason: error.to_string().into() })
    }

    fn known_len(&self) -> Option<u64> {
        Some(self.size)
    }

    fn len(&self, _: &RequestContext) -> Result<u64, UnpackError> {
        Ok(self.size)
    }

    fn identity(&self) -> Option<Arc<[u8]>> {
        self.identity.clone()
    }

    fn verified_early(&self) -> bool {
        true
    }
}

/// Attributes of an archive's file as the metadata of what is in it.
pub(super) fn meta_of(attr: &Attr) -> EntryMeta {
    EntryMeta {
        kind: EntryKind::File,
        mode: attr.perm,
        uid: attr.uid,
        gid: attr.gid,
        uname: Box::default(),
        gname: Box::default(),
        mtime: attr.mtime,
    }
}

pub(super) fn failed(error: &UnpackError) -> FsError {
    FsError::failed(error.kind(), error.to_string())
}

/// The stream of `candidate` while somebody uses it.
pub(super) fn live_stream(candidate: &Candidate) -> Option<Arc<Stream>> {
    lock(&candidate.content.stream).upgrade()
}

impl Gate {
    /// The number of a node in it.
    pub(super) fn number(&self, key: NodeKey) -> Ino {
        if key == NodeKey::ROOT { self.file } else { super::spaces::number(self.id, u64::from(key.0)) }
    }

    /// The number of the stored bytes of a node in it that is shown decompressed.
    pub(super) fn stored_number(&self, key: NodeKey) -> Ino {
        super::spaces::number(self.id, u64::from(key.0 | super::spaces::STORED))
    }

    /// The archive, if somebody uses it or it was used lately.
    pub(super) fn live(&self) -> Option<Arc<Entered>> {
        lock(&self.archive).upgrade()
    }

    /// Enters it: what somebody else entered meanwhile counts.
    pub(super) fn enter(&self, entered: Entered) -> Arc<Entered> {
        let mut archive = lock(&self.archive);
        if let Some(live) = archive.upgrade() {
            return live;
        }
        let entered = Arc::new(entered);
        *archive = Arc::downgrade(&entered);
        entered
    }
}
