//! The directories and links around the snapshots: the root, `snapshots/`, `at/`, `latest` and the links in `at/`.

use std::time::Duration;

use super::attr::{MUTABLE_TTL, NodeSize, implied_dir};
use super::error::FsError;
use super::inode::Inode;
use super::ops::{Attr, DirEntry, NodeKind};
use super::owners::Owners;
use super::snapshot_view::{RootInode, SnapshotView};
use dupfs_base::ErrorKind;
use dupfs_format::{EntryKind, EntryMeta};

/// The directories of the root, with their names.
const DIRS: [(Inode, &[u8]); 3] =
    [(Inode::Snapshots, b"snapshots"), (Inode::At, b"at"), (Inode::Versions, b"versions")];

/// The attributes of a directory or link of the overview. It belongs to the user who mounted.
///
/// # Errors
/// An internal error if it is of no snapshot of this view.
pub(super) fn attr(view: &SnapshotView, owners: &Owners, inode: Inode) -> Result<Attr, FsError> {
    let mtime = view.collection.latest().map_or(0, |snapshot| snapshot.time.0);
    let dir = implied_dir(mtime);
    let owner = owners.numbers(&dir);
    let (meta, size) = match link_target(view, inode) {
        Ok(target) => {
            let size = NodeSize::exact(target.len() as u64);
            (EntryMeta { kind: EntryKind::Symlink(target.into()), ..dir }, size)
        }
        Err(_) => (dir, NodeSize::exact(0)),
    };
    let subdirs = match inode {
        Inode::Root if matches!(view.root, RootInode::Overview) => DIRS.len(),
        Inode::Snapshots => view.listed().count(),
        _ => 0,
    };
    let nlink = match meta.kind {
        // The greatest link count.
        EntryKind::Dir => u32::try_from(subdirs).unwrap_or(u32::MAX).saturating_add(2),
        _ => 1,
    };
    Ok(Attr::of(view.number(inode)?, &meta, (owner, owners.mode(meta.mode)), size, nlink, MUTABLE_TTL))
}

/// The target of `latest` or of a link in `at/`.
///
/// # Errors
/// Invalid if it is not one of these links.
pub(super) fn link_target(view: &SnapshotView, inode: Inode) -> Result<Vec<u8>, FsError> {
    match inode {
        Inode::Latest(snapshot) => Ok(format!("snapshots/{}", view.snapshot(snapshot)?.name).into_bytes()),
        Inode::AtLink(snapshot) => Ok(format!("../snapshots/{}", view.snapshot(snapshot)?.name).into_bytes()),
        _ => Err(FsError::failed(ErrorKind::Invalid, "not a symbolic link")),
    }
}

/// The inode of `name` in the root of the overview.
///
/// # Errors
/// NotFound.
pub(super) fn child(view: &SnapshotView, name: &[u8]) -> Result<Inode, FsError> {
    let latest = || view.latest().filter(|_| name == b"latest").map(Inode::Latest);
    let dir = DIRS.iter().find(|(_, own)| *own == name).map(|(inode, _)| *inode);
    dir.or_else(latest).ok_or_else(FsError::not_found)
}

/// Emits the entries of the root of the overview after `offset`.
///
/// # Errors
/// An internal error.
pub(super) fn list(
    view: &SnapshotView,
    offset: u64,
    emit: &mut dyn FnMut(DirEntry<'_>) -> bool,
) -> Result<(), FsError> {
    let latest = view.latest().map(|latest| (Inode::Latest(latest), NodeKind::Symlink, &b"latest"[..]));
    let dirs = DIRS.into_iter().map(|(inode, name)| (inode, NodeKind::Dir, name));
    for (next_offset, (inode, kind, name)) in (1u64..).zip(latest.into_iter().chain(dirs)) {
        let is_wanted = next_offset > offset;
        if is_wanted && !emit(DirEntry { ino: view.number(inode)?, kind, next_offset, name }) {
            break;
        }
    }
    Ok(())
}

/// The attributes of a name that the kernel may not cache.
pub(super) fn uncached_name(attr: Attr) -> Attr {
    Attr { entry_ttl: Duration::ZERO, ..attr }
}
