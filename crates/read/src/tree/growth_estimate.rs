//! An upper bound of the memory by which the entries of one set make a version table grow.

use std::sync::Arc;

use super::version_table::Change;
use crate::meta_encoding::OwnerFields;
use dupfs_base::common_prefix_len;
use dupfs_format::{ArchivePath, EntryKind, EntryMeta};

/// Bytes of a version, with the room that a growing list keeps free.
const VERSION: u64 = 48;
/// Bytes of a node besides its name: the node, the index of its newest version, its slots in the maps by name and of
/// last children.
const NODE: u64 = 64;
/// Bytes of an owner besides the names.
const OWNER: u64 = 128;

/// The sum over the entries so far. Components that an entry shares with the one before are counted once; all others
/// are assumed to be new to the table.
#[derive(Debug, Default)]
pub(super) struct GrowthEstimate {
    last: Vec<u8>,
    last_owner: Option<OwnerFields>,
    bytes: u64,
}

impl GrowthEstimate {
    /// Counts an entry. Returns the bytes of all entries so far.
    pub(super) fn add(&mut self, path: &ArchivePath, change: &Change) -> u64 {
        let path = path.as_bytes();
        let same = common_prefix_len(&self.last, path);
        let whole = |path: &[u8]| matches!(path.get(same), None | Some(b'/'));
        let shared = if whole(&self.last) && whole(path) {
            same
        } else {
            path.get(..same).and_then(|head| head.iter().rposition(|&b| b == b'/')).unwrap_or(0)
        };
        let fresh = path.get(shared..).unwrap_or(&[]);
        let components = fresh.split(|&b| b == b'/').filter(|name| !name.is_empty()).count() as u64;
        self.last.truncate(shared);
        self.last.extend_from_slice(fresh);
        self.count(VERSION);
        self.count(components.saturating_mul(NODE));
        self.count(fresh.len() as u64);
        if let Change::Present(meta, _) = change {
            self.add_attributes(meta);
        }
        self.bytes
    }

    /// Counts the attributes that are stored beside the version. An owner other than that of the entry before is
    /// assumed to be new.
    fn add_attributes(&mut self, meta: &EntryMeta) {
        let is_last = self.last_owner.as_ref().is_some_and(|(uid, gid, uname, gname)| {
            (*uid, *gid) == (meta.uid, meta.gid) && *uname == meta.uname && *gname == meta.gname
        });
        if !is_last {
            self.last_owner = Some((meta.uid, meta.gid, Arc::clone(&meta.uname), Arc::clone(&meta.gname)));
            let names = meta.uname.len().saturating_add(meta.gname.len()) as u64;
            self.count(OWNER.saturating_add(names.saturating_mul(2)));
        }
        match &meta.kind {
            EntryKind::Symlink(target) => self.count(target.len() as u64 + 4),
            EntryKind::CharDevice(..) | EntryKind::BlockDevice(..) => self.count(8),
            EntryKind::File | EntryKind::Dir | EntryKind::Fifo => {}
        }
    }

    fn count(&mut self, bytes: u64) {
        self.bytes = self.bytes.saturating_add(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{path, present};
    use super::*;

    fn sum(paths: &[&str]) -> u64 {
        let mut estimate = GrowthEstimate::default();
        paths.iter().map(|text| estimate.add(&path(text), &Change::Deleted)).last().unwrap_or(0)
    }

    #[test]
    fn shared_directories_count_once() {
        assert_eq!(sum(&[""]), VERSION);
        assert_eq!(sum(&["a"]), VERSION + NODE + 1);
        assert_eq!(sum(&["a", "a"]), 2 * VERSION + NODE + 1);
        assert_eq!(sum(&["a/b/c"]), VERSION + 3 * NODE + 5);
        assert_eq!(sum(&["a/b/c", "a/b/cd"]), sum(&["a/b/c"]) + VERSION + NODE + 3);
        assert_eq!(sum(&["a/b/c", "a/b/c/d"]), sum(&["a/b/c"]) + VERSION + NODE + 2);
        assert_eq!(sum(&["a/b/cd", "a/b/c"]), sum(&["a/b/cd"]) + VERSION + NODE + 2);
        assert_eq!(sum(&["ab", "a"]), 2 * (VERSION + NODE) + 3);
    }

    #[test]
    fn targets_and_owners_count() {
        let mut estimate = GrowthEstimate::default();
        let first = estimate.add(&path("a"), &present(EntryKind::File, None));
        assert_eq!(first, VERSION + NODE + 1 + OWNER + 2 * 9);
        let link = present(EntryKind::Symlink(vec![b't'; 100].into()), None);
        assert_eq!(estimate.add(&path("b"), &link), first + VERSION + NODE + 1 + 104);
    }
}
