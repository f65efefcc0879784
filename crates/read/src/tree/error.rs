//! Failures of building a tree.

use crate::volume::VolumeError;
use dupfs_base::sync::SingleFlightError;
use dupfs_base::{ErrorKind, HasKind, Stopped};

/// A failure to build a tree. Cheap to clone.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TreeError {
    /// An object of the backup could not be read.
    #[error(transparent)]
    Volume(#[from] VolumeError),
    /// The branch has no set at this position.
    #[error("internal error (bug in dupfs): the branch has no set at the position {position}")]
    NoSet {
        /// Position in the branch.
        position: u32,
    },
    /// More paths or versions than a table can number.
    #[error("the backup has more than 2^32 paths or versions")]
    TooLarge,
    /// The shared execution of the work failed, or the request ended first.
    #[error(transparent)]
    SingleFlight(#[from] SingleFlightError),
    /// An internal error: a bug in dupfs.
    #[error("internal error (bug in dupfs): reading a signature archive failed")]
    Internal,
}

impl From<Stopped> for TreeError {
    fn from(stopped: Stopped) -> Self {
        Self::SingleFlight(stopped.into())
    }
}

impl HasKind for TreeError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Volume(error) => error.kind(),
            Self::TooLarge => ErrorKind::Unsupported,
            Self::SingleFlight(error) => error.kind(),
            Self::NoSet { .. } | Self::Internal => ErrorKind::Io,
        }
    }
}
