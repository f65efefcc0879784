//! The object that is being decoded, as errors report it.

use std::borrow::Cow;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::error::CodecError;

/// The object that is being decoded and the number of its bytes that were read, for errors.
#[derive(Clone, Debug)]
pub(super) struct ObjectContext {
    pub(super) object: Arc<str>,
    bytes_read: Arc<AtomicU64>,
}

impl ObjectContext {
    pub(super) fn new(object: &str) -> Self {
        Self { object: object.into(), bytes_read: Arc::default() }
    }

    /// Counts stored bytes that were read.
    pub(super) fn count_read(&self, bytes: usize) {
        // usize has at most 64 bits on every platform.
        self.bytes_read.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Returns the error that the object is damaged.
    pub(super) fn damage(&self, what: impl Into<Cow<'static, str>>) -> CodecError {
        let read = self.bytes_read.load(Ordering::Relaxed);
        CodecError::Damaged { object: self.object.clone(), read, what: what.into() }
    }

    /// Returns [`Self::damage`] for a `Read` implementation.
    pub(super) fn damaged(&self, what: impl Into<Cow<'static, str>>) -> io::Error {
        self.damage(what).into_io()
    }

    /// Returns the error that the object has a form that is refused; `remedy` begins with `; ` or is empty.
    pub(super) fn unsupported(&self, what: impl Into<Cow<'static, str>>, remedy: &'static str) -> CodecError {
        CodecError::Unsupported { object: self.object.clone(), what: what.into(), remedy }
    }
}
