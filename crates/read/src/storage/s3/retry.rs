//! When to try again, how long to wait before, and when to give up.

use std::time::{Duration, Instant};

use super::failure::{FailureCause, S3Failure};
use crate::storage::StorageError;
use dupfs_base::ErrorKind;

/// Longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(4);
/// Bytes that count as progress: a body that drips slower than this in all the timer is as good as none.
const PROGRESS_BYTES: u64 = 16 * 1024;

/// The timer with one request over all its attempts.
#[derive(Debug)]
pub(super) struct RetryTimer {
    most: Duration,
    since: Instant,
    attempts: u32,
    bytes: u64,
    renewed: bool,
}

impl RetryTimer {
    /// Gives up after `most` without progress.
    pub(super) fn new(most: Duration) -> Self {
        Self { most, since: Instant::now(), attempts: 0, bytes: 0, renewed: false }
    }

    /// How long an answer may take to begin: a second attempt still fits in.
    pub(super) fn answer(&self) -> Duration {
        (self.most / 2).max(Duration::from_millis(50))
    }

    /// How long a body may stay silent: a second attempt still fits in.
    pub(super) fn stall(&self) -> Duration {
        (self.most / 3).min(Duration::from_secs(10)).max(Duration::from_millis(50))
    }

    /// Notes that `bytes` came.
    pub(super) fn progress(&mut self, bytes: u64) {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes >= PROGRESS_BYTES {
            (self.bytes, self.attempts, self.since) = (0, 0, Instant::now());
        }
    }

    /// Whether credentials may be fetched anew: once for each request.
    pub(super) fn may_renew(&mut self) -> bool {
        !std::mem::replace(&mut self.renewed, true)
    }

    /// How long to pause before the next attempt.
    ///
    /// # Errors
    /// The failure, once the timer is used up or if trying again is of no use.
    pub(super) fn pause(&mut self, failure: S3Failure) -> Result<Duration, StorageError> {
        if !failure.cause.may_pass() {
            return Err(failure.error);
        }
        self.attempts = self.attempts.saturating_add(1);
        let longest = Duration::from_millis(50).saturating_mul(1 << self.attempts.min(8)).min(LONGEST_PAUSE);
        let pause = longest.mul_f64(0.5 + 0.5 * random_fraction());
        let waited = self.since.elapsed();
        if waited + pause < self.most {
            return Ok(pause);
        }
        let StorageError { kind, object, reason } = failure.error;
        let seconds = self.most.as_secs_f64();
        let (kind, text) = match failure.cause {
            FailureCause::NoAnswer => {
                let hint = "check the network; the next read tries again";
                (ErrorKind::Timeout, format!("no answer in {seconds} s of trying ({reason}); {hint}"))
            }
            _ => (kind, format!("still failing after {seconds} s of trying: {reason}")),
        };
        Err(StorageError::new(kind, &object, text))
    }
}

/// Anything from 0 to 1: many clients must not come back at the same instant.
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
    fn pauses_grow_and_end_in_an_error_of_the_right_class() {
        let mut timer = RetryTimer::new(Duration::from_secs(60));
        let pauses: Vec<_> = (0..9).map(|_| timer.pause(failure(FailureCause::Busy)).unwrap()).collect();
        assert!(pauses[0] <= Duration::from_millis(100) && pauses[8] >= Duration::from_secs(2), "{pauses:?}");
        for (cause, kind) in [(FailureCause::NoAnswer, ErrorKind::Timeout), (FailureCause::Busy, ErrorKind::Io)] {
            let error = RetryTimer::new(Duration::ZERO).pause(failure(cause)).unwrap_err();
            assert_eq!(error.kind, kind, "{error}");
        }
        assert_eq!(&*timer.pause(failure(FailureCause::Final)).unwrap_err().reason, "broken");
    }

    #[test]
    fn a_drip_is_no_progress_and_a_stream_is() {
        let mut timer = RetryTimer::new(Duration::from_millis(30));
        std::thread::sleep(Duration::from_millis(40));
        timer.progress(100);
        assert!(timer.pause(failure(FailureCause::NoAnswer)).is_err());
        let mut timer = RetryTimer::new(Duration::from_millis(200));
        std::thread::sleep(Duration::from_millis(210));
        timer.progress(PROGRESS_BYTES);
        assert!(timer.pause(failure(FailureCause::NoAnswer)).is_ok());
    }
}
