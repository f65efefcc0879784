//! Detection of the journal of systemd at standard error.

use std::ffi::OsString;
use std::io;

/// Returns true if standard error is connected to the journal, which reads a priority at the start of each line.
pub(super) fn standard_error_is_journal() -> bool {
    let Some(stream) = std::env::var_os("JOURNAL_STREAM") else { return false };
    let Ok(stat) = rustix::fs::fstat(io::stderr()) else { return false };
    OsString::from(format!("{}:{}", stat.st_dev, stat.st_ino)) == stream
}
