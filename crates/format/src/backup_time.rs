//! The time of a backup set.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

/// The time of a backup set: whole seconds since 1970-01-01 UTC.
///
/// It is displayed as duplicity writes it in file names: `YYYYMMDDTHHMMSSZ`. A time that no calendar reaches is
/// displayed as `@SECONDS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BackupTime(pub i64);

impl BackupTime {
    /// Returns the current time of the system clock.
    pub fn now() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        // A clock beyond the range of times shows the last of them.
        Self(i64::try_from(now).unwrap_or(i64::MAX))
    }
}

impl fmt::Display for BackupTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_second(self.0) {
            Ok(t) => write!(f, "{}", t.strftime("%Y%m%dT%H%M%SZ")),
            Err(_) => write!(f, "@{}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_displayed_as_in_file_names() {
        assert_eq!(BackupTime(1_485_569_700).to_string(), "20170128T021500Z");
        assert_eq!(BackupTime(i64::MAX).to_string(), "@9223372036854775807");
    }
}
