//! Calendar times, and the two notations in which duplicity writes them: `YYYYMMDDTHHMMSSZ` and W3C.
//!
//! Fields are checked as duplicity checks them (`dup_time.py`): every month may have 31 days and every minute 62
//! seconds. A day or second too many counts as one of the next month or minute.

/// A valid date and time of day, without a time zone.
#[derive(Clone, Copy)]
pub(super) struct CivilTime {
    /// The epoch seconds of the fields as UTC.
    seconds: i64,
}

impl CivilTime {
    /// Returns `None` unless the fields are in duplicity's ranges: years 1901 to 2099, seconds up to 61.
    pub(super) fn new(date: [u32; 3], time: [u32; 3]) -> Option<Self> {
        let [year, month, day] = date;
        let [hour, minute, second] = time;
        let valid = (1901..2100).contains(&year)
            && (1..=12).contains(&month)
            && (1..=31).contains(&day)
            && hour <= 23
            && minute <= 59
            && second <= 61;
        let days = days_before_month(year, month) + i64::from(day) - 1;
        let seconds = days * 86_400 + i64::from(hour * 3600 + minute * 60 + second);
        valid.then_some(Self { seconds })
    }

    /// Returns the epoch seconds if the fields are read as UTC.
    pub(super) fn utc(self) -> i64 {
        self.seconds
    }

    /// Returns the epoch seconds if the fields are read at `offset` seconds east of UTC.
    pub(super) fn at_offset(self, offset: i64) -> i64 {
        self.seconds - offset
    }
}

/// Returns the days from 1970-01-01 to the first day of a month of the Gregorian calendar, for years from 1.
fn days_before_month(year: u32, month: u32) -> i64 {
    // Years start in March here, so that the leap day is the last day of a year.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year.saturating_sub(1), month + 9) };
    let year = i64::from(year);
    let day_of_year = (153 * i64::from(month) + 2) / 5;
    year * 365 + year / 4 - year / 100 + year / 400 + day_of_year - 719_468
}

/// A parser of fixed-width fields. Each method takes a field off the front of `rest`.
#[derive(Clone, Copy)]
pub(super) struct FieldParser<'a> {
    pub(super) rest: &'a str,
}

impl FieldParser<'_> {
    /// Takes exactly `width` ASCII digits (at most 9) as a number.
    pub(super) fn digits(&mut self, width: usize) -> Option<u32> {
        let (head, tail) = self.rest.split_at_checked(width)?;
        if !head.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        self.rest = tail;
        head.parse().ok()
    }

    /// Takes the next character.
    pub(super) fn any(&mut self) -> Option<char> {
        let mut chars = self.rest.chars();
        let next = chars.next()?;
        self.rest = chars.as_str();
        Some(next)
    }

    /// Takes the next character if it is `wanted`.
    pub(super) fn char(&mut self, wanted: char) -> Option<()> {
        self.rest = self.rest.strip_prefix(wanted)?;
        Some(())
    }
}

/// Takes `YYYYMMDDTHHMMSSZ`, in upper case only, and returns its epoch seconds.
pub(super) fn take_compact(fields: &mut FieldParser<'_>) -> Option<i64> {
    let mut at = *fields;
    let date = [at.digits(4)?, at.digits(2)?, at.digits(2)?];
    at.char('T')?;
    let time = [at.digits(2)?, at.digits(2)?, at.digits(2)?];
    at.char('Z')?;
    *fields = at;
    CivilTime::new(date, time).map(CivilTime::utc)
}

/// Takes `YYYY-MM-DDTHH:MM:SS`. Any character that is neither letter nor digit may replace the colon; it is returned
/// too.
pub(super) fn take_w3_local(fields: &mut FieldParser<'_>) -> Option<(CivilTime, char)> {
    let mut at = *fields;
    let year = at.digits(4)?;
    at.char('-')?;
    let month = at.digits(2)?;
    at.char('-')?;
    let date = [year, month, at.digits(2)?];
    at.char('T')?;
    let hour = at.digits(2)?;
    let separator = at.any().filter(|c| !c.is_ascii_alphanumeric())?;
    let minute = at.digits(2)?;
    at.char(separator)?;
    let time = [hour, minute, at.digits(2)?];
    *fields = at;
    Some((CivilTime::new(date, time)?, separator))
}

/// Takes `Z`, `+hh:mm` or `-hh:mm` and returns the seconds east of UTC as duplicity decodes them.
///
/// duplicity rounds a negative zone down when it prints it, so -03:30 becomes `-04:30`. It decodes such a zone as minus
/// the hours plus the minutes (docs/FORMAT.md section 1). Both signs therefore add the minutes here.
pub(super) fn take_zone(fields: &mut FieldParser<'_>, separator: char) -> Option<i64> {
    let mut at = *fields;
    let sign = at.any()?;
    let offset = if sign == 'Z' {
        0
    } else {
        let hours = i64::from(at.digits(2)?);
        at.char(separator)?;
        let minutes = i64::from(at.digits(2)?);
        match sign {
            '+' => 3600 * hours + 60 * minutes,
            '-' => -3600 * hours + 60 * minutes,
            _ => return None,
        }
    };
    *fields = at;
    Some(offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_calendar_agrees_with_jiff() {
        for day in (-25_000..47_000_i64).step_by(13) {
            let expected =
                jiff::Timestamp::from_second(day * 86_400 + 3_661).unwrap().to_zoned_datetime(jiff::tz::TimeZone::UTC);
            let field = |n: i8| u32::try_from(n).unwrap();
            let date = [u32::try_from(expected.year()).unwrap(), field(expected.month()), field(expected.day())];
            let time = [field(expected.hour()), field(expected.minute()), field(expected.second())];
            let ours = CivilTime::new(date, time).map(CivilTime::utc);
            assert_eq!(ours, (1901..2100).contains(&date[0]).then_some(day * 86_400 + 3_661), "{expected}");
        }
    }

    #[test]
    fn excess_days_and_seconds_count_as_the_next_ones() {
        let may_31 = CivilTime::new([2024, 4, 31], [0, 0, 0]).unwrap().utc();
        assert_eq!(may_31, CivilTime::new([2024, 5, 1], [0, 0, 0]).unwrap().utc());
        assert!(CivilTime::new([2024, 4, 32], [0, 0, 0]).is_none());
        assert!(CivilTime::new([2024, 4, 1], [24, 0, 0]).is_none());
        assert!(CivilTime::new([2024, 4, 1], [23, 59, 61]).is_some());
    }
}
