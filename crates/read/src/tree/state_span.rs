//! The states of a path over the snapshots of a branch, found in one pass over its versions.

use std::ops::Range;

use super::ids::{NodeId, VersionId};
use super::version_table::VersionTable;

/// A state in which a path exists, and the snapshots that have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateSpan {
    /// Positions in the branch of the sets whose snapshots have the state.
    pub positions: Range<u32>,
    /// The version; `None` for a directory that no set describes, because something below it exists.
    pub version: Option<VersionId>,
}

impl VersionTable {
    /// The states in which `node` exists in the snapshots of the first `depth` sets, the oldest first. The root always exists,
    /// also where no state is returned.
    pub fn state_spans(&self, node: NodeId, depth: u32) -> Vec<StateSpan> {
        let mut end = depth.min(self.depth());
        let mut spans: Vec<StateSpan> = Vec::new();
        for version in self.history(node, depth) {
            // Of several versions in one set the newest counts, which comes first.
            let Some(position) = self.position(version).filter(|position| *position < end) else { continue };
            if self.is_present(version) {
                spans.push(StateSpan { positions: position..end, version: Some(version) });
            }
            end = position;
        }
        // No set names anything at or below a node before the set that numbered it.
        let first = self.starts.partition_point(|start| start.node <= node.0).saturating_sub(1);
        let first = u32::try_from(first).unwrap_or(end);
        for position in (first..end).rev().filter(|position| self.is_implied_dir(node, position.saturating_add(1))) {
            match spans.last_mut() {
                Some(later) if later.version.is_none() && later.positions.start == position.saturating_add(1) => {
                    later.positions.start = position;
                }
                _ => spans.push(StateSpan { positions: position..position.saturating_add(1), version: None }),
            }
        }
        spans.reverse();
        spans
    }
}
