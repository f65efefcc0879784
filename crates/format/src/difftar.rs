//! Names of the entries of a volume (FORMAT.md 4), and the forms in which old writers mangled them (4.3).

use super::FormatError;
use crate::{ArchivePath, PathError};

#[cfg(test)]
mod tests;

/// The size of a full part since duplicity 0.6.21; before, it varied without encryption (FORMAT.md 4).
pub const PART_SIZE: u64 = 65_536;

/// The name of a volume's entry, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiffMember {
    /// The path, raw as the entry has it: it may be mangled (see [`mangled_forms`]).
    pub path: ArchivePath,
    /// What the entry holds.
    pub kind: DiffKind,
    /// Which part of the object this is, from 1; `None` if it is whole.
    pub part: Option<u64>,
}

/// What an entry of a volume holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DiffKind {
    /// A complete object, or a part of a file's complete content.
    Snapshot,
    /// A librsync delta against the previous set's content, or a part of one.
    Diff,
    /// The path is gone since the previous set.
    Deleted,
}

/// Takes an entry's name apart. `name` is the full name from the PAX or GNU header where there is one.
///
/// # Errors
/// [`FormatError::Entry`] at offset 0 (see [`FormatError::at`]) for names that duplicity does not write, and for paths
/// that would leave the tree.
pub fn parse_member(name: &[u8]) -> Result<DiffMember, FormatError> {
    let refuse = |what| FormatError::entry(0, name, what);
    let (head, rest) = split_kind(name).ok_or_else(|| refuse("there is no '/' in it"))?;
    let (kind, multivol) = match head {
        b"snapshot" => (DiffKind::Snapshot, false),
        b"diff" => (DiffKind::Diff, false),
        b"deleted" => (DiffKind::Deleted, false),
        b"multivol_snapshot" => (DiffKind::Snapshot, true),
        b"multivol_diff" => (DiffKind::Diff, true),
        _ => return Err(refuse("its first component is no kind of change")),
    };
    let (path, part) = if multivol {
        let slash = rest.iter().rposition(|&b| b == b'/').ok_or_else(|| refuse("the part's number is missing"))?;
        let (path, number) = rest.split_at_checked(slash).unwrap_or((rest, b""));
        let number = number.get(1..).and_then(parse_part).ok_or_else(|| refuse("the part's number is not one"))?;
        (path, Some(number))
    } else {
        (rest, None)
    };
    let path = ArchivePath::parse(path).map_err(|error| refuse(path_fault(error)))?;
    Ok(DiffMember { path, kind, part })
}

/// What an [`FormatError::Entry`] says of a path that is none.
pub(super) fn path_fault(error: PathError) -> &'static str {
    match error {
        PathError::Parent => "its path has a '..' component",
        PathError::Nul => "its path holds a NUL byte",
    }
}

/// Splits an entry's name at its first slash.
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

/// The forms, other than its own bytes, under which `path` may stand in a volume (FORMAT.md 4.3). None for ASCII paths.
///
/// The signature archive has the true name; two true names may share a form. Distinct, most likely first:
/// every byte that is not UTF-8 as `?` (Python 3.6, 3.7) or U+FFFD (Python 2.7; one per byte, or one per broken sequence),
/// every non-ASCII byte as `?` (the C locale), every such byte read as Latin-1 (a Latin-1 locale).
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

/// `raw` with `mark` for each byte that is not UTF-8, or for each broken sequence.
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
