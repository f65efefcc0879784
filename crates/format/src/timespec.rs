//! Time strings as duplicity accepts them for `--time` (docs/FORMAT.md section 7).

use super::FormatError;
use crate::BackupTime;
use crate::civil_time::{CivilTime, FieldParser, take_compact, take_w3_local, take_zone};
use dupfs_base::escape_bytes;

#[cfg(test)]
mod tests;

/// Returns the time that `text` means by duplicity's rules.
///
/// `now` is the current time. `standard_offset_seconds_east` is the offset of the local zone without summer time, in
/// which duplicity reads local times and dates, also in summer (see [`parse_by_local_clock`]). Upper and lower case
/// differ. The forms, in the order in which they are tried:
///
/// - `now`;
/// - digits only: epoch seconds;
/// - `YYYYMMDDTHHMMSSZ`; also without the `Z` if local time is UTC;
/// - `YYYY-MM-DDTHH:MM:SS` with `Z`, `+hh:mm`, `-hh:mm` or, for local time, nothing;
/// - `YYYY-MM-DD` and `MM-DD-YYYY`, also with `/` and with single digits, and `YYYYMMDDZ`: local midnight;
/// - intervals before now, such as `3D` and `1h78m`, with the units `s m h D W M Y`; a month has 30 days, a year 365.
///
/// A zone `-hh:mm` with minutes is decoded as duplicity does, as minus the hours plus the minutes (docs/FORMAT.md
/// section 1).
///
/// # Errors
/// [`FormatError::Time`] for every form that duplicity refuses, and for times beyond 64-bit seconds.
pub fn parse_time(text: &str, now: BackupTime, standard_offset_seconds_east: i32) -> Result<BackupTime, FormatError> {
    let refuse = |reason| FormatError::Time { text: escape_bytes(text.as_bytes()), reason };
    if text == "now" {
        return Ok(now);
    }
    if is_digits(text) {
        return text.parse().map(BackupTime).map_err(|_| refuse("the number of seconds is too large"));
    }
    // duplicity formats its zone in whole minutes and parses the result.
    let local = i64::from(standard_offset_seconds_east).div_euclid(60) * 60;
    if let Some(seconds) = parse_stamp(text, local).or_else(|| parse_date(text, local)) {
        return Ok(BackupTime(seconds));
    }
    match parse_interval(text) {
        Some(Some(seconds)) => {
            now.0.checked_sub(seconds).map(BackupTime).ok_or_else(|| refuse("the interval is too long"))
        }
        Some(None) => Err(refuse("the interval is too long")),
        None => Err(refuse("duplicity does not accept this form")),
    }
}

/// Returns the time that `text` means now on this machine: [`parse_time`] by its clock and its zone without summer
/// time.
///
/// # Errors
/// Those of [`parse_time`].
pub fn parse_by_local_clock(text: &str) -> Result<BackupTime, FormatError> {
    parse_time(text, BackupTime::now(), local_standard_offset())
}

/// Returns true if [`parse_time`] takes `text` as epoch seconds although it looks like a date: to duplicity, `20240601`
/// is a day in August 1970. Callers use this for a warning.
pub fn is_suspicious_epoch(text: &str) -> bool {
    let mut fields = FieldParser { rest: text };
    let year = fields.digits(4).filter(|year| (1970..2100).contains(year));
    let (true, Some(year)) = (is_digits(text), year) else { return false };
    let month = fields.digits(2);
    let day = fields.digits(2);
    match (text.len(), month, day) {
        (4, _, _) => true,
        (8 | 12 | 14, Some(month), Some(day)) => CivilTime::new([year, month, day], [0; 3]).is_some(),
        _ => false,
    }
}

/// Returns the offset of the local zone without summer time, in seconds east of UTC, like Python's `time.timezone`: the
/// smaller of the offsets at the start and in the middle of the current year. Returns 0 if the zone is not known.
fn local_standard_offset() -> i32 {
    standard_offset(&jiff::tz::TimeZone::system(), jiff::Timestamp::now())
}

fn standard_offset(zone: &jiff::tz::TimeZone, now: jiff::Timestamp) -> i32 {
    // Like Python, which counts years of 365.25 days from the epoch.
    const YEAR: i64 = 31_557_600;
    let january = now.as_second().div_euclid(YEAR) * YEAR;
    [january, january + YEAR / 2]
        .into_iter()
        .filter_map(|second| Some(zone.to_offset(jiff::Timestamp::from_second(second).ok()?).seconds()))
        .min()
        .unwrap_or(0)
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

/// Parses a date with a time of day, in either notation.
fn parse_stamp(text: &str, local: i64) -> Option<i64> {
    let mut fields = FieldParser { rest: text };
    if let Some(seconds) = take_compact(&mut fields) {
        return fields.rest.is_empty().then_some(seconds);
    }
    // duplicity appends the local zone to a string without one and tries again. For UTC that is `Z`.
    if let (0, 15) = (local, text.len()) {
        return take_compact(&mut FieldParser { rest: &format!("{text}Z") });
    }
    let (time, separator) = take_w3_local(&mut fields)?;
    if separator != ':' {
        return None;
    }
    let offset = if fields.rest.is_empty() { local } else { take_zone(&mut fields, ':')? };
    fields.rest.is_empty().then(|| time.at_offset(offset))
}

/// Parses a date without a time of day: midnight at the offset `local`.
fn parse_date(text: &str, local: i64) -> Option<i64> {
    let date = match text.strip_suffix('Z') {
        Some(digits) if digits.len() == 8 => {
            let mut fields = FieldParser { rest: digits };
            [fields.digits(4)?, fields.digits(2)?, fields.digits(2)?]
        }
        Some(_) => return None,
        None => {
            let mut parts =
                text.split(['-', '/']).map(|part| (part.len(), FieldParser { rest: part }.digits(part.len())));
            let (Some(a), Some(b), Some(c), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
                return None;
            };
            match (a, b, c) {
                ((4, Some(year)), (1 | 2, Some(month)), (1 | 2, Some(day)))
                | ((1 | 2, Some(month)), (1 | 2, Some(day)), (4, Some(year))) => [year, month, day],
                _ => return None,
            }
        }
    };
    CivilTime::new(date, [0; 3]).map(|time| time.at_offset(local))
}

/// Returns the length of an interval in seconds. Returns `Some(None)` if it overflows, and `None` if `text` is no
/// interval.
fn parse_interval(text: &str) -> Option<Option<i64>> {
    let mut total = Some(0_i64);
    let mut rest = text;
    while !rest.is_empty() {
        let unit_at = rest.find(|c: char| !c.is_ascii_digit()).filter(|&at| at > 0)?;
        let (digits, tail) = rest.split_at_checked(unit_at)?;
        let mut chars = tail.chars();
        let unit = match chars.next()? {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'D' => 86_400,
            'W' => 7 * 86_400,
            'M' => 30 * 86_400,
            'Y' => 365 * 86_400,
            _ => return None,
        };
        let count: Option<i64> = digits.parse().ok();
        total = total.zip(count).and_then(|(sum, count)| count.checked_mul(unit)?.checked_add(sum));
        rest = chars.as_str();
    }
    (!text.is_empty()).then_some(total)
}
