//! Link counts of directories, each counted once.

use std::collections::HashMap;
use std::sync::Mutex;

use super::snapshot_tree::SnapshotTree;
use dupfs_base::sync::lock;
use dupfs_read::tree::NodeId;

/// Upper bound of the cached counts: a walk over many snapshots would otherwise cache directories x snapshots.
const MAX_COUNTS: usize = 1 << 19;

/// A cache of link counts, by snapshot and directory.
#[derive(Debug, Default)]
pub(super) struct LinkCounts(Mutex<HashMap<(usize, NodeId), u32>>);

impl LinkCounts {
    /// The link count of directory `dir`: 2 plus the number of subdirectories, as `find` expects.
    pub(super) fn of(&self, snapshot: usize, tree: &SnapshotTree, dir: NodeId) -> u32 {
        let key = (snapshot, dir);
        if let Some(&known) = lock(&self.0).get(&key) {
            return known;
        }
        let links = tree.count_subdirs(dir).saturating_add(2);
        let mut counts = lock(&self.0);
        if counts.len() >= MAX_COUNTS {
            counts.clear();
        }
        counts.insert(key, links);
        links
    }
}
