//! Logs failed requests: each once, and the same message at most once a minute.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::vfs::FsError;
use dupfs_base::sync::lock;
use dupfs_base::{ErrorKind, blank_display_controls, without_errno};

use super::recent_errors::RecentErrors;

/// A message that was logged is not logged again for this long.
const REPEAT_INTERVAL: Duration = Duration::from_secs(60);

/// Upper bound of the messages that are remembered; when it is reached, all are removed and may be logged again.
const MAX_MESSAGES: usize = 1024;

/// The log of failed requests.
#[derive(Debug, Default)]
pub(super) struct FailureLog {
    messages: Mutex<HashMap<String, LoggedMessage>>,
    recent: RecentErrors,
}

#[derive(Debug)]
struct LoggedMessage {
    logged: Instant,
    suppressed: u64,
}

impl FailureLog {
    /// Logs that `op` on `path` (with the snapshot in front) failed with `error`, unless it is a regular answer (a name that
    /// does not exist), the request was cancelled, or the same message was logged within the last minute.
    pub(super) fn note(&self, op: &str, path: &str, error: &FsError) {
        let line = describe(op, path, error);
        if !is_failure(error) {
            log::debug!("{line}");
            return;
        }
        let Some(suppressed) = self.admit(&error.to_string(), Instant::now()) else { return };
        match suppressed {
            0 => log::error!("{line}"),
            n => log::error!("{line} ({n} more of these since the last line)"),
        }
        let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ");
        let errno = errno_name(error.errno());
        self.recent.add(format!("{now} {errno} {}", without_control_characters(&line)));
    }

    /// The last failed requests, one line each, the newest one last.
    pub(super) fn recent(&self) -> String {
        self.recent.text()
    }

    /// Returns how many copies of `message` were suppressed since the last one was logged, or `None` to suppress this one.
    fn admit(&self, message: &str, now: Instant) -> Option<u64> {
        let message = &*without_distance(message);
        let mut messages = lock(&self.messages);
        if let Some(earlier) = messages.get_mut(message) {
            if now.saturating_duration_since(earlier.logged) < REPEAT_INTERVAL {
                earlier.suppressed = earlier.suppressed.saturating_add(1);
                return None;
            }
            earlier.logged = now;
            return Some(std::mem::take(&mut earlier.suppressed));
        }
        if messages.len() >= MAX_MESSAGES {
            messages.clear();
        }
        messages.insert(message.to_owned(), LoggedMessage { logged: now, suppressed: 0 });
        Some(0)
    }
}

/// The failure in one line. Many errors begin with the path in the snapshot, which is not repeated.
fn describe(op: &str, path: &str, error: &FsError) -> String {
    let error = error.to_string();
    let in_snapshot = path.split_once('/').map_or(path, |(_, path)| path);
    let own = error.strip_prefix(in_snapshot).and_then(|rest| rest.strip_prefix(": "));
    format!("{op} of {path}: {}", own.unwrap_or(&error))
}

/// The message without the number of bytes that were read before the damage: it varies with the readahead.
fn without_distance(message: &str) -> Cow<'_, str> {
    let parts = message.split_once(" (found ").and_then(|(before, rest)| {
        let (number, after) = rest.split_once(" bytes into it)")?;
        number.bytes().all(|byte| byte.is_ascii_digit()).then(|| format!("{before}{after}"))
    });
    parts.map_or(Cow::Borrowed(message), Cow::Owned)
}

fn without_control_characters(line: &str) -> String {
    blank_display_controls(&without_errno(line))
}

/// The name of an errno that [`FsError::errno`] gives.
fn errno_name(errno: i32) -> String {
    match errno {
        libc::EIO => "EIO".to_owned(),
        libc::EACCES => "EACCES".to_owned(),
        libc::ENOKEY => "ENOKEY".to_owned(),
        libc::ETIMEDOUT => "ETIMEDOUT".to_owned(),
        libc::EREMOTE => "EREMOTE".to_owned(),
        libc::EOPNOTSUPP => "EOPNOTSUPP".to_owned(),
        libc::EAGAIN => "EAGAIN".to_owned(),
        other => other.to_string(),
    }
}

/// Returns true for errors that mean that something is wrong. A cancelled request has no reader, and proves nothing about
/// the store.
fn is_failure(error: &FsError) -> bool {
    match error {
        // Of the last, readahead: no process sees it.
        FsError::NotDir | FsError::IsDir | FsError::BeyondEnd => false,
        FsError::WouldBlock => true,
        FsError::Failed { kind, .. } => {
            !matches!(kind, ErrorKind::NotFound | ErrorKind::Invalid | ErrorKind::Cancelled)
        }
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
    fn the_number_of_bytes_read_makes_no_other_message() {
        let failures = FailureLog::default();
        let now = Instant::now();
        let message = |object: &str, read: u64| format!("{object}: damaged: x (found {read} bytes into it); use y");
        assert_eq!(failures.admit(&message("vol1", 131_072), now), Some(0));
        assert_eq!(failures.admit(&message("vol1", 524_288), now), None);
        assert_eq!(failures.admit(&message("vol2", 131_072), now), Some(0));
    }

    #[test]
    fn a_failure_is_logged_once_with_its_path_and_can_be_queried() {
        let failures = FailureLog::default();
        let damaged = |text: &str| FsError::failed(ErrorKind::Corrupt, text);
        failures.note("read", "20260121T021500Z/srv/x", &damaged("srv/x: vol1 is damaged"));
        failures.note("read", "20260121T021500Z/srv/x", &damaged("srv/x: vol1 is damaged"));
        failures.note("readdir", "20260121T021500Z/srv", &damaged("vol2 is\nlost"));
        failures.note("lookup", "20260121T021500Z/srv", &FsError::not_found());
        let lines = failures.recent();
        let lines: Vec<&str> = lines.lines().map(|line| line.split_once(' ').unwrap().1).collect();
        let expected = [
            "EIO read of 20260121T021500Z/srv/x: vol1 is damaged",
            "EIO readdir of 20260121T021500Z/srv: vol2 is lost",
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn memory_of_messages_is_bounded() {
        let failures = FailureLog::default();
        let now = Instant::now();
        for n in 0..10 * MAX_MESSAGES {
            failures.admit(&n.to_string(), now);
        }
        assert!(lock(&failures.messages).len() <= MAX_MESSAGES);
    }

    #[test]
    fn a_cancelled_request_is_not_a_failure() {
        assert!(!is_failure(&FsError::failed(ErrorKind::Cancelled, "the request was interrupted")));
        assert!(is_failure(&FsError::failed(ErrorKind::Timeout, "no result before the deadline")));
    }

    #[test]
    fn a_name_that_does_not_exist_is_not_a_failure() {
        assert!(!is_failure(&FsError::not_found()));
        assert!(is_failure(&FsError::failed(ErrorKind::Corrupt, "vol1 is damaged")));
    }
}
