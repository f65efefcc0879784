//! Attributes of the inodes below `unpacked/`.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::super::attr::{DIR_SIZE, IMMUTABLE_TTL, NodeSize};
use super::super::error::FsError;
use super::super::ops::{Attr, Ino, NodeKind};
use super::super::owners::{OwnerOptions, Owners};
use super::archive_slot::ArchiveSlot;
use super::open_archive::OpenArchive;
use dupfs_base::RequestContext;
use dupfs_format::EntryKind;
use dupfs_read::content::MAX_FILE_BYTES;
use dupfs_unpack::NodeKey;

/// Makes attributes, with owners and modes as the mount shows them.
pub(super) struct UnpackedAttrs {
    owners: Owners,
}

impl UnpackedAttrs {
    /// Attributes with owners as `owners` says.
    pub(super) fn new(owners: OwnerOptions) -> Self {
        Self { owners: Owners::new(owners) }
    }

    /// Attributes of a member as it is stored.
    pub(super) fn member(
        &self,
        slot: &ArchiveSlot,
        open: &OpenArchive,
        key: NodeKey,
        context: &RequestContext,
    ) -> Result<Attr, FsError> {
        let archive = &open.archive;
        // Before anything is taken from the table, which the pass may change until then.
        let complete = open.is_complete();
        if complete {
            slot.was_complete.store(true, Ordering::Relaxed);
        }
        let meta = archive.meta(key, &slot.own).ok_or_else(FsError::not_found)?;
        let size = match &meta.kind {
            EntryKind::Symlink(_) => match archive.link_target(key, context) {
                Ok(target) => target.map_or(0, |target| target.len() as u64),
                Err(error) => return Err(error.into()),
            },
            // An implied directory has no entry, and no content either.
            _ => archive.size(key).unwrap_or(0),
        };
        let subdirs = archive.with_table(|table| table.node(key).map_or(0, |node| node.subdirs));
        let nlink = match &meta.kind {
            // File systems that do not count subdirectories, or not yet, return 1.
            EntryKind::Dir if complete => subdirs.saturating_add(2),
            _ => 1,
        };
        let owner = self.owners.ids(&meta, context).map_err(|_| FsError::WouldBlock)?;
        let perm = self.owners.mode(meta.mode);
        let ttl = if complete { IMMUTABLE_TTL } else { Duration::ZERO };
        let attr = Attr::of(slot.number(key), &meta, (owner, perm), NodeSize::exact(size), nlink, ttl);
        // A later member of the name may have another size.
        Ok(Attr { exact: attr.exact && (complete || attr.kind != NodeKind::File), ..attr })
    }

    /// Attributes of the root of an archive that was not opened yet, from the attributes of its file.
    pub(super) fn closed(&self, ino: Ino, stored: Attr) -> Attr {
        let perm = self.owners.mode(dupfs_unpack::dir_mode(stored.perm));
        let (size, blocks) = (DIR_SIZE, DIR_SIZE.div_ceil(512));
        Attr { ino, kind: NodeKind::Dir, perm, nlink: 1, size, blocks, exact: true, attr_ttl: Duration::ZERO, ..stored }
    }
}

/// The attributes `stored` of a compressed file as those of its content, of `size` bytes if that is known.
pub(super) fn sized(ino: Ino, stored: Attr, size: Option<u64>) -> Attr {
    match size {
        Some(size) => Attr { ino, size, blocks: size.div_ceil(512), exact: true, attr_ttl: stored.entry_ttl, ..stored },
        None => Attr { ino, size: MAX_FILE_BYTES, exact: false, attr_ttl: Duration::ZERO, ..stored },
    }
}
