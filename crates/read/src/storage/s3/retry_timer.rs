//! The delays between the attempts of a request, and the time at which it fails.

use std::time::{Duration, Instant};

use super::failure::{FailureCause, S3Failure};
use crate::storage::{ReadTimeout, StorageError};
use dupfs_base::ErrorKind;

/// Upper bound of the delay between two attempts.
const MAX_DELAY: Duration = Duration::from_secs(4);
/// Bytes that count as progress: a slower body counts as one without progress.
const PROGRESS_BYTES: u64 = 16 * 1024;

/// Times one request over all its attempts. The attempts are spaced by exponential backoff with jitter.
#[derive(Debug)]
pub(super) struct RetryTimer {
    timeout: Duration,
    /// The same while the service does not answer; `None` for the timeout.
    unanswered: Option<ReadTimeout>,
    /// The time of the last progress.
    since: Instant,
    attempts: u32,
    bytes: u64,
    renewed: bool,
}

impl RetryTimer {
    /// A request that fails after `timeout` without progress.
    pub(super) fn new(timeout: Duration) -> Self {
        Self { timeout, unanswered: None, since: Instant::now(), attempts: 0, bytes: 0, renewed: false }
    }

    /// As [`Self::new`] for a read of an object, which fails after `unanswered` if the service does not answer.
    pub(super) fn of_read(timeout: Duration, unanswered: ReadTimeout) -> Self {
        Self { unanswered: Some(unanswered), ..Self::new(timeout) }
    }

    /// Upper bound of the time until an answer begins. A second attempt fits into the timeout.
    pub(super) fn answer_timeout(&self) -> Duration {
        (self.timeout / 2).max(Duration::from_millis(50))
    }

    /// Upper bound of the time between two chunks of a body. A second attempt fits into the timeout.
    pub(super) fn stall_timeout(&self) -> Duration {
        (self.timeout / 3).min(Duration::from_secs(10)).max(Duration::from_millis(50))
    }

    /// Records that `bytes` were received.
    pub(super) fn progress(&mut self, bytes: u64) {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes >= PROGRESS_BYTES {
            (self.bytes, self.attempts, self.since) = (0, 0, Instant::now());
        }
    }

    /// Returns true if the credentials may be renewed: once for each request.
    pub(super) fn may_renew(&mut self) -> bool {
        !std::mem::replace(&mut self.renewed, true)
    }

    /// The delay before the next attempt.
    ///
    /// # Errors
    /// The failure, if the timeout is over or another attempt is of no use.
    pub(super) fn next_delay(&mut self, failure: S3Failure) -> Result<Duration, StorageError> {
        if !failure.cause.is_transient() {
            return Err(failure.error);
        }
        self.attempts = self.attempts.saturating_add(1);
        let max_delay = Duration::from_millis(50).saturating_mul(1 << self.attempts.min(8)).min(MAX_DELAY);
        let delay = max_delay.mul_f64(0.5 + 0.5 * random_fraction());
        let waited = self.since.elapsed();
        let timeout = match (&failure.cause, &self.unanswered) {
            (FailureCause::NoAnswer | FailureCause::NoService, Some(unanswered)) => unanswered.get().max(self.timeout),
            _ => self.timeout,
        };
        if waited + delay < timeout {
            return Ok(delay);
        }
        let StorageError { kind, object, reason, .. } = failure.error;
        let seconds = timeout.as_secs_f64();
        let (kind, text) = match failure.cause {
            FailureCause::NoAnswer => {
                let hint = "check the endpoint and the network, and try again later";
                (ErrorKind::Timeout, format!("no answer within {seconds} s ({reason}); {hint}"))
            }
            _ => (kind, format!("still failing after {seconds} s of retries: {reason}")),
        };
        let unanswered = matches!(failure.cause, FailureCause::NoAnswer | FailureCause::NoService);
        Err(StorageError { unanswered, ..StorageError::new(kind, &object, text) })
    }
}

/// A random number from 0 to 1, so that many clients do not retry at the same instant.
fn random_fraction() -> f64 {
    getrandom::u32().map_or(0.5, |random| f64::from(random) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(cause: FailureCause) -> S3Failure {
        S3Failure { error: StorageError::new(ErrorKind::Io, "o", "broken"), cause }
    }

    #[test]
    fn delays_grow_and_end_in_an_error_of_the_right_kind() {
        let mut timer = RetryTimer::new(Duration::from_secs(60));
        let delays: Vec<_> = (0..9).map(|_| timer.next_delay(failure(FailureCause::Busy)).unwrap()).collect();
        assert!(delays[0] <= Duration::from_millis(100) && delays[8] >= Duration::from_secs(2), "{delays:?}");
        for (cause, kind) in [(FailureCause::NoAnswer, ErrorKind::Timeout), (FailureCause::Busy, ErrorKind::Io)] {
            let error = RetryTimer::new(Duration::ZERO).next_delay(failure(cause)).unwrap_err();
            assert_eq!(error.kind, kind, "{error}");
        }
        assert_eq!(&*timer.next_delay(failure(FailureCause::Final)).unwrap_err().reason, "broken");
    }

    #[test]
    fn a_read_of_a_service_that_does_not_answer_outlives_an_outage() {
        let unanswered = ReadTimeout::new(Duration::ZERO);
        let mut timer = RetryTimer::of_read(Duration::ZERO, unanswered.clone());
        assert!(timer.next_delay(failure(FailureCause::NoAnswer)).is_err());
        unanswered.set(Duration::from_secs(1800));
        for cause in [FailureCause::NoAnswer, FailureCause::NoService] {
            assert!(timer.next_delay(failure(cause)).is_ok());
        }
        assert!(
            timer.next_delay(failure(FailureCause::Busy)).is_err(),
            "a service that answers is retried for the timeout only"
        );
        assert_eq!(timer.answer_timeout(), Duration::from_millis(50), "each attempt is as short as before");
    }

    #[test]
    fn a_few_bytes_are_no_progress_and_a_stream_is() {
        let mut timer = RetryTimer::new(Duration::from_millis(30));
        std::thread::sleep(Duration::from_millis(40));
        timer.progress(100);
        assert!(timer.next_delay(failure(FailureCause::NoAnswer)).is_err());
        let mut timer = RetryTimer::new(Duration::from_millis(200));
        std::thread::sleep(Duration::from_millis(210));
        timer.progress(PROGRESS_BYTES);
        assert!(timer.next_delay(failure(FailureCause::NoAnswer)).is_ok());
    }
}
