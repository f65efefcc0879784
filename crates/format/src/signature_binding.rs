//! The binding of a signature archive to the manifest of its set.
//!
//! A manifest has hashes of the volumes but none of the signature archive, so anyone who can write to the store can put
//! the archive of another set of the same backup in its place. A manifest also states which paths its set has: the ends
//! of the volumes, and since duplicity 0.7.03 the list of changed files. An archive of the set agrees with both.

use std::fmt;

use crate::ArchivePath;
use crate::manifest::{ChangedFiles, Manifest};
use crate::sigtar::SigChange;

/// The paths of a signature archive, compared with a manifest.
///
/// An archive of the same run as the manifest always agrees. These facts are compared:
///
/// - The archive of a full set deletes nothing, and has the directory of each of its paths.
/// - No path is beyond the end of the last volume.
/// - The first and the last path of every volume is in the archive. This is not required of a resumed run, whose
///   archive describes a later state of the source than the first volumes (docs/FORMAT.md section 2.3). A run with one
///   volume was not resumed. Others are compared only if the version of duplicity shows a resumed run in the manifest, as
///   those before the list of changed files do.
/// - The signed files are the new and changed files of the list, if the manifest has one. `--no-files-changed` leaves it
///   empty.
#[derive(Debug)]
pub struct SignatureBinding<'m> {
    /// The greatest end of a volume, if paths can be compared with it.
    end: Option<&'m ArchivePath>,
    /// The first path beyond `end`.
    beyond: Option<ArchivePath>,
    /// The paths at the ends of volumes, in order, each once, with true for those that were found.
    boundaries: Vec<(&'m ArchivePath, bool)>,
    listed: Option<ChangedFiles>,
    signed: ChangedFiles,
    is_full: bool,
    /// The path before, in the archive of a full set.
    previous: Option<ArchivePath>,
    /// The first path that the archive of a full set does not have.
    incremental: Option<ArchivePath>,
}

/// The reason why a signature archive is not of the set of a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BindingMismatch {
    /// It names a path that sorts after all that the set has.
    Beyond {
        /// The path.
        path: ArchivePath,
        /// The last path of the set.
        end: ArchivePath,
    },
    /// It does not name a path that the set has.
    Boundary(ArchivePath),
    /// It is the archive of an increment, and the set is a full one. The path is the first that shows it.
    Incremental(ArchivePath),
    /// Its files are not those that the manifest lists.
    Files {
        /// The number of signed files.
        signed: u64,
        /// The number of listed files.
        listed: u64,
    },
}

impl fmt::Display for BindingMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Beyond { path, end } => write!(f, "it names {path}, but the last path of the set is {end}"),
            Self::Boundary(path) => write!(f, "it does not name {path}, which is in the set"),
            Self::Incremental(path) => write!(f, "it is that of an increment, as {path} in it shows"),
            Self::Files { signed, listed } if signed == listed => {
                write!(f, "its {signed} changed files are not those that the manifest lists")
            }
            Self::Files { signed, listed } => {
                write!(f, "it has {signed} changed files, but the manifest lists {listed}")
            }
        }
    }
}

/// Paths with other bytes than ASCII are not compared: one set may have them in two encodings (docs/FORMAT.md section
/// 4.3). The root is not compared either, because it also marks a volume without entries.
fn is_comparable(path: &ArchivePath) -> bool {
    path.as_bytes().is_ascii() && !path.is_root()
}

/// Returns true if `path` is `dir` or in it.
fn is_within(path: &ArchivePath, dir: &ArchivePath) -> bool {
    path.as_bytes().strip_prefix(dir.as_bytes()).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
}

impl<'m> SignatureBinding<'m> {
    /// Creates a comparison with `manifest`, of a full set if `is_full`. A damaged one compares only what its damage does not concern.
    pub fn new(manifest: &'m Manifest, is_full: bool) -> Self {
        let volumes = || manifest.volumes.iter();
        let is_whole = manifest.problems.is_empty() && manifest.missing_volumes().next().is_none();
        let end = volumes().map(|volume| &volume.end.path).max().filter(|_| is_whole);
        let is_of_one_run = manifest.is_of_one_run();
        let mut boundaries: Vec<_> = volumes()
            .flat_map(|volume| [&volume.start.path, &volume.end.path])
            .filter(|path| is_comparable(path) && is_of_one_run)
            .map(|path| (path, false))
            .collect();
        boundaries.sort_unstable();
        boundaries.dedup();
        Self {
            end: end.filter(|end| end.as_bytes().is_ascii()),
            beyond: None,
            boundaries,
            listed: manifest.listed_files(),
            signed: ChangedFiles::default(),
            is_full,
            previous: None,
            incremental: None,
        }
    }

    /// Compares the next entry of the archive.
    pub fn add(&mut self, change: SigChange, path: &ArchivePath) {
        self.take_of_full(change, path);
        if change == SigChange::Signature {
            self.signed.add(path);
        }
        if self.beyond.is_none() && self.end.is_some_and(|end| path > end) {
            self.beyond = Some(path.clone());
        }
        let at = self.boundaries.binary_search_by(|(boundary, _)| (*boundary).cmp(path));
        if let Some((_, found)) = at.ok().and_then(|at| self.boundaries.get_mut(at)) {
            *found = true;
        }
    }

    /// The entries are in the order of the tree, so the directory of a path is the path before or contains it.
    fn take_of_full(&mut self, change: SigChange, path: &ArchivePath) {
        if !self.is_full || self.incremental.is_some() {
            return;
        }
        let follows = |before: &ArchivePath| {
            let comparable = before.as_bytes().is_ascii() && path.as_bytes().is_ascii();
            !comparable || path.parent().is_none_or(|parent| parent.is_root() || is_within(before, &parent))
        };
        if change == SigChange::Deleted || !self.previous.as_ref().is_none_or(follows) {
            self.incremental = Some(path.clone());
        }
        self.previous = Some(path.clone());
    }

    /// Returns the reason why the archive, all entries of which were taken, is not of the set of the manifest.
    pub fn mismatch(self) -> Option<BindingMismatch> {
        if let (Some(path), Some(end)) = (self.beyond, self.end) {
            return Some(BindingMismatch::Beyond { path, end: end.clone() });
        }
        if let Some(path) = self.incremental {
            return Some(BindingMismatch::Incremental(path));
        }
        if let Some((boundary, _)) = self.boundaries.iter().find(|(_, found)| !found) {
            return Some(BindingMismatch::Boundary((*boundary).clone()));
        }
        let listed = self.listed.filter(|listed| *listed != self.signed)?;
        Some(BindingMismatch::Files { signed: self.signed.count(), listed: listed.count() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "    Hash SHA1 cf98f81111a9c979d3bacac97930db2b0fe4ec73\n";

    fn volume(number: u32, start: &str, end: &str) -> String {
        format!("Volume {number}:\n    StartingPath   {start}\n    EndingPath   {end}\n{HASH}")
    }

    /// The mismatch of an archive with these entries and the manifest of this text.
    fn mismatch(manifest: &str, entries: &[(SigChange, &str)]) -> Option<String> {
        mismatch_of(manifest, entries, false)
    }

    fn mismatch_of(manifest: &str, entries: &[(SigChange, &str)], is_full: bool) -> Option<String> {
        let manifest = Manifest::read(&mut manifest.as_bytes()).unwrap();
        let mut binding = SignatureBinding::new(&manifest, is_full);
        for (change, path) in entries {
            binding.add(*change, &ArchivePath::parse(path.as_bytes()).unwrap());
        }
        binding.mismatch().map(|mismatch| mismatch.to_string())
    }

    use SigChange::{Deleted, Signature, Snapshot};
    const ENTRIES: [(SigChange, &str); 5] =
        [(Snapshot, "."), (Signature, "a b"), (Signature, "d/big"), (Deleted, "d/old"), (Snapshot, "z")];

    fn manifest() -> String {
        volume(1, ".", "d/big 3") + &volume(2, "d/big 4", "z")
    }

    #[test]
    fn the_archive_of_the_set_agrees() {
        let list = "Filelist 3\n    new  \"a\\x20b\"\n    changed d/big\n    deleted d/old\n";
        assert_eq!(mismatch(&manifest(), &ENTRIES), None);
        assert_eq!(mismatch(&(manifest() + list), &ENTRIES), None);
        assert_eq!(mismatch(&(list.to_owned() + &manifest()), &ENTRIES), None);
        // --no-files-changed, and an increment without changes.
        assert_eq!(mismatch(&(manifest() + "Filelist 0\n"), &ENTRIES), None);
        assert_eq!(mismatch(&volume(1, ".", "."), &[]), None);
        assert_eq!(mismatch(&volume(1, ".", "."), &[(Snapshot, ".")]), None);
        // A last volume without entries.
        assert_eq!(mismatch(&(volume(1, ".", "f") + &volume(2, ".", "f")), &[(Snapshot, "."), (Signature, "f")]), None);
    }

    #[test]
    fn an_archive_with_other_paths_does_not_agree() {
        let without = |path: &str| -> Vec<_> { ENTRIES.into_iter().filter(|(_, other)| *other != path).collect() };
        assert_eq!(mismatch(&manifest(), &without("z")).unwrap(), "it does not name z, which is in the set");
        assert!(mismatch(&manifest(), &without("d/big")).unwrap().contains("d/big"));
        let more = [&ENTRIES[..], &[(Signature, "zz")]].concat();
        assert_eq!(mismatch(&manifest(), &more).unwrap(), "it names zz, but the last path of the set is z");
        assert!(mismatch(&volume(1, ".", "."), &ENTRIES).unwrap().contains("it names a b"));
    }

    #[test]
    fn an_archive_of_an_increment_is_not_that_of_a_full_set() {
        let full = [(Snapshot, "."), (Signature, "a b"), (Snapshot, "d"), (Signature, "d/big"), (Snapshot, "d/e")];
        let full = [&full[..], &[(Signature, "d/e/f"), (Signature, "d/g"), (Snapshot, "z")]].concat();
        assert_eq!(mismatch_of(&manifest(), &full, true), None);
        let shown = |path: &str| Some(format!("it is that of an increment, as {path} in it shows"));
        let with = |at: usize, entry| [&full[..at], &[entry], &full[at..]].concat();
        assert_eq!(mismatch_of(&manifest(), &with(7, (Deleted, "e")), true), shown("e"));
        assert_eq!(mismatch_of(&manifest(), &with(7, (Signature, "e/f")), true), shown("e/f"));
        assert_eq!(mismatch_of(&manifest(), &with(7, (Signature, "da/f")), true), shown("da/f"));
        assert_eq!(mismatch_of(&manifest(), &with(4, (Signature, "d/c/f")), true), shown("d/c/f"));
        assert_eq!(mismatch(&manifest(), &with(7, (Signature, "e/f"))), None);
        // The source is a single file.
        assert_eq!(mismatch_of(&volume(1, ".", "."), &[(Signature, ".")], true), None);
    }

    #[test]
    fn an_archive_with_other_files_than_the_list_does_not_agree() {
        let list = |files: &str| format!("{}Filelist {}\n{files}", manifest(), files.lines().count());
        let cut = list("    new  \"a\\x20b\"\n");
        assert_eq!(mismatch(&cut, &ENTRIES).unwrap(), "it has 2 changed files, but the manifest lists 1");
        let other = list("    new  \"a\\x20b\"\n    changed d/bib\n");
        assert!(mismatch(&other, &ENTRIES).unwrap().contains("its 2 changed files are not those"));
        // Swapped names give another digest than the same names.
        let twice = list("    new  d/big\n    changed d/big\n");
        assert!(mismatch(&twice, &ENTRIES).is_some());
        // A list that is cut is known to be damaged and proves nothing.
        assert_eq!(mismatch(&cut.replace("Filelist 1", "Filelist 2"), &ENTRIES), None);
    }

    #[test]
    fn a_resumed_run_may_lack_boundaries_and_other_encodings_are_not_compared() {
        let resumed = volume(1, ".", "b") + &volume(2, "c", "d") + &volume(2, "d/big", "z");
        assert_eq!(mismatch(&resumed, &ENTRIES), None);
        assert!(mismatch(&resumed, &[(Signature, "zz")]).is_some());
        // Newer versions do not show it.
        assert_eq!(mismatch(&(manifest() + "Filelist 0\n"), &ENTRIES[..1]), None);
        assert!(mismatch(&(volume(1, ".", "z") + "Filelist 0\n"), &ENTRIES[..1]).is_some());
        let raw = "    StartingPath   .\n    EndingPath   \u{e9}t\u{e9}\n";
        let raw = format!("Volume 1:\n{raw}{HASH}Filelist 2\n    new \u{e9}t\u{e9}\n    new a\n");
        assert_eq!(mismatch(&raw, &[(Signature, "a"), (Signature, "\u{e9}\u{e9}")]), None);
        assert!(mismatch(&raw, &[(Signature, "b"), (Signature, "\u{e9}t\u{e9}")]).is_some());
        let cut = mismatch(&raw, &[(Signature, "a")]);
        assert_eq!(cut.unwrap(), "it has 1 changed files, but the manifest lists 2");
    }
}
