//! The volumes that a read needs, computed from the records of the encoder. They bound the volumes that may be
//! fetched.

use std::collections::BTreeSet;
use std::ops::Range;

use super::encode::{Part, Repository, Stored};
use super::rdiff::Op;
use super::tree::Path;

/// Contiguous bytes of a file, from offset `at` of the stream that set `set` stores.
#[derive(Clone, Copy, Debug)]
struct Run {
    set: usize,
    at: usize,
    len: usize,
}

impl Repository {
    /// Returns the sets of which snapshot `set` consists, oldest first.
    pub(crate) fn ancestry(&self, set: usize) -> Range<usize> {
        let mut first = set;
        while self.sets[first].start.is_some() {
            first -= 1;
        }
        first..set + 1
    }

    /// Returns the newest set up to `set` that stores `path` in some form.
    fn holder(&self, set: usize, path: &Path) -> Option<usize> {
        self.ancestry(set).rev().find(|i| self.sets[*i].stored.contains_key(path))
    }

    fn volume_names<'a>(&'a self, set: usize, parts: impl Iterator<Item = &'a Part>) -> BTreeSet<String> {
        parts.map(|part| self.sets[set].volumes[part.volume - 1].clone()).collect()
    }

    /// Returns all volumes with parts of the file `path` at snapshot `set`, including its bases.
    pub(crate) fn all_volumes(&self, set: usize, path: &Path) -> BTreeSet<String> {
        let Some(holder) = self.holder(set, path) else { return BTreeSet::new() };
        match &self.sets[holder].stored[path] {
            Stored::Snapshot(parts) => self.volume_names(holder, parts.iter()),
            Stored::Diff { parts, .. } => {
                let mut volumes = self.volume_names(holder, parts.iter());
                volumes.extend(self.all_volumes(holder - 1, path));
                volumes
            }
            _ => BTreeSet::new(),
        }
    }

    /// Returns the volumes of all deltas between the file's last complete copy and snapshot `set`.
    pub(crate) fn delta_volumes(&self, set: usize, path: &Path) -> BTreeSet<String> {
        let holder = self.holder(set, path).unwrap();
        let Stored::Diff { parts, .. } = &self.sets[holder].stored[path] else { return BTreeSet::new() };
        let mut volumes = self.volume_names(holder, parts.iter());
        volumes.extend(self.delta_volumes(holder - 1, path));
        volumes
    }

    /// Returns the volumes that contain the bytes `range` of the file.
    pub(crate) fn data_volumes(&self, set: usize, path: &Path, range: Range<usize>) -> BTreeSet<String> {
        let mut volumes = BTreeSet::new();
        for run in self.runs(set, path, range) {
            let (Stored::Snapshot(parts) | Stored::Diff { parts, .. }) = &self.sets[run.set].stored[path] else {
                panic!("a run in a set without data")
            };
            let touched = parts.iter().filter(|part| part.at < run.at + run.len && run.at < part.at + part.len);
            volumes.extend(self.volume_names(run.set, touched));
        }
        volumes
    }

    /// Returns the volume with the last part of the file, which alone determines its size.
    pub(crate) fn last_volume(&self, set: usize, path: &Path) -> String {
        let holder = self.holder(set, path).unwrap();
        let (Stored::Snapshot(parts) | Stored::Diff { parts, .. }) = &self.sets[holder].stored[path] else {
            panic!("not a file")
        };
        self.sets[holder].volumes[parts.last().unwrap().volume - 1].clone()
    }

    /// Returns the last volume of the file's base if it is needed to locate `range`: if the range is near the end of
    /// the base, or if the parts of the base differ in size.
    pub(crate) fn base_end_volumes(&self, set: usize, path: &Path, range: Range<usize>) -> BTreeSet<String> {
        const PART: usize = 65_536;
        let mut volumes = BTreeSet::new();
        for run in self.runs(set, path, range) {
            let Stored::Snapshot(parts) = &self.sets[run.set].stored[path] else { continue };
            let (last, full) = parts.split_last().unwrap();
            let end = last.at + last.len;
            let uneven = full.iter().any(|part| part.len != PART);
            if uneven || run.at + run.len + 2 * PART > end {
                volumes.insert(self.last_volume(run.set, path));
            }
        }
        volumes
    }

    fn runs(&self, set: usize, path: &Path, range: Range<usize>) -> Vec<Run> {
        if range.is_empty() {
            return vec![];
        }
        let holder = self.holder(set, path).unwrap();
        let ops = match &self.sets[holder].stored[path] {
            Stored::Snapshot(_) => return vec![Run { set: holder, at: range.start, len: range.len() }],
            Stored::Diff { ops, .. } => ops,
            other => panic!("{other:?} has no bytes"),
        };
        let (mut runs, mut at) = (Vec::new(), 0);
        for op in ops {
            let (Op::Literal { len, .. } | Op::Copy { len, .. }) = *op;
            let (from, to) = (range.start.max(at), range.end.min(at + len));
            if from < to {
                match *op {
                    Op::Literal { at: source, .. } => {
                        runs.push(Run { set: holder, at: source + from - at, len: to - from });
                    }
                    Op::Copy { from: source, .. } => {
                        runs.extend(self.runs(holder - 1, path, source + from - at..source + to - at));
                    }
                }
            }
            at += len;
        }
        runs
    }
}
