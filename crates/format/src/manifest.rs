//! Manifests: the volumes of a set and the paths in them (docs/FORMAT.md section 2).
//!
//! A manifest is parsed line by line. Only its volumes are stored. Of the list of changed files, which may have millions
//! of lines, the number and a digest are stored. A damaged entry affects its volume and not the set: the volume is left
//! out of [`Manifest::volumes`], appears in [`Manifest::missing_volumes`], and [`Manifest::problems`] has the reason.
//! [`Manifest::doubt`] returns the damage that concerns one path.

mod changed_files;
mod file_list;
mod parser;
mod problem;
#[cfg(test)]
mod tests;
mod volume_entries;

use std::fmt;

use crate::{ArchivePath, VolumeNumber};

pub use changed_files::ChangedFiles;
pub use parser::ManifestParser;
pub use problem::{ManifestProblem, ManifestProblemKind};

/// Upper bound of the damaged entries that the doubt about one path names.
const MAX_DOUBTS: usize = 3;

/// One volume as the manifest describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestVolume {
    /// The volume's number.
    pub number: VolumeNumber,
    /// `StartingPath`. It is redundant, and wrong after some restarts (docs/FORMAT.md section 2.3). Do not use it to
    /// find volumes.
    pub start: VolumeBoundary,
    /// `EndingPath`: the last entry of the volume.
    pub end: VolumeBoundary,
    /// The hash of the volume's stored bytes.
    pub hash: Option<VolumeHash>,
}

/// The first or last entry of a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeBoundary {
    /// The path of the entry.
    pub path: ArchivePath,
    /// The number of the part, which duplicity calls block. At the end of a volume, `None` means that the path ends in
    /// this volume.
    pub part: Option<u64>,
}

impl fmt::Display for VolumeBoundary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.part {
            Some(part) => write!(f, "part {part} of {}", self.path),
            None => write!(f, "{}", self.path),
        }
    }
}

/// The hash of a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeHash {
    /// The algorithm.
    pub kind: HashKind,
    /// The digest, of the length that the algorithm has.
    pub digest: Vec<u8>,
}

/// A hash algorithm of manifests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HashKind {
    /// SHA-1, 20 bytes. All sets since 2009 use it.
    Sha1,
    /// MD5, 16 bytes. Older sets use it.
    Md5,
}

/// A part of the content or delta of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartSelector {
    /// The part with this number, from 1. A whole object is part 1.
    Number(u64),
    /// The last part, whatever its number.
    Last,
}

/// A parsed manifest. Its volumes are those that are valid after restarts (docs/FORMAT.md section 2.3): the last entry
/// for a number wins, and numbers above that of the last entry in the file are void.
#[derive(Debug, Default)]
pub struct Manifest {
    /// The machine that was backed up, if the manifest names it.
    pub hostname: Option<Box<[u8]>>,
    /// The directory that was backed up, as it was typed, if the manifest names it.
    pub localdir: Option<Box<[u8]>>,
    /// The volumes in the order of their numbers.
    pub volumes: Vec<ManifestVolume>,
    /// The number of files in the list of changed files. `None` without a list.
    pub changed_files: Option<u64>,
    /// The damage, at most 32 items. Empty for an undamaged manifest.
    pub problems: Vec<ManifestProblem>,
    /// The highest valid volume number, also if its entry is damaged.
    last_number: u32,
    /// True if it was rebuilt from the volumes, so that nothing proves them.
    is_rebuilt: bool,
    /// True if the run that wrote it was resumed.
    is_resumed: bool,
    /// The new and changed files of the list, if it has any and is whole.
    listed_files: Option<ChangedFiles>,
    /// For each volume, the index of the volume with the greatest end among the volumes up to it (inclusive).
    greatest_end: Vec<usize>,
}

impl Manifest {
    /// Creates a manifest of `volumes`, which must be in the order of their numbers, each number once.
    pub fn from_volumes(volumes: Vec<ManifestVolume>) -> Self {
        let mut greatest_end: Vec<usize> = Vec::with_capacity(volumes.len());
        for (index, volume) in volumes.iter().enumerate() {
            let greatest = greatest_end
                .last()
                .copied()
                .filter(|&before| volumes.get(before).is_some_and(|before| end_key(before) >= end_key(volume)));
            greatest_end.push(greatest.unwrap_or(index));
        }
        let last_number = volumes.last().map_or(0, |volume| volume.number.0);
        Self { volumes, greatest_end, last_number, ..Self::default() }
    }

    /// Creates a manifest that replaces a lost one: `volumes` as for [`Self::from_volumes`], without hashes, of a set
    /// whose highest volume number is `last`.
    pub fn rebuilt(volumes: Vec<ManifestVolume>, problems: Vec<ManifestProblem>, last: VolumeNumber) -> Self {
        let mut manifest = Self::from_volumes(volumes);
        manifest.problems = problems;
        manifest.last_number = last.0;
        manifest.is_rebuilt = true;
        manifest.check_order();
        manifest
    }

    /// Returns true if the manifest replaces a lost one. It states where a file may be, and proves nothing: content
    /// that is read by it must be proved by its signature.
    pub fn is_rebuilt(&self) -> bool {
        self.is_rebuilt
    }

    /// Returns true if the run that wrote the manifest was resumed: a volume is listed again.
    pub fn is_resumed(&self) -> bool {
        self.is_resumed
    }

    /// Returns true if one uninterrupted run wrote the whole set. Newer versions of duplicity do not show a resumed run in
    /// the manifest, so of their sets only those of one volume are known to be of one run.
    pub fn is_of_one_run(&self) -> bool {
        let is_whole = self.problems.is_empty() && self.missing_volumes().next().is_none();
        let is_old = self.changed_files.is_none() && !self.is_resumed();
        is_whole && (is_old || self.volumes.len() == 1)
    }

    /// Returns the new and changed files of the list of changed files. `None` without a list, or if it is empty or damaged.
    pub fn listed_files(&self) -> Option<ChangedFiles> {
        self.listed_files
    }

    /// Returns the volume with `part` of `path`, if the set has that part. Returns `None` if the path sorts after the
    /// end of the last volume.
    ///
    /// Only `EndingPath` decides (docs/FORMAT.md section 2.2): volume n contains the keys in (greatest end before n,
    /// end of n]. Where volumes are missing, the result is the next known volume, and the part may have been in a
    /// missing one.
    pub fn volume_of(&self, path: &ArchivePath, part: PartSelector) -> Option<VolumeNumber> {
        self.volumes.get(self.index_of(path, part)).map(|volume| volume.number)
    }

    /// Returns all volumes that may have parts of `path`, in order. The result is empty if the path sorts after the end
    /// of the last volume.
    pub fn volumes_of(&self, path: &ArchivePath) -> &[ManifestVolume] {
        let first = self.index_of(path, PartSelector::Number(1));
        let end = self.index_of(path, PartSelector::Last).saturating_add(1).min(self.volumes.len());
        self.volumes.get(first..end).unwrap_or(&[])
    }

    /// Returns the entry of the volume `number`.
    pub fn volume(&self, number: VolumeNumber) -> Option<&ManifestVolume> {
        let index = self.volumes.binary_search_by_key(&number, |volume| volume.number).ok()?;
        self.volumes.get(index)
    }

    /// Returns the approximate size of the manifest in memory, in bytes.
    pub fn weight(&self) -> u64 {
        let entry = size_of::<ManifestVolume>() + size_of::<usize>() + 64;
        let paths = self.volumes.iter().map(|v| v.start.path.as_bytes().len() + v.end.path.as_bytes().len() + entry);
        (paths.sum::<usize>() + size_of::<Self>()) as u64
    }

    /// Returns the numbers, up to the last valid one, without a readable entry. An undamaged manifest has none.
    pub fn missing_volumes(&self) -> impl Iterator<Item = VolumeNumber> + '_ {
        let known = self.volumes.iter().map(|volume| volume.number.0).chain([self.last_number.saturating_add(1)]);
        known
            .scan(1_u32, |next, number| {
                let missing = *next..number;
                *next = number.saturating_add(1);
                Some(missing)
            })
            .flatten()
            .map(VolumeNumber)
    }

    /// Returns the highest valid volume number.
    pub fn last_number(&self) -> VolumeNumber {
        VolumeNumber(self.last_number)
    }

    /// Returns the first damage by which entries of volumes are lost.
    pub fn entry_damage(&self) -> Option<String> {
        let loses_entry = |problem: &&ManifestProblem| match problem.kind {
            ManifestProblemKind::Entry(_) | ManifestProblemKind::UnknownEntry => true,
            ManifestProblemKind::Order(_) | ManifestProblemKind::FileList => false,
        };
        self.problems.iter().find(loses_entry).map(ToString::to_string)
    }

    /// Returns the damage because of which a part of `path` may be in another volume than [`Self::volumes_of`] returns:
    /// an entry without which its volume is not known, or volumes whose ranges overlap. `None` if no damage concerns it.
    pub fn doubt(&self, path: &ArchivePath) -> Option<String> {
        let first = self.index_of(path, PartSelector::Number(1));
        let last = self.index_of(path, PartSelector::Last);
        let known_before = first.checked_sub(1).and_then(|index| self.volumes.get(index));
        let after = known_before.map_or(0, |volume| volume.number.0);
        let last_volume = self.volumes.get(last).map(|volume| volume.number.0);
        let missing = self.missing_volumes().skip_while(|number| number.0 <= after);
        let missing = missing.take_while(|number| last_volume.is_none_or(|last| number.0 < last));
        let mut reasons: Vec<String> = missing.take(MAX_DOUBTS).map(|number| self.describe_missing(number)).collect();
        reasons.dedup();
        if !reasons.is_empty() {
            return Some(reasons.join(", "));
        }
        if last_volume.is_none()
            && let Some(problem) = self.problem(ManifestProblemKind::UnknownEntry)
        {
            return Some(problem.to_string());
        }
        let is_concerned = |problem: &&ManifestProblem| match problem.kind {
            ManifestProblemKind::Order(number) => {
                self.overlap_of(number).is_some_and(|(from, to)| first <= to && from <= last)
            }
            ManifestProblemKind::Entry(_) | ManifestProblemKind::UnknownEntry | ManifestProblemKind::FileList => false,
        };
        self.problems.iter().find(is_concerned).map(ToString::to_string)
    }

    fn problem(&self, kind: ManifestProblemKind) -> Option<&ManifestProblem> {
        self.problems.iter().find(|problem| problem.kind == kind)
    }

    /// Returns the reason why volume `number` has no entry.
    fn describe_missing(&self, number: VolumeNumber) -> String {
        let unknown = || self.problem(ManifestProblemKind::UnknownEntry);
        let problem = self.problem(ManifestProblemKind::Entry(number)).or_else(unknown);
        problem.map_or_else(|| format!("volume {number} has no entry"), ToString::to_string)
    }

    /// Returns the indexes, both inclusive, of the volumes whose ranges are doubtful because volume `number` ends before an
    /// earlier one.
    fn overlap_of(&self, number: VolumeNumber) -> Option<(usize, usize)> {
        let index = self.volumes.binary_search_by_key(&number, |volume| volume.number).ok()?;
        let from = self.greatest_end.get(index).copied()?;
        let rises = |&(at, greatest): &(usize, &usize)| at > index && *greatest == at;
        let next = self.greatest_end.iter().enumerate().find(rises).map_or(self.volumes.len(), |(at, _)| at);
        Some((from, next))
    }

    /// Returns the index of the first volume whose greatest end so far is not below the key, else the number of
    /// volumes.
    fn index_of(&self, path: &ArchivePath, part: PartSelector) -> usize {
        let number = match part {
            PartSelector::Number(number) => number,
            PartSelector::Last => u64::MAX,
        };
        self.greatest_end.partition_point(|&greatest| {
            self.volumes.get(greatest).is_some_and(|volume| end_key(volume) < (path, number))
        })
    }
}

/// Returns the greatest key in a volume. A path without a part number ends in the volume, with all its parts.
fn end_key(volume: &ManifestVolume) -> (&ArchivePath, u64) {
    (&volume.end.path, volume.end.part.unwrap_or(u64::MAX))
}
