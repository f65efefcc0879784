//! The pauses between the attempts of a request, and the time at which it fails.

use std::time::{Duration, Instant};

use super::MAX_CONNECTIONS;
use super::failure::{RcloneCause, RcloneFailure};
use super::http::PROGRESS_BYTES;
use crate::storage::{ReadTimeout, StorageError};
use dupfs_base::sync::pause_until;
use dupfs_base::{ErrorKind, RequestContext};

/// Upper bound of the pause between two attempts.
const MAX_PAUSE: Duration = Duration::from_secs(4);
/// The pause after the failure of a connection that rclone had kept, and upper bound of such pauses: rclone keeps one for each
/// stream that was read at the same time, and some for listings. After more of them the service ends the new ones too.
const STALE_PAUSE: Duration = Duration::from_millis(20);
const MAX_STALE: u32 = 2 * MAX_CONNECTIONS;
/// Upper bound of the attempts while a store is being opened: a wrong configuration should be reported soon.
const MAX_OPENING_ATTEMPTS: u32 = 2;

/// Times one request over all its attempts.
#[derive(Debug)]
pub(super) struct RcloneRetries {
    timeout: Duration,
    /// The same while the service does not answer; `None` for the timeout.
    unanswered: Option<ReadTimeout>,
    /// The time of the last progress.
    since: Instant,
    attempts: u32,
    stale: u32,
    bytes: u64,
    /// True if the store is being opened.
    opening: bool,
}

impl RcloneRetries {
    /// A request that fails after `timeout` without progress.
    pub(super) fn new(timeout: Duration, opening: bool) -> Self {
        Self { timeout, unanswered: None, since: Instant::now(), attempts: 0, stale: 0, bytes: 0, opening }
    }

    /// As [`Self::new`] for a read of an object, which fails after `unanswered` if the service does not answer.
    pub(super) fn of_read(timeout: Duration, unanswered: ReadTimeout) -> Self {
        Self { unanswered: Some(unanswered), ..Self::new(timeout, false) }
    }

    /// Upper bound of the time until an answer begins. rclone may have to connect first.
    pub(super) fn answer_timeout(&self) -> Duration {
        self.timeout.max(Duration::from_millis(50))
    }

    /// Upper bound of the time without a byte of a body. A second attempt fits into the timeout.
    pub(super) fn stall_timeout(&self) -> Duration {
        (self.timeout / 3).clamp(Duration::from_millis(50), Duration::from_secs(10))
    }

    /// Records that `bytes` were received.
    pub(super) fn progress(&mut self, bytes: u64) {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes >= PROGRESS_BYTES {
            (self.bytes, self.attempts, self.stale, self.since) = (0, 0, 0, Instant::now());
        }
    }

    /// Excludes `time` from the time without progress: bytes arrived in it, but none of the requested part.
    pub(super) fn exclude(&mut self, time: Duration) {
        self.since = self.since.checked_add(time).unwrap_or(self.since);
    }

    /// Waits before the next attempt.
    ///
    /// # Errors
    /// The failure, if the timeout is over or another attempt is of no use; or the end of the request.
    pub(super) fn pause(&mut self, failure: RcloneFailure, context: &RequestContext) -> Result<(), StorageError> {
        let is_transient = match failure.cause {
            RcloneCause::Busy | RcloneCause::NoAnswer | RcloneCause::Stale => true,
            RcloneCause::NoService | RcloneCause::Closed => !self.opening,
            RcloneCause::Final | RcloneCause::Absent | RcloneCause::OutOfRange => false,
        };
        let is_stale = failure.cause == RcloneCause::Stale && self.stale < MAX_STALE;
        let counter = if is_stale { &mut self.stale } else { &mut self.attempts };
        *counter = counter.saturating_add(1);
        if !is_transient || (self.opening && self.attempts >= MAX_OPENING_ATTEMPTS) {
            return Err(failure.error);
        }
        let growing = Duration::from_millis(50).saturating_mul(1 << self.attempts.min(8)).min(MAX_PAUSE);
        let pause = if is_stale { STALE_PAUSE } else { growing };
        let timeout = match (failure.cause, &self.unanswered) {
            (RcloneCause::NoAnswer | RcloneCause::NoService, Some(unanswered)) => unanswered.get().max(self.timeout),
            _ => self.timeout,
        };
        if self.since.elapsed() + pause >= timeout {
            return Err(given_up(failure, timeout));
        }
        log::debug!("{}; retrying in {} ms", failure.error, pause.as_millis());
        pause_until(Instant::now() + pause, context)
            .map_err(|stopped| StorageError::stopped(&failure.error.object, stopped))
    }
}

/// The error after retries for `timeout`.
fn given_up(failure: RcloneFailure, timeout: Duration) -> StorageError {
    let StorageError { kind, object, reason, .. } = failure.error;
    let seconds = timeout.as_secs_f64();
    let (kind, text) = match failure.cause {
        RcloneCause::NoAnswer => (
            ErrorKind::Timeout,
            format!("no answer within {seconds} s ({reason}); check the network, and try again later"),
        ),
        _ => (kind, format!("still failing after {seconds} s of retries: {reason}")),
    };
    let unanswered = matches!(failure.cause, RcloneCause::NoAnswer | RcloneCause::NoService);
    StorageError { unanswered, ..StorageError::new(kind, &object, text) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dupfs_base::CancelToken;

    fn failure(cause: RcloneCause) -> RcloneFailure {
        RcloneFailure { error: StorageError::new(ErrorKind::Io, "o", "broken"), cause }
    }

    #[test]
    fn transient_failures_are_retried_until_the_timeout() {
        let context = RequestContext::unlimited();
        let mut retries = RcloneRetries::new(Duration::from_millis(400), false);
        for cause in [RcloneCause::Busy, RcloneCause::Closed] {
            retries.pause(failure(cause), &context).unwrap();
        }
        let error = retries.pause(failure(RcloneCause::NoAnswer), &context).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Timeout, "{error}");
        // A command reads nothing more.
        assert!(error.reason.ends_with("; check the network, and try again later"), "{error}");
        retries.progress(PROGRESS_BYTES);
        retries.pause(failure(RcloneCause::NoService), &context).unwrap();
        let error = retries.pause(failure(RcloneCause::Final), &context).unwrap_err();
        assert_eq!(&*error.reason, "broken");
    }

    #[test]
    fn the_time_of_bytes_that_are_discarded_is_no_time_without_progress() {
        let context = RequestContext::unlimited();
        let mut retries = RcloneRetries::new(Duration::from_secs(30), false);
        retries.since = retries.since.checked_sub(Duration::from_secs(60)).unwrap();
        assert!(retries.pause(failure(RcloneCause::Busy), &context).is_err());
        retries.exclude(Duration::from_secs(59));
        retries.pause(failure(RcloneCause::Busy), &context).unwrap();
        assert_eq!(retries.attempts, 2, "the pauses go on growing");
    }

    #[test]
    fn a_read_of_a_service_that_does_not_answer_outlives_an_outage() {
        let context = RequestContext::unlimited();
        let unanswered = ReadTimeout::new(Duration::ZERO);
        let mut retries = RcloneRetries::of_read(Duration::ZERO, unanswered.clone());
        assert!(retries.pause(failure(RcloneCause::NoAnswer), &context).is_err());
        unanswered.set(Duration::from_secs(1800));
        for cause in [RcloneCause::NoAnswer, RcloneCause::NoService] {
            retries.pause(failure(cause), &context).unwrap();
        }
        let busy = retries.pause(failure(RcloneCause::Busy), &context);
        assert!(busy.is_err(), "a service that answers is retried for the timeout only");
        unanswered.set(Duration::ZERO);
        let error = retries.pause(failure(RcloneCause::NoAnswer), &context).unwrap_err();
        assert!(error.unanswered && error.reason.starts_with("no answer within 0 s"), "{error}");
        assert_eq!(retries.answer_timeout(), Duration::from_millis(50), "each attempt is as short as before");
    }

    #[test]
    fn a_store_that_is_being_opened_reports_a_wrong_place_soon() {
        let context = RequestContext::unlimited();
        let opening = || RcloneRetries::new(Duration::from_secs(60), true);
        assert!(opening().pause(failure(RcloneCause::NoService), &context).is_err());
        let mut busy = opening();
        assert!(busy.pause(failure(RcloneCause::Busy), &context).is_ok());
        assert!(busy.pause(failure(RcloneCause::Busy), &context).is_err());
    }

    #[test]
    fn connections_that_are_dead_are_tried_one_after_the_other_without_growing_pauses() {
        let context = RequestContext::unlimited();
        let mut retries = RcloneRetries::new(Duration::from_secs(60), false);
        (0..MAX_STALE).for_each(|_| retries.pause(failure(RcloneCause::Stale), &context).unwrap());
        assert_eq!(
            (retries.attempts, retries.stale),
            (0, MAX_STALE),
            "the next pause of another kind is as short as the first"
        );
        retries.pause(failure(RcloneCause::Stale), &context).unwrap();
        assert_eq!(retries.attempts, 1, "a service that ends every connection is asked more and more rarely");
    }

    #[test]
    fn a_pause_ends_with_its_request() {
        let token = CancelToken::new();
        token.cancel();
        let mut retries = RcloneRetries::new(Duration::from_secs(60), false);
        let error = retries.pause(failure(RcloneCause::Busy), &RequestContext::new(None, token)).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Cancelled);
    }
}
