//! Calendar arithmetic and the two time notations that duplicity writes: `YYYYMMDDTHHMMSSZ` and W3C.
//!
//! Calendar fields are checked as duplicity checks them (`dup_time.py`): the 31st of any month and seconds up to 61 pass and run
//! over into the next month or minute.

/// A date and a time of day that were checked.
#[derive(Clone, Copy)]
pub(super) struct Civil {
    seconds: i64,
}

impl Civil {
    /// `None` unless the fields are in duplicity's ranges: years 1901 to 2099, seconds up to 61.
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

    /// Epoch seconds if the fields are read as UTC.
    pub(super) fn utc(self) -> i64 {
        self.seconds
    }

    /// Epoch seconds if the fields are read at `offset` seconds east of UTC.
    pub(super) fn at_offset(self, offset: i64) -> i64 {
        self.seconds - offset
    }
}

/// Days from 1970-01-01 to the first of a month of the Gregorian calendar; years from 1.
fn days_before_month(year: u32, month: u32) -> i64 {
    // Years start in March here, so that the leap day is the last day of a year.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year.saturating_sub(1), month + 9) };
    let year = i64::from(year);
    let day_of_year = (153 * i64::from(month) + 2) / 5;
    year * 365 + year / 4 - year / 100 + year / 400 + day_of_year - 719_468
}

/// Takes fixed-width fields off the front of a string.
#[derive(Clone, Copy)]
pub(super) struct Cursor<'a> {
    pub(super) rest: &'a str,
}

impl Cursor<'_> {
    /// Exactly `width` ASCII digits (at most 9) as a number.
    pub(super) fn digits(&mut self, width: usize) -> Option<u32> {
        let (head, tail) = self.rest.split_at_checked(width)?;
        if !head.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        self.rest = tail;
        head.parse().ok()
    }

    /// The next character, whatever it is.
    pub(super) fn any(&mut self) -> Option<char> {
        let mut chars = self.rest.chars();
        let next = chars.next()?;
        self.rest = chars.as_str();
        Some(next)
    }

    /// The next character if it is `wanted`.
    pub(super) fn char(&mut self, wanted: char) -> Option<()> {
        self.rest = self.rest.strip_prefix(wanted)?;
        Some(())
    }
}

/// `YYYYMMDDTHHMMSSZ` at the front of `cursor`, in epoch seconds; upper case only.
pub(super) fn take_compact(cursor: &mut Cursor<'_>) -> Option<i64> {
    let mut at = *cursor;
    let date = [at.digits(4)?, at.digits(2)?, at.digits(2)?];
    at.char('T')?;
    let time = [at.digits(2)?, at.digits(2)?, at.digits(2)?];
    at.char('Z')?;
    *cursor = at;
    Civil::new(date, time).map(Civil::utc)
}

/// `YYYY-MM-DDTHH:MM:SS` at the front of `cursor`, with any one character in the colons' place, which is returned too.
pub(super) fn take_w3_local(cursor: &mut Cursor<'_>) -> Option<(Civil, char)> {
    let mut at = *cursor;
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
    *cursor = at;
    Some((Civil::new(date, time)?, separator))
}

/// `Z`, `+hh:mm` or `-hh:mm` at the front of `cursor`: seconds east of UTC as duplicity decodes them.
///
/// duplicity prints a negative zone by flooring, -03:30 as `-04:30`, and decodes it as minus the hours plus the minutes
/// (FORMAT.md 1), so both signs add the minutes here.
pub(super) fn take_zone(cursor: &mut Cursor<'_>, separator: char) -> Option<i64> {
    let mut at = *cursor;
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
    *cursor = at;
    Some(offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calendar_agrees_with_an_independent_one() {
        for day in (-25_000..47_000_i64).step_by(13) {
            let civil = jiff::Timestamp::from_second(day * 86_400 + 3_661).unwrap().to_zoned(jiff::tz::TimeZone::UTC);
            let field = |n: i8| u32::try_from(n).unwrap();
            let date = [u32::try_from(civil.year()).unwrap(), field(civil.month()), field(civil.day())];
            let time = [field(civil.hour()), field(civil.minute()), field(civil.second())];
            let ours = Civil::new(date, time).map(Civil::utc);
            assert_eq!(ours, (1901..2100).contains(&date[0]).then_some(day * 86_400 + 3_661), "{civil}");
        }
    }

    #[test]
    fn fields_run_over_as_duplicity_lets_them() {
        let may_31 = Civil::new([2024, 4, 31], [0, 0, 0]).unwrap().utc();
        assert_eq!(may_31, Civil::new([2024, 5, 1], [0, 0, 0]).unwrap().utc());
        assert!(Civil::new([2024, 4, 32], [0, 0, 0]).is_none());
        assert!(Civil::new([2024, 4, 1], [24, 0, 0]).is_none());
        assert!(Civil::new([2024, 4, 1], [23, 59, 61]).is_some());
    }
}
