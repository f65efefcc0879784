//! The failures that every store words alike.

use std::io;

use super::{ObjectInfo, StorageError};
use crate::types::{ErrorClass, escape_bytes};

impl StorageError {
    /// The object was listed and is there no more.
    pub fn missing(object: &ObjectInfo) -> Self {
        Self::new(ErrorClass::Missing, &object.name, "was listed but is gone; if it was moved, put it back")
    }

    /// The object is no longer in the state that was listed.
    pub fn replaced(object: &ObjectInfo) -> Self {
        let reason = "was replaced or changed since it was listed; list the backup again (send SIGHUP or remount)";
        Self::new(ErrorClass::Io, &object.name, reason)
    }

    /// The store ended the object early: `got` bytes of the `want` asked for came.
    pub fn short(object: &ObjectInfo, got: u64, want: u64) -> Self {
        Self::new(ErrorClass::Io, &object.name, format!("ended after {got} of {want} bytes"))
    }

    /// The object is in cold storage `class`.
    pub fn cold(object: &ObjectInfo, class: &str) -> Self {
        let reason =
            format!("is in cold storage ({class}); restore it first (aws s3api restore-object), then read again");
        Self::new(ErrorClass::Cold, &object.name, reason)
    }

    /// An error of the machine while doing `what` on `object`. `NotFound` keeps its class: whether the object ought to
    /// be there is the caller's to know.
    pub fn from_io(object: &str, what: &str, error: &io::Error) -> Self {
        let class = match error.kind() {
            io::ErrorKind::NotFound => ErrorClass::NotFound,
            io::ErrorKind::PermissionDenied => ErrorClass::Denied,
            io::ErrorKind::TimedOut => ErrorClass::Timeout,
            _ => ErrorClass::Io,
        };
        let remedy = if class == ErrorClass::Denied { "; run as a user who may read it" } else { "" };
        Self::new(class, object, format!("cannot {what}: {}{remedy}", plain(error)))
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
        let error = StorageError::new(ErrorClass::Cold, "vol1", "frozen");
        let back = StorageError::recover("other", &error.into_io());
        assert_eq!((back.class, &*back.object), (ErrorClass::Cold, "vol1"));
        let foreign = StorageError::recover("vol2", &io::Error::from_raw_os_error(libc::EACCES));
        assert_eq!(foreign.class, ErrorClass::Denied);
        assert_eq!(foreign.to_string(), "vol2: cannot read: permission denied; run as a user who may read it");
    }
}
