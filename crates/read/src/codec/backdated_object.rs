//! An object that is older than its name states.

use std::sync::Arc;

use dupfs_format::BackupTime;

/// Seconds by which the clock of the machine may have been set back during a backup.
const ALLOWANCE: i64 = 86_400;

/// An object that was written before the time of the set that its name states.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackdatedObject {
    /// The object's name.
    pub object: Arc<str>,
    /// The time of its set, by its name.
    pub set_time: BackupTime,
    /// The time at which it was encrypted or signed.
    pub written: BackupTime,
}

impl BackdatedObject {
    /// Returns the finding if `object`, `written` at that time, is older than its set.
    pub(super) fn find(object: &Arc<str>, set_time: BackupTime, written: BackupTime) -> Option<Self> {
        let is_before = written.0 < set_time.0.saturating_sub(ALLOWANCE);
        is_before.then(|| Self { object: Arc::clone(object), set_time, written })
    }

    /// Returns the finding and its meaning, in one line without the name.
    pub fn finding(&self) -> String {
        format!(
            "written at {}, before the time {} in its name: the set was renamed, or an old one was put in its place",
            self.written, self.set_time
        )
    }
}
