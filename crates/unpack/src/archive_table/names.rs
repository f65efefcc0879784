//! Names and links as a file system can show them.

use std::borrow::Cow;

use super::member::{ArchiveEntry, MemberData};
use crate::suffix_hint::suffix_hint;
use dupfs_base::escape_bytes;
use dupfs_cache::index::Identity;
use dupfs_format::{EntryKind, EntryMeta};

/// Longest name that file systems and listings accept.
pub(super) const NAME: usize = 255;
/// Longest target of a symbolic link: with its end it fills a page.
pub(crate) const TARGET: usize = 4095;
/// Upper bound of the bytes of a path in a reason.
const MAX_PATH_IN_REASON: usize = 255;

/// The names in a member's path as GNU tar extracts it: everything before the last `..` is removed, as are empty names and `.`.
pub(crate) fn components(path: &[u8]) -> Vec<&[u8]> {
    let path = path.split(|&b| b == 0).next().unwrap_or_default();
    let names = path.split(|&b| b == b'/').rev().take_while(|name| *name != b"..");
    let mut names: Vec<&[u8]> = names.filter(|name| !matches!(*name, b"" | b".")).collect();
    names.reverse();
    names
}

/// `name` as it is shown. One that no file system accepts is shortened; a hash of all of it distinguishes it from others that
/// begin alike, and a suffix that shows the type of the file stays.
pub(super) fn shorten(name: &[u8]) -> Cow<'_, [u8]> {
    if name.len() <= NAME {
        return Cow::Borrowed(name);
    }
    let mut end = format!("~{}", Identity::of(&[name]).hex()).into_bytes();
    if let Some(shape) = suffix_hint(name) {
        end.push(b'.');
        end.extend_from_slice(shape.suffix);
    }
    let room = NAME.saturating_sub(end.len());
    // Not within a letter.
    let within = |at: usize| name.get(at).is_some_and(|b| b & 0xc0 == 0x80);
    let cut = (room.saturating_sub(3)..=room).rev().find(|&at| !within(at)).unwrap_or(room);
    Cow::Owned([name.get(..cut).unwrap_or(&[]), &end].concat())
}

/// Returns `entry`, or for a symbolic link that no file system accepts, a file that cannot be read.
pub(super) fn with_valid_target(entry: ArchiveEntry) -> ArchiveEntry {
    match &entry.meta.kind {
        EntryKind::Symlink(target) if target.len() > TARGET => {
            let reason =
                format!("a symbolic link with a target of {} bytes; at most {TARGET} are supported", target.len());
            let meta = EntryMeta { kind: EntryKind::File, ..entry.meta };
            ArchiveEntry { meta, data: MemberData::Refused(reason.into()) }
        }
        _ => entry,
    }
}

/// The entry instead of a hard link to `target` that leads nowhere.
pub(super) fn broken_link(entry: ArchiveEntry, target: &[u8]) -> ArchiveEntry {
    let more = if target.len() > MAX_PATH_IN_REASON { "..." } else { "" };
    let name = escape_bytes(target.get(..MAX_PATH_IN_REASON).unwrap_or(target));
    let reason = format!("a hard link to {name}{more}, which is not an earlier member of the archive");
    ArchiveEntry { data: MemberData::Refused(reason.into()), ..entry }
}

/// Bytes of all strings in `entry`.
pub(super) fn string_bytes(entry: &ArchiveEntry) -> usize {
    let target = match &entry.meta.kind {
        EntryKind::Symlink(target) => target.len(),
        _ => 0,
    };
    let reason = match &entry.data {
        MemberData::Refused(reason) | MemberData::Damaged(reason) => reason.len(),
        MemberData::Nothing | MemberData::Pieces { .. } | MemberData::Packed { .. } => 0,
    };
    [target, reason, entry.meta.uname.len(), entry.meta.gname.len()].into_iter().fold(0, usize::saturating_add)
}
