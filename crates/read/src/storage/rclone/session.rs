//! Requests to a running rclone: attempts, limits and the state of objects.

use std::io::Read;
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::diagnosis::diagnose;
use super::encoding::percent_encode;
use super::failure::{RcloneCause, RcloneFailure};
use super::http::{HttpAnswer, HttpBody, HttpFailure, RcloneRequest, send};
use super::http_head::RangeMismatch;
use super::listing::{parse_list, parse_stat, seconds_of};
use super::process::{RcloneProcess, RcloneStart};
use super::program::RcloneProgram;
use super::range_support::{RangeSupport, RangeVerdict, judge};
use super::remote::RcloneRemote;
use super::retries::RcloneRetries;
use super::stale_answers::StaleAnswers;
use crate::storage::traffic::TrafficCounters;
use crate::storage::{DirectoryListing, ObjectInfo, ReadTimeout, StorageError, StoreOptions};
use dupfs_base::sync::{Permit, Semaphore, lock};
use dupfs_base::{ByteRange, ErrorKind, RequestContext, Stopped};

/// Upper bound of the time to wait for another stream to end. A stream that is not read blocks no other one for longer.
const MAX_PERMIT_WAIT: Duration = Duration::from_secs(2);
/// Upper bound of the bytes of a message.
const MAX_MESSAGE: u64 = 64 * 1024;
/// Bytes of the part by which a service is asked for a range, and of the part before it.
const PROBE_BYTES: u64 = 32;
/// Bytes of an object that are skipped at once.
const SKIPPED_AT_ONCE: u64 = 64 * 1024;

/// The way in which a part of an object is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RangeUse {
    /// By a request for the part.
    Part,
    /// From the whole object. If it arrives up to `proof_at`, the service ignores ranges: it has not sent the part before that
    /// byte alone.
    Whole { proof_at: Option<u64> },
}

/// The requests to one running rclone, for the store and its streams.
#[derive(Debug)]
pub(super) struct RcloneSession {
    pub(super) remote: RcloneRemote,
    process: RcloneProcess,
    pub(super) timeout: Duration,
    /// Upper bound of the time in which a read waits for a service that does not answer.
    pub(super) read_timeout: ReadTimeout,
    streams: Semaphore,
    stale: StaleAnswers,
    ranges: Mutex<RangeSupport>,
    pub(super) counters: TrafficCounters,
}

impl RcloneSession {
    /// Starts rclone for `remote`.
    ///
    /// # Errors
    /// [`StorageError`] if there is no thread for it.
    pub(super) fn start(
        program: RcloneProgram,
        remote: RcloneRemote,
        options: &StoreOptions,
    ) -> Result<Self, StorageError> {
        let process = RcloneProcess::start(RcloneStart {
            program,
            remote: remote.clone(),
            timeout: options.timeout,
            secrets: options.secrets.clone(),
            ca_file: options.ca_file.clone(),
        })?;
        let streams = Semaphore::new(u64::from(remote.max_streams).min(options.connections as u64).max(1));
        let (timeout, counters) = (options.timeout, TrafficCounters::default());
        let read_timeout = options.read_timeout.clone().unwrap_or_else(|| ReadTimeout::new(timeout));
        let (stale, ranges) = (StaleAnswers::new(), Mutex::default());
        Ok(Self { remote, process, timeout, read_timeout, streams, stale, ranges, counters })
    }

    /// Sends one request.
    pub(super) fn request(
        &self,
        object: &str,
        request: &RcloneRequest<'_>,
        retries: &RcloneRetries,
        context: &RequestContext,
    ) -> Result<HttpAnswer, RcloneFailure> {
        let counter = match request {
            RcloneRequest::Get(..) => &self.counters.gets,
            RcloneRequest::List(_) | RcloneRequest::Stat(_) => &self.counters.lists,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        let endpoint = self.process.endpoint(self.timeout, context).map_err(|error| {
            let is_dead = error.kind == ErrorKind::Io;
            let cause = if is_dead { RcloneCause::Busy } else { RcloneCause::Final };
            RcloneFailure { error, cause }
        })?;
        let mut answer = send(&endpoint, request, retries.answer_timeout(), context).map_err(|failure| {
            if matches!(failure, HttpFailure::Gone) {
                self.process.is_gone(&endpoint);
            }
            RcloneFailure::of_transport(object, failure)
        })?;
        match (request, answer.head.status) {
            (_, 200) | (RcloneRequest::Get(..), 206) => {
                self.stale.clear();
                Ok(answer)
            }
            (_, status @ ..400) => Err(RcloneFailure::invalid(object, format!("its status is {status}"))),
            (_, status) => {
                let text = answer.body.text(MAX_MESSAGE);
                let failure = RcloneFailure::of_answer(object, status, &text, &self.remote);
                let is_stale = matches!(failure.cause, RcloneCause::Stale | RcloneCause::NoAnswer);
                if is_stale && self.stale.add() {
                    self.process.is_gone(&endpoint);
                }
                Err(failure)
            }
        }
    }

    /// Returns how a part of `object` may be read: some services send an object from its beginning whatever is requested. rclone
    /// does not notice that, and calls the beginning the requested part, so the first part that is read of a service that may do
    /// so is preceded by small ones with bytes in common.
    ///
    /// # Errors
    /// [`RcloneFailure`], also if the parts contradict each other.
    pub(super) fn range_use(
        &self,
        object: &ObjectInfo,
        path: &str,
        retries: &RcloneRetries,
        context: &RequestContext,
    ) -> Result<RangeUse, RcloneFailure> {
        if !self.remote.may_ignore_ranges() {
            return Ok(RangeUse::Part);
        }
        let ignored = lock(&self.ranges).ignored(Instant::now());
        match ignored {
            Some(true) => return Ok(RangeUse::Whole { proof_at: None }),
            Some(false) => return Ok(RangeUse::Part),
            None => {}
        }
        let half = PROBE_BYTES.min(object.size / 2);
        let end = half.saturating_mul(2);
        let part = |start: u64| {
            let request = RcloneRequest::Get(path, ByteRange { start, end });
            let mut answer = self.request(&object.name, &request, retries, context)?;
            answer.body.set_stall(retries.stall_timeout());
            match answer.head.check_range(start, end, object.size) {
                Ok(()) => self.bytes_of(&object.name, &mut answer.body, end.saturating_sub(start)),
                Err(RangeMismatch::Size) => Err(RcloneFailure::last(StorageError::replaced(object))),
                Err(RangeMismatch::Part(reason)) => Err(RcloneFailure::invalid(&object.name, reason)),
            }
        };
        let both = part(0)?;
        let second = match part(half)? {
            Some(second) => Some(second),
            // The connection may have broken.
            None => part(half)?,
        };
        match judge(both.as_deref(), second.as_deref()) {
            RangeVerdict::Served => {
                self.record_ranges(false);
                Ok(RangeUse::Part)
            }
            RangeVerdict::Ignored => {
                self.record_ranges(true);
                Ok(RangeUse::Whole { proof_at: None })
            }
            RangeVerdict::NotSent => Ok(RangeUse::Whole { proof_at: Some(end) }),
            RangeVerdict::Undecided => Ok(RangeUse::Whole { proof_at: None }),
            RangeVerdict::Contradictory => {
                Err(RcloneFailure::invalid(&object.name, "two parts of the object contradict each other"))
            }
        }
    }

    /// Records for a while that the service ignores ranges, or serves them.
    pub(super) fn record_ranges(&self, are_ignored: bool) {
        let is_new = lock(&self.ranges).record(are_ignored, Instant::now());
        if are_ignored && is_new {
            log::info!("{}: the service cannot send a part of an object; objects are read as a whole", self.remote.url);
        }
    }

    /// The next `len` bytes of a body; `None` if it ends before.
    fn bytes_of(&self, object: &str, body: &mut HttpBody, len: u64) -> Result<Option<Vec<u8>>, RcloneFailure> {
        let mut bytes = Vec::new();
        let read = body.by_ref().take(len).read_to_end(&mut bytes);
        self.counters.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        match read {
            Ok(_) => Ok(Some(bytes).filter(|bytes| bytes.len() as u64 == len)),
            Err(e) => Err(RcloneFailure::of_transport(object, body.failure(&e))),
        }
    }

    /// Reads and discards the next `len` bytes of a body. The time in which they arrive does not count as time without progress.
    pub(super) fn skip(
        &self,
        object: &str,
        body: &mut HttpBody,
        mut len: u64,
        retries: &mut RcloneRetries,
    ) -> Result<(), RcloneFailure> {
        while len > 0 {
            let begun = Instant::now();
            let Some(bytes) = self.bytes_of(object, body, len.min(SKIPPED_AT_ONCE))? else {
                return Err(RcloneFailure::broken(object, "the body was truncated before the requested part"));
            };
            len = len.saturating_sub(bytes.len() as u64);
            retries.exclude(begun.elapsed());
        }
        Ok(())
    }

    /// Lists `dir`, with its directories unless `files_only`. `opening` is true for the listing that opens the store.
    ///
    /// # Errors
    /// [`StorageError`] for a failure of the service, or for the end of the request.
    pub(super) fn list(
        &self,
        dir: &str,
        files_only: bool,
        context: &RequestContext,
        opening: bool,
    ) -> Result<DirectoryListing, StorageError> {
        let url = &self.remote.url;
        let parameters = serde_json::json!({
            "fs": self.remote.fs,
            "remote": self.remote.path(dir),
            "opt": { "noMimeType": true, "filesOnly": files_only },
        });
        let parameters = parameters.to_string();
        let mut retries = RcloneRetries::new(self.timeout, opening);
        loop {
            let listed =
                self.request(url, &RcloneRequest::List(&parameters), &retries, context).and_then(|mut answer| {
                    parse_list(&mut answer.body, if files_only { dir } else { "" })
                        .map_err(|error| RcloneFailure::of_json(url, error, &mut answer.body))
                });
            let failure = match listed {
                Ok(listing) => return Ok(listing),
                Err(failure) => self.explained(failure, context),
            };
            if failure.cause == RcloneCause::Absent {
                let reason = "no such directory; check the URL (a path after one slash begins at the home directory of the \
                              user, after two at the root)";
                let reason =
                    if self.remote.fs.starts_with("dupfs") { reason } else { "no such directory; check the URL" };
                return Err(StorageError::new(ErrorKind::NotFound, url, reason));
            }
            self.pause(&mut retries, failure, context)?;
        }
    }

    /// Waits before the next attempt.
    pub(super) fn pause(
        &self,
        retries: &mut RcloneRetries,
        failure: RcloneFailure,
        context: &RequestContext,
    ) -> Result<(), StorageError> {
        retries.pause(failure, context)?;
        self.counters.retries.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// The failure with the reason that the ssh program states, if rclone knows none.
    pub(super) fn explained(&self, failure: RcloneFailure, context: &RequestContext) -> RcloneFailure {
        match (&self.remote.diagnosis, failure.cause) {
            (Some(command), RcloneCause::Closed) => {
                diagnose(command, &failure.error.object, &context.within(self.timeout)).unwrap_or(failure)
            }
            _ => failure,
        }
    }

    /// Waits until fewer objects are read than may be at once; `None` if that takes long.
    pub(super) fn permit(&self, object: &str, context: &RequestContext) -> Result<Option<Permit>, StorageError> {
        match self.streams.acquire(1, &context.within(MAX_PERMIT_WAIT)) {
            Ok(permit) => Ok(Some(permit)),
            Err(Stopped::Deadline) => {
                context.check().map_err(|stopped| StorageError::stopped(object, stopped))?;
                Ok(None)
            }
            Err(stopped) => Err(StorageError::stopped(object, stopped)),
        }
    }

    /// The path of an object in requests.
    pub(super) fn get_path(&self, object: &ObjectInfo) -> String {
        percent_encode(&format!("[{}]/{}", self.remote.fs, self.remote.path(&object.name)))
    }

    /// Checks that an answer is about the object that was listed. rclone before 1.64 sends no time with an object; then it is
    /// asked for.
    pub(super) fn check_version(
        &self,
        object: &ObjectInfo,
        modified: Option<i64>,
        retries: &RcloneRetries,
        context: &RequestContext,
    ) -> Result<(), RcloneFailure> {
        let Some(listed) = seconds_of(&object.version) else { return Ok(()) };
        let is_same = match modified {
            Some(seconds) => seconds == listed,
            None => {
                let parameters = serde_json::json!({
                    "fs": self.remote.fs,
                    "remote": self.remote.path(&object.name),
                    "opt": { "noMimeType": true },
                });
                let request = parameters.to_string();
                let mut answer = self.request(&object.name, &RcloneRequest::Stat(&request), retries, context)?;
                let stat = parse_stat(&mut answer.body)
                    .map_err(|error| RcloneFailure::of_json(&object.name, error, &mut answer.body))?;
                let Some(stat) = stat else { return Err(RcloneFailure::last(StorageError::missing(object))) };
                stat.version == object.version
            }
        };
        if is_same { Ok(()) } else { Err(RcloneFailure::last(StorageError::replaced(object))) }
    }
}
