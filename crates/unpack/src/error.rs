//! Failures of unpacking.

use std::sync::Arc;

use dupfs_base::{ErrorKind, HasKind, Stopped};

/// A failure to unpack something. Cheap to clone.
#[derive(Clone, Debug, thiserror::Error)]
pub enum UnpackError {
    /// The source could not be read.
    #[error("{reason}")]
    Source {
        /// Its kind.
        kind: ErrorKind,
        /// On which object and why, in one line.
        reason: Arc<str>,
    },
    /// The data violates its form: a checksum or the structure is wrong.
    #[error("{object}: damaged{}: {what}; the file itself is below snapshots/", near(*at))]
    Damaged {
        /// The file.
        object: Arc<str>,
        /// Offset in the file, in bytes, if it is known.
        at: Option<u64>,
        /// The fault.
        what: Arc<str>,
    },
    /// A form that is refused by name.
    #[error("{object}: {what}; the file itself is below snapshots/")]
    Unsupported {
        /// The file.
        object: Arc<str>,
        /// The form.
        what: Arc<str>,
    },
    /// A bound against archives that are crafted to exhaust resources.
    #[error("{object}: not unpacked: {limit}; the file itself is below snapshots/")]
    Limit {
        /// The file.
        object: Arc<str>,
        /// The limit and its value.
        limit: Arc<str>,
    },
    /// A member of that name came later in the archive: the bytes read so far are of the member that it replaces.
    #[error(
        "{object}: a later member of the archive has the same name and replaces what was read so far; open it again"
    )]
    Replaced {
        /// The member.
        object: Arc<str>,
    },
    /// The request ended before its answer was complete.
    #[error("{object}: {reason}")]
    Stopped {
        /// The file.
        object: Arc<str>,
        /// The reason of its end.
        reason: Stopped,
    },
    /// A bug in dupfs.
    #[error("{object}: internal error (bug in dupfs): {what}")]
    Internal {
        /// The file.
        object: Arc<str>,
        /// The fault.
        what: Arc<str>,
    },
}

impl UnpackError {
    /// Returns true if a retry may help: nothing is wrong with the data itself.
    pub fn is_transient(&self) -> bool {
        !matches!(self.kind(), ErrorKind::Corrupt | ErrorKind::Unsupported)
    }

    /// Returns true if reading the source failed or the request ended. A decoder that returns such an error is unchanged.
    pub(super) fn is_of_source(&self) -> bool {
        matches!(self, Self::Source { .. } | Self::Stopped { .. })
    }

    pub(super) fn stopped(object: &Arc<str>, reason: Stopped) -> Self {
        Self::Stopped { object: Arc::clone(object), reason }
    }

    pub(super) fn internal(object: &Arc<str>, what: impl AsRef<str>) -> Self {
        Self::Internal { object: Arc::clone(object), what: what.as_ref().into() }
    }

    pub(super) fn damaged(object: &Arc<str>, at: impl Into<Option<u64>>, what: impl AsRef<str>) -> Self {
        Self::Damaged { object: Arc::clone(object), at: at.into(), what: what.as_ref().into() }
    }

    pub(super) fn unsupported(object: &Arc<str>, what: impl AsRef<str>) -> Self {
        Self::Unsupported { object: Arc::clone(object), what: what.as_ref().into() }
    }

    pub(super) fn limit(object: &Arc<str>, limit: impl AsRef<str>) -> Self {
        Self::Limit { object: Arc::clone(object), limit: limit.as_ref().into() }
    }
}

/// The offset of damage, as text of a message.
fn near(at: Option<u64>) -> String {
    at.map(|at| format!(" near byte {at}")).unwrap_or_default()
}

impl HasKind for UnpackError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Source { kind, .. } => *kind,
            Self::Damaged { .. } => ErrorKind::Corrupt,
            Self::Unsupported { .. } | Self::Limit { .. } => ErrorKind::Unsupported,
            Self::Replaced { .. } | Self::Internal { .. } => ErrorKind::Io,
            Self::Stopped { reason, .. } => reason.kind(),
        }
    }
}
