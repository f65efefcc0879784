//! The time that is meant by a text that has none of duplicity's forms.

use dupfs_base::escape_bytes;
use dupfs_format::timespec;

use super::similar::distance;

/// Upper bound of the length of a text that is examined.
const MAX_LEN: usize = 40;

/// Characters that a name of a snapshot (`20170128T021500Z`) may differ in.
const MAX_SLIPS: usize = 3;

/// Returns duplicity's form of the time that `text` has in another one, such as `3D` for `3 days ago`. Returns `None` if it may
/// have several meanings, or none.
pub(super) fn meant_by(text: &str) -> Option<String> {
    if text.len() > MAX_LEN {
        return None;
    }
    let words = text.trim().to_ascii_lowercase();
    let form = match words.as_str() {
        "now" | "today" | "latest" | "newest" | "last" | "current" => "now".to_owned(),
        "yesterday" => "1D".to_owned(),
        _ => interval(text).or_else(|| date(&words))?,
    };
    let is_accepted = timespec::parse_by_local_clock(&form).is_ok();
    (is_accepted && form != text).then_some(form)
}

/// Returns the one of `names` that `text` differs from least, else what [`meant_by`] returns.
pub(super) fn meant_among(text: &str, names: impl IntoIterator<Item = String>) -> Option<String> {
    nearest_name(text, names).or_else(|| meant_by(text))
}

/// Returns true if `text` may be a mistyped name of a snapshot.
pub(super) fn is_like_a_name(text: &str) -> bool {
    let digits = text.bytes().filter(u8::is_ascii_digit).count();
    let others = text.len() - digits;
    text.is_ascii() && (10..=17).contains(&digits) && others <= MAX_SLIPS
}

/// Returns the one of `names` that `text` differs from least, unless two differ equally.
pub(super) fn nearest_name(text: &str, names: impl IntoIterator<Item = String>) -> Option<String> {
    let typed = text.to_ascii_uppercase();
    let mut best: Option<(usize, String)> = None;
    let mut is_only = true;
    for name in names {
        let Some(slips) = distance(typed.as_bytes(), name.as_bytes(), MAX_SLIPS) else { continue };
        match &best {
            Some((least, _)) if *least < slips => {}
            Some((least, same)) if *least == slips => is_only &= *same == name,
            _ => (best, is_only) = (Some((slips, name)), true),
        }
    }
    best.filter(|_| is_only).map(|(_, name)| escape_bytes(name.as_bytes()))
}

/// Duplicity's form of an interval in words, such as `3 days ago`, `-2w` and `1 hour 5 minutes`.
fn interval(text: &str) -> Option<String> {
    let mut rest = text.trim().trim_start_matches('-');
    let mut form = String::new();
    loop {
        rest = rest.trim_start_matches([' ', ',']);
        let (number, after) = split_while(rest, |c| c.is_ascii_digit())?;
        let (word, after_word) = word_of(after)?;
        match (number, word.to_ascii_lowercase().as_str()) {
            ("", "") if rest.is_empty() => break,
            ("", "ago" | "and") if !form.is_empty() => rest = after_word,
            ("", "a" | "an" | "one" | "last") => {
                let (unit, after_unit) = word_of(after_word)?;
                form.push('1');
                form.push(unit_of(unit)?);
                rest = after_unit;
            }
            ("", _) => return None,
            (number, _) => {
                form.push_str(number);
                form.push(unit_of(word)?);
                rest = after_word;
            }
        }
    }
    (!form.is_empty()).then_some(form)
}

/// The first word of `text`, and what follows it.
fn word_of(text: &str) -> Option<(&str, &str)> {
    split_while(text.trim_start_matches(' '), |c| c.is_ascii_alphabetic())
}

/// The characters at the start of `text` for which `is_part` holds, and what follows them.
fn split_while(text: &str, is_part: impl Fn(char) -> bool) -> Option<(&str, &str)> {
    text.split_at_checked(text.find(|c| !is_part(c)).unwrap_or(text.len()))
}

/// duplicity's letter of a unit. Only `m` and `M` are different units.
fn unit_of(word: &str) -> Option<char> {
    Some(match word.to_ascii_lowercase().as_str() {
        "s" | "sec" | "secs" | "second" | "seconds" => 's',
        "m" => word.chars().next()?,
        "min" | "mins" | "minute" | "minutes" => 'm',
        "h" | "hr" | "hrs" | "hour" | "hours" => 'h',
        "d" | "day" | "days" => 'D',
        "w" | "week" | "weeks" => 'W',
        "mo" | "month" | "months" => 'M',
        "y" | "yr" | "year" | "years" => 'Y',
        _ => return None,
    })
}

/// duplicity's form of a date, perhaps with a time of day. `text` is in lower case.
fn date(text: &str) -> Option<String> {
    let ([year, month, day], rest) = calendar_date(text)?;
    let date = format!("{year:04}-{month:02}-{day:02}");
    let rest = rest.trim_start_matches([' ', ',']);
    if rest.is_empty() || rest == "z" {
        return Some(date);
    }
    let rest = rest.strip_prefix(['t', '_', '-', '@']).unwrap_or(rest).trim_start();
    let (hour, rest) = number(rest)?;
    let ([hour, minute, second], rest) = match (hour.len(), rest.strip_prefix([':', '.', '_'])) {
        (1 | 2, Some(rest)) => {
            let (minute, rest) = number(rest)?;
            let (second, rest) = match rest.strip_prefix([':', '.', '_']).map(number) {
                Some(second) => second?,
                None => ("0", rest),
            };
            // Fractions of a second are left out.
            let rest = rest.strip_prefix('.').map_or(Some(rest), |rest| number(rest).map(|(_, rest)| rest))?;
            ([hour, minute, second], rest)
        }
        (4 | 6, None) => ([hour.get(..2)?, hour.get(2..4)?, hour.get(4..6).unwrap_or("0")], rest),
        _ => return None,
    };
    let [hour, minute, second] = [hour, minute, second].map(|digits| digits.parse::<u8>().ok());
    let (hour, minute, second) = (hour?, minute?, second?);
    Some(format!("{date}T{hour:02}:{minute:02}:{second:02}{}", zone(rest.trim())?))
}

/// duplicity's form of a time zone. It reads `-03:30` as -02:30, so no such zone is suggested.
fn zone(text: &str) -> Option<String> {
    match text {
        "" => return Some(String::new()),
        "z" | "utc" | "gmt" => return Some("Z".to_owned()),
        _ => {}
    }
    let sign = text.chars().next().filter(|sign| matches!(sign, '+' | '-'))?;
    let digits: String = text.get(1..)?.chars().filter(|c| *c != ':').collect();
    let (hours, minutes) = match digits.len() {
        2 => (digits.as_str(), "00"),
        4 => digits.split_at_checked(2)?,
        _ => return None,
    };
    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
    (is_number && (sign == '+' || minutes == "00")).then(|| format!("{sign}{hours}:{minutes}"))
}

/// The digits at the start of `text`, and what follows them.
fn number(text: &str) -> Option<(&str, &str)> {
    split_while(text, |c| c.is_ascii_digit()).filter(|(digits, _)| !digits.is_empty())
}

/// Year, month and day at the start of `text`, and what follows them.
fn calendar_date(text: &str) -> Option<([u16; 3], &str)> {
    let (first, rest) = part(text)?;
    if let (8 | 12 | 14, true) = (first.len(), is_number(first)) {
        let [year, month, day] = [first.get(..4)?, first.get(4..6)?, first.get(6..8)?].map(|part| part.parse().ok());
        return Some(([year?, month?, day?], text.get(8..)?));
    }
    let separator = rest.chars().next().filter(|c| matches!(c, '-' | '/' | '.' | ' ' | ','))?;
    let (second, rest) = part(rest.trim_start_matches([separator, ' ']))?;
    let (third, rest) = part(rest.trim_start_matches([separator, ' ', ',']))?;
    let value = |part: &str| part.parse::<u16>().ok();
    let is_year = |part: &str| part.len() == 4 && is_number(part);
    let [year, month, day] = match (month_of(first), month_of(second)) {
        (Some(month), None) if is_year(third) => [value(third)?, month, value(second)?],
        (None, Some(month)) if is_year(third) => [value(third)?, month, value(first)?],
        (None, Some(month)) if is_year(first) => [value(first)?, month, value(third)?],
        (None, None) if is_year(first) => [value(first)?, value(second)?, value(third)?],
        (None, None) if is_year(third) => match (value(first)?, value(second)?) {
            // Dots are between day and month in all countries, other separators not.
            (day, month) if separator == '.' || day > 12 => [value(third)?, month, day],
            // The order of duplicity.
            (month, day) => [value(third)?, month, day],
        },
        _ => return None,
    };
    Some(([year, month, day], rest))
}

/// The digits or letters at the start of `text`, and what follows them. Letters end before a digit, and digits before a letter.
fn part(text: &str) -> Option<(&str, &str)> {
    let is_digit = text.starts_with(|c: char| c.is_ascii_digit());
    let is_part = |c: char| if is_digit { c.is_ascii_digit() } else { c.is_ascii_alphabetic() };
    split_while(text, is_part).filter(|(part, _)| !part.is_empty())
}

fn is_number(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}

/// The number of an English month, by its name or the first three letters of it.
fn month_of(word: &str) -> Option<u16> {
    const MONTHS: [&str; 12] = [
        "january",
        "february",
        "march",
        "april",
        "may",
        "june",
        "july",
        "august",
        "september",
        "october",
        "november",
        "december",
    ];
    let is_meant = |month: &&str| *month == word || month.get(..3) == Some(word);
    (1..).zip(&MONTHS).find(|(_, month)| is_meant(month)).map(|(number, _)| number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meant(text: &str) -> String {
        meant_by(text).unwrap_or_default()
    }

    #[test]
    fn intervals_in_words_get_duplicitys_form() {
        for (text, form) in [
            ("3d", "3D"),
            ("3d ago", "3D"),
            ("3 days ago", "3D"),
            ("3D ago", "3D"),
            ("-3D", "3D"),
            ("3D 4h", "3D4h"),
            ("1 hour and 5 minutes", "1h5m"),
            ("2w", "2W"),
            ("1y", "1Y"),
            ("6 months ago", "6M"),
            ("6mo", "6M"),
            ("90 min", "90m"),
            ("5H", "5h"),
            ("a week ago", "1W"),
            ("last month", "1M"),
            ("yesterday", "1D"),
            ("Today", "now"),
            ("NOW", "now"),
            ("latest", "now"),
        ] {
            assert_eq!(meant(text), form, "{text}");
        }
    }

    #[test]
    fn dates_in_other_forms_get_duplicitys_form() {
        for (text, form) in [
            ("20240115", "2024-01-15"),
            ("202401150215", "2024-01-15T02:15:00"),
            ("20240115021500", "2024-01-15T02:15:00"),
            ("20240115-0215", "2024-01-15T02:15:00"),
            ("20240115t021500z", "2024-01-15T02:15:00Z"),
            ("2024/01/15 02:15", "2024-01-15T02:15:00"),
            ("2024-01-15 2:15", "2024-01-15T02:15:00"),
            ("2024-01-15T02:15", "2024-01-15T02:15:00"),
            ("2024-01-15T02:15Z", "2024-01-15T02:15:00Z"),
            ("2024-01-15 02:15:00 UTC", "2024-01-15T02:15:00Z"),
            ("2024-01-15T02:15:00+0200", "2024-01-15T02:15:00+02:00"),
            ("2024-01-15T02:15:00-05", "2024-01-15T02:15:00-05:00"),
            ("2024-01-15T02:15:00.123456Z", "2024-01-15T02:15:00Z"),
            ("2024-01-15T02_15_00Z", "2024-01-15T02:15:00Z"),
            ("2024.01.15", "2024-01-15"),
            ("15.1.2024", "2024-01-15"),
            ("28/01/2017", "2017-01-28"),
            ("01/28/2017 02:15", "2017-01-28T02:15:00"),
            ("Jan 15 2024", "2024-01-15"),
            ("15 January 2024", "2024-01-15"),
            ("January 15, 2024 02:15", "2024-01-15T02:15:00"),
            ("15-Jan-2024", "2024-01-15"),
        ] {
            assert_eq!(meant(text), form, "{text}");
        }
    }

    #[test]
    fn nothing_is_suggested_for_what_has_no_meaning_or_several() {
        for text in [
            "",
            "etc",
            "1.5D",
            "3D4",
            "D",
            "ago",
            "a",
            "3 parsecs",
            "24-06-01",
            "2024-06",
            "2024-13-01",
            "2024-06-32",
            "2024-01-15T25:00",
            "2024-01-15T02:15:00-03:30",
            "2024-01-15 noon",
            "02:15",
            "\u{661}D",
            "9999999999999999999999 days",
        ] {
            assert_eq!(meant(text), "", "{text}");
        }
        // Accepted as they are.
        for text in ["now", "3D", "2024-01-15T02:15:00Z"] {
            assert_eq!(meant(text), "", "{text}");
        }
    }

    #[test]
    fn the_nearest_snapshot_is_the_one_with_the_fewest_slips() {
        let names = ["20240115T021500Z", "20240116T021500Z", "20240122T021500Z"];
        let nearest = |text: &str| nearest_name(text, names.map(str::to_owned)).unwrap_or_default();
        for (text, name) in [
            ("20240115T02150Z", "20240115T021500Z"),
            ("20240151T021500Z", "20240115T021500Z"),
            ("20240116T021500", "20240116T021500Z"),
            ("20240122t021500z", "20240122T021500Z"),
            ("2024-0122T021500Z", "20240122T021500Z"),
        ] {
            assert!(is_like_a_name(text), "{text}");
            assert_eq!(nearest(text), name, "{text}");
        }
        for text in ["2024011T021500Z", "20190301T101010Z", "20240117T021500Z"] {
            assert_eq!(nearest(text), "", "{text}");
        }
        for text in ["3D", "2024-01-15", "yesterday", "2024-01-15T02:15:00"] {
            assert!(!is_like_a_name(text), "{text}");
        }
    }
}
