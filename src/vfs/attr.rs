//! Builds the attributes of archived objects.

use std::sync::Arc;
use std::time::Duration;

use super::ops::{Attr, Ino, NodeKind};
use super::owners::OwnerIds;
use dupfs_format::{EntryKind, EntryMeta};

/// Size shown for directories, as a disk file system would.
pub(super) const DIR_SIZE: u64 = 4096;

/// Snapshots never change, so the kernel may cache their attributes and names.
pub(super) const IMMUTABLE_TTL: Duration = Duration::from_secs(24 * 3600);
/// `latest`, the list of snapshots and owners that may be found later change.
pub(super) const MUTABLE_TTL: Duration = Duration::from_secs(10);

/// The size of a regular file or of a link's target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NodeSize {
    pub(super) bytes: u64,
    /// False if `bytes` is an upper bound.
    pub(super) exact: bool,
}

impl NodeSize {
    pub(super) fn exact(bytes: u64) -> Self {
        Self { bytes, exact: true }
    }
}

impl Attr {
    /// The attributes of the object that `meta` describes, with `perm` and `owner` as they are shown. `size` counts for
    /// regular files and links. `ttl` is how long attributes and name may be cached; attributes with a bound as their size
    /// may not be, and those with a provisional owner not for long.
    pub(super) fn of(
        ino: Ino,
        meta: &EntryMeta,
        (owner, perm): (OwnerIds, u16),
        size: NodeSize,
        nlink: u32,
        ttl: Duration,
    ) -> Self {
        let kind = kind_of(&meta.kind);
        let (size, exact) = match kind {
            NodeKind::File => (size.bytes, size.exact),
            NodeKind::Symlink => (size.bytes, true),
            NodeKind::Dir => (DIR_SIZE, true),
            NodeKind::Fifo | NodeKind::CharDevice | NodeKind::BlockDevice => (0, true),
        };
        let rdev = match &meta.kind {
            EntryKind::CharDevice(major, minor) | EntryKind::BlockDevice(major, minor) => (*major, *minor),
            EntryKind::File | EntryKind::Dir | EntryKind::Symlink(_) | EntryKind::Fifo => (0, 0),
        };
        let attr_ttl = match (exact, owner.provisional) {
            (false, _) => Duration::ZERO,
            (true, true) => ttl.min(MUTABLE_TTL),
            (true, false) => ttl,
        };
        Self {
            ino,
            kind,
            perm: if kind == NodeKind::Symlink { 0o777 } else { perm },
            nlink,
            uid: owner.uid,
            gid: owner.gid,
            size,
            blocks: if kind == NodeKind::Symlink { 0 } else { size.div_ceil(512) },
            mtime: meta.mtime,
            rdev,
            exact,
            attr_ttl,
            entry_ttl: ttl,
        }
    }
}

/// A directory that no set describes: something below it implies it, or the set is empty. It belongs to the user who
/// mounted.
pub(super) fn implied_dir(mtime: i64) -> EntryMeta {
    let (uid, gid) = (nix::unistd::getuid().as_raw(), nix::unistd::getgid().as_raw());
    EntryMeta { kind: EntryKind::Dir, mode: 0o755, uid, gid, uname: Arc::default(), gname: Arc::default(), mtime }
}

/// The inode type of an archived object.
pub(super) fn kind_of(kind: &EntryKind) -> NodeKind {
    match kind {
        EntryKind::File => NodeKind::File,
        EntryKind::Dir => NodeKind::Dir,
        EntryKind::Symlink(_) => NodeKind::Symlink,
        EntryKind::Fifo => NodeKind::Fifo,
        EntryKind::CharDevice(..) => NodeKind::CharDevice,
        EntryKind::BlockDevice(..) => NodeKind::BlockDevice,
    }
}
