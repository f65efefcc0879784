//! The failures that every store words alike.

use std::io;

use super::{ObjectInfo, StorageError};
use dupfs_base::{ErrorKind, HasKind, Stopped, escape_bytes};

impl StorageError {
    /// The object was listed and is there no more.
    pub fn missing(object: &ObjectInfo) -> Self {
        Self::new(ErrorKind::Missing, &object.name, "was listed but is gone; if it was moved, put it back")
    }

    /// The object is no longer in the state that was listed.
    pub fn replaced(object: &ObjectInfo) -> Self {
        let reason = "was replaced or changed since it was listed; list the backup again (send SIGHUP or remount)";
        Self::new(ErrorKind::Io, &object.name, reason)
    }

    /// The store ended the object early: `got` bytes of the `want` asked for came.
    pub fn short(object: &ObjectInfo, got: u64, want: u64) -> Self {
        Self::new(ErrorKind::Io, &object.name, format!("ended after {got} of {want} bytes"))
    }

    /// The object is in the cold storage class `class`.
    pub fn archived(object: &ObjectInfo, class: &str) -> Self {
        let reason =
            format!("is in cold storage ({class}); restore it first (aws s3api restore-object), then read again");
        Self::new(ErrorKind::Archived, &object.name, reason)
    }

    /// A request for `object` that was stopped before its answer was complete.
    pub fn stopped(object: &str, stopped: Stopped) -> Self {
        Self::new(stopped.kind(), object, stopped.to_string())
    }

    /// An error of the machine while doing `what` on `object`. `NotFound` keeps its kind: whether the object ought to
    /// be there is the caller's to know.
    pub fn from_io(object: &str, what: &str, error: &io::Error) -> Self {
        let kind = match error.kind() {
            io::ErrorKind::NotFound => ErrorKind::NotFound,
            io::ErrorKind::PermissionDenied => ErrorKind::Denied,
            io::ErrorKind::TimedOut => ErrorKind::Timeout,
            _ => ErrorKind::Io,
        };
        let remedy = if kind == ErrorKind::Denied { "; run as a user who may read it" } else { "" };
        Self::new(kind, object, format!("cannot {what}: {}{remedy}", plain(error)))
    }

    /// The error that `error` carries, or `error` itself as a failure to read `object`: the way back from
    /// [`StorageError::into_io`].
    pub fn recover(object: &str, error: &io::Error) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<Self>()) {
            Some(inner) => inner.clone(),
            None => Self::from_io(object, "read", error),
        }
    }
}

/// `error` without Rust's "(os error 2)", on one line.
fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    let text = match text.rfind(" (os error ") {
        Some(end) => text.get(..end).unwrap_or(&text),
        None => &text,
    };
    escape_bytes(text.to_lowercase().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_comes_back_out_of_io() {
        let error = StorageError::new(ErrorKind::Archived, "vol1", "frozen");
        let back = StorageError::recover("other", &error.into_io());
        assert_eq!((back.kind, &*back.object), (ErrorKind::Archived, "vol1"));
        let foreign = StorageError::recover("vol2", &io::Error::from_raw_os_error(libc::EACCES));
        assert_eq!(foreign.kind, ErrorKind::Denied);
        assert_eq!(foreign.to_string(), "vol2: cannot read: permission denied; run as a user who may read it");
    }
}
