//! Failures of reading manifests, signature archives and volumes.

use std::sync::Arc;

use crate::codec::{self, CodecError};
use crate::storage::StorageError;
use dupfs_base::sync::SingleFlightError;
use dupfs_base::{ErrorKind, HasKind, Stopped};
use dupfs_format::FormatError;
use dupfs_format::VolumeNumber;

/// A failure to read an object of the backup. Cheap to clone: those who waited for one decode share its error.
#[derive(Clone, Debug, thiserror::Error)]
pub enum VolumeError {
    /// The object could not be fetched, decrypted, inflated or parsed.
    #[error("{object}: {reason}")]
    Object {
        /// The object's name in the store.
        object: Arc<str>,
        /// What it means.
        kind: ErrorKind,
        /// Why, and the remedy, in one line.
        reason: Arc<str>,
    },
    /// The stored bytes are not those the manifest was written for.
    #[error(
        "{object}: its {kind} is not the one in the manifest: the stored file is damaged or was replaced; copy it back from another replica of the backup"
    )]
    HashMismatch {
        /// The object's name in the store.
        object: Arc<str>,
        /// Name of the hash.
        kind: &'static str,
    },
    /// The manifest names a volume that the store does not have.
    #[error(
        "volume {number} of {set} is not in the store, though the manifest names it: copy it back from another replica"
    )]
    NoVolume {
        /// The set, as people name it.
        set: Arc<str>,
        /// The volume's number.
        number: VolumeNumber,
    },
    /// The set has no manifest in the store.
    #[error("{set} has no manifest: the backup was interrupted before its end")]
    NoManifest {
        /// The set, as people name it.
        set: Arc<str>,
    },
    /// The set has no signature archive in the store.
    #[error("{set} has no signature archive")]
    NoSignatures {
        /// The set, as people name it.
        set: Arc<str>,
    },
    /// The shared execution of the work failed.
    #[error(transparent)]
    SingleFlight(SingleFlightError),
    /// What was decoded ahead of every reader failed. One who joined that decode has not tried yet: the failure may be older than
    /// their question.
    #[error(transparent)]
    Prefetch(Arc<VolumeError>),
    /// The request ended before the answer was complete, or it may not block and the answer is not cached.
    #[error(transparent)]
    Stopped(#[from] Stopped),
    /// A range beyond the end of a volume, or a set that is not in the collection: the plan does not fit the data.
    #[error("{object}: bytes {start} to {end} are asked for, but its plaintext has {len}")]
    Range {
        /// The object's name.
        object: Arc<str>,
        /// First byte asked for.
        start: u64,
        /// One past the last.
        end: u64,
        /// Length of the plaintext.
        len: u64,
    },
}

impl VolumeError {
    /// A failure on an object that the listing or a manifest names: that it is not found is no news of the path that is
    /// asked for, which exists.
    pub(crate) fn object(object: &str, kind: ErrorKind, reason: impl AsRef<str>) -> Self {
        let kind = if kind == ErrorKind::NotFound { ErrorKind::Missing } else { kind };
        Self::Object { object: object.into(), kind, reason: reason.as_ref().into() }
    }

    pub(crate) fn from_io(object: &str, error: &std::io::Error) -> Self {
        let kind = codec::error_kind(error);
        Self::object(object, kind, strip_name(&error.to_string(), object))
    }

    pub(crate) fn from_format(object: &str, error: &FormatError) -> Self {
        match error {
            // A parser that reads for itself passes the codec's or the store's own error on.
            FormatError::Read { source, .. } => Self::from_io(object, source),
            _ => Self::object(object, error.kind(), strip_name(&error.to_string(), object)),
        }
    }

    pub(crate) fn from_codec(object: &str, error: &CodecError) -> Self {
        Self::object(object, error.kind(), strip_name(&error.to_string(), object))
    }

    pub(crate) fn from_storage(object: &str, error: &StorageError) -> Self {
        Self::object(object, error.kind(), strip_name(&error.to_string(), object))
    }
}

impl From<SingleFlightError> for VolumeError {
    fn from(error: SingleFlightError) -> Self {
        match error {
            SingleFlightError::Stopped(stopped) => Self::Stopped(stopped),
            SingleFlightError::Abandoned | SingleFlightError::NoThread | SingleFlightError::Reentrant => {
                Self::SingleFlight(error)
            }
        }
    }
}

/// A lower layer's line begins with the object's name too; one mention is enough.
fn strip_name(message: &str, object: &str) -> String {
    let rest = message.strip_prefix(object).and_then(|r| r.strip_prefix(": "));
    rest.unwrap_or(message).to_owned()
}

impl HasKind for VolumeError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Object { kind, .. } => *kind,
            Self::HashMismatch { .. } | Self::Range { .. } => ErrorKind::Corrupt,
            Self::NoVolume { .. } | Self::NoManifest { .. } | Self::NoSignatures { .. } => ErrorKind::Missing,
            Self::SingleFlight(error) => error.kind(),
            Self::Prefetch(error) => error.kind(),
            Self::Stopped(stopped) => stopped.kind(),
        }
    }
}
