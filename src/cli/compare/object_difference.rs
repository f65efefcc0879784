//! The differences between an object of a backup and one of this machine, by the rules of `duplicity verify --compare-data`:
//! modes, owners and times count for files, directories, pipes and devices (of these not the time), and of a symbolic link only
//! the target.

use dupfs_base::escape_bytes;
use dupfs_format::BackupTime;

use super::local_tree::{LocalKind, LocalObject};
use crate::cli::attr_json::json_type;
use crate::vfs::{Attr, NodeKind};

/// The comparison of owners.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OwnerRule {
    Compared,
    Ignored,
}

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Difference {
    /// The kind, as JSON has it.
    pub(super) kind: &'static str,
    /// The value in the backup.
    pub(super) expected: Option<String>,
    /// The value on this machine.
    pub(super) found: Option<String>,
}

impl Difference {
    fn new(kind: &'static str, expected: impl ToString, found: impl ToString) -> Self {
        Self { kind, expected: Some(expected.to_string()), found: Some(found.to_string()) }
    }

    fn without_values(kind: &'static str) -> Self {
        Self { kind, expected: None, found: None }
    }

    /// The object is only in the backup.
    pub(super) fn missing() -> Self {
        Self::without_values("missing")
    }

    /// The object is only on this machine.
    pub(super) fn extra() -> Self {
        Self::without_values("extra")
    }

    /// The contents differ.
    pub(super) fn content() -> Self {
        Self::without_values("content")
    }

    /// The size is less than the backup's can be.
    pub(super) fn size_below(found: u64, least: u64) -> Self {
        Self::new("size", format!("at least {least}"), found)
    }

    /// Returns true if the sizes differ, and so the contents.
    pub(super) fn is_of_size(&self) -> bool {
        self.kind == "size"
    }
}

/// The differences of two objects of one name. `target` is the backup's target of a symbolic link.
pub(super) fn differences(
    attr: &Attr,
    found: &LocalObject,
    target: Option<&[u8]>,
    owners: OwnerRule,
) -> Vec<Difference> {
    if found.kind != LocalKind::Of(attr.kind) {
        let found = match found.kind {
            LocalKind::Of(kind) => json_type(kind),
            LocalKind::Other => "socket",
        };
        return vec![Difference::new("type", json_type(attr.kind), found)];
    }
    let mut list = Vec::new();
    if attr.kind == NodeKind::Symlink {
        let target = target.unwrap_or_default();
        // As duplicity has it: a slash at the end does not matter.
        if target != found.target && [target, b"/"].concat() != found.target {
            list.push(Difference::new("target", escape_bytes(target), escape_bytes(&found.target)));
        }
        return list;
    }
    if u32::from(attr.perm) != found.perm {
        list.push(Difference::new("mode", format!("{:04o}", attr.perm), format!("{:04o}", found.perm)));
    }
    if owners == OwnerRule::Compared && (attr.uid, attr.gid) != (found.uid, found.gid) {
        let (expected, found) = (format!("{}:{}", attr.uid, attr.gid), format!("{}:{}", found.uid, found.gid));
        list.push(Difference::new("owner", expected, found));
    }
    match attr.kind {
        NodeKind::CharDevice | NodeKind::BlockDevice => {
            if attr.rdev != found.rdev {
                let number = |(major, minor): (u32, u32)| format!("{major}, {minor}");
                list.push(Difference::new("device", number(attr.rdev), number(found.rdev)));
            }
        }
        NodeKind::File | NodeKind::Dir | NodeKind::Fifo | NodeKind::Symlink => {
            // Two times before 1970 are equal for duplicity, which wrote such times as 0 once.
            if attr.mtime != found.mtime && (attr.mtime > 0 || found.mtime > 0) {
                list.push(Difference::new("mtime", BackupTime(attr.mtime), BackupTime(found.mtime)));
            }
        }
    }
    if attr.kind == NodeKind::File {
        match attr.exact {
            true if attr.size != found.size => list.push(Difference::new("size", attr.size, found.size)),
            false if attr.size < found.size => {
                list.push(Difference::new("size", format!("at most {}", attr.size), found.size));
            }
            _ => {}
        }
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attr(kind: NodeKind) -> Attr {
        Attr { perm: 0o640, uid: 1, gid: 2, size: 10, mtime: 1000, exact: true, ..Attr::type_only(5, kind) }
    }

    fn local(kind: NodeKind) -> LocalObject {
        LocalObject {
            kind: LocalKind::Of(kind),
            perm: 0o640,
            uid: 1,
            gid: 2,
            size: 10,
            mtime: 1000,
            rdev: (0, 0),
            target: Vec::new(),
        }
    }

    fn kinds(attr: &Attr, found: &LocalObject, target: Option<&[u8]>) -> Vec<&'static str> {
        differences(attr, found, target, OwnerRule::Compared).iter().map(|difference| difference.kind).collect()
    }

    #[test]
    fn each_kind_of_object_is_compared_by_its_own_attributes() {
        for kind in [NodeKind::File, NodeKind::Dir, NodeKind::Fifo, NodeKind::BlockDevice] {
            assert_eq!(kinds(&attr(kind), &local(kind), None), [""; 0], "{kind:?}");
            let other = LocalObject { perm: 0o4640, gid: 3, mtime: 1001, size: 11, rdev: (8, 1), ..local(kind) };
            let expected: &[&str] = match kind {
                NodeKind::File => &["mode", "owner", "mtime", "size"],
                NodeKind::BlockDevice => &["mode", "owner", "device"],
                _ => &["mode", "owner", "mtime"],
            };
            assert_eq!(kinds(&attr(kind), &other, None), expected, "{kind:?}");
            let ignored = differences(&attr(kind), &other, None, OwnerRule::Ignored);
            assert!(ignored.iter().all(|difference| difference.kind != "owner"));
        }
        assert_eq!(kinds(&attr(NodeKind::File), &local(NodeKind::Dir), None), ["type"]);
        let socket = LocalObject { kind: LocalKind::Other, ..local(NodeKind::File) };
        let found = differences(&attr(NodeKind::Fifo), &socket, None, OwnerRule::Compared);
        assert_eq!(found, [Difference::new("type", "fifo", "socket")]);
    }

    #[test]
    fn of_a_link_only_the_target_counts() {
        let link =
            |target: &[u8]| LocalObject { target: target.to_vec(), mtime: 5, uid: 9, ..local(NodeKind::Symlink) };
        let of = |expected: &[u8], found: &[u8]| kinds(&attr(NodeKind::Symlink), &link(found), Some(expected));
        assert_eq!((of(b"a", b"a"), of(b"a", b"a/")), (vec![], vec![]));
        assert_eq!((of(b"a/", b"a"), of(b"a", b"b")), (vec!["target"], vec!["target"]));
    }

    #[test]
    fn times_before_1970_and_sizes_within_a_bound_do_not_differ() {
        let old = |mtime| LocalObject { mtime, ..local(NodeKind::File) };
        let archived = |mtime| Attr { mtime, ..attr(NodeKind::File) };
        assert_eq!(kinds(&archived(0), &old(-5), None), [""; 0]);
        assert_eq!(kinds(&archived(-5), &old(5), None), ["mtime"]);
        let bound = Attr { exact: false, ..attr(NodeKind::File) };
        let sized = |size| LocalObject { size, ..local(NodeKind::File) };
        assert_eq!((kinds(&bound, &sized(3), None), kinds(&bound, &sized(11), None)), (vec![], vec!["size"]));
        assert!(Difference::size_below(1, 2).is_of_size());
    }
}
