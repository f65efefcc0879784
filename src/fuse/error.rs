//! Why a mount cannot be made, each with the remedy.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use dupfs_base::{ErrorKind, HasKind};

/// A mount that cannot be made or served.
#[derive(Clone, Debug, thiserror::Error)]
pub enum MountError {
    /// There is nothing at the mount point.
    #[error("mount point {} does not exist: create it with mkdir", .0.display())]
    Absent(PathBuf),
    /// The mount point is a file or something else that nothing can be mounted on.
    #[error("mount point {} is not a directory", .0.display())]
    NotADirectory(PathBuf),
    /// The mount point shows names that the mount would hide.
    #[error("mount point {} is not empty: choose an empty directory, or hide what is in it with -o nonempty", .0.display())]
    NotEmpty(PathBuf),
    /// The mount point may not be looked at or mounted on by this user.
    #[error("mount point {}: {reason}", path.display())]
    Refused {
        /// The mount point.
        path: PathBuf,
        /// What forbids it, and the remedy.
        reason: Arc<str>,
    },
    /// Something is mounted there already.
    #[error("mount point {} is in use: {source_name} is mounted there (unmount it with: {remedy})", path.display())]
    InUse {
        /// The mount point.
        path: PathBuf,
        /// What is mounted.
        source_name: Arc<str>,
        /// The command that unmounts it.
        remedy: Arc<str>,
    },
    /// A FUSE mount is there whose daemon has died.
    #[error("mount point {path} is a dead mount, its daemon is gone: mend it with: dupfs umount {path} (or fusermount3 -u {path})", path = .0.display())]
    Stale(PathBuf),
    /// Mount point and a directory that serving reads contain one another, which would hang both.
    #[error("mount point {} and {what} {} overlap, reading would wait for itself: choose a mount point elsewhere", path.display(), dir.display())]
    Overlap {
        /// The mount point.
        path: PathBuf,
        /// What the directory is, such as "the backup".
        what: Arc<str>,
        /// The directory.
        dir: PathBuf,
    },
    /// `/dev/fuse` is missing or does not work.
    #[error("{0}")]
    NoDevice(Arc<str>),
    /// The user may not mount: `/dev/fuse`, `fusermount3` or `/etc/fuse.conf` forbids it.
    #[error("{0}")]
    Forbidden(Arc<str>),
    /// The kernel or fusermount3 refused.
    #[error("cannot mount on {}: {reason}", path.display())]
    Failed {
        /// The mount point.
        path: PathBuf,
        /// What was said.
        reason: Arc<str>,
    },
    /// Serving ended by an error.
    #[error("the mount on {} broke: {reason}", path.display())]
    Broken {
        /// The mount point.
        path: PathBuf,
        /// What was said.
        reason: Arc<str>,
    },
}

impl MountError {
    pub(super) fn refused(path: &Path, reason: impl AsRef<str>) -> Self {
        Self::Refused { path: path.to_owned(), reason: reason.as_ref().into() }
    }

    pub(super) fn failed(path: &Path, reason: impl std::fmt::Display) -> Self {
        Self::Failed { path: path.to_owned(), reason: one_line(&reason.to_string()).into() }
    }

    pub(super) fn broken(path: &Path, reason: impl std::fmt::Display) -> Self {
        Self::Broken { path: path.to_owned(), reason: one_line(&reason.to_string()).into() }
    }
}

impl HasKind for MountError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Absent(_) => ErrorKind::NotFound,
            Self::NotADirectory(_) | Self::Overlap { .. } => ErrorKind::Invalid,
            Self::Refused { .. } | Self::Forbidden(_) => ErrorKind::Denied,
            Self::NoDevice(_) => ErrorKind::Unsupported,
            Self::NotEmpty(_) | Self::InUse { .. } | Self::Stale(_) | Self::Failed { .. } | Self::Broken { .. } => {
                ErrorKind::Io
            }
        }
    }
}

/// What a helper said, on one line.
pub(super) fn one_line(text: &str) -> String {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ")
}
