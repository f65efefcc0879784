//! Manifests: which volume holds which part of which path (FORMAT.md 2).
//!
//! A manifest is read as a stream of lines. Only its volumes are kept; the list of changed files, which may have millions
//! of lines, is counted and dropped. An entry that is damaged costs its volume, not the set: it is left out of
//! [`Manifest::volumes`], shows in [`Manifest::missing_volumes`], and [`Manifest::problems`] says why.

mod parse;
#[cfg(test)]
mod tests;

use std::io::Read;

use super::FormatError;
use crate::{ArchivePath, VolumeNumber};

pub use parse::ManifestParser;

/// One volume as the manifest describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestVolume {
    /// The volume's number.
    pub number: VolumeNumber,
    /// `StartingPath` and its block number. Redundant, and wrong after some restarts (FORMAT.md 2.3): not for locating.
    pub start: (ArchivePath, Option<u64>),
    /// `EndingPath`: path of the last entry, and that entry's part number unless the path ends in this volume.
    pub end: (ArchivePath, Option<u64>),
    /// The digest of the volume's stored bytes.
    pub hash: Option<(HashKind, Vec<u8>)>,
}

/// Which digest a manifest gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HashKind {
    /// SHA-1, 20 bytes: all since 2009.
    Sha1,
    /// MD5, 16 bytes: ancient sets.
    Md5,
}

/// A part of an object's content or delta.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The part with this number, from 1; 1 also for whole objects.
    Number(u64),
    /// The last part, whatever its number.
    Last,
}

/// A manifest. Its volumes are those that count after restarts (FORMAT.md 2.3): the last entry for a number wins, and
/// numbers above that of the last entry in the file are void.
#[derive(Debug, Default)]
pub struct Manifest {
    /// The machine that was backed up, if it is told.
    pub hostname: Option<Box<[u8]>>,
    /// The directory that was backed up, as it was typed; if it is told.
    pub localdir: Option<Box<[u8]>>,
    /// The volumes in the order of their numbers.
    pub volumes: Vec<ManifestVolume>,
    /// How many files the list of changed files has; `None` without a list.
    pub files: Option<u64>,
    /// What is damaged; at most 32 are kept. Empty for a sound manifest.
    pub problems: Vec<FormatError>,
    /// The highest volume number that counts, whether or not its entry was readable.
    last_number: u32,
    /// For each volume, the index of the volume up to it (inclusive) whose end is greatest.
    reach: Vec<usize>,
}

impl Manifest {
    /// Reads a manifest to its end.
    ///
    /// # Errors
    /// [`FormatError::Read`] with the reader's own error as source; [`FormatError::Manifest`] if there is no volume in it
    /// at all, [`FormatError::TooLarge`] for lines over 1 MiB and for more than 512 MiB of volume entries.
    pub fn read(input: &mut dyn Read) -> Result<Self, FormatError> {
        let mut parser = ManifestParser::new();
        let mut chunk = vec![0; 64 << 10];
        loop {
            match input.read(&mut chunk) {
                Ok(0) => return parser.finish(),
                Ok(len) => parser.feed(chunk.get(..len).unwrap_or(&chunk))?,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(source) => return Err(FormatError::Read { offset: parser.offset(), source }),
            }
        }
    }

    /// A manifest of `volumes`, which must be in the order of their numbers, each number once.
    pub fn from_volumes(volumes: Vec<ManifestVolume>) -> Self {
        let mut reach: Vec<usize> = Vec::with_capacity(volumes.len());
        for (index, volume) in volumes.iter().enumerate() {
            let furthest = reach
                .last()
                .copied()
                .filter(|&before| volumes.get(before).is_some_and(|before| end_key(before) >= end_key(volume)));
            reach.push(furthest.unwrap_or(index));
        }
        let last_number = volumes.last().map_or(0, |volume| volume.number.0);
        Self { volumes, reach, last_number, ..Self::default() }
    }

    /// The volume that holds `part` of `path` if the set has it; `None` if the path is behind the last volume's end.
    ///
    /// Decided by `EndingPath` alone (FORMAT.md 2.2): volume n holds the keys in (greatest end before n, end of n]. Where
    /// volumes are missing the answer is the next one that is known, and the part may have been in a missing one.
    pub fn volume_of(&self, path: &ArchivePath, part: Part) -> Option<VolumeNumber> {
        self.volumes.get(self.index_of(path, part)).map(|volume| volume.number)
    }

    /// All volumes that may hold parts of `path`, in order; empty if the path is behind the last volume's end.
    pub fn volumes_of(&self, path: &ArchivePath) -> &[ManifestVolume] {
        let first = self.index_of(path, Part::Number(1));
        let end = self.index_of(path, Part::Last).saturating_add(1).min(self.volumes.len());
        self.volumes.get(first..end).unwrap_or(&[])
    }

    /// The entry of the volume `number`.
    pub fn volume(&self, number: VolumeNumber) -> Option<&ManifestVolume> {
        let index = self.volumes.binary_search_by_key(&number, |volume| volume.number).ok()?;
        self.volumes.get(index)
    }

    /// The numbers up to the last one for which there is no readable entry: none for a sound manifest.
    pub fn missing_volumes(&self) -> impl Iterator<Item = VolumeNumber> + '_ {
        let known = self.volumes.iter().map(|volume| volume.number.0).chain([self.last_number.saturating_add(1)]);
        known
            .scan(1_u32, |next, number| {
                let gap = *next..number;
                *next = number.saturating_add(1);
                Some(gap)
            })
            .flatten()
            .map(VolumeNumber)
    }

    /// Index of the first volume whose greatest end so far is not below the key; the number of volumes if there is none.
    fn index_of(&self, path: &ArchivePath, part: Part) -> usize {
        let number = match part {
            Part::Number(number) => number,
            Part::Last => u64::MAX,
        };
        self.reach.partition_point(|&furthest| {
            self.volumes.get(furthest).is_some_and(|volume| end_key(volume) < (path, number))
        })
    }
}

/// The greatest key in a volume: a path without a number ends there, so every part of it is.
fn end_key(volume: &ManifestVolume) -> (&ArchivePath, u64) {
    (&volume.end.0, volume.end.1.unwrap_or(u64::MAX))
}
