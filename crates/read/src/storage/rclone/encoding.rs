//! The notations of requests and answers: base64, percent-encoding, dates.

/// Base64 for URLs, without padding.
pub(super) fn base64_url(bytes: &[u8]) -> String {
    encode(bytes, b'-', b'_')
}

/// Base64 with padding.
pub(super) fn base64(bytes: &[u8]) -> String {
    let mut out = encode(bytes, b'+', b'/');
    while !out.len().is_multiple_of(4) {
        out.push('=');
    }
    out
}

fn encode(bytes: &[u8], digit_62: u8, digit_63: u8) -> String {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    let digit = |bits: u32| match usize::try_from(bits & 63) {
        Ok(62) => digit_62,
        Ok(at) => DIGITS.get(at).copied().unwrap_or(digit_63),
        Err(_) => digit_63,
    };
    let mut out = String::with_capacity(bytes.len() * 4 / 3 + 4);
    for group in bytes.chunks(3) {
        let bits = group.iter().fold(0, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for at in 0..=group.len() {
            out.push(char::from(digit(bits >> (18 - 6 * at))));
        }
    }
    out
}

/// `text` with every byte percent-encoded that is not a letter, a digit, a slash or one of `-._~`.
pub(super) fn percent_encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// A point in time: seconds since 1970 and nanoseconds.
pub(super) type EpochTime = (i64, u32);

/// Parses a time of RFC 3339: `2026-11-27T13:57:54.242976772Z`, or with an offset from UTC.
pub(super) fn parse_rfc3339(text: &str) -> Option<EpochTime> {
    let (date, rest) = text.split_once(['T', 't'])?;
    let mut date = date.split('-').map(number);
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let (clock, rest) = rest.split_at_checked(8)?;
    let (fraction, zone) = match rest.strip_prefix('.') {
        Some(rest) => rest.split_at(rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len())),
        None => ("", rest),
    };
    let offset = match zone.split_at_checked(1)? {
        ("Z" | "z", "") => 0,
        (sign @ ("+" | "-"), zone) => {
            let (hours, minutes) = zone.split_once(':')?;
            let seconds = number(hours)? * 3600 + number(minutes)? * 60;
            if sign == "-" { -seconds } else { seconds }
        }
        _ => return None,
    };
    let nanos = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
    Some((seconds_of(year, month, day, clock)?.checked_sub(offset)?, nanos))
}

/// Parses the date of an HTTP header: `Fri, 27 Nov 2026 13:57:54 GMT`. Returns seconds since 1970.
pub(super) fn parse_http_date(text: &str) -> Option<i64> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let mut words = text.split_once(", ")?.1.split(' ');
    let day = number(words.next()?)?;
    let month = words.next()?;
    let month = MONTHS.iter().position(|name| *name == month)? + 1;
    let year = number(words.next()?)?;
    let seconds = seconds_of(year, i64::try_from(month).ok()?, day, words.next()?)?;
    (words.next()? == "GMT").then_some(seconds)
}

/// The seconds since 1970 of a date and a time of day `hh:mm:ss` as UTC.
fn seconds_of(year: i64, month: i64, day: i64, clock: &str) -> Option<i64> {
    let mut parts = clock.split(':').map(number);
    let (hour, minute, second) = (parts.next()??, parts.next()??, parts.next()??);
    let valid = (1..=9999).contains(&year)
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second < 61
        && parts.next().is_none();
    // The year begins in March, so that the leap day is its last one.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 719_469;
    valid.then_some(days * 86_400 + hour * 3600 + minute * 60 + second)
}

/// A number of at most nine decimal digits.
fn number(digits: &str) -> Option<i64> {
    let valid = (1..=9).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    digits.parse().ok().filter(|_| valid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_has_every_length() {
        let of = |text: &str| (base64_url(text.as_bytes()), base64(text.as_bytes()));
        for (text, plain, padded) in [
            ("", "", ""),
            ("f", "Zg", "Zg=="),
            ("fo", "Zm8", "Zm8="),
            ("foo", "Zm9v", "Zm9v"),
            ("foob", "Zm9vYg", "Zm9vYg=="),
        ] {
            assert_eq!(of(text), (plain.to_owned(), padded.to_owned()));
        }
        assert_eq!((base64_url(&[0xfb, 0xff]), base64(&[0xfb, 0xff])), ("-_8".to_owned(), "+/8=".to_owned()));
    }

    #[test]
    fn names_are_encoded_for_a_request() {
        assert_eq!(percent_encode("[a b]/x&y=z#1?%+ü"), "%5Ba%20b%5D/x%26y%3Dz%231%3F%25%2B%C3%BC");
    }

    #[test]
    fn times_of_both_notations_are_the_same() {
        let seconds = 1_795_787_874;
        assert_eq!(parse_rfc3339("2026-11-27T13:57:54.242976772Z"), Some((seconds, 242_976_772)));
        assert_eq!(parse_rfc3339("2026-11-27T13:57:54Z"), Some((seconds, 0)));
        assert_eq!(parse_rfc3339("2026-11-27T19:27:54.5+05:30"), Some((seconds, 500_000_000)));
        assert_eq!(parse_http_date("Fri, 27 Nov 2026 13:57:54 GMT"), Some(seconds));
        assert_eq!(parse_rfc3339("1970-01-01T00:00:00Z"), Some((0, 0)));
        assert_eq!(parse_rfc3339("2000-02-29T00:00:00Z"), Some((951_782_400, 0)));
        assert_eq!(parse_rfc3339("2001-01-01T00:00:00-01:00"), Some((978_310_800, 0)));
        for wrong in ["", "2026-11-27", "2026-11-27T13:57:54", "2026-13-27T13:57:54Z", "T::Z", "2026-11-27T13:57:54+1"]
        {
            assert_eq!(parse_rfc3339(wrong), None, "{wrong}");
        }
        for wrong in ["", "Fri, 27 Nov 2026", "Fri, 27 Nov 2026 13:57:54 CET", "27 Nov 2026 13:57:54 GMT"] {
            assert_eq!(parse_http_date(wrong), None, "{wrong}");
        }
    }
}
