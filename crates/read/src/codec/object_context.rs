//! The object that is being decoded, as errors report it.

use std::borrow::Cow;
use std::io;
use std::sync::Arc;

use super::dated_name::DatedName;
use super::decode_limits::{DecodeLimits, LimitReached};
use super::error::CodecError;
use dupfs_format::BackupTime;

/// The object that is being decoded, for errors, and the limits of the decoding.
#[derive(Clone, Debug)]
pub(super) struct ObjectContext {
    pub(super) object: Arc<str>,
    /// The time of its set, if it is known.
    pub(super) set_time: Option<BackupTime>,
    /// True if the time at which it was written is recorded.
    pub(super) records_time: bool,
    pub(super) limits: DecodeLimits,
}

impl ObjectContext {
    /// An object that is decoded within the default limits.
    pub(super) fn new<'n>(object: impl Into<DatedName<'n>>) -> Self {
        Self::with_limits(object.into(), &DecodeLimits::default())
    }

    /// An object that is decoded within `limits`.
    pub(super) fn with_limits(object: DatedName<'_>, limits: &DecodeLimits) -> Self {
        let DatedName { name, set_time, records_time } = object;
        Self { object: name.into(), set_time, records_time, limits: limits.clone() }
    }

    /// Checks that the request has not ended. Steps that take long call it.
    ///
    /// # Errors
    /// [`CodecError::Stopped`].
    pub(super) fn check_request(&self) -> Result<(), CodecError> {
        self.limits.check_request().map_err(|stopped| CodecError::Stopped { object: self.object.clone(), stopped })
    }

    /// Counts `bytes` that were decompressed and checks the limits.
    ///
    /// # Errors
    /// [`CodecError::Stopped`], [`CodecError::TooLarge`] or [`CodecError::TooSlow`], for a `Read` implementation.
    pub(super) fn count_expanded(&self, bytes: usize) -> io::Result<()> {
        let object = || self.object.clone();
        self.limits.count_expanded(bytes).map_err(|reached| {
            let error = match reached {
                LimitReached::Stopped(stopped) => CodecError::Stopped { object: object(), stopped },
                LimitReached::Expansion { expanded } => {
                    let (stored, ratio) = (self.limits.stored(), self.limits.ratio());
                    CodecError::TooLarge { object: object(), stored, expanded, ratio }
                }
                LimitReached::Time { limit, expanded } => {
                    CodecError::TooSlow { object: object(), seconds: limit.as_secs(), expanded }
                }
            };
            error.into_io()
        })
    }

    /// Returns the error that the object is damaged.
    pub(super) fn damage(&self, what: impl Into<Cow<'static, str>>) -> CodecError {
        CodecError::Damaged { object: self.object.clone(), read: self.limits.stored(), what: what.into() }
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
