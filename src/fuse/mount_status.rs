//! The activity of a mount, as the attribute `user.dupfs.status` of its root reports it (docs/SEMANTICS.md).

use serde::{Deserialize, Serialize};

use crate::vfs::FsStatus;
use dupfs_base::{blank_display_controls, is_display_control};

/// The extended attribute of a mount's root that has the activity of the mount, as one JSON object. For the user who mounted
/// and root only, as it names files and processes. Not listed.
pub const STATUS_ATTRIBUTE: &str = "user.dupfs.status";

/// Upper bound of the bytes of the attribute; the kernel's is 64 KiB.
pub const MAX_STATUS_BYTES: usize = 60 << 10;

/// Upper bound of the entries of each list.
const MAX_ENTRIES: usize = 64;

/// Upper bound of the errors in the list of errors.
const MAX_ERRORS: usize = 10;

/// Upper bound of the bytes of one text.
const MAX_TEXT: usize = 1 << 10;

/// The activity of a mount. The keys are a contract; a later version adds to them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct MountStatus {
    /// The version of dupfs.
    pub version: String,
    /// The URL of the backup, without secrets.
    pub url: String,
    /// The mount point, as it was when the mount began.
    pub mountpoint: String,
    /// The process id of the daemon, in its own namespace.
    pub pid: u32,
    /// The beginning of the mount, in seconds since 1970.
    pub since: i64,
    /// The file system.
    #[serde(flatten)]
    pub fs: FsStatus,
    /// The requests that wait, the oldest first.
    pub waiting: Vec<WaitStatus>,
    /// Number of requests that were answered after a wait, since the mount began.
    pub answered: u64,
    /// The last failed requests, the newest one last. `user.dupfs.errors` has more of them.
    pub errors: Vec<String>,
    /// Number of entries that the lists above leave out because there are too many.
    pub left_out: u64,
}

/// A request that waits.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct WaitStatus {
    /// The operation, such as `read`.
    pub operation: String,
    /// The path in the mount.
    pub path: String,
    /// The process; `None` if it is in another namespace.
    pub pid: Option<u32>,
    /// Name of the program that the process runs.
    pub command: Option<String>,
    /// Seconds since the request came.
    pub seconds: f64,
    /// The object that it waits for; `None` while it computes.
    pub object: Option<String>,
}

impl MountStatus {
    /// The value of the attribute: JSON of at most [`MAX_STATUS_BYTES`], in one line. Entries of long lists are left out as
    /// needed, the last ones first, and of the errors the oldest ones.
    pub(super) fn encode(mut self) -> Vec<u8> {
        self.clean();
        let mut max = MAX_ENTRIES;
        loop {
            self.limit(max);
            match serde_json::to_vec(&self) {
                Ok(text) if text.len() <= MAX_STATUS_BYTES || max == 0 => return text,
                Ok(_) => max /= 4,
                // A structure of text and numbers.
                Err(error) => {
                    log::error!("the status cannot be encoded: {error}");
                    return Vec::new();
                }
            }
        }
    }

    /// Limits the length of texts that come from the store, and replaces control characters: JSON would need six bytes for each.
    fn clean(&mut self) {
        let fetched = self.fs.fetching.iter_mut().filter_map(|fetch| fetch.object.as_mut());
        let awaited = self.waiting.iter_mut().flat_map(|wait| [Some(&mut wait.path), wait.object.as_mut()]).flatten();
        let listed = self.fs.listing.error.iter_mut();
        let others = [&mut self.url, &mut self.mountpoint].into_iter().chain(&mut self.errors).chain(&mut self.fs.path);
        fetched.chain(awaited).chain(listed).chain(others).for_each(clean);
    }

    fn limit(&mut self, max: usize) {
        let before = self.entries();
        self.fs.fetching.truncate(max);
        self.waiting.truncate(max);
        let excess = self.errors.len().saturating_sub(max.min(MAX_ERRORS));
        self.errors.drain(..excess);
        let left_out = before.saturating_sub(self.entries());
        self.left_out = self.left_out.saturating_add(left_out as u64);
    }

    fn entries(&self) -> usize {
        self.fs.fetching.len() + self.waiting.len() + self.errors.len()
    }
}

fn clean(text: &mut String) {
    text.truncate(text.floor_char_boundary(MAX_TEXT));
    if text.chars().any(is_display_control) {
        *text = blank_display_controls(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vfs::FetchStatus;

    fn decoded(status: MountStatus) -> MountStatus {
        let text = status.encode();
        assert!(text.len() <= MAX_STATUS_BYTES, "{}", text.len());
        serde_json::from_slice(&text).unwrap()
    }

    #[test]
    fn a_status_is_encoded_as_it_is() {
        let wait = WaitStatus {
            operation: "read".into(),
            path: "20260101T000000Z/a".into(),
            pid: Some(7),
            command: Some("cat".into()),
            seconds: 1.5,
            object: None,
        };
        let status = MountStatus {
            url: "file:///b".into(),
            waiting: vec![wait],
            errors: vec!["an error".into()],
            ..MountStatus::default()
        };
        assert_eq!(decoded(status.clone()), status);
    }

    #[test]
    fn a_long_status_is_cut_to_its_first_entries_and_newest_errors() {
        let path = "\u{1}\"".repeat(100_000);
        let wait = |n| WaitStatus { path: path.clone(), pid: Some(n), ..WaitStatus::default() };
        let fetch = FetchStatus { object: Some(path.clone()), ..FetchStatus::default() };
        let mut status = MountStatus {
            url: path.clone(),
            waiting: (0..200).map(wait).collect(),
            errors: (0..30).map(|n| format!("{n} {path}")).collect(),
            ..MountStatus::default()
        };
        status.fs.fetching = vec![fetch; 100];
        let short = decoded(status);
        assert!(!short.waiting.is_empty() && short.waiting.len() < MAX_ENTRIES);
        assert_eq!(short.waiting[0].pid, Some(0));
        assert!(short.errors.last().unwrap().starts_with("29 "));
        let shown = short.waiting.len() + short.fs.fetching.len() + short.errors.len();
        assert_eq!(short.left_out, 330 - shown as u64);
    }
}
