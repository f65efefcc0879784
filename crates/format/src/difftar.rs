//! Names of the entries of a volume (docs/FORMAT.md section 4), and the forms in which old writers mangled them
//! (section 4.3).

use super::FormatError;
use crate::{ArchivePath, PathError};

#[cfg(test)]
mod tests;

/// The size in bytes of every part but the last, since duplicity 0.6.21. Older versions wrote smaller parts
/// (docs/FORMAT.md section 4).
pub const PART_SIZE: u64 = 65_536;

/// The parsed name of an entry of a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiffEntryName {
    /// The path in the raw bytes of the entry. It may be mangled (see [`mangled_forms`]).
    pub path: ArchivePath,
    /// The kind of data in the entry.
    pub kind: DiffKind,
    /// The number of the part, from 1. `None` if the entry is the whole object.
    pub part: Option<u64>,
}

/// The kind of data in an entry of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DiffKind {
    /// A complete object, or a part of a file's complete content.
    Snapshot,
    /// A librsync delta against the previous set's content, or a part of one.
    Diff,
    /// A deletion: the path existed in the previous set.
    Deleted,
}

/// Parses the name of an entry. `name` is the full name, from the PAX or GNU extension header if there is one.
///
/// # Errors
/// [`FormatError::Entry`] at offset 0 (see [`FormatError::at`]) for names that duplicity does not write, and for paths
/// that would leave the tree.
pub fn parse_entry_name(name: &[u8]) -> Result<DiffEntryName, FormatError> {
    let refuse = |what| FormatError::entry(0, name, what);
    let (head, rest) = split_kind(name).ok_or_else(|| refuse("its name has no '/'"))?;
    let (kind, multivol) = match head {
        b"snapshot" => (DiffKind::Snapshot, false),
        b"diff" => (DiffKind::Diff, false),
        b"deleted" => (DiffKind::Deleted, false),
        b"multivol_snapshot" => (DiffKind::Snapshot, true),
        b"multivol_diff" => (DiffKind::Diff, true),
        _ => return Err(refuse("its first component is not a known kind of change")),
    };
    let (path, part) = if multivol {
        let slash = rest.iter().rposition(|&b| b == b'/').ok_or_else(|| refuse("the part's number is missing"))?;
        let (path, number) = rest.split_at_checked(slash).unwrap_or((rest, b""));
        let number = number.get(1..).and_then(parse_part).ok_or_else(|| refuse("the part's number is malformed"))?;
        (path, Some(number))
    } else {
        (rest, None)
    };
    let path = ArchivePath::parse(path).map_err(|error| refuse(path_fault(error)))?;
    Ok(DiffEntryName { path, kind, part })
}

/// Returns the description of an invalid path in a [`FormatError::Entry`].
pub(super) fn path_fault(error: PathError) -> &'static str {
    match error {
        PathError::Parent => "its path has a '..' component",
        PathError::Nul => "its path contains a NUL byte",
    }
}

/// Splits the name of an entry at its first slash.
pub(super) fn split_kind(name: &[u8]) -> Option<(&[u8], &[u8])> {
    let slash = name.iter().position(|&b| b == b'/')?;
    Some((name.get(..slash)?, name.get(slash + 1..)?))
}

fn parse_part(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    (number > 0).then_some(number)
}

/// Returns the forms, other than its own bytes, in which `path` may occur in a volume (docs/FORMAT.md section 4.3).
/// ASCII paths have none.
///
/// The signature archive has the true name. Two true names may share a form. The forms are distinct, and the most
/// likely come first:
///
/// - every byte that is not UTF-8 as `?` (Python 3.6 and 3.7);
/// - every such byte, or every broken sequence, as U+FFFD (Python 2.7);
/// - every non-ASCII byte as `?` (the C locale);
/// - every non-ASCII byte read as Latin-1 (a Latin-1 locale).
pub fn mangled_forms(path: &ArchivePath) -> Vec<Box<[u8]>> {
    let raw = path.as_bytes();
    if raw.is_ascii() {
        return Vec::new();
    }
    let mut forms: Vec<Box<[u8]>> = Vec::new();
    let all = [
        replace_invalid(raw, b"?", true),
        replace_invalid(raw, "\u{fffd}".as_bytes(), true),
        replace_invalid(raw, "\u{fffd}".as_bytes(), false),
        raw.iter().map(|&b| if b.is_ascii() { b } else { b'?' }).collect(),
        raw.iter().map(|&b| char::from(b)).collect::<String>().into_bytes().into_boxed_slice(),
    ];
    for form in all {
        if *form != *raw && !forms.contains(&form) {
            forms.push(form);
        }
    }
    forms
}

/// Returns `raw` with `mark` instead of each byte that is not UTF-8, or of each broken sequence.
fn replace_invalid(raw: &[u8], mark: &[u8], each_byte: bool) -> Box<[u8]> {
    let mut out = Vec::with_capacity(raw.len());
    for chunk in raw.utf8_chunks() {
        out.extend_from_slice(chunk.valid().as_bytes());
        let marks = if each_byte { chunk.invalid().len() } else { chunk.invalid().len().min(1) };
        for _ in 0..marks {
            out.extend_from_slice(mark);
        }
    }
    out.into_boxed_slice()
}
