//! The sets of a collection, which keep their indices when the collection is refreshed.

use std::collections::HashMap;
use std::sync::Arc;

use super::set::BackupSet;
use crate::SetIndex;
use crate::name::SetTimes;

/// The sets of a collection. The index of a set is its position.
#[derive(Clone, Debug, Default)]
pub(super) struct SetList {
    sets: Vec<Arc<BackupSet>>,
    /// By set: true if the last listing has no object of it.
    removed: Vec<bool>,
}

impl SetList {
    /// Creates a list of `sets`, whose indices are their positions.
    pub(super) fn new(sets: Vec<BackupSet>) -> Self {
        Self { removed: vec![false; sets.len()], sets: sets.into_iter().map(Arc::new).collect() }
    }

    pub(super) fn all(&self) -> &[Arc<BackupSet>] {
        &self.sets
    }

    pub(super) fn iter(&self) -> std::slice::Iter<'_, Arc<BackupSet>> {
        self.sets.iter()
    }

    pub(super) fn len(&self) -> usize {
        self.sets.len()
    }

    pub(super) fn get(&self, index: SetIndex) -> Option<&Arc<BackupSet>> {
        self.sets.get(index.position())
    }

    pub(super) fn is_removed(&self, index: SetIndex) -> bool {
        self.removed.get(index.position()).copied().unwrap_or(false)
    }

    /// Takes over the sets of a later listing, and returns their indices in this list. Known sets keep their index; new
    /// ones are appended. Sets that are not in the listing are removed, but keep their record.
    pub(super) fn merge(&mut self, later: &Self) -> SetRenumbering {
        let known: HashMap<SetTimes, usize> =
            self.sets.iter().enumerate().map(|(position, set)| (set.times(), position)).collect();
        self.removed = vec![true; self.sets.len()];
        let mut indices = Vec::with_capacity(later.len());
        for set in &later.sets {
            let position = known.get(&set.times()).copied().unwrap_or(self.sets.len());
            let index = SetIndex::from_position(position);
            if let Some(index) = index {
                self.put(set, index);
            }
            indices.push(index);
        }
        SetRenumbering(indices)
    }

    /// Stores a set of a later listing at `index`, which exists or is the next one.
    ///
    /// Objects of a complete set that are no longer listed stay in its record, so that reading one gives the store's
    /// own error.
    fn put(&mut self, later: &BackupSet, index: SetIndex) {
        let mut set = BackupSet { index, ..later.clone() };
        let position = index.position();
        let (Some(known), Some(removed)) = (self.sets.get_mut(position), self.removed.get_mut(position)) else {
            self.sets.push(Arc::new(set));
            self.removed.push(false);
            return;
        };
        if known.is_complete() {
            // Data proved by signatures and data verified by a manifest are not mixed.
            set.is_rebuilt = known.is_rebuilt;
            set.manifest = set.manifest.or_else(|| known.manifest.clone());
            set.signatures = set.signatures.or_else(|| known.signatures.clone());
            for (number, object) in &known.volumes {
                set.volumes.entry(*number).or_insert_with(|| object.clone());
            }
        }
        if **known != set {
            *known = Arc::new(set);
        }
        *removed = false;
    }

    /// Returns true if each set that is complete here, and was not `before`, has the same objects in `previous`.
    pub(super) fn is_confirmed(&self, before: &Self, previous: Option<&Self>) -> bool {
        let complete = |list: &Self| -> HashMap<SetTimes, Arc<BackupSet>> {
            let sets = list.sets.iter().filter(|set| set.is_complete());
            sets.map(|set| (set.times(), Arc::clone(set))).collect()
        };
        let (before, previous) = (complete(before), previous.map(complete).unwrap_or_default());
        let mut new = self.sets.iter().filter(|set| set.is_complete() && !before.contains_key(&set.times()));
        new.all(|set| previous.get(&set.times()).is_some_and(|other| other.objects().eq(set.objects())))
    }
}

/// The indices in one [`SetList`] of the sets of another.
pub(super) struct SetRenumbering(Vec<Option<SetIndex>>);

impl SetRenumbering {
    /// Returns the index here of the set with the index `later` there.
    pub(super) fn get(&self, later: SetIndex) -> Option<SetIndex> {
        self.0.get(later.position()).copied().flatten()
    }
}
