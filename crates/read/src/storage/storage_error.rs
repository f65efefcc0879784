//! The failures of stores.

use std::io;
use std::sync::Arc;

use dupfs_base::{ErrorKind, HasKind, Stopped, escape_bytes, without_errno};
use dupfs_format::ObjectInfo;

/// A failure of a store: the object, the cause, and the remedy.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{object}: {reason}")]
pub struct StorageError {
    /// The kind of failure.
    pub kind: ErrorKind,
    /// The object's name, or the store's URL.
    pub object: Arc<str>,
    /// The cause and, if there is one, the remedy: one line.
    pub reason: Arc<str>,
    /// True if the service did not answer, in all attempts: it may do so later, without a repair.
    pub unanswered: bool,
}

impl HasKind for StorageError {
    fn kind(&self) -> ErrorKind {
        self.kind
    }
}

impl StorageError {
    /// A failure of `kind` on `object`.
    pub fn new(kind: ErrorKind, object: &str, reason: impl AsRef<str>) -> Self {
        Self { kind, object: object.into(), reason: reason.as_ref().into(), unanswered: false }
    }

    /// Wraps the error for a `Read` implementation.
    pub fn into_io(self) -> io::Error {
        io::Error::other(self)
    }

    /// The object was listed but no longer exists.
    pub fn missing(object: &ObjectInfo) -> Self {
        Self::new(ErrorKind::Missing, &object.name, "was listed but no longer exists; if it was moved, move it back")
    }

    /// The object was changed after it was listed.
    pub fn replaced(object: &ObjectInfo) -> Self {
        let reason = "was replaced or changed since it was listed; list the backup again (send SIGHUP or remount)";
        Self::new(ErrorKind::Io, &object.name, reason)
    }

    /// The store delivered only `got` of the `want` requested bytes.
    pub fn short(object: &ObjectInfo, got: u64, want: u64) -> Self {
        Self::new(ErrorKind::Io, &object.name, format!("ended after {got} of {want} bytes"))
    }

    /// The object is in the archive storage class `class`.
    pub fn archived(object: &ObjectInfo, class: &str) -> Self {
        let reason =
            format!("is in cold storage ({class}); restore it first (aws s3api restore-object), then read again");
        Self::new(ErrorKind::Archived, &object.name, reason)
    }

    /// A request for `object` that was stopped before its answer was complete.
    pub fn stopped(object: &str, stopped: Stopped) -> Self {
        Self::new(stopped.kind(), object, stopped.to_string())
    }

    /// An error of the operating system in the operation `action` on `object`. `NotFound` keeps its kind: only the
    /// caller can decide if the object should exist.
    pub fn from_io(object: &str, action: &str, error: &io::Error) -> Self {
        let kind = match error.kind() {
            io::ErrorKind::NotFound => ErrorKind::NotFound,
            io::ErrorKind::PermissionDenied => ErrorKind::Denied,
            io::ErrorKind::TimedOut => ErrorKind::Timeout,
            _ => ErrorKind::Io,
        };
        let remedy = if kind == ErrorKind::Denied { "; run as a user who may read it" } else { "" };
        Self::new(kind, object, format!("cannot {action}: {}{remedy}", one_line(error)))
    }

    /// The error inside `error`, which [`StorageError::into_io`] made, or a failure to read `object`.
    pub fn recover(object: &str, error: &io::Error) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<Self>()) {
            Some(inner) => inner.clone(),
            None => Self::from_io(object, "read", error),
        }
    }
}

/// The message of `error` on one line, without the number of the error.
fn one_line(error: &io::Error) -> String {
    escape_bytes(without_errno(&error.to_string()).to_lowercase().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_recovered_from_an_io_error() {
        let error = StorageError::new(ErrorKind::Archived, "vol1", "frozen");
        let back = StorageError::recover("other", &error.into_io());
        assert_eq!((back.kind, &*back.object), (ErrorKind::Archived, "vol1"));
        let foreign = StorageError::recover("vol2", &io::Error::from_raw_os_error(libc::EACCES));
        assert_eq!(foreign.kind, ErrorKind::Denied);
        assert_eq!(foreign.to_string(), "vol2: cannot read: permission denied; run as a user who may read it");
    }
}
