//! Times as the user types them.

use super::error::CliError;
use super::time_suggestion;
use dupfs_base::escape_bytes;
use dupfs_format::{BackupTime, timespec};

/// The time in `text`, the value of `option`.
///
/// # Errors
/// [`CliError::Usage`] if it has none of duplicity's forms. It names the form that is probably meant.
pub(super) fn parse(option: &str, text: &str) -> Result<BackupTime, CliError> {
    parse_among(option, text, Vec::new)
}

/// The time in `text`, the value of `option`, where the name of a snapshot is likely. `names` returns those that exist; it is
/// called for a text that may be a mistyped one.
///
/// # Errors
/// [`CliError::Usage`] if it has none of duplicity's forms. It names the form or the snapshot that is probably meant.
pub(super) fn parse_among(
    option: &str,
    text: &str,
    names: impl FnOnce() -> Vec<String>,
) -> Result<BackupTime, CliError> {
    let parsed = timespec::parse_by_local_clock(text).map_err(|error| {
        let names = if time_suggestion::is_like_a_name(text) { names() } else { Vec::new() };
        CliError::Usage(match time_suggestion::meant_among(text, names) {
            Some(meant) => {
                let shown = escape_bytes(text.as_bytes());
                format!("{option}: '{shown}' is not a time that duplicity accepts; did you mean {meant}?")
            }
            None => format!("{option}: {error}"),
        })
    })?;
    if timespec::is_suspicious_epoch(text) {
        let date = time_suggestion::meant_by(text).unwrap_or_else(|| "dates as 2017-01-28".to_owned());
        log::warn!("{option} {text}: digits alone are seconds since 1970, which makes it {parsed}; write {date}");
    }
    Ok(parsed)
}
