//! File names of a repository (FORMAT.md 1 and 10.1).
//!
//! A name is accepted only if all of it follows the grammar: what stands after `difftar`, `manifest` or `sigtar` is nothing or a
//! known suffix. That alone keeps out par2 files, `.part` files, jsonstat files and half-written copies, which duplicity's
//! own looser patterns let in. Letters match in either case, since some stores fold it.

use super::FormatError;
use super::stamp::{Cursor, take_compact, take_w3_local, take_zone};
use crate::{BackupTime, VolumeNumber};

#[cfg(test)]
mod tests;

/// What every long name has before its kind.
const LONG_MARKER: &str = "duplicity-";
/// Epoch seconds from 2000 to 2100: what a short name's times must lie in where its prefix is only guessed.
const PLAUSIBLE: std::ops::Range<i64> = 946_684_800..4_102_444_800;

/// A file name of duplicity's, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileName {
    /// What the file is, and of which backup set.
    pub kind: NameKind,
    /// What precedes duplicity's own name (`--file-prefix` and the prefix of the kind); may hold `/`; mostly empty.
    pub prefix: String,
    /// The encoding that the name announces. The content must agree with it; without a suffix the content decides
    /// (FORMAT.md 1).
    pub suffix: Suffix,
    /// Whether it is a long or a short name.
    pub style: Style,
}

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum NameKind {
    /// A volume of a backup set.
    Volume {
        /// The set's times.
        set: SetTimes,
        /// The volume's number.
        number: VolumeNumber,
    },
    /// The manifest of a backup set.
    Manifest {
        /// The set's times.
        set: SetTimes,
    },
    /// The signature archive of a backup set.
    Signature {
        /// The set's times.
        set: SetTimes,
    },
}

impl NameKind {
    /// The times of the set that the file belongs to.
    pub fn set(&self) -> SetTimes {
        match *self {
            Self::Volume { set, .. } | Self::Manifest { set } | Self::Signature { set } => set,
        }
    }
}

/// The times that identify a backup set. Parsed, since neighbours may print one time with different zones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SetTimes {
    /// The time of the set that an increment builds on; `None` for a full set.
    pub start: Option<BackupTime>,
    /// The set's own time.
    pub end: BackupTime,
}

impl SetTimes {
    /// Whether it is a full set.
    pub fn is_full(&self) -> bool {
        self.start.is_none()
    }
}

/// The encoding that a name announces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Suffix {
    /// No suffix: plain, or gzip by duplicity before 0.7.06.
    None,
    /// `.gz` or `.z`.
    Gzip,
    /// `.gpg` or `.g`.
    OpenPgp,
    /// `.p7m`, written by gpgsm; not read by dupfs.
    Cms,
}

impl Suffix {
    /// The suffix at the end of `name`, in either case: some stores fold it.
    pub fn of(name: &str) -> Self {
        let last = name.rsplit_once('.').map_or("", |(_, last)| last);
        match &*last.to_ascii_lowercase() {
            "gz" | "z" => Self::Gzip,
            "gpg" | "g" => Self::OpenPgp,
            "p7m" => Self::Cms,
            _ => Self::None,
        }
    }

    /// Returns true if an object with this suffix is encrypted.
    pub fn is_encrypted(self) -> bool {
        matches!(self, Self::OpenPgp | Self::Cms)
    }
}

/// How a name is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Style {
    /// `duplicity-full.20261122T122614Z.vol1.difftar`, or with W3C times as `--old-filenames` wrote them.
    Long,
    /// `df.towm5d.1.dt`, as `--short-filenames` wrote it.
    Short,
}

impl FileName {
    /// Refuses what dupfs cannot read by its name.
    ///
    /// # Errors
    /// [`FormatError::Cms`] for `.p7m`; `name` is what the message shows.
    pub fn check_supported(&self, name: &str) -> Result<(), FormatError> {
        match self.suffix {
            Suffix::Cms => Err(FormatError::Cms { name: name.to_owned() }),
            Suffix::None | Suffix::Gzip | Suffix::OpenPgp => Ok(()),
        }
    }
}

/// The prefixes that a user gave, one for each kind of file (`--file-prefix`, `--file-prefix-archive`, ...).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prefixes {
    /// Precedes all names.
    pub common: String,
    /// Follows `common` in the names of volumes.
    pub archive: String,
    /// Follows `common` in the names of manifests.
    pub manifest: String,
    /// Follows `common` in the names of signature archives.
    pub signature: String,
}

impl Prefixes {
    /// Parses `name` if it has exactly the prefix that its kind must have.
    pub fn parse(&self, name: &str) -> Option<FileName> {
        [&self.archive, &self.manifest, &self.signature].into_iter().enumerate().find_map(|(slot, own)| {
            let found = parse_name_with(name, &format!("{}{own}", self.common))?;
            let its_slot = match found.kind {
                NameKind::Volume { .. } => 0,
                NameKind::Manifest { .. } => 1,
                NameKind::Signature { .. } => 2,
            };
            (slot == its_slot).then_some(found)
        })
    }
}

/// Parses a name whose prefix is not known; `None` for everything that is not duplicity's.
///
/// The long form is found behind any prefix. The short form has nothing unmistakable in it (`my.pdf.reader.m` would be
/// one), so behind a prefix it is taken only if the prefix ends in a character that is neither letter nor digit, the
/// times lie between 2000 and 2100, and there is one such reading only.
pub fn parse_name(name: &str) -> Option<FileName> {
    let folded = name.to_ascii_lowercase();
    // The grammar has no free text after the marker, so at most one marker leads to a full match.
    let long = folded.match_indices(LONG_MARKER).find_map(|(at, _)| Some((at, parse_long(folded.get(at..)?)?)));
    let (at, (kind, suffix), style) = match long {
        Some((at, found)) => (at, found, Style::Long),
        None => {
            let (at, found) = find_short(&folded)?;
            (at, found, Style::Short)
        }
    };
    Some(FileName { kind, prefix: name.get(..at)?.to_owned(), suffix, style })
}

/// Parses a name whose prefix is known: `prefix` is taken off literally (or, for stores that fold it, in another case),
/// and nothing else may precede duplicity's name.
pub fn parse_name_with(name: &str, prefix: &str) -> Option<FileName> {
    let (head, own) = name.split_at_checked(prefix.len())?;
    if !head.eq_ignore_ascii_case(prefix) {
        return None;
    }
    let folded = own.to_ascii_lowercase();
    let long = parse_long(&folded).map(|found| (found, Style::Long));
    let ((kind, suffix), style) = long.or_else(|| Some((parse_short(&folded)?, Style::Short)))?;
    Some(FileName { kind, prefix: head.to_owned(), suffix, style })
}

/// The one place in `folded` where a short name may start, and what it says.
fn find_short(folded: &str) -> Option<(usize, (NameKind, Suffix))> {
    let mut plausible = None;
    for (at, _) in folded.match_indices('d') {
        let boundary = folded.get(..at)?.chars().next_back().is_none_or(|before| !before.is_alphanumeric());
        let Some(found) = boundary.then(|| parse_short(folded.get(at..)?)).flatten() else { continue };
        let set = found.0.set();
        if PLAUSIBLE.contains(&set.end.0) && set.start.is_none_or(|start| PLAUSIBLE.contains(&start.0)) {
            if plausible.is_some() {
                return None;
            }
            plausible = Some((at, found));
        }
    }
    plausible.or_else(|| Some((0, parse_short(folded)?)))
}

/// A long name from its marker to its end; lower-cased.
fn parse_long(text: &str) -> Option<(NameKind, Suffix)> {
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
        return Some((NameKind::Signature { set }, parse_suffix(rest.strip_prefix(".sigtar")?)?));
    }
    if let Some(rest) = rest.strip_prefix(".manifest") {
        return Some((NameKind::Manifest { set }, parse_suffix(rest)?));
    }
    let (number, rest) = rest.strip_prefix(".vol")?.split_once('.')?;
    let number = volume_number(number, 10)?;
    Some((NameKind::Volume { set, number }, parse_suffix(rest.strip_prefix("difftar")?)?))
}

/// A short name from its first letter to its end; lower-cased.
fn parse_short(text: &str) -> Option<(NameKind, Suffix)> {
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
        return Some((NameKind::Signature { set }, parse_suffix(rest.strip_prefix("st")?)?));
    }
    if let Some(suffix) = rest.strip_prefix('m').and_then(parse_suffix) {
        return Some((NameKind::Manifest { set }, suffix));
    }
    let (number, rest) = rest.split_once('.')?;
    let number = volume_number(number, 36)?;
    Some((NameKind::Volume { set, number }, parse_suffix(rest.strip_prefix("dt")?)?))
}

/// A time as long names have it, at the front of lower-cased `text`, and what follows it.
fn take_name_time(text: &str) -> Option<(BackupTime, &str)> {
    // Both notations are ASCII but for the separator, and at most 25 characters; only these are upper-cased.
    let width = text.char_indices().nth(25).map_or(text.len(), |(at, _)| at);
    let upper = text.get(..width)?.to_ascii_uppercase();
    let mut cursor = Cursor { rest: &upper };
    let seconds = match take_compact(&mut cursor) {
        Some(seconds) => seconds,
        None => {
            let (civil, separator) = take_w3_local(&mut cursor)?;
            civil.at_offset(take_zone(&mut cursor, separator)?)
        }
    };
    let taken = upper.len().checked_sub(cursor.rest.len())?;
    Some((BackupTime(seconds), text.get(taken..)?))
}

/// A base 36 number and the dot behind it.
fn take_base36_time(text: &str) -> Option<(BackupTime, &str)> {
    let (digits, rest) = text.split_once('.')?;
    let seconds = parse_digits(digits, 36)?;
    Some((BackupTime(i64::try_from(seconds).ok()?), rest))
}

fn volume_number(digits: &str, radix: u32) -> Option<VolumeNumber> {
    let number = u32::try_from(parse_digits(digits, radix)?).ok()?;
    (number > 0).then_some(VolumeNumber(number))
}

/// Digits only: the standard library's parser would let a sign pass.
fn parse_digits(digits: &str, radix: u32) -> Option<u64> {
    if !digits.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return None;
    }
    u64::from_str_radix(digits, radix).ok()
}

fn parse_suffix(text: &str) -> Option<Suffix> {
    let known = |suffix: &Suffix| *suffix != Suffix::None && text.strip_prefix('.').is_some_and(|s| !s.contains('.'));
    if text.is_empty() { Some(Suffix::None) } else { Some(Suffix::of(text)).filter(known) }
}
