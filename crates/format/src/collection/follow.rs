//! A collection as a later listing has it. What was numbered keeps its number, and a snapshot that was shown stays what it is:
//! the layers above keep trees, sizes, blocks and inode numbers by these numbers.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::chains::Chains;
use super::names::SetKey;
use super::set::BackupSet;
use super::{Collection, CollectionError, PrefixOptions, Snapshot, lineage};
use crate::ObjectInfo;
use crate::SetIndex;

impl Collection {
    /// This collection after `objects` were listed, a later listing of the same place under the prefixes that were chosen
    /// before.
    ///
    /// - Sets, snapshots and lines keep their places; what is new stands behind them. A line grows where a new snapshot
    ///   continues its last one; otherwise the new snapshot begins a line of its own.
    /// - A snapshot keeps its name and the sets it is made of, even where the names alone would now say otherwise.
    /// - Objects of a complete set that are no longer listed stay in its record, so that whoever needs one gets the store's
    ///   own error. A set of which nothing is left is [gone](Self::is_gone).
    /// - Chains, and so [`Self::select`] and [`Self::latest`], are those of the new listing.
    ///
    /// # Errors
    /// [`CollectionError`] as [`Self::from_listing`]: then nothing of the backup is there any more, and this collection is the
    /// last that is known.
    pub fn follow(&self, objects: &[ObjectInfo]) -> Result<Self, CollectionError> {
        let fresh = Self::from_listing(objects, &self.same_prefixes())?;
        let numbers = self.numbers_of(&fresh);
        let number = |index: SetIndex| usize::try_from(index.0).ok().and_then(|place| numbers.get(place)).copied();
        let mut next = self.clone();
        next.gone = vec![true; self.sets.len()];
        for (set, &index) in fresh.sets.iter().zip(&numbers) {
            next.put(set, index);
        }
        next.take_snapshots(&fresh, &number);
        next.chains = renumbered(fresh.chains, &number);
        next.problems = fresh.problems;
        for problem in &mut next.problems {
            problem.set = problem.set.and_then(number);
        }
        (next.others, next.foreign) = (fresh.others, fresh.foreign);
        Ok(next)
    }

    /// Whether each set that is complete here and was not `before` is there with the very same objects in `seen`, another
    /// listing.
    pub fn is_settled(&self, before: &Self, seen: Option<&Self>) -> bool {
        let complete = |older: &Self| -> HashMap<SetKey, Arc<BackupSet>> {
            let sets = older.sets.iter().filter(|set| set.is_complete());
            sets.map(|set| (set.key(), Arc::clone(set))).collect()
        };
        let (before, seen) = (complete(before), seen.map(complete).unwrap_or_default());
        let mut new = self.sets.iter().filter(|set| set.is_complete() && !before.contains_key(&set.key()));
        new.all(|set| seen.get(&set.key()).is_some_and(|other| other.objects().eq(set.objects())))
    }

    fn same_prefixes(&self) -> PrefixOptions {
        let prefixes = self.prefixes.clone();
        PrefixOptions {
            file_prefix: None,
            archive: Some(prefixes.archive),
            manifest: Some(prefixes.manifest),
            signature: Some(prefixes.signature),
        }
    }

    /// The number here of each of `fresh`'s sets, in order.
    fn numbers_of(&self, fresh: &Self) -> Vec<SetIndex> {
        let known: HashMap<SetKey, SetIndex> = self.sets.iter().map(|set| (set.key(), set.index)).collect();
        let mut new = u32::try_from(self.sets.len()).unwrap_or(u32::MAX);
        let number = |set: &Arc<BackupSet>| {
            known.get(&set.key()).copied().unwrap_or_else(|| {
                let index = SetIndex(new);
                new = new.saturating_add(1);
                index
            })
        };
        fresh.sets.iter().map(number).collect()
    }

    /// Puts a set of the new listing in its place, which is one that it has or the next one.
    fn put(&mut self, fresh: &BackupSet, index: SetIndex) {
        let place = usize::try_from(index.0).unwrap_or(usize::MAX);
        let mut set = BackupSet { index, ..fresh.clone() };
        let Some(known) = self.sets.get_mut(place) else {
            self.sets.push(Arc::new(set));
            self.gone.push(false);
            self.snapshot_of_set.push(None);
            return;
        };
        if known.is_complete() {
            set.manifest = set.manifest.or_else(|| known.manifest.clone());
            set.signatures = set.signatures.or_else(|| known.signatures.clone());
            for (number, object) in &known.volumes {
                set.volumes.entry(*number).or_insert_with(|| object.clone());
            }
        }
        if **known != set {
            *known = Arc::new(set);
        }
        if let Some(gone) = self.gone.get_mut(place) {
            *gone = false;
        }
    }

    fn take_snapshots(&mut self, fresh: &Self, number: &impl Fn(SetIndex) -> Option<SetIndex>) {
        let mut names: HashSet<Arc<str>> = self.snapshots.iter().map(|snapshot| Arc::clone(&snapshot.name)).collect();
        let known = |snapshot: &Snapshot| number(snapshot.set).is_some_and(|set| self.place_of(set).is_some());
        let mut new: Vec<&Snapshot> = fresh.snapshots.iter().filter(|snapshot| !known(snapshot)).collect();
        // By time, but what a snapshot builds on comes before it whatever the clocks said.
        let last = |snapshot: &Snapshot| {
            let times = snapshot.lineage().iter().filter_map(|set| fresh.set(*set)).map(|set| set.time);
            times.max().unwrap_or(snapshot.time)
        };
        new.sort_by_cached_key(|snapshot| (last(snapshot), snapshot.depth));
        for snapshot in new {
            let lineage: Option<Vec<SetIndex>> = snapshot.lineage().iter().map(|set| number(*set)).collect();
            let Some((lineage, set)) = lineage.and_then(|l| l.last().copied().map(|set| (l, set))) else { continue };
            let Some(record) = self.set(set).cloned() else { continue };
            let Some(slot) = usize::try_from(set.0).ok().and_then(|place| self.snapshot_of_set.get_mut(place)) else {
                continue;
            };
            *slot = Some(self.snapshots.len());
            let name = lineage::unique_name(&record, &mut names);
            let line = self.line_for(lineage);
            self.snapshots.push(Snapshot::on(&self.lines, line, record.time, name, set));
        }
    }

    /// The line on which the last of `lineage` is, which no line has yet: one that ends with the others, or a new one.
    fn line_for(&mut self, lineage: Vec<SetIndex>) -> usize {
        let base = lineage.split_last().map_or(&[][..], |(_, base)| base);
        let grows = (!base.is_empty()).then(|| self.lines.iter().position(|line| **line == *base)).flatten();
        match grows.and_then(|line| self.lines.get_mut(line).map(|sets| (line, sets))) {
            Some((line, sets)) => {
                *sets = lineage.into();
                line
            }
            None => {
                self.lines.push(lineage.into());
                self.lines.len() - 1
            }
        }
    }
}

fn renumbered(mut chains: Chains, number: &impl Fn(SetIndex) -> Option<SetIndex>) -> Chains {
    let all = |sets: &mut Vec<SetIndex>| *sets = sets.iter().filter_map(|set| number(*set)).collect();
    chains.chains.iter_mut().for_each(|chain| all(&mut chain.sets));
    all(&mut chains.orphaned);
    all(&mut chains.incomplete);
    chains.discarded = chains.discarded.and_then(number);
    for replaced in &mut chains.replaced {
        if let (Some(set), Some(by)) = (number(replaced.set), number(replaced.by)) {
            (replaced.set, replaced.by) = (set, by);
        }
    }
    chains
}

#[cfg(test)]
mod tests;
