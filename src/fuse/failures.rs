//! The one place where a failed request is logged: once, and the same message not more than once a minute.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::vfs::FsError;
use dupfs_base::ErrorKind;

use super::lock;

/// How long a message that was logged stays silent when it comes again.
const QUIET: Duration = Duration::from_secs(60);

/// How many messages are remembered; when there are more, all are forgotten and may be logged again.
const REMEMBERED: usize = 1024;

/// Logs failures at the edge to the kernel.
#[derive(Debug, Default)]
pub(super) struct FailureLog {
    seen: Mutex<HashMap<String, Seen>>,
}

#[derive(Debug)]
struct Seen {
    logged: Instant,
    since: u64,
}

impl FailureLog {
    /// Logs that `op` on `ino` failed with `error`, unless it is an answer rather than a failure (a name that does not
    /// exist) or was logged within the last minute.
    pub(super) fn note(&self, op: &str, ino: u64, error: &FsError) {
        if !is_failure(error) {
            log::debug!("{op} of inode {ino}: {error}");
            return;
        }
        match self.admit(&error.to_string(), Instant::now()) {
            Some(0) => log::error!("{op} of inode {ino}: {error}"),
            Some(n) => log::error!("{op} of inode {ino}: {error} ({n} more of these since the last line)"),
            None => {}
        }
    }

    /// Whether `message` is to be logged at `now`: how many were suppressed since the last time, or `None` for silence.
    fn admit(&self, message: &str, now: Instant) -> Option<u64> {
        let mut seen = lock(&self.seen);
        if let Some(earlier) = seen.get_mut(message) {
            if now.saturating_duration_since(earlier.logged) < QUIET {
                earlier.since = earlier.since.saturating_add(1);
                return None;
            }
            earlier.logged = now;
            return Some(std::mem::take(&mut earlier.since));
        }
        if seen.len() >= REMEMBERED {
            seen.clear();
        }
        seen.insert(message.to_owned(), Seen { logged: now, since: 0 });
        Some(0)
    }
}

fn is_failure(error: &FsError) -> bool {
    match error {
        FsError::NotDir | FsError::IsDir => false,
        FsError::WouldBlock => true,
        FsError::Failed { kind, .. } => !matches!(kind, ErrorKind::NotFound | ErrorKind::Invalid),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_message_is_logged_once_a_minute_with_a_count() {
        let failures = FailureLog::default();
        let start = Instant::now();
        assert_eq!(failures.admit("vol1 is damaged", start), Some(0));
        assert_eq!(failures.admit("vol1 is damaged", start + Duration::from_secs(1)), None);
        assert_eq!(failures.admit("vol2 is damaged", start + Duration::from_secs(2)), Some(0));
        assert_eq!(failures.admit("vol1 is damaged", start + Duration::from_secs(59)), None);
        assert_eq!(failures.admit("vol1 is damaged", start + Duration::from_secs(60)), Some(2));
        assert_eq!(failures.admit("vol1 is damaged", start + Duration::from_secs(121)), Some(0));
    }

    #[test]
    fn memory_of_messages_is_bounded() {
        let failures = FailureLog::default();
        let now = Instant::now();
        for n in 0..10 * REMEMBERED {
            failures.admit(&n.to_string(), now);
        }
        assert!(lock(&failures.seen).len() <= REMEMBERED);
    }

    #[test]
    fn a_name_that_does_not_exist_is_an_answer_and_no_failure() {
        assert!(!is_failure(&FsError::not_found()));
        assert!(is_failure(&FsError::failed(ErrorKind::Corrupt, "vol1 is damaged")));
    }
}
