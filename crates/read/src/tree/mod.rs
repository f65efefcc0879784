//! Rank 4: signature archives to one table of versions per path, shared by all snapshots of a line of sets.

mod flat;
mod gap;
mod grow;
mod keep;
mod line;
mod load;
mod side;
mod staged;
mod table;

use crate::volume::VolumeError;
use dupfs_base::sync::SingleFlightError;
use dupfs_base::{ErrorKind, HasKind};

pub use gap::{Doubt, Gap};
pub use line::{Forest, Line};
pub use load::peek_root;
pub use table::{Change, FileVersion, NodeId, Table, VersionId};

/// For the fuzz target: bytes that are a table can be walked.
pub fn fuzz_flat(data: &[u8]) {
    if let Some(table) = flat::read(&mut { data }, data.len() as u64) {
        for id in (0u32..).take(table.len()) {
            table.path(NodeId(id));
            table.file_history(NodeId(id), table.depth());
        }
    }
}

/// A failure to build a tree. Cheap to clone.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TreeError {
    /// An object of the backup could not be read.
    #[error(transparent)]
    Volume(#[from] VolumeError),
    /// The line has no set at this position.
    #[error("the snapshot names a set (number {position} of its chain) that the collection does not have")]
    NoSet {
        /// Position in the line.
        position: u32,
    },
    /// More paths or versions than a table can number.
    #[error("the backup has more than four thousand million paths or versions")]
    TooLarge,
    /// The shared execution of the work failed, or the request ended first.
    #[error(transparent)]
    SingleFlight(#[from] SingleFlightError),
    /// A worker failed in a way that is a defect of dupfs.
    #[error("reading a signature archive failed inside dupfs; please report it")]
    Panicked,
}

impl HasKind for TreeError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Volume(error) => error.kind(),
            Self::NoSet { .. } => ErrorKind::Corrupt,
            Self::TooLarge => ErrorKind::Unsupported,
            Self::SingleFlight(error) => error.kind(),
            Self::Panicked => ErrorKind::Io,
        }
    }
}

#[cfg(test)]
mod tests;
