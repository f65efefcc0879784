//! The paths of all snapshots of a branch, each found once with its states. No volume is read.

use std::ops::Range;
use std::sync::Arc;

use super::attr::kind_of;
use super::ops::NodeKind;
use dupfs_read::tree::{Branch, NodeId};

/// A branch whose tree is loaded and of which everything is known.
#[derive(Debug)]
pub struct RecordedBranch {
    branch: Arc<Branch>,
    /// The number of its sets.
    depth: u32,
}

/// A name in a directory at any of the snapshots of a branch.
#[derive(Debug)]
pub struct BranchEntry {
    /// The name's bytes.
    pub name: Vec<u8>,
    /// The node, in the tree of each snapshot of the branch.
    pub node: NodeId,
    /// The types that the object has, with the positions of the snapshots on the branch, ascending. Neighbours differ in more
    /// than the type.
    pub spans: Vec<(Range<u32>, NodeKind)>,
}

impl RecordedBranch {
    /// The first `depth` sets of `branch`; `None` if they are not loaded, or data was lost that may hide states of paths.
    pub(super) fn of(branch: Arc<Branch>, depth: u32) -> Option<Self> {
        let is_known = branch.is_loaded(depth) && !branch.table().has_uncertainty();
        is_known.then_some(Self { branch, depth })
    }

    /// The positions of all its snapshots.
    pub fn positions(&self) -> Range<u32> {
        0..self.depth
    }

    /// The entries that the directory `dir` has at any of the snapshots, in the order in which the sets named them.
    pub fn entries(&self, dir: NodeId) -> Vec<BranchEntry> {
        let table = self.branch.table();
        let children = std::iter::successors(table.first_child(dir), |child| table.next_sibling(*child));
        let entry = |node: NodeId| {
            let spans = table.state_spans(node, self.depth).into_iter().filter_map(|span| {
                let kind = match span.version {
                    Some(version) => kind_of(&table.meta(version)?.kind),
                    None => NodeKind::Dir,
                };
                Some((span.positions, kind))
            });
            BranchEntry { name: table.name(node).to_vec(), node, spans: spans.collect() }
        };
        children.map(entry).filter(|entry| !entry.spans.is_empty()).collect()
    }
}
