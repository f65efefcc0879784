//! Attributes in the FUSE crate's form.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{FileAttr, FileType, INodeNo};

use crate::vfs::{Attr, Ino, NodeKind};

use super::dir_batch::{BatchAttr, BatchEntry};

/// The time for which the kernel may cache the attributes: zero while the size is a bound.
pub(super) fn attr_ttl(attr: &Attr) -> Duration {
    if attr.exact { attr.attr_ttl } else { Duration::ZERO }
}

/// The size that the kernel gets with a name if only a bound is known. The kernel ends transfers that ask for no attributes
/// (sendfile, io_uring) at the size that it has. This one is beyond the end of any file: if the kernel does not learn the end from
/// a short read, because other attributes came at the same time, the next read begins after the end and fails.
const UNKNOWN_SIZE: u64 = 1 << 62;

/// The attributes of a name that was looked up.
pub(super) fn name_attr(attr: &Attr) -> FileAttr {
    let is_bound = attr.kind == NodeKind::File && !attr.exact;
    FileAttr { size: if is_bound { UNKNOWN_SIZE } else { attr.size }, ..file_attr(attr) }
}

/// Node, attributes of a readdirplus entry, and how long the kernel may cache them and the name. The FUSE crate has one time for
/// both, so a name whose size is a bound is looked up again. The node of a name whose attributes are unavailable is 0: the kernel
/// lists the name only. With another node it would change the attributes of that inode, also of a file that is being read.
pub(super) fn plus_attr(entry: &BatchEntry<'_>) -> (Ino, FileAttr, Duration) {
    match entry.attr {
        BatchAttr::Full(attr) => (entry.ino, name_attr(&attr), attr_ttl(&attr).min(attr.entry_ttl)),
        BatchAttr::TypeOnly => (0, type_only(entry.ino, entry.kind), Duration::ZERO),
    }
}

/// Number and type, in place of unavailable attributes.
fn type_only(ino: Ino, kind: NodeKind) -> FileAttr {
    file_attr(&Attr::type_only(ino, kind))
}

pub(super) fn file_attr(attr: &Attr) -> FileAttr {
    let time = system_time(attr.mtime);
    FileAttr {
        ino: INodeNo(attr.ino),
        size: attr.size,
        blocks: attr.blocks,
        atime: time,
        mtime: time,
        ctime: time,
        crtime: time,
        kind: file_type(attr.kind),
        perm: attr.perm & 0o7777,
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        rdev: device_number(attr.rdev),
        blksize: 4096,
        flags: 0,
    }
}

pub(super) fn file_type(kind: NodeKind) -> FileType {
    match kind {
        NodeKind::File => FileType::RegularFile,
        NodeKind::Dir => FileType::Directory,
        NodeKind::Symlink => FileType::Symlink,
        NodeKind::Fifo => FileType::NamedPipe,
        NodeKind::CharDevice => FileType::CharDevice,
        NodeKind::BlockDevice => FileType::BlockDevice,
    }
}

fn system_time(seconds: i64) -> SystemTime {
    let distance = Duration::from_secs(seconds.unsigned_abs());
    let time = if seconds < 0 { UNIX_EPOCH.checked_sub(distance) } else { UNIX_EPOCH.checked_add(distance) };
    time.unwrap_or(UNIX_EPOCH)
}

/// The kernel's 32-bit form of a device number: 12 bits of major, 20 of minor.
fn device_number((major, minor): (u32, u32)) -> u32 {
    (minor & 0xff) | ((major & 0xfff) << 8) | ((minor & 0xf_ff00) << 12)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_numbers_are_in_the_kernels_form() {
        assert_eq!(device_number((1, 3)), 0x103);
        assert_eq!(device_number((259, 0x12345)), 0x1230_0345 | (259 << 8));
    }

    #[test]
    fn times_before_1970_are_preserved() {
        assert_eq!(system_time(-1), UNIX_EPOCH - Duration::from_secs(1));
        assert_eq!(system_time(1_485_569_700), UNIX_EPOCH + Duration::from_secs(1_485_569_700));
    }

    #[test]
    fn a_name_without_attributes_changes_no_inode() {
        let (node, attr, ttl) =
            plus_attr(&BatchEntry { ino: 5, kind: NodeKind::File, next: 3, name: b"a", attr: BatchAttr::TypeOnly });
        assert_eq!((node, attr.ino, ttl), (0, INodeNo(5), Duration::ZERO));
    }
}
