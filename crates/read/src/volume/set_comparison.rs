//! Compares the files that a set signed with the files in its volumes.
//!
//! An interrupted backup that was resumed while its source changed signs files that are in no volume, and has parts of
//! two states of a file (docs/FORMAT.md section 2.3). Names and sizes show suspects, not losses: a writer mangles
//! names, and a file of two states may still be the one that was signed. So the result is a list of suspects.

use super::compact_paths::CompactPaths;
use super::error::VolumeError;
use super::member_table::{MemberRun, MemberTable};
use super::path_list::{ListRoom, MAX_LISTED, PathList, path_bytes};
use super::repository::Repository;
use super::stored_objects::{NOT_SIGNED, StoredObjects};
use super::table_allowance::TableAllowance;
use dupfs_base::RequestContext;
use dupfs_format::collection::BackupSet;
use dupfs_format::manifest::VolumeBoundary;
use dupfs_format::sigtar::{SigChange, SigEntry, SigtarSink};
use dupfs_format::{ArchivePath, FormatError, VolumeId, VolumeNumber};

/// The paths of a volume that could not be read: those after `after`, up to `last`.
#[derive(Debug)]
struct LostPaths {
    after: Option<VolumeBoundary>,
    last: VolumeBoundary,
    /// False if the volume was left out, and its paths are not wanted.
    is_listed: bool,
    paths: PathList,
}

impl LostPaths {
    fn contains(&self, path: &ArchivePath) -> bool {
        self.begins(path) && !self.ends_before(path)
    }

    /// Returns true if `path` is not before the range.
    fn begins(&self, path: &ArchivePath) -> bool {
        self.after.as_ref().is_none_or(|after| match after.part {
            Some(_) => *path >= after.path,
            None => *path > after.path,
        })
    }

    fn ends_before(&self, path: &ArchivePath) -> bool {
        self.last.path < *path
    }
}

/// The volumes that were not read.
#[derive(Debug, Default)]
struct LostVolumes {
    list: Vec<LostPaths>,
    /// True if a range begins or ends before the one in front of it, which only damaged manifests have.
    is_unordered: bool,
}

impl LostVolumes {
    fn push(&mut self, lost: LostPaths) {
        let start = |lost: &LostPaths| lost.after.as_ref().map(|after| (after.path.clone(), after.part.is_none()));
        if let Some(before) = self.list.last() {
            self.is_unordered |= lost.last.path < before.last.path || start(&lost) < start(before);
        }
        self.list.push(lost);
    }

    /// The positions of the volumes whose ranges contain `path`.
    fn containing(&self, path: &ArchivePath) -> impl Iterator<Item = usize> {
        // There may be as many volumes as files.
        let first = if self.is_unordered { 0 } else { self.list.partition_point(|lost| lost.ends_before(path)) };
        let end = match self.is_unordered {
            true => self.list.len(),
            false => first.max(self.list.partition_point(|lost| lost.begins(path))),
        };
        let contains = move |at: &usize| self.list.get(*at).is_some_and(|lost| lost.contains(path));
        (first..end).filter(contains)
    }

    fn contain(&self, path: &ArchivePath) -> bool {
        self.containing(path).next().is_some()
    }
}

/// The comparison of one set: first all its volumes in order, then its signature archive.
#[derive(Debug)]
pub struct SetComparison {
    objects: StoredObjects,
    lost: LostVolumes,
    allowance: TableAllowance,
    path_bytes: u64,
    /// The memory of the lists for a report.
    room: ListRoom,
    /// True if all files are listed.
    lists_all: bool,
}

/// The result of a comparison.
#[derive(Debug, Default)]
pub struct ComparedSet {
    /// Number of regular files that were signed.
    pub files: u64,
    /// Files that may not be those that were signed, each with the reason. They are not in a volume that could not be read.
    pub suspects: Vec<(ArchivePath, &'static str)>,
    /// Paths on which the volumes and the signature archive do not agree. Regular files that no volume has are suspects
    /// instead.
    pub differing: PathList,
    /// The reason for the first of them.
    pub difference: Option<&'static str>,
    /// The other files that were signed and are not in such a volume, if they are wanted. Each has its place among all regular
    /// files of the signature archive.
    pub others: CompactPaths,
    /// For each volume that could not be read, in the order in which they were added: the files that were signed in its range.
    pub lost: Vec<PathList>,
}

impl SetComparison {
    /// The comparison of `set`, before its first volume. With `lists_all` it also lists the files that are not suspect.
    pub fn new(repository: &Repository, set: &BackupSet, lists_all: bool) -> Self {
        let name = set.label().into();
        let allowance = repository.table_memory().allowance(&name, set.stored_bytes());
        Self {
            objects: StoredObjects::new(),
            lost: LostVolumes::default(),
            allowance,
            path_bytes: 0,
            room: ListRoom::default(),
            lists_all,
        }
    }

    /// Adds the next volume, which has the number `number`.
    ///
    /// # Errors
    /// [`VolumeError`] if the table of its files is larger than there is memory for.
    pub fn add_volume(&mut self, number: VolumeNumber, members: &MemberTable) -> Result<(), VolumeError> {
        self.objects.add_volume(number, members);
        self.check_memory()
    }

    /// Checks that there is memory for the tables and lists.
    fn check_memory(&mut self) -> Result<(), VolumeError> {
        self.allowance.check(self.objects.bytes().saturating_add(self.path_bytes))
    }

    /// Adds a volume that cannot be read, whose last entry is `last`; that of the volume before it is `after`.
    pub fn add_lost_volume(&mut self, after: Option<&VolumeBoundary>, last: &VolumeBoundary) {
        self.add_unread_volume(after, last, true);
    }

    /// Adds a volume that is left out: its files are not in the result.
    pub fn add_skipped_volume(&mut self, after: Option<&VolumeBoundary>, last: &VolumeBoundary) {
        self.add_unread_volume(after, last, false);
    }

    fn add_unread_volume(&mut self, after: Option<&VolumeBoundary>, last: &VolumeBoundary, is_listed: bool) {
        let (after, last) = (after.cloned(), last.clone());
        self.lost.push(LostPaths { after, last, is_listed, paths: PathList::default() });
    }

    /// Compares what was added with the stored signature archive of `set`, which is read to its verified end.
    ///
    /// # Errors
    /// [`VolumeError`] if it is missing, damaged or that of another set, or if there is not enough memory.
    pub fn compare(
        mut self,
        repository: &Repository,
        set: &BackupSet,
        context: &RequestContext,
    ) -> Result<ComparedSet, VolumeError> {
        let mut found = ComparedSet::default();
        self.objects.sort();
        let mut is_first = true;
        repository.stream_stored_signatures(set.index, context, &mut |archive| {
            // Another copy of the archive is compared from the beginning.
            if !std::mem::replace(&mut is_first, false) {
                self.restart();
                found = ComparedSet::default();
            }
            let mut sink = SignedFiles { comparison: &mut self, found: &mut found, refused: None };
            let read = archive.parse(&mut sink);
            sink.refused.map_or(read, Err)
        })?;
        let (unsigned, more) = self.objects.unsigned(MAX_LISTED);
        for (number, run) in unsigned {
            let members = repository.members(VolumeId { set: set.index, number }, context)?;
            let Some(MemberRun { path, .. }) = members.run(run as usize) else { continue };
            self.add_differing(&path, NOT_SIGNED, &mut found);
        }
        found.differing.more = found.differing.more.saturating_add(more);
        found.lost = self.lost.list.into_iter().filter(|lost| lost.is_listed).map(|lost| lost.paths).collect();
        Ok(found)
    }

    /// Forgets the entries of the signature archive.
    fn restart(&mut self) {
        self.objects.unmark();
        (self.path_bytes, self.room) = (0, ListRoom::default());
        self.lost.list.iter_mut().for_each(|lost| lost.paths = PathList::default());
    }

    /// Counts the memory of `path` in a list.
    fn admit(&mut self, path: &ArchivePath) -> Result<(), VolumeError> {
        self.path_bytes = self.path_bytes.saturating_add(path_bytes(path));
        self.check_memory()
    }

    fn add_differing(&mut self, path: &ArchivePath, difference: &'static str, found: &mut ComparedSet) {
        found.differing.push(path, &mut self.room);
        found.difference.get_or_insert(difference);
    }

    fn take(&mut self, entry: &SigEntry, found: &mut ComparedSet) -> Result<(), VolumeError> {
        let path = &entry.path;
        let difference = self.objects.take(entry);
        if entry.change != SigChange::Signature {
            if let Some(difference) = difference
                && !self.lost.contain(path)
            {
                self.add_differing(path, difference, found);
            }
            return Ok(());
        }
        let place = found.files;
        found.files = found.files.saturating_add(1);
        let mut is_lost = false;
        let containing: Vec<usize> = self.lost.containing(path).collect();
        for at in containing {
            is_lost = true;
            if let Some(lost) = self.lost.list.get_mut(at).filter(|lost| lost.is_listed) {
                lost.paths.push(path, &mut self.room);
            }
        }
        if is_lost {
            return Ok(());
        }
        let stored = self.objects.file(path);
        if let Some(difference) = difference.filter(|_| stored.is_some()) {
            self.add_differing(path, difference, found);
        }
        let suspicion = match stored {
            None => Some("no volume has data of it"),
            Some(stored) => stored.suspicion(entry.bounds.as_ref()),
        };
        if let Some(suspicion) = suspicion {
            self.admit(path)?;
            found.suspects.push((path.clone(), suspicion));
        } else if self.lists_all {
            let before = found.others.bytes();
            found.others.push(place, path);
            self.path_bytes = self.path_bytes.saturating_add(found.others.bytes().saturating_sub(before));
            self.check_memory()?;
        }
        Ok(())
    }
}

/// Takes the entries of the signature archive.
struct SignedFiles<'a> {
    comparison: &'a mut SetComparison,
    found: &'a mut ComparedSet,
    /// The reason why an entry was not taken.
    refused: Option<VolumeError>,
}

impl SigtarSink for SignedFiles<'_> {
    fn entry(&mut self, entry: SigEntry) -> Result<(), FormatError> {
        self.comparison.take(&entry, self.found).map_err(|error| {
            self.refused = Some(error);
            FormatError::Tar { offset: 0, what: "an entry was refused" }
        })
    }

    /// An archive with an entry that cannot be understood is not trusted for the others either.
    fn problem(&mut self, problem: FormatError) -> Result<(), FormatError> {
        Err(problem)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boundary(path: &str, part: Option<u64>) -> VolumeBoundary {
        VolumeBoundary { path: ArchivePath::parse(path.as_bytes()).unwrap(), part }
    }

    #[test]
    fn a_volume_covers_a_file_that_begins_before_it_or_continues_after_it() {
        let covers = |after: Option<VolumeBoundary>, last: VolumeBoundary, path: &str| {
            let lost = LostPaths { after, last, is_listed: true, paths: PathList::default() };
            lost.contains(&ArchivePath::parse(path.as_bytes()).unwrap())
        };
        assert!(covers(None, boundary("b", Some(3)), "a"));
        assert!(covers(None, boundary("b", Some(3)), "b"));
        assert!(!covers(None, boundary("b", Some(3)), "c"));
        assert!(covers(Some(boundary("b", Some(3))), boundary("d", None), "b"), "its later parts");
        assert!(!covers(Some(boundary("b", None)), boundary("d", None), "b"), "it ended before");
        assert!(covers(Some(boundary("b", None)), boundary("d", None), "b/x"));
    }

    #[test]
    fn the_volumes_of_a_path_are_found_among_many_and_in_any_order() {
        let volume = |n: u32, part: Option<u64>| {
            let after = n.checked_sub(1).map(|before| boundary(&format!("{before:06}"), part));
            let last = boundary(&format!("{n:06}"), part);
            LostPaths { after, last, is_listed: true, paths: PathList::default() }
        };
        let found = |lost: &LostVolumes, path: &str| -> Vec<usize> {
            lost.containing(&ArchivePath::parse(path.as_bytes()).unwrap()).collect()
        };
        let mut lost = LostVolumes::default();
        (0..100_000).for_each(|n| lost.push(volume(n, None)));
        assert!(!lost.is_unordered);
        // With a search through all it would take a minute and more.
        for n in (0..100_000).rev() {
            assert_eq!(found(&lost, &format!("{n:06}")), [n]);
        }
        assert_eq!(found(&lost, "000007/x"), [8]);
        assert_eq!(found(&lost, "2"), [0; 0]);
        // A file of several volumes, which is in each of them.
        let mut parts = LostVolumes::default();
        (0..3).for_each(|n| parts.push(volume(n, Some(1))));
        assert_eq!(found(&parts, "000001"), [1, 2]);
        parts.push(volume(1, None));
        assert!(parts.is_unordered);
        assert_eq!(found(&parts, "000001"), [1, 2, 3]);
    }
}
