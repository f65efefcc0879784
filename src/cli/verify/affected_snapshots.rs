//! The snapshots that a damaged object affects.

use std::collections::{BTreeMap, HashMap};

use dupfs_base::RequestContext;
use dupfs_format::{ArchivePath, SetIndex};

use super::verify_report::SnapshotNames;
use crate::vfs::{ListedSnapshot, RecordedBranch, RecordedTrees, TreeFs};

/// The snapshots that need a set.
#[derive(Debug)]
pub(super) struct AffectedSnapshots {
    pub(super) set: SetIndex,
    pub(super) names: SnapshotNames,
    /// Those of them that are listed, by their branches, once that is needed.
    pub(super) branches: Option<Vec<AffectedBranch>>,
}

/// The affected snapshots of a branch.
#[derive(Debug)]
pub(super) struct AffectedBranch {
    /// `None` if it is not known completely.
    branch: Option<RecordedBranch>,
    /// The positions of the snapshots on the branch, ascending, and their places among the names.
    snapshots: Vec<(u32, usize)>,
}

impl AffectedSnapshots {
    /// The places of the snapshots that may have a regular file at `path`, together where it has the same state.
    pub(super) fn same_states(&mut self, fs: &TreeFs, path: &ArchivePath, context: &RequestContext) -> Vec<Vec<usize>> {
        let names = &self.names;
        let branches = self.branches.get_or_insert_with(|| branches_of(fs, names, context));
        branches.iter().flat_map(|branch| branch.same_states(path)).collect()
    }
}

impl AffectedBranch {
    fn same_states(&self, path: &ArchivePath) -> Vec<Vec<usize>> {
        let Some(spans) = self.branch.as_ref().and_then(|branch| branch.file_spans(path)) else {
            return self.snapshots.iter().map(|(_, place)| vec![*place]).collect();
        };
        let at = |position: u32| self.snapshots.partition_point(|(other, _)| *other < position);
        let groups = spans.iter().map(|span| {
            let having = self.snapshots.get(at(span.start)..at(span.end)).unwrap_or_default();
            having.iter().map(|(_, place)| *place).collect::<Vec<_>>()
        });
        groups.filter(|group| !group.is_empty()).collect()
    }
}

fn branches_of(fs: &TreeFs, names: &SnapshotNames, context: &RequestContext) -> Vec<AffectedBranch> {
    let trees = RecordedTrees::of(fs);
    let listed = trees.snapshots();
    let places: HashMap<&str, usize> = names.iter().enumerate().map(|(place, name)| (&**name, place)).collect();
    let mut branches: BTreeMap<usize, Vec<(&ListedSnapshot, usize)>> = BTreeMap::new();
    for snapshot in &listed {
        if let Some(place) = places.get(&*snapshot.name) {
            branches.entry(snapshot.branch).or_default().push((snapshot, *place));
        }
    }
    let branch = |mut own: Vec<(&ListedSnapshot, usize)>| {
        own.sort_by_key(|(snapshot, _)| snapshot.position);
        let snapshots: Vec<&ListedSnapshot> = own.iter().map(|(snapshot, _)| *snapshot).collect();
        AffectedBranch {
            branch: trees.branch(&snapshots, context),
            snapshots: own.iter().map(|(snapshot, place)| (snapshot.position, *place)).collect(),
        }
    };
    branches.into_values().map(branch).collect()
}
