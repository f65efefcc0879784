//! Times as the user types them.

use super::error::CliError;
use dupfs_format::{BackupTime, timespec};

/// The time in `text`, the value of `option`.
///
/// # Errors
/// [`CliError::Usage`] if it has none of duplicity's forms.
pub(super) fn parse(option: &str, text: &str) -> Result<BackupTime, CliError> {
    let parsed = timespec::parse_time(text, BackupTime::now(), timespec::local_standard_offset())
        .map_err(|error| CliError::Usage(format!("{option}: {error}")))?;
    if timespec::is_suspicious_epoch(text) {
        log::warn!(
            "{option} {text}: digits alone are seconds since 1970, which makes it {parsed}; write dates as 2017-01-28"
        );
    }
    Ok(parsed)
}
