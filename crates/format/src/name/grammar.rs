//! The grammar of duplicity's file names.

use super::{FileName, FileRole, NameStyle, NameSuffix, SetTimes};
use crate::civil_time::{FieldParser, take_compact, take_w3_local, take_zone};
use crate::{BackupTime, VolumeNumber};

/// The beginning of every long name.
const LONG_MARKER: &str = "duplicity-";
/// Epoch seconds from 2000 to 2100. The times of a short name after an unknown prefix must be in this range.
const PLAUSIBLE_SECONDS: std::ops::Range<i64> = 946_684_800..4_102_444_800;
/// The most characters that the time in a long name can have.
const MAX_NAME_TIME_CHARS: usize = 25;

/// The facts that a name states after its prefix.
type NameParts = (SetTimes, FileRole, NameSuffix);

/// Parses a name whose prefix is not known. Returns `None` for every name that is not duplicity's.
///
/// The long form is recognised after any prefix. The short form is ambiguous: `my.pdf.reader.m` would match. After a
/// prefix it is accepted only if the prefix ends in a character that is neither a letter nor a digit, the times lie
/// between 2000 and 2100, and the name can be read in one such way only.
pub fn parse_name(name: &str) -> Option<FileName<'_>> {
    let folded = name.to_ascii_lowercase();
    // The grammar has no free text after the marker, so at most one marker leads to a full match.
    let long = folded.match_indices(LONG_MARKER).find_map(|(at, _)| Some((at, parse_long(folded.get(at..)?)?)));
    let (at, (set, role, suffix), style) = match long {
        Some((at, found)) => (at, found, NameStyle::Long),
        None => {
            let (at, found) = find_short(&folded)?;
            (at, found, NameStyle::Short)
        }
    };
    Some(FileName { set, role, prefix: name.get(..at)?, suffix, style })
}

/// Parses a name whose prefix is known. The name must start with `prefix`, in either case, and duplicity's own name
/// must follow it directly.
pub fn parse_name_with_prefix<'a>(name: &'a str, prefix: &str) -> Option<FileName<'a>> {
    let (head, own) = name.split_at_checked(prefix.len())?;
    if !head.eq_ignore_ascii_case(prefix) {
        return None;
    }
    let folded = own.to_ascii_lowercase();
    let long = parse_long(&folded).map(|found| (found, NameStyle::Long));
    let ((set, role, suffix), style) = long.or_else(|| Some((parse_short(&folded)?, NameStyle::Short)))?;
    Some(FileName { set, role, prefix: head, suffix, style })
}

/// Finds the only position in `folded` where a short name can start, and parses that name.
fn find_short(folded: &str) -> Option<(usize, NameParts)> {
    let mut plausible = None;
    for (at, _) in folded.match_indices('d') {
        let is_boundary = folded.get(..at)?.chars().next_back().is_none_or(|before| !before.is_alphanumeric());
        let Some(found) = is_boundary.then(|| parse_short(folded.get(at..)?)).flatten() else { continue };
        let set = found.0;
        if PLAUSIBLE_SECONDS.contains(&set.end.0) && set.start.is_none_or(|start| PLAUSIBLE_SECONDS.contains(&start.0))
        {
            if plausible.is_some() {
                return None;
            }
            plausible = Some((at, found));
        }
    }
    plausible.or_else(|| Some((0, parse_short(folded)?)))
}

/// Parses a long name in lower case, from its marker to its end.
fn parse_long(text: &str) -> Option<NameParts> {
    let rest = text.strip_prefix(LONG_MARKER)?;
    let (is_signature, is_full, rest) = if let Some(rest) = rest.strip_prefix("full.") {
        (false, true, rest)
    } else if let Some(rest) = rest.strip_prefix("inc.") {
        (false, false, rest)
    } else if let Some(rest) = rest.strip_prefix("full-signatures.") {
        (true, true, rest)
    } else {
        (true, false, rest.strip_prefix("new-signatures.")?)
    };
    let (first, rest) = take_name_time(rest)?;
    let (set, rest) = if is_full {
        (SetTimes { start: None, end: first }, rest)
    } else {
        let (end, rest) = take_name_time(rest.strip_prefix(".to.")?)?;
        (SetTimes { start: Some(first), end }, rest)
    };
    if is_signature {
        return Some((set, FileRole::Signature, parse_suffix(rest.strip_prefix(".sigtar")?)?));
    }
    if let Some(rest) = rest.strip_prefix(".manifest") {
        return Some((set, FileRole::Manifest, parse_suffix(rest)?));
    }
    let (number, rest) = rest.strip_prefix(".vol")?.split_once('.')?;
    let number = parse_volume_number(number, 10)?;
    Some((set, FileRole::Volume(number), parse_suffix(rest.strip_prefix("difftar")?)?))
}

/// Parses a short name in lower case, from its first letter to its end.
fn parse_short(text: &str) -> Option<NameParts> {
    let (kind, rest) = text.split_once('.')?;
    let (is_signature, is_full) = match kind {
        "df" => (false, true),
        "di" => (false, false),
        "dfs" => (true, true),
        "dns" => (true, false),
        _ => return None,
    };
    let (first, rest) = take_base36_time(rest)?;
    let (set, rest) = if is_full {
        (SetTimes { start: None, end: first }, rest)
    } else {
        let (end, rest) = take_base36_time(rest)?;
        (SetTimes { start: Some(first), end }, rest)
    };
    if is_signature {
        return Some((set, FileRole::Signature, parse_suffix(rest.strip_prefix("st")?)?));
    }
    if let Some(suffix) = rest.strip_prefix('m').and_then(parse_suffix) {
        return Some((set, FileRole::Manifest, suffix));
    }
    let (number, rest) = rest.split_once('.')?;
    let number = parse_volume_number(number, 36)?;
    Some((set, FileRole::Volume(number), parse_suffix(rest.strip_prefix("dt")?)?))
}

/// Takes the time of a long name off lower-case `text`. Returns it and the rest.
fn take_name_time(text: &str) -> Option<(BackupTime, &str)> {
    // Both notations are ASCII except for the separator. Only as many characters as they can have are converted.
    let width = text.char_indices().nth(MAX_NAME_TIME_CHARS).map_or(text.len(), |(at, _)| at);
    let upper = text.get(..width)?.to_ascii_uppercase();
    let mut fields = FieldParser { rest: &upper };
    let seconds = match take_compact(&mut fields) {
        Some(seconds) => seconds,
        None => {
            let (time, separator) = take_w3_local(&mut fields)?;
            time.at_offset(take_zone(&mut fields, separator)?)
        }
    };
    let taken = upper.len().checked_sub(fields.rest.len())?;
    Some((BackupTime(seconds), text.get(taken..)?))
}

/// Takes a number in base 36 and the dot after it off `text`. Returns the time and the rest.
fn take_base36_time(text: &str) -> Option<(BackupTime, &str)> {
    let (digits, rest) = text.split_once('.')?;
    let seconds = parse_digits(digits, 36)?;
    Some((BackupTime(i64::try_from(seconds).ok()?), rest))
}

fn parse_volume_number(digits: &str, radix: u32) -> Option<VolumeNumber> {
    let number = u32::try_from(parse_digits(digits, radix)?).ok()?;
    (number > 0).then_some(VolumeNumber(number))
}

/// Parses a number of digits only. The parser of the standard library would accept a sign.
fn parse_digits(digits: &str, radix: u32) -> Option<u64> {
    if !digits.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return None;
    }
    u64::from_str_radix(digits, radix).ok()
}

fn parse_suffix(text: &str) -> Option<NameSuffix> {
    if text.is_empty() {
        return Some(NameSuffix::None);
    }
    let is_one_suffix = text.strip_prefix('.').is_some_and(|suffix| !suffix.contains('.'));
    Some(NameSuffix::of(text)).filter(|suffix| is_one_suffix && *suffix != NameSuffix::None)
}
