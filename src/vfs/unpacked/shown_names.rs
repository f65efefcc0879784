//! Names in `unpacked/`: archives keep theirs, compressed files lose their suffix, and nothing is hidden by that.

use dupfs_format::EntryKind;
use dupfs_unpack::{ArchiveTable, NodeKey, SUFFIXES, SuffixHint, UnpackKind, suffix_hint};

/// Looks up a stored name in a directory: `Some(true)` for a regular file, `Some(false)` for anything else.
pub(super) type HasName<'a> = &'a dyn Fn(&[u8]) -> Option<bool>;

/// The meaning of a name in `unpacked/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NameMeaning {
    /// The stored object of the same name.
    Itself,
    /// The decompressed content of this stored file.
    Unpacked(Vec<u8>),
    /// A stored file with the suffix of a compressed one: the stored bytes, whether or not it is compressed. If it is, the name
    /// is not listed.
    StoredFile,
}

/// The name under which a compressed file `shape` is shown: without its suffix; where that is taken, `~` in front of the
/// suffix instead of the dot.
pub(super) fn shown(shape: &SuffixHint<'_>, has: HasName<'_>) -> Vec<u8> {
    let stem = shape.name;
    let rival = |stem: &[u8]| {
        let others = SUFFIXES.iter().map(|(suffix, _)| suffix.as_bytes()).filter(|suffix| *suffix != shape.suffix);
        has(stem).is_some() || others.into_iter().any(|suffix| has(&joined(stem, b'.', suffix)).is_some())
    };
    // No file can be called like the directory itself or the one above it.
    if !matches!(stem, b"." | b"..") && !rival(stem) {
        return stem.to_vec();
    }
    let mut name = joined(stem, b'~', shape.suffix);
    let taken = |name: &[u8]| {
        let packed = |suffix: &str| has(&joined(name, b'.', suffix.as_bytes())).is_some();
        has(name).is_some() || SUFFIXES.iter().any(|(suffix, _)| packed(suffix))
    };
    while taken(&name) {
        name.push(b'~');
    }
    name
}

/// The meaning of `name` in a directory that `has` stored names; `None` if there is none.
pub(super) fn resolve(name: &[u8], has: HasName<'_>) -> Option<NameMeaning> {
    let is_shown_as = |stored: &[u8]| {
        let compressed = |shape: &SuffixHint<'_>| matches!(shape.kind, UnpackKind::Compressed(_));
        has(stored) == Some(true)
            && suffix_hint(stored).filter(compressed).is_some_and(|shape| shown(&shape, has) == name)
    };
    for (suffix, _) in SUFFIXES {
        let stored = joined(name, b'.', suffix.as_bytes());
        if is_shown_as(&stored) {
            return Some(NameMeaning::Unpacked(stored));
        }
    }
    let end = name.iter().rposition(|&b| b != b'~').map_or(0, |last| last + 1);
    let bare = name.get(..end).unwrap_or(&[]);
    if let Some(tilde) = bare.iter().rposition(|&b| b == b'~') {
        let (stem, suffix) = (bare.get(..tilde).unwrap_or(&[]), bare.get(tilde + 1..).unwrap_or(&[]));
        let stored = joined(stem, b'.', suffix);
        if is_shown_as(&stored) {
            return Some(NameMeaning::Unpacked(stored));
        }
    }
    let is_file = has(name)?;
    Some(match suffix_hint(name).map(|shape| shape.kind) {
        Some(UnpackKind::Compressed(_)) if is_file => NameMeaning::StoredFile,
        _ => NameMeaning::Itself,
    })
}

/// The name that the stored member `name` of `dir` is shown under.
pub(super) fn shown_in(table: &ArchiveTable, dir: NodeKey, name: &[u8]) -> Vec<u8> {
    match suffix_hint(name) {
        Some(shape) if matches!(shape.kind, UnpackKind::Compressed(_)) => shown(&shape, &|n| has(table, dir, n)),
        _ => name.to_vec(),
    }
}

/// Looks up `name` in the directory `dir` of an archive: `Some(true)` for a regular file.
pub(super) fn has(table: &ArchiveTable, dir: NodeKey, name: &[u8]) -> Option<bool> {
    let key = table.child(dir, name)?;
    Some(table.entry(key).is_some_and(|entry| entry.meta.kind == EntryKind::File))
}

fn joined(stem: &[u8], point: u8, suffix: &[u8]) -> Vec<u8> {
    [stem, &[point], suffix].concat()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn shown_names(stored: &[&str]) -> Vec<(String, String)> {
        let set: BTreeSet<&[u8]> = stored.iter().map(|name| name.as_bytes()).collect();
        let has = |name: &[u8]| set.contains(name).then_some(true);
        let show = |name: &&str| {
            let shape = suffix_hint(name.as_bytes()).filter(|s| matches!(s.kind, UnpackKind::Compressed(_)));
            let shown = shape.map_or_else(|| name.as_bytes().to_vec(), |shape| shown(&shape, &has));
            ((*name).to_owned(), String::from_utf8(shown).unwrap())
        };
        stored.iter().map(show).collect()
    }

    #[test]
    fn a_suffix_stays_after_a_tilde_where_the_short_name_is_taken() {
        let shown = |stored: &[&str]| shown_names(stored).into_iter().map(|(_, shown)| shown).collect::<Vec<_>>();
        assert_eq!(shown(&["foo.sql.gz", "a.tbz2", "b.zip"]), ["foo.sql", "a.tbz2", "b.zip"]);
        assert_eq!(shown(&["foo", "foo.gz"]), ["foo", "foo~gz"]);
        assert_eq!(shown(&["foo.bz2", "foo.gz"]), ["foo~bz2", "foo~gz"]);
        assert_eq!(shown(&["foo", "foo.gz", "foo~gz"]), ["foo", "foo~gz~", "foo~gz"]);
        assert_eq!(shown(&["foo", "foo.gz", "foo~gz.xz"]), ["foo", "foo~gz~", "foo~gz"]);
        assert_eq!(shown(&["..gz", "...xz", "....gz", ".gz"]), [".~gz", "..~xz", "...", ".gz"]);
        assert_eq!(shown(&["..gz", ".~gz"]), [".~gz~", ".~gz"]);
    }

    proptest! {
        #[test]
        fn every_stored_file_has_one_unique_name_and_is_found_by_it(
            stored in proptest::collection::btree_set("[a~.]{1,2}(\\.gz|\\.bz2|~gz|~){0,3}", 1..12),
        ) {
            let stored: BTreeSet<String> = stored.into_iter().filter(|name| name != "." && name != "..").collect();
            let names: Vec<&str> = stored.iter().map(String::as_str).collect();
            let shown = shown_names(&names);
            let distinct: BTreeSet<&String> = shown.iter().map(|(_, shown)| shown).collect();
            prop_assert_eq!(distinct.len(), stored.len(), "{:?}", shown);
            prop_assert!(!shown.iter().any(|(_, shown)| shown == "." || shown == ".."), "{:?}", shown);
            let has = |name: &[u8]| stored.iter().any(|s| s.as_bytes() == name).then_some(true);
            for (stored, shown) in &shown {
                let found = resolve(shown.as_bytes(), &has);
                let wanted = if stored == shown { NameMeaning::Itself } else { NameMeaning::Unpacked(stored.as_bytes().to_vec()) };
                prop_assert_eq!(found, Some(wanted), "{} shown as {}", stored, shown);
                // Links in the backup lead to stored names.
                let by_stored_name = resolve(stored.as_bytes(), &has);
                let wanted = if stored == shown { NameMeaning::Itself } else { NameMeaning::StoredFile };
                prop_assert_eq!(by_stored_name, Some(wanted), "{} by its stored name", stored);
            }
        }
    }
}
