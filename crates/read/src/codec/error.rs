//! The failures of decoding.

use std::borrow::Cow;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::backdated_object::BackdatedObject;
use crate::storage::StorageError;
use dupfs_base::{ErrorKind, HasKind, Stopped};

/// A failure to decode an object or to load a key. Its text is one line with the object, the cause and the remedy.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CodecError {
    /// The stored bytes could not be read.
    #[error("{object}: cannot be read: {reason}")]
    Read {
        /// The object's name.
        object: Arc<str>,
        /// The kind of the underlying failure.
        kind: ErrorKind,
        /// The underlying failure, one line.
        reason: Arc<str>,
    },
    /// The bytes are not those that were written.
    #[error("{object}: damaged: {what} (found {read} bytes into it); use another copy of this object if there is one")]
    Damaged {
        /// The object's name.
        object: Arc<str>,
        /// Stored bytes that had been read when it was found, buffers (64 KiB) included.
        read: u64,
        /// The damage.
        what: Cow<'static, str>,
    },
    /// The stored bytes decompress to more than those of any backup.
    #[error(
        "{object}: over the limit: {stored} stored bytes decompress to more than {expanded} \
         (limit: {ratio} to 1); it is damaged or a decompression bomb; use another copy of this object if there is one"
    )]
    TooLarge {
        /// The object's name.
        object: Arc<str>,
        /// Stored bytes that had been read, buffers (64 KiB) included.
        stored: u64,
        /// Decompressed bytes.
        expanded: u64,
        /// Decompressed bytes for each stored byte that the limit allows.
        ratio: u64,
    },
    /// The decoding took longer than it may.
    #[error(
        "{object}: decoding it takes longer than {seconds} s ({expanded} bytes so far); give a longer --deadline, or use \
         another copy of this object if there is one"
    )]
    TooSlow {
        /// The object's name.
        object: Arc<str>,
        /// The limit.
        seconds: u64,
        /// Decompressed bytes.
        expanded: u64,
    },
    /// The request ended before the object was decoded.
    #[error("{object}: {stopped}")]
    Stopped {
        /// The object's name.
        object: Arc<str>,
        /// The reason.
        stopped: Stopped,
    },
    /// The object is encrypted without an integrity code, which is refused unless the user accepts it. This is not
    /// [`ErrorKind::Corrupt`], because nothing indicates damage.
    #[error(
        "{object}: encrypted without an integrity code (MDC), so damage and manipulation cannot be detected; \
         to read it nevertheless, give --allow-unauthenticated"
    )]
    Unauthenticated {
        /// The object's name.
        object: Arc<str>,
    },
    /// The data have a form that is not supported.
    #[error("{object}: {what} is not supported{remedy}")]
    Unsupported {
        /// The object's name.
        object: Arc<str>,
        /// The form.
        what: Cow<'static, str>,
        /// `; ` and the remedy, or nothing.
        remedy: &'static str,
    },
    /// No available key or passphrase opens the object.
    #[error("{object}: {reason}")]
    NoKey {
        /// The object's name.
        object: Arc<str>,
        /// The recipients of the object, the keys that were tried, and the remedy.
        reason: Arc<str>,
    },
    /// The user's gpg did not answer in time.
    #[error("{object}: gpg did not give the session key within {seconds} s; is a pinentry waiting for an answer?")]
    GpgTimeout {
        /// The object's name.
        object: Arc<str>,
        /// The deadline.
        seconds: u64,
    },
    /// A signature was required and is missing or wrong.
    #[error("{object}: {what}, but every object must be signed by {key} (--sign-key)")]
    NotSigned {
        /// The object's name.
        object: Arc<str>,
        /// The finding.
        what: Cow<'static, str>,
        /// The required key, as the user named it.
        key: Arc<str>,
    },
    /// A signature was required, and the object was written before the time that its name states.
    #[error("{}: {} (--sign-key refuses it)", .0.object, .0.finding())]
    Backdated(BackdatedObject),
    /// Encryption was required and is missing.
    #[error("{object}: not encrypted, so anyone who can write to the store could have made it (--require-encryption)")]
    NotEncrypted {
        /// The object's name.
        object: Arc<str>,
    },
    /// A key file cannot be used.
    #[error("key file {}: {reason}", path.display())]
    KeyFile {
        /// The file.
        path: PathBuf,
        /// The kind of the failure.
        kind: ErrorKind,
        /// The cause and the remedy.
        reason: Arc<str>,
    },
}

impl CodecError {
    /// Wraps the error for a `Read` implementation.
    pub fn into_io(self) -> io::Error {
        io::Error::other(self)
    }

    /// Returns the failure of the codec inside `error`, or else one that `object` could not be read.
    pub fn from_io(object: &Arc<str>, error: &io::Error) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<Self>()) {
            Some(own) => own.clone(),
            None => Self::Read { object: object.clone(), kind: error_kind(error), reason: error.to_string().into() },
        }
    }
}

impl HasKind for CodecError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Read { kind, .. } | Self::KeyFile { kind, .. } => *kind,
            Self::Damaged { .. }
            | Self::TooLarge { .. }
            | Self::NotSigned { .. }
            | Self::Backdated(_)
            | Self::NotEncrypted { .. } => ErrorKind::Corrupt,
            Self::Unauthenticated { .. } | Self::Unsupported { .. } => ErrorKind::Unsupported,
            Self::NoKey { .. } => ErrorKind::KeyMissing,
            Self::GpgTimeout { .. } | Self::TooSlow { .. } => ErrorKind::Timeout,
            Self::Stopped { stopped, .. } => stopped.kind(),
        }
    }
}

/// Returns the kind of an [`io::Error`] of a reader of [`super::Decoder::open`] or of a store: that of the [`CodecError`]
/// or [`StorageError`] inside it, else [`ErrorKind::Io`].
pub fn error_kind(error: &io::Error) -> ErrorKind {
    let Some(inner) = error.get_ref() else { return ErrorKind::Io };
    if let Some(own) = inner.downcast_ref::<CodecError>() {
        own.kind()
    } else if let Some(store) = inner.downcast_ref::<StorageError>() {
        store.kind()
    } else {
        ErrorKind::Io
    }
}
