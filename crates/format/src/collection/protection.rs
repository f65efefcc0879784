//! The sets that anyone who can write to the store could have made without a key, beside sets that are protected.

use std::collections::HashSet;

use super::chains::{Chain, Chains};
use super::set_list::{SetList, SetRenumbering};
use super::snapshots::{Snapshot, SnapshotList};
use crate::{BackupTime, SetIndex};

/// The unprotected sets of a store that has [protected](super::BackupSet::is_protected) ones too, and their effect on
/// `latest`.
///
/// A history from plain to encrypted sets is ordinary. It becomes doubtful where a set is less protected than one before
/// it, or than one that builds on it.
#[derive(Clone, Debug, Default)]
pub(super) struct ProtectionFindings {
    /// The doubtful sets, in the order of the sets.
    pub(super) doubtful: Vec<SetIndex>,
    /// The set that duplicity would restore, which may be doubtful or build on doubtful sets.
    pub(super) newest: Option<SetIndex>,
    /// The newest set that is as protected as those before it: [`Self::newest`] unless that is a step back.
    pub(super) latest: Option<SetIndex>,
}

impl ProtectionFindings {
    /// Examines `sets`. `protected` are the chains of the protected sets alone.
    pub(super) fn find(sets: &SetList, chains: &Chains, protected: &[Chain], snapshots: &SnapshotList) -> Self {
        let is_protected = |index: &SetIndex| sets.get(*index).is_some_and(|set| set.is_protected());
        let is_whole = |snapshot: &Snapshot| snapshot.lineage().iter().all(is_protected);
        // Every set of a chain but one that a planted set would carry has a snapshot.
        let newest_of = |chains: &[Chain]| -> Option<SetIndex> {
            let mut sets = chains.iter().rev().flat_map(|chain| chain.sets.iter().rev());
            sets.find(|set| snapshots.of_set(**set).is_some()).copied()
        };
        let newest = newest_of(&chains.chains);
        let best = newest_of(protected).and_then(|set| snapshots.of_set(set)).filter(|snapshot| is_whole(snapshot));
        let latest = match (newest.and_then(|set| snapshots.of_set(set)), best) {
            (Some(newest), Some(best)) if !is_whole(newest) || best.time > newest.time => Some(best.set),
            (newest, _) => newest.map(|snapshot| snapshot.set),
        };
        Self { doubtful: doubtful_sets(sets, snapshots), newest, latest }
    }

    /// Replaces all indices of sets by those in `indices`.
    pub(super) fn renumber(&mut self, indices: &SetRenumbering) {
        self.doubtful = self.doubtful.iter().filter_map(|set| indices.get(*set)).collect();
        self.newest = self.newest.and_then(|set| indices.get(set));
        self.latest = self.latest.and_then(|set| indices.get(set));
    }
}

/// Returns the time of the first set with an encrypted object. Sets without a manifest and objects that are not used count:
/// anyone who plants a set may have deleted the encrypted manifest that it replaces.
pub(super) fn first_encrypted(sets: &SetList) -> Option<BackupTime> {
    sets.iter().filter(|set| set.has_encrypted_objects()).map(|set| set.time).min()
}

fn doubtful_sets(sets: &SetList, snapshots: &SnapshotList) -> Vec<SetIndex> {
    let Some(first) = first_encrypted(sets) else { return Vec::new() };
    let is_protected = |index: &SetIndex| sets.get(*index).is_some_and(|set| set.is_protected());
    let carriers = snapshots.all().iter().filter(|snapshot| is_protected(&snapshot.set));
    let carrying: HashSet<SetIndex> = carriers.flat_map(|snapshot| snapshot.lineage().iter().copied()).collect();
    let unprotected = sets.iter().filter(|set| set.is_complete() && !set.is_protected());
    unprotected.filter(|set| set.time >= first || carrying.contains(&set.index)).map(|set| set.index).collect()
}
