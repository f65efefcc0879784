//! The paths of all snapshots of a branch, each found once with its states. No volume is read.

use std::ops::Range;
use std::sync::Arc;

use super::attr::kind_of;
use super::ops::NodeKind;
use dupfs_format::ArchivePath;
use dupfs_read::tree::{Branch, NodeId, VersionTable};

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

    /// The positions at which `path` is a regular file, in spans of one state each; `None` for the root.
    pub fn file_spans(&self, path: &ArchivePath) -> Option<Vec<Range<u32>>> {
        if path.is_root() {
            return None;
        }
        let table = self.branch.table();
        let spans = |node: NodeId, wanted: NodeKind| -> Vec<Range<u32>> {
            let of_kind = self.kind_spans(&table, node).filter(|(_, kind)| *kind == wanted);
            of_kind.map(|(positions, _)| positions).collect()
        };
        // The root is a directory wherever something is below it.
        let (mut node, mut reachable) = (NodeId::ROOT, vec![self.positions()]);
        for name in path.components() {
            if node != NodeId::ROOT {
                reachable = within(&spans(node, NodeKind::Dir), &reachable);
            }
            let Some(child) = table.child(node, name) else { return Some(Vec::new()) };
            node = child;
        }
        Some(within(&spans(node, NodeKind::File), &reachable))
    }

    /// The entries that the directory `dir` has at any of the snapshots, in the order in which the sets named them.
    pub fn entries(&self, dir: NodeId) -> Vec<BranchEntry> {
        let table = self.branch.table();
        let children = std::iter::successors(table.first_child(dir), |child| table.next_sibling(*child));
        let entry = |node: NodeId| {
            let spans = self.kind_spans(&table, node).collect();
            BranchEntry { name: table.name(node).to_vec(), node, spans }
        };
        children.map(entry).filter(|entry| !entry.spans.is_empty()).collect()
    }

    /// The types that `node` has, as [`BranchEntry::spans`].
    fn kind_spans(&self, table: &VersionTable, node: NodeId) -> impl Iterator<Item = (Range<u32>, NodeKind)> {
        table.state_spans(node, self.depth).into_iter().filter_map(|span| {
            let kind = match span.version {
                Some(version) => kind_of(&table.meta(version)?.kind),
                None => NodeKind::Dir,
            };
            Some((span.positions, kind))
        })
    }
}

/// The parts of `span` within `ranges`, which are ascending. Parts of two ranges stay apart.
pub fn parts_within(span: &Range<u32>, ranges: &[Range<u32>]) -> impl Iterator<Item = Range<u32>> {
    ranges.iter().map(|range| span.start.max(range.start)..span.end.min(range.end)).filter(|part| !part.is_empty())
}

/// The parts of `spans` within `ranges`; both are ascending.
fn within(spans: &[Range<u32>], ranges: &[Range<u32>]) -> Vec<Range<u32>> {
    spans.iter().flat_map(|span| parts_within(span, ranges)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_found_only_where_its_directory_is_one() {
        assert_eq!(within(&[0..4, 4..9, 12..20], &[2..5, 7..8, 15..30]), [2..4, 4..5, 7..8, 15..20]);
        assert_eq!(within(&[0..4, 9..10], &[4..9, 10..11]), [0..0; 0]);
    }
}
