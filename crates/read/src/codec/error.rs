//! Why stored bytes could not be turned into plaintext.

use std::borrow::Cow;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::storage::StorageError;
use dupfs_base::{ErrorKind, HasKind};

/// A failure to decode an object or to load a key: one line that says what, on which object, why, and what to do.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CodecError {
    /// The stored bytes could not be read; `reason` already names the object if the store does.
    #[error("{object}: cannot be read: {reason}")]
    Read {
        /// The object's name.
        object: Arc<str>,
        /// The kind of the failure beneath.
        kind: ErrorKind,
        /// The failure beneath, one line.
        reason: Arc<str>,
    },
    /// The bytes are not what was written.
    #[error("{object}: damaged: {what} (found {read} bytes into it); use another copy of this object if there is one")]
    Damaged {
        /// The object's name.
        object: Arc<str>,
        /// Stored bytes that had been read when it was found; read-ahead (64 KiB) included.
        read: u64,
        /// What is wrong.
        what: Cow<'static, str>,
    },
    /// The object is encrypted without an integrity code and that was not allowed. Not [`ErrorKind::Corrupt`]: nothing
    /// says that it is damaged, it is a form that is refused until the user accepts it.
    #[error(
        "{object}: encrypted without an integrity code (MDC), so damage or manipulation cannot be noticed; \
         to read it all the same, give --allow-unauthenticated"
    )]
    Unauthenticated {
        /// The object's name.
        object: Arc<str>,
    },
    /// A form of data that is refused by name.
    #[error("{object}: {what} is not supported{remedy}")]
    Unsupported {
        /// The object's name.
        object: Arc<str>,
        /// The form.
        what: Cow<'static, str>,
        /// `; ` and what to do, or nothing.
        remedy: &'static str,
    },
    /// No key or passphrase at hand opens the object.
    #[error("{object}: {reason}")]
    NoKey {
        /// The object's name.
        object: Arc<str>,
        /// What it is encrypted to, what was tried, and what to give.
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
        /// What was found instead.
        what: Cow<'static, str>,
        /// The required key, as the user named it.
        key: Arc<str>,
    },
    /// A key file cannot be used.
    #[error("key file {}: {reason}", path.display())]
    KeyFile {
        /// The file.
        path: PathBuf,
        /// What it means.
        kind: ErrorKind,
        /// Why, and what to do.
        reason: Arc<str>,
    },
}

impl CodecError {
    /// Wraps the error for a `Read` implementation.
    pub fn into_io(self) -> io::Error {
        io::Error::other(self)
    }

    /// The codec's failure inside `error`, or one that says that `object` could not be read.
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
            Self::Damaged { .. } | Self::NotSigned { .. } => ErrorKind::Corrupt,
            Self::Unauthenticated { .. } | Self::Unsupported { .. } => ErrorKind::Unsupported,
            Self::NoKey { .. } => ErrorKind::KeyMissing,
            Self::GpgTimeout { .. } => ErrorKind::Timeout,
        }
    }
}

/// The kind of a failure inside an [`io::Error`] of a reader that [`super::Decoder::open`] gave, or of a store's
/// reader: [`CodecError`]'s, [`StorageError`]'s, else [`ErrorKind::Io`].
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
