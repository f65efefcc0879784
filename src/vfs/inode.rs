//! Inode numbers: a snapshot's tag in the upper half, a node of its branch's table in the lower, so that a number is the same
//! at every mount of the same backup and needs no bookkeeping.

use std::collections::HashMap;

use super::error::FsError;
use super::ops::{Ino, ROOT_INO};
use dupfs_base::ErrorKind;
use dupfs_format::collection::Snapshot;
use dupfs_read::tree::NodeId;

/// The directory of all snapshots.
pub(super) const SNAPSHOTS_INO: Ino = 2;
/// The directory of time strings.
pub(super) const AT_INO: Ino = 4;
/// The directory of all versions of all paths.
pub(super) const VERSIONS_INO: Ino = 5;

/// Tags from 1 to below this are those of branches, for directories in `versions/`.
const BRANCH_TAGS: u32 = 1 << 22;
/// Upper bound of the branches that `versions/` can show.
pub(super) const MAX_BRANCHES: usize = BRANCH_TAGS as usize - 1;
/// Tags of snapshots are at least this: lower tags are of numbers that belong to no snapshot.
const SNAPSHOT_TAGS: u32 = 1 << 24;

/// Lower halves of links that lead to a snapshot's root. No table has this many nodes: it would need hundreds of gigabytes.
const LATEST_LINK: u32 = u32::MAX - 1;
const AT_LINK: u32 = u32::MAX;

/// The meaning of an inode number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Inode {
    /// The root of the mount.
    Root,
    /// `snapshots/`.
    Snapshots,
    /// `latest` while it leads to this snapshot. Each target has a number, as the kernel caches the targets of links.
    Latest(usize),
    /// `at/`.
    At,
    /// Any name in `at/` that leads to this snapshot.
    AtLink(usize),
    /// `versions/`.
    Versions,
    /// A directory in `versions/`: the path of this node of a branch (an index into the collection's branches). Branches that
    /// share the path give it different numbers; the first of them counts.
    VersionsOf(usize, NodeId),
    /// A node in a snapshot (an index into the collection's snapshots).
    Node(usize, NodeId),
}

/// The tags of all snapshots, in both directions.
#[derive(Clone, Debug, Default)]
pub(super) struct InodeTags {
    tags: Vec<u32>,
    by_tag: HashMap<u32, usize>,
}

impl InodeTags {
    /// These tags and those of the additional `snapshots`, in their order: the time, increased where two snapshots have the
    /// same.
    pub(super) fn extend(&self, snapshots: &[Snapshot]) -> Self {
        let Self { mut tags, mut by_tag } = self.clone();
        for (index, snapshot) in snapshots.iter().enumerate().skip(tags.len()) {
            let low = snapshot.time.0.rem_euclid(i64::from(u32::MAX));
            // The remainder always fits.
            let mut tag = u32::try_from(low).unwrap_or(SNAPSHOT_TAGS).max(SNAPSHOT_TAGS);
            while by_tag.contains_key(&tag) {
                tag = tag.checked_add(1).unwrap_or(SNAPSHOT_TAGS);
            }
            by_tag.insert(tag, index);
            tags.push(tag);
        }
        Self { tags, by_tag }
    }

    /// The inode number of `inode`.
    ///
    /// # Errors
    /// An internal error if these are not the tags of its snapshot.
    pub(super) fn number(&self, inode: Inode) -> Result<Ino, FsError> {
        Ok(match inode {
            Inode::Root => ROOT_INO,
            Inode::Snapshots => SNAPSHOTS_INO,
            Inode::At => AT_INO,
            Inode::Versions => VERSIONS_INO,
            Inode::VersionsOf(branch, node) => versions_number(branch, node)?,
            Inode::Latest(snapshot) => tagged(self.tag(snapshot)?, LATEST_LINK),
            Inode::AtLink(snapshot) => tagged(self.tag(snapshot)?, AT_LINK),
            Inode::Node(snapshot, node) => tagged(self.tag(snapshot)?, node.0),
        })
    }

    /// Returns a function that gives the inode numbers of the nodes of `snapshot`.
    ///
    /// # Errors
    /// As [`Self::number`].
    pub(super) fn numbers_in(&self, snapshot: usize) -> Result<impl Fn(NodeId) -> Ino + use<>, FsError> {
        let tag = self.tag(snapshot)?;
        Ok(move |node: NodeId| tagged(tag, node.0))
    }

    fn tag(&self, snapshot: usize) -> Result<u32, FsError> {
        let internal = || {
            let message = format!("internal error (bug in dupfs): snapshot {snapshot} has no inode numbers");
            FsError::failed(ErrorKind::Io, message)
        };
        self.tags.get(snapshot).copied().ok_or_else(internal)
    }

    /// The inode with number `ino`; `None` if there is none.
    pub(super) fn resolve(&self, ino: Ino) -> Option<Inode> {
        let (tag, low) = (u32::try_from(ino >> 32).ok()?, u32::try_from(ino & u64::from(u32::MAX)).ok()?);
        match (tag, ino) {
            (0, ROOT_INO) => Some(Inode::Root),
            (0, SNAPSHOTS_INO) => Some(Inode::Snapshots),
            (0, AT_INO) => Some(Inode::At),
            (0, VERSIONS_INO) => Some(Inode::Versions),
            (0, _) => None,
            (1..BRANCH_TAGS, _) => Some(Inode::VersionsOf(usize::try_from(tag).ok()?.checked_sub(1)?, NodeId(low))),
            _ => self.by_tag.get(&tag).map(|&snapshot| match low {
                LATEST_LINK => Inode::Latest(snapshot),
                AT_LINK => Inode::AtLink(snapshot),
                node => Inode::Node(snapshot, NodeId(node)),
            }),
        }
    }
}

/// The inode number of the directory in `versions/` of `node` of the branch at `branch`.
///
/// # Errors
/// An internal error for more than [`MAX_BRANCHES`] branches, which `versions/` does not show.
pub(super) fn versions_number(branch: usize, node: NodeId) -> Result<Ino, FsError> {
    let internal = || {
        let message = format!("internal error (bug in dupfs): branch {branch} has no inode numbers");
        FsError::failed(ErrorKind::Io, message)
    };
    let tag = u32::try_from(branch).ok().and_then(|branch| branch.checked_add(1)).filter(|&tag| tag < BRANCH_TAGS);
    Ok(tagged(tag.ok_or_else(internal)?, node.0))
}

fn tagged(tag: u32, low: u32) -> Ino {
    (u64::from(tag) << 32) | u64::from(low)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_without_a_tag_has_no_numbers() {
        let tags = InodeTags { tags: vec![SNAPSHOT_TAGS], by_tag: HashMap::from([(SNAPSHOT_TAGS, 0)]) };
        let inode = Inode::Node(0, NodeId(7));
        assert_eq!(tags.resolve(tags.number(inode).unwrap()), Some(inode));
        assert_eq!(tags.numbers_in(0).unwrap()(NodeId(7)), tags.number(inode).unwrap());
        // Without a tag, node 2 would have the number of `snapshots/`.
        for inode in [Inode::Node(1, NodeId(2)), Inode::Latest(1), Inode::AtLink(1)] {
            let error = tags.number(inode).unwrap_err();
            assert!(error.to_string().starts_with("internal error (bug in dupfs): snapshot 1"), "{error}");
        }
        assert!(tags.numbers_in(1).is_err());
        for branch in [0, 3, MAX_BRANCHES - 1] {
            let number = versions_number(branch, NodeId(4)).unwrap();
            assert_eq!(tags.resolve(number), Some(Inode::VersionsOf(branch, NodeId(4))));
        }
        // Their tags would be those of `unpacked/`.
        assert!([MAX_BRANCHES, u32::MAX as usize, usize::MAX].iter().all(|b| versions_number(*b, NodeId(4)).is_err()));
    }
}
