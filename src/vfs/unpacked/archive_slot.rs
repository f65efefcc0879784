//! The permanent entries of archives that were visited.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, Weak};

use super::super::ops::{Attr, Ino};
use super::inode_number;
use super::open_archive::OpenArchive;
use dupfs_base::sync::lock;
use dupfs_format::{EntryKind, EntryMeta};
use dupfs_unpack::{ArchiveFormat, EntryNumber, NodeKey};

/// An archive that was visited: the part that stays when its table is dropped. An archive that replaces it under its
/// name has its own slot, so that the number of a member is never reused for another archive.
#[derive(Debug)]
pub(super) struct ArchiveSlot {
    /// Its space.
    pub(super) id: u32,
    /// The number of its file, which is that of its root directory.
    pub(super) file: Ino,
    /// Number of its file's entry, if that is a member of an archive.
    pub(super) entry: Option<EntryNumber>,
    pub(super) container: ArchiveFormat,
    /// Archives around it, itself included.
    pub(super) depth: u32,
    /// The owner, mode and time of its file.
    pub(super) own: EntryMeta,
    pub(super) archive: Mutex<Weak<OpenArchive>>,
    /// True once an answer from the complete table was given: from then on no answer comes from an incomplete one.
    pub(super) was_complete: AtomicBool,
}

impl ArchiveSlot {
    /// The number of a node in it.
    pub(super) fn number(&self, key: NodeKey) -> Ino {
        if key == NodeKey::ROOT { self.file } else { inode_number::number(self.id, u64::from(key.0)) }
    }

    /// The number of the stored bytes of a node in it that is shown decompressed.
    pub(super) fn stored_number(&self, key: NodeKey) -> Ino {
        inode_number::number(self.id, u64::from(key.0 | inode_number::STORED))
    }

    /// The archive, if it is in use or was used recently.
    pub(super) fn live(&self) -> Option<Arc<OpenArchive>> {
        lock(&self.archive).upgrade()
    }

    /// Returns the open archive: the one that another request has opened meanwhile, or else `opened`.
    pub(super) fn get_or_open(&self, opened: OpenArchive) -> Arc<OpenArchive> {
        let mut archive = lock(&self.archive);
        if let Some(live) = archive.upgrade() {
            return live;
        }
        let opened = Arc::new(opened);
        *archive = Arc::downgrade(&opened);
        opened
    }
}

/// Attributes of an archive's file as the metadata of its members.
pub(super) fn meta_of(attr: &Attr) -> EntryMeta {
    EntryMeta {
        kind: EntryKind::File,
        mode: attr.perm,
        uid: attr.uid,
        gid: attr.gid,
        uname: Arc::default(),
        gname: Arc::default(),
        mtime: attr.mtime,
    }
}
