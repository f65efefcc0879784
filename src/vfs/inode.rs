//! Inode numbers: a snapshot's tag in the upper half, a node of its line's table in the lower, so that a number is the
//! same at every mount of the same backup and none has to be remembered or forgotten.

use std::collections::HashMap;

use super::ops::{Ino, ROOT_INO};
use crate::collection::Snapshot;
use crate::tree::NodeId;

/// The directory of all snapshots.
pub(super) const SNAPSHOTS_INO: Ino = 2;
/// The symbolic link to the newest snapshot.
pub(super) const LATEST_INO: Ino = 3;

/// What an inode number stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Inode {
    /// The root of the mount.
    Root,
    /// `snapshots/`.
    Snapshots,
    /// `latest`.
    Latest,
    /// A node in a snapshot (an index into the collection's snapshots).
    Node(usize, NodeId),
}

/// Tags of all snapshots, both ways.
#[derive(Debug)]
pub(super) struct Tags {
    tags: Vec<u32>,
    by_tag: HashMap<u32, usize>,
}

impl Tags {
    /// Tags for `snapshots` in their order: the time, moved on where two snapshots have the same.
    pub(super) fn new(snapshots: &[Snapshot]) -> Self {
        let mut tags = Vec::with_capacity(snapshots.len());
        let mut by_tag = HashMap::with_capacity(snapshots.len());
        for (index, snapshot) in snapshots.iter().enumerate() {
            let low = snapshot.time.0.rem_euclid(i64::from(u32::MAX));
            let mut tag = u32::try_from(low).unwrap_or(1).max(1);
            while by_tag.contains_key(&tag) {
                tag = tag.checked_add(1).unwrap_or(1);
            }
            by_tag.insert(tag, index);
            tags.push(tag);
        }
        Self { tags, by_tag }
    }

    /// The inode number of `inode`.
    pub(super) fn number(&self, inode: Inode) -> Ino {
        match inode {
            Inode::Root => ROOT_INO,
            Inode::Snapshots => SNAPSHOTS_INO,
            Inode::Latest => LATEST_INO,
            Inode::Node(snapshot, node) => {
                let tag = self.tags.get(snapshot).copied().unwrap_or(0);
                (u64::from(tag) << 32) | u64::from(node.0)
            }
        }
    }

    /// What `ino` stands for; `None` if it was never given out.
    pub(super) fn resolve(&self, ino: Ino) -> Option<Inode> {
        let (tag, low) = (u32::try_from(ino >> 32).ok()?, u32::try_from(ino & u64::from(u32::MAX)).ok()?);
        match (tag, ino) {
            (0, ROOT_INO) => Some(Inode::Root),
            (0, SNAPSHOTS_INO) => Some(Inode::Snapshots),
            (0, LATEST_INO) => Some(Inode::Latest),
            (0, _) => None,
            _ => self.by_tag.get(&tag).map(|&snapshot| Inode::Node(snapshot, NodeId(low))),
        }
    }
}
