//! Signature archives to one table of versions per path, shared by all snapshots of a branch.

mod attributes;
mod branch;
mod branches;
mod error;
mod growth_estimate;
mod ids;
mod load_queue;
mod load_set;
mod missing_range;
mod path_tree;
mod set_limits;
mod staged_set;
mod state_span;
mod table_codec;
mod tree_index;
mod version_record;
mod version_table;

pub use branch::Branch;
pub use branches::Branches;
pub use error::TreeError;
pub use ids::{NodeId, VersionId};
pub use load_set::peek_root;
pub use missing_range::{MissingRange, Uncertainty};
pub use state_span::StateSpan;
pub use version_table::{Change, FileVersion, VersionTable};

/// Decodes arbitrary bytes and walks the table, if they are one. For the fuzz target.
pub fn fuzz_decode_table(data: &[u8]) {
    if let Some(table) = table_codec::decode(&mut { data }, data.len() as u64) {
        for id in (0u32..).take(table.len()) {
            table.path(NodeId(id));
            table.file_history(NodeId(id), table.depth());
            table.state_spans(NodeId(id), table.depth());
        }
    }
}

#[cfg(test)]
mod tests;
