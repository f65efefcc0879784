//! A range of an object as a stream: one request for all of it, and after a failure one for the rest.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::encoding::parse_http_date;
use super::failure::{RcloneCause, RcloneFailure};
use super::http::{HttpBody, RcloneRequest};
use super::http_head::RangeMismatch;
use super::retries::RcloneRetries;
use super::session::{RangeUse, RcloneSession};
use crate::storage::{ObjectInfo, StorageError};
use dupfs_base::sync::Permit;
use dupfs_base::{ByteRange, RequestContext, clamp_len};

/// A range of an object. Its bytes come directly from the connection, so a reader that pauses makes rclone pause.
pub(super) struct RcloneStream {
    session: Arc<RcloneSession>,
    object: ObjectInfo,
    path: String,
    /// The next byte, and the end of the range.
    at: u64,
    end: u64,
    body: Option<HttpBody>,
    permit: Option<Permit>,
    /// The byte up to which the body has to arrive to prove that the service ignores ranges.
    proof_at: Option<u64>,
    retries: RcloneRetries,
    failed: Option<StorageError>,
    context: RequestContext,
}

impl RcloneStream {
    /// Starts to read `range`, which lies within the object and is not empty, and waits for the answer.
    ///
    /// # Errors
    /// [`StorageError`] if there is none, or for the end of the request.
    pub(super) fn open(
        session: Arc<RcloneSession>,
        object: ObjectInfo,
        range: ByteRange,
        context: RequestContext,
    ) -> Result<Self, StorageError> {
        let (path, retries) =
            (session.get_path(&object), RcloneRetries::of_read(session.timeout, session.read_timeout.clone()));
        let permit = session.permit(&object.name, &context)?;
        let (at, end, body, proof_at, failed) = (range.start, range.end, None, None, None);
        let mut stream = Self { session, object, path, at, end, body, permit, proof_at, retries, failed, context };
        stream.connect()?;
        Ok(stream)
    }

    /// Requests the rest of the range, if necessary in several attempts.
    fn connect(&mut self) -> Result<(), StorageError> {
        loop {
            match self.attempt() {
                Ok(body) => {
                    self.body = Some(body);
                    return Ok(());
                }
                Err(failure) => self.pause(failure)?,
            }
        }
    }

    fn pause(&mut self, failure: RcloneFailure) -> Result<(), StorageError> {
        let failure = self.session.explained(failure, &self.context);
        match failure.cause {
            RcloneCause::Absent => return Err(StorageError::missing(&self.object)),
            // It has become smaller.
            RcloneCause::OutOfRange => return Err(StorageError::replaced(&self.object)),
            _ => {}
        }
        self.session.pause(&mut self.retries, failure, &self.context)
    }

    fn attempt(&mut self) -> Result<HttpBody, RcloneFailure> {
        let (object, size) = (&self.object, self.object.size);
        let is_part = self.at > 0 || self.end < size;
        let range_use = match is_part {
            true => self.session.range_use(object, &self.path, &self.retries, &self.context)?,
            false => RangeUse::Part,
        };
        let (start, end, proof_at) = match range_use {
            RangeUse::Part => (self.at, self.end, None),
            RangeUse::Whole { proof_at } => (0, size, proof_at),
        };
        let request = RcloneRequest::Get(&self.path, ByteRange { start, end });
        let mut answer = self.session.request(&self.object.name, &request, &self.retries, &self.context)?;
        answer.head.check_range(start, end, size).map_err(|mismatch| match mismatch {
            RangeMismatch::Size => RcloneFailure::last(StorageError::replaced(&self.object)),
            RangeMismatch::Part(reason) => RcloneFailure::invalid(&self.object.name, reason),
        })?;
        let modified = answer.head.modified.as_deref().and_then(parse_http_date);
        self.session.check_version(&self.object, modified, &self.retries, &self.context)?;
        answer.body.set_stall(self.retries.stall_timeout());
        let before = self.at.saturating_sub(start);
        self.session.skip(&self.object.name, &mut answer.body, before, &mut self.retries)?;
        self.proof_at = proof_at;
        self.check_proof();
        Ok(answer.body)
    }

    /// Records that the service ignores ranges if the whole object has arrived up to the byte that proves it.
    fn check_proof(&mut self) {
        if self.proof_at.take_if(|proof_at| self.at >= *proof_at).is_some() {
            self.session.record_ranges(true);
        }
    }

    fn read_some(&mut self, buf: &mut [u8]) -> Result<usize, StorageError> {
        loop {
            let max_len = clamp_len(self.end.saturating_sub(self.at), buf.len());
            let Some(part) = buf.get_mut(..max_len).filter(|part| !part.is_empty()) else {
                // The range is complete: its connection serves others.
                (self.body, self.permit) = (None, None);
                return Ok(0);
            };
            let Some(body) = &mut self.body else {
                self.connect()?;
                continue;
            };
            let failure = match body.read(part) {
                Ok(got) if got > 0 => {
                    let bytes = got as u64;
                    self.session.counters.bytes.fetch_add(bytes, Ordering::Relaxed);
                    self.retries.progress(bytes);
                    self.at = self.at.saturating_add(bytes);
                    self.check_proof();
                    return Ok(got);
                }
                Ok(_) => {
                    RcloneFailure::broken(&self.object.name, format!("the body was truncated at byte {}", self.at))
                }
                Err(e) => RcloneFailure::of_transport(&self.object.name, body.failure(&e)),
            };
            self.body = None;
            self.pause(failure)?;
        }
    }
}

impl Read for RcloneStream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        if let Some(error) = &self.failed {
            return Err(error.clone().into_io());
        }
        self.read_some(buf).map_err(|error| {
            // The stream may outlive the request: its connection must not.
            (self.body, self.permit) = (None, None);
            self.failed = Some(error.clone());
            error.into_io()
        })
    }
}
