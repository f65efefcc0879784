//! Time strings as duplicity takes them for `--time` (FORMAT.md 7).

use super::FormatError;
use super::stamp::{Civil, Cursor, take_compact, take_w3_local, take_zone};
use crate::BackupTime;
use dupfs_base::escape_bytes;

#[cfg(test)]
mod tests;

/// The moment that `text` means, by duplicity's rules.
///
/// `now` is the current time; `standard_offset_seconds_east` the zone's offset without summer time, which is what duplicity
/// reads local times and dates in, also in summer (see [`local_standard_offset`]). Case matters. In this order:
/// `now`; digits only are epoch seconds; `YYYYMMDDTHHMMSSZ`; `YYYY-MM-DDTHH:MM:SS` with `Z`, `+hh:mm`, `-hh:mm` or, in
/// local time, nothing; `YYYYMMDDTHHMMSS` where local time is UTC; intervals before now (`3D`, `1h78m`, with `s m h D W M Y`, a month 30 days, a year 365);
/// `YYYY-MM-DD`, `MM-DD-YYYY` (also with `/` and single digits) and `YYYYMMDDZ` are local midnight.
///
/// A zone `-hh:mm` with minutes is decoded as duplicity does, as minus the hours plus the minutes (FORMAT.md 1).
///
/// # Errors
/// [`FormatError::Time`] for all that duplicity refuses, and for moments that no 64-bit second counts.
pub fn parse_time(text: &str, now: BackupTime, standard_offset_seconds_east: i32) -> Result<BackupTime, FormatError> {
    let refuse = |why| FormatError::Time { text: escape_bytes(text.as_bytes()), why };
    if text == "now" {
        return Ok(now);
    }
    if is_digits(text) {
        return text.parse().map(BackupTime).map_err(|_| refuse("the number of seconds is too large"));
    }
    // duplicity writes its zone into the string in whole minutes and reads it back.
    let local = i64::from(standard_offset_seconds_east).div_euclid(60) * 60;
    if let Some(seconds) = parse_stamp(text, local).or_else(|| parse_date(text, local)) {
        return Ok(BackupTime(seconds));
    }
    match parse_interval(text) {
        Some(Some(seconds)) => {
            now.0.checked_sub(seconds).map(BackupTime).ok_or_else(|| refuse("the interval is too long"))
        }
        Some(None) => Err(refuse("the interval is too long")),
        None => Err(refuse("duplicity does not know this form")),
    }
}

/// Whether `text`, which [`parse_time`] takes as epoch seconds, was probably meant as a date: `20240601` is a day in
/// August 1970 to duplicity. For a warning.
pub fn is_suspicious_epoch(text: &str) -> bool {
    let mut cursor = Cursor { rest: text };
    let year = cursor.digits(4).filter(|year| (1970..2100).contains(year));
    let (true, Some(year)) = (is_digits(text), year) else { return false };
    let month = cursor.digits(2);
    let day = cursor.digits(2);
    match (text.len(), month, day) {
        (4, _, _) => true,
        (8 | 12 | 14, Some(month), Some(day)) => Civil::new([year, month, day], [0; 3]).is_some(),
        _ => false,
    }
}

/// The local zone's offset without summer time in seconds east of UTC, as Python's `time.timezone` has it: the smaller of the
/// offsets at the start and the middle of the current year. UTC where the zone is not known.
pub fn local_standard_offset() -> i32 {
    standard_offset(&jiff::tz::TimeZone::system(), jiff::Timestamp::now())
}

fn standard_offset(zone: &jiff::tz::TimeZone, now: jiff::Timestamp) -> i32 {
    // Python counts years of 365.25 days from the epoch, and so does this.
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

/// A date with a time of day, in either notation.
fn parse_stamp(text: &str, local: i64) -> Option<i64> {
    let mut cursor = Cursor { rest: text };
    if let Some(seconds) = take_compact(&mut cursor) {
        return cursor.rest.is_empty().then_some(seconds);
    }
    // duplicity tries a string without a zone again with the local one behind it, which is `Z` for UTC.
    if let (0, 15) = (local, text.len()) {
        return take_compact(&mut Cursor { rest: &format!("{text}Z") });
    }
    let (civil, separator) = take_w3_local(&mut cursor)?;
    if separator != ':' {
        return None;
    }
    let offset = if cursor.rest.is_empty() { local } else { take_zone(&mut cursor, ':')? };
    cursor.rest.is_empty().then(|| civil.at_offset(offset))
}

/// A date alone: midnight at the offset `local`.
fn parse_date(text: &str, local: i64) -> Option<i64> {
    let date = match text.strip_suffix('Z') {
        Some(digits) if digits.len() == 8 => {
            let mut cursor = Cursor { rest: digits };
            [cursor.digits(4)?, cursor.digits(2)?, cursor.digits(2)?]
        }
        Some(_) => return None,
        None => {
            let mut fields =
                text.split(['-', '/']).map(|field| (field.len(), Cursor { rest: field }.digits(field.len())));
            let (Some(a), Some(b), Some(c), None) = (fields.next(), fields.next(), fields.next(), fields.next()) else {
                return None;
            };
            match (a, b, c) {
                ((4, Some(year)), (1 | 2, Some(month)), (1 | 2, Some(day)))
                | ((1 | 2, Some(month)), (1 | 2, Some(day)), (4, Some(year))) => [year, month, day],
                _ => return None,
            }
        }
    };
    Civil::new(date, [0; 3]).map(|civil| civil.at_offset(local))
}

/// The length of an interval in seconds; `Some(None)` if it overflows, `None` if it is no interval.
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
