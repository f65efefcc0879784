//! Failures to read manifests, signature archives and volumes.

use std::sync::Arc;

use crate::codec::{self, CodecError};
use crate::storage::StorageError;
use dupfs_base::sync::SingleFlightError;
use dupfs_base::{ErrorKind, HasKind, Stopped};
use dupfs_format::FormatError;
use dupfs_format::VolumeNumber;
use dupfs_format::collection::BackupSet;
use dupfs_format::name::FileRole;

const DAMAGED_OBJECT: &str = "is damaged or was replaced; copy it back from another replica of the backup";
const OTHER_OBJECT: &str = "was replaced by a different, intact object, or the manifest is wrong; copy it back from another replica \
                            of the backup, or give --ignore-volume-hash to read it as it is";

/// A failure to read an object of the backup. Cheap to clone: all requests that share a pass get its error.
#[derive(Clone, Debug, thiserror::Error)]
pub enum VolumeError {
    /// The object could not be fetched, decrypted, decompressed or parsed.
    #[error("{object}: {reason}")]
    Object {
        /// The object's name in the store.
        object: Arc<str>,
        /// The kind of failure.
        kind: ErrorKind,
        /// The cause and the remedy, in one line.
        reason: Arc<str>,
    },
    /// The stored bytes are not those that the manifest describes.
    #[error(
        "{object}: its {kind} is not the one in the manifest: the stored file {}", if *is_whole { OTHER_OBJECT } else { DAMAGED_OBJECT }
    )]
    HashMismatch {
        /// The object's name in the store.
        object: Arc<str>,
        /// The name of the hash.
        kind: &'static str,
        /// True if the object has its own integrity code and is whole by it.
        is_whole: bool,
    },
    /// The manifest names a volume that the store does not have.
    #[error(
        "volume {number} of {set} is not in the store, though the manifest names it: copy it back from another replica"
    )]
    NoVolume {
        /// The name of the set.
        set: Arc<str>,
        /// The volume's number.
        number: VolumeNumber,
    },
    /// The manifest does not name a volume.
    #[error("volume {number} of {set} is not in the manifest")]
    UnlistedVolume {
        /// The name of the set.
        set: Arc<str>,
        /// The volume's number.
        number: VolumeNumber,
    },
    /// The set has no manifest in the store.
    #[error("{set} has no manifest: the backup was interrupted")]
    NoManifest {
        /// The name of the set.
        set: Arc<str>,
    },
    /// The set has no signature archive in the store.
    #[error("{set} has no signature archive")]
    NoSignatures {
        /// The name of the set.
        set: Arc<str>,
    },
    /// The signature archive in the place of that of a set is of another set.
    #[error(
        "{object}: is not the signature archive of {set}: {reason}; it was exchanged: copy the right one back from another \
         replica of the backup"
    )]
    OtherSignatures {
        /// The object's name in the store.
        object: Arc<str>,
        /// The name of the set.
        set: Arc<str>,
        /// The difference from the manifest of the set.
        reason: Arc<str>,
    },
    /// The shared execution of the work failed.
    #[error(transparent)]
    SingleFlight(SingleFlightError),
    /// A prefetch failed. A request that joined it has made no attempt yet: the failure may be older than the request.
    #[error(transparent)]
    Prefetch(Arc<VolumeError>),
    /// The volume is being read and not verified yet, and the request does not wait for that.
    #[error("{object}: is not verified yet")]
    Slow {
        /// The object's name in the store.
        object: Arc<str>,
    },
    /// The request ended before the answer was complete, or it may not block and the answer is not cached.
    #[error(transparent)]
    Stopped(#[from] Stopped),
    /// The collection has no set with this index.
    #[error("internal error (bug in dupfs): the collection has no set with the index {index}")]
    NoSet {
        /// The index.
        index: u32,
    },
    /// A range beyond the end of a volume: the extent map does not fit the data.
    #[error("{object}: bytes {start} to {end} were requested, but its plaintext has {len}")]
    Range {
        /// The object's name.
        object: Arc<str>,
        /// First requested byte.
        start: u64,
        /// End of the requested bytes, exclusive.
        end: u64,
        /// Length of the plaintext.
        len: u64,
    },
}

impl VolumeError {
    /// A failure on an object that the listing or a manifest names. `NotFound` becomes `Missing`: the path that the user requested
    /// exists.
    pub(crate) fn object(object: &str, kind: ErrorKind, reason: impl AsRef<str>) -> Self {
        let kind = if kind == ErrorKind::NotFound { ErrorKind::Missing } else { kind };
        Self::Object { object: object.into(), kind, reason: reason.as_ref().into() }
    }

    /// The error of a request that waited for `object`: a deadline that has passed names the object.
    pub(super) fn while_waiting_for(self, object: &str) -> Self {
        match self {
            Self::Stopped(stopped @ Stopped::Deadline) => Self::object(object, stopped.kind(), stopped.to_string()),
            other => other,
        }
    }

    /// For damage of the object of `set` with this `role`: the error with a remedy, if the store has another one with it.
    pub(super) fn with_second_copy(self, set: &BackupSet, role: FileRole) -> Self {
        let other = set.duplicates.iter().find(|duplicate| duplicate.role == role);
        match (self, other) {
            (Self::Object { object, kind: ErrorKind::Corrupt, reason }, Some(other)) => {
                let name = &other.object.name;
                let reason = format!("{reason}; the set also has {name}: move the damaged one away to use that");
                Self::Object { object, kind: ErrorKind::Corrupt, reason: reason.into() }
            }
            (error, _) => error,
        }
    }

    /// For damage: the error with the URLs of the stores whose copies of the object have it.
    pub(super) fn of_copies(self, stores: &[String]) -> Self {
        let object = match &self {
            Self::Object { object, kind: ErrorKind::Corrupt, .. } | Self::HashMismatch { object, .. } => {
                Arc::clone(object)
            }
            _ => return self,
        };
        let reason = strip_name(&self.to_string(), &object);
        Self::object(&object, ErrorKind::Corrupt, format!("{reason}; read from {}", stores.join(" and from ")))
    }

    pub(crate) fn from_io(object: &str, error: &std::io::Error) -> Self {
        let kind = codec::error_kind(error);
        Self::object(object, kind, strip_name(&error.to_string(), object))
    }

    pub(crate) fn from_format(object: &str, error: &FormatError) -> Self {
        match error {
            // The error of the codec or of the store below the parser.
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

/// Removes the name of the object from the beginning of a lower layer's message, which is prefixed again.
fn strip_name(message: &str, object: &str) -> String {
    let rest = message.strip_prefix(object).and_then(|r| r.strip_prefix(": "));
    rest.unwrap_or(message).to_owned()
}

impl HasKind for VolumeError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Object { kind, .. } => *kind,
            Self::HashMismatch { .. } | Self::OtherSignatures { .. } | Self::Range { .. } => ErrorKind::Corrupt,
            Self::NoSet { .. } => ErrorKind::Io,
            Self::UnlistedVolume { .. }
            | Self::NoVolume { .. }
            | Self::NoManifest { .. }
            | Self::NoSignatures { .. } => ErrorKind::Missing,
            Self::SingleFlight(error) => error.kind(),
            Self::Prefetch(error) => error.kind(),
            Self::Stopped(stopped) => stopped.kind(),
            Self::Slow { .. } => ErrorKind::WouldBlock,
        }
    }
}
