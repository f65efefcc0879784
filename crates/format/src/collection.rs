//! A listing as backup sets, chains and snapshots, with all problems.
//!
//! [`Collection::from_listing`] takes the names and sizes of objects. It opens no object. The collection has:
//!
//! - **sets**: every backup set in the listing, complete or not, sorted by time;
//! - **chains**: the linear chains that duplicity itself would see, for reports and for [`Collection::select`];
//! - **snapshots**: every set that can be read. They follow from the start times of the increments, so increments of
//!   clients that raced are included, although duplicity drops them (docs/FORMAT.md section 7);
//! - **problems**: everything that is missing, duplicate, orphaned or unsupported, in one line each with its remedy.

mod chains;
mod choose;
mod error;
mod group;
mod problems;
mod protection;
mod refused_manifests;
mod set;
mod set_list;
mod snapshots;
mod volume_ranges;

use std::collections::BTreeSet;
use std::sync::Arc;

pub use chains::{Chain, Chains, ReplacedSet, SignatureChain};
pub use choose::{OtherBackup, PrefixOptions};
pub use error::CollectionError;
pub use problems::{Problem, ProblemKind, Severity};
pub use refused_manifests::RefusedManifests;
pub use set::{BackupSet, DuplicateObject, SetEncryption};
pub use snapshots::Snapshot;
pub use volume_ranges::describe_volumes;

use chains::ChainSelectionError;
use choose::ChosenBackup;
use problems::CollectionFacts;
use protection::ProtectionFindings;
use set_list::SetList;
use snapshots::SnapshotList;

use crate::name::{NamePrefixes, NameSuffix};
use crate::{BackupTime, ObjectInfo, SetIndex};

/// The backup that one listing of a repository shows.
#[derive(Clone, Debug)]
pub struct Collection {
    sets: SetList,
    chains: Chains,
    snapshots: SnapshotList,
    protection: ProtectionFindings,
    problems: Vec<Problem>,
    prefixes: NamePrefixes,
    others: Vec<OtherBackup>,
    foreign: usize,
    /// The choice of the sets that count, with the prefixes that were found.
    options: CollectionOptions,
}

/// The selection of the sets of a store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CollectionOptions {
    /// The prefixes of the names.
    pub prefixes: PrefixOptions,
    /// Leave out the sets whose manifests are not encrypted.
    pub require_encryption: bool,
    /// Show sets that have lost their manifests where they can be rebuilt: see [`BackupSet::is_rebuildable`].
    pub rebuild: bool,
    /// The manifests that the caller has refused. Their sets are shown, and count as not protected.
    pub refused: RefusedManifests,
}

impl Collection {
    /// Builds the collection of `objects`, which may have any order. Equal listings give equal collections.
    ///
    /// If prefixes are given, only names with these prefixes count. Otherwise the backup without a prefix is used, else
    /// the only one that exists. Foreign names are counted and otherwise ignored.
    ///
    /// # Errors
    /// [`CollectionError`] if the listing has no backup (with these prefixes), if it has several and none was chosen,
    /// and if all sets are encrypted with gpgsm. A backup without a complete set is not an error here:
    /// [`Self::snapshots`] is empty and [`Self::problems`] has the reasons.
    pub fn from_listing(objects: &[ObjectInfo], prefixes: &PrefixOptions) -> Result<Self, CollectionError> {
        Self::from_listing_with(
            objects,
            &CollectionOptions { prefixes: prefixes.clone(), ..CollectionOptions::default() },
        )
    }

    /// Builds the collection of `objects` as [`Self::from_listing`] does, with all options.
    ///
    /// # Errors
    /// As [`Self::from_listing`], and [`CollectionError::NotEncrypted`] if all sets are left out.
    pub fn from_listing_with(objects: &[ObjectInfo], options: &CollectionOptions) -> Result<Self, CollectionError> {
        let ChosenBackup { objects, prefixes, others, foreign } =
            choose::choose_backup(objects, &options.prefixes, options.require_encryption)?;
        let mut grouped = group::group(&objects);
        for set in grouped.sets.iter_mut().filter(|set| options.rebuild && set.is_rebuildable()) {
            set.is_rebuilt = true;
        }
        for set in &mut grouped.sets {
            set.refusal = options.refused.reason(set);
        }
        let refused = if options.require_encryption { grouped.refuse_unprotected() } else { BTreeSet::new() };
        if grouped.sets.is_empty() && !refused.is_empty() {
            return Err(CollectionError::NotEncrypted { sets: refused.len() });
        }
        let sets = SetList::new(grouped.sets);
        if sets.len() > 0 && sets.iter().all(|set| set.suffix == NameSuffix::Cms) {
            return Err(CollectionError::Cms { sets: sets.len() });
        }
        let (chains, mut bases) = chains::build_chains(&sets, &grouped.signatures);
        // A set that was planted without a key must not become the base of one that is encrypted.
        let (protected_chains, protected_bases) = chains::build_protected_chains(&sets);
        bases.extend(protected_bases);
        let snapshots = SnapshotList::new(&sets, &chains, &bases);
        let protection = ProtectionFindings::find(&sets, &chains, &protected_chains, &snapshots);
        let problems = problems::find_problems(&CollectionFacts {
            sets: &sets,
            chains: &chains,
            snapshots: &snapshots,
            protection: &protection,
            refused: &refused,
            others: &others,
            stray_signatures: &grouped.stray_signatures,
        });
        let options = options.clone();
        Ok(Self { sets, chains, snapshots, protection, problems, prefixes, others, foreign, options })
    }

    /// Returns this collection after a later listing of the same store, with the same prefixes.
    ///
    /// Everything keeps its number, and a snapshot that was shown does not change: callers store trees, sizes and inode
    /// numbers by these numbers.
    ///
    /// - Sets, snapshots and branches keep their positions. New ones are appended. A branch grows if a new snapshot
    ///   continues its last one. Otherwise the new snapshot begins a new branch.
    /// - A snapshot keeps its name and its sets, even where the names alone would now give others.
    /// - Objects of a complete set that are no longer listed stay in its record, so that reading one gives the store's
    ///   own error. A set without any listed object is [removed](Self::is_removed).
    /// - Chains, and therefore [`Self::select`] and [`Self::latest`], are those of the new listing.
    ///
    /// # Errors
    /// [`CollectionError`] as [`Self::from_listing`]: the backup no longer exists. This collection stays valid.
    pub fn refreshed(&self, objects: &[ObjectInfo]) -> Result<Self, CollectionError> {
        self.refreshed_with(objects, &self.options.refused)
    }

    /// Returns this collection after a later listing as [`Self::refreshed`] does, with the manifests that are `refused` now.
    ///
    /// # Errors
    /// As [`Self::refreshed`].
    pub fn refreshed_with(&self, objects: &[ObjectInfo], refused: &RefusedManifests) -> Result<Self, CollectionError> {
        let prefixes = PrefixOptions::from(self.prefixes.clone());
        let options = CollectionOptions { prefixes, refused: refused.clone(), ..self.options.clone() };
        let later = Self::from_listing_with(objects, &options)?;
        let mut next = Self { sets: self.sets.clone(), snapshots: self.snapshots.clone(), ..later };
        let indices = next.sets.merge(&later.sets);
        next.snapshots.merge(&later.snapshots, &indices, &next.sets);
        next.chains.renumber(&indices);
        next.protection.renumber(&indices);
        next.problems.iter_mut().for_each(|problem| problem.renumber(&indices));
        Ok(next)
    }

    /// Returns true if each set that is complete here, and was not `before`, has the same objects in `previous`, the
    /// listing before this one. A listing that is made while a backup is written may show a manifest without older
    /// objects.
    pub fn is_confirmed(&self, before: &Self, previous: Option<&Self>) -> bool {
        self.sets.is_confirmed(&before.sets, previous.map(|previous| &previous.sets))
    }

    /// Returns all sets, complete or not, at the positions of their [`SetIndex`]. They are sorted by time, but those
    /// that a later listing added ([`Self::refreshed`]) follow the others.
    pub fn sets(&self) -> &[Arc<BackupSet>] {
        self.sets.all()
    }

    /// Returns the set with this index.
    pub fn set(&self, index: SetIndex) -> Option<&Arc<BackupSet>> {
        self.sets.get(index)
    }

    /// Returns true if an earlier listing had the set and the last one has no object of it.
    pub fn is_removed(&self, index: SetIndex) -> bool {
        self.sets.is_removed(index)
    }

    /// Returns all snapshots that can be read, in the order of the sets. Removed ones are included.
    pub fn snapshots(&self) -> &[Snapshot] {
        self.snapshots.all()
    }

    /// Returns the snapshot that ends with this set. Returns `None` if the set is incomplete or orphaned.
    pub fn snapshot_of(&self, index: SetIndex) -> Option<&Snapshot> {
        self.snapshots.of_set(index)
    }

    /// Returns the position in [`Self::snapshots`] of the snapshot that ends with this set.
    pub fn snapshot_position(&self, index: SetIndex) -> Option<usize> {
        self.snapshots.position_of_set(index)
    }

    /// Returns the snapshot with this directory name.
    pub fn snapshot_named(&self, name: &str) -> Option<&Snapshot> {
        self.snapshots().iter().find(|snapshot| &*snapshot.name == name)
    }

    /// Returns the newest snapshot that duplicity would restore and that is as protected as those before it. Returns
    /// `None` only if there is no snapshot.
    ///
    /// This is [`Self::select`] at the end of time, so a set with a future date from a wrong clock counts. One exception:
    /// if that snapshot contains a set that is not [protected](BackupSet::is_protected), and snapshots of protected sets
    /// exist, the newest of these is returned. Otherwise anyone who can write to the store could determine it without
    /// having a key.
    ///
    /// If clients raced, a snapshot of a branch that duplicity drops can be newer. It is in [`Self::snapshots`], and
    /// [`Self::problems`] names it.
    pub fn latest(&self) -> Option<&Snapshot> {
        self.snapshot_of(self.protection.latest?)
    }

    /// Returns the sets that are not protected although an earlier one is encrypted, or one that builds on them is protected.
    pub fn doubtful_sets(&self) -> &[SetIndex] {
        &self.protection.doubtful
    }

    /// Returns the branches: the longest linear lineages, full set first. See [`Snapshot::branch`].
    pub fn branches(&self) -> &[Arc<[SetIndex]>] {
        self.snapshots.branches()
    }

    /// Returns the chains that duplicity sees, and the sets that are in none.
    pub fn chains(&self) -> &Chains {
        &self.chains
    }

    /// Returns all problems, the most severe first, then by time.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// Returns the prefixes of the backup's names.
    pub fn prefixes(&self) -> &NamePrefixes {
        &self.prefixes
    }

    /// Returns the other backups in the same store, which have other prefixes.
    pub fn other_backups(&self) -> &[OtherBackup] {
        &self.others
    }

    /// Returns the number of listed objects that are not duplicity's, or not of a kind that a restore needs.
    pub fn foreign_objects(&self) -> usize {
        self.foreign
    }

    /// Returns the snapshot that `duplicity restore --time` selects (docs/FORMAT.md section 7).
    ///
    /// The chain is the one that covers `at`, else the last one that ended before, else the oldest one. The set is the
    /// newest one of that chain that is not newer than `at`, else the full set. A time before all sets therefore selects the
    /// oldest full set.
    ///
    /// One difference is deliberate: duplicity leaves out the newest set of the newest chain if its signature archive
    /// is missing. Here that set counts, because its tree can be rebuilt from its volumes.
    ///
    /// # Errors
    /// [`CollectionError::TwoChains`] if two chains cover `at`, which duplicity refuses, too;
    /// [`CollectionError::NoSnapshot`] if there is no chain.
    pub fn select(&self, at: BackupTime) -> Result<&Snapshot, CollectionError> {
        let chain = self.chains.select(at).map_err(|error| match error {
            ChainSelectionError::NoChain => self.no_snapshot(),
            ChainSelectionError::TwoChains(a, b) => {
                CollectionError::TwoChains { at, first: a.span(), second: b.span() }
            }
        })?;
        // Every set of a chain is complete and linked to the chain's full set, so it has a snapshot, unless only a planted
        // set links it.
        let mut candidates = chain.sets_until(&self.sets, at).iter().rev();
        candidates.find_map(|set| self.snapshot_of(*set)).ok_or_else(|| self.no_snapshot())
    }

    fn no_snapshot(&self) -> CollectionError {
        let rebuildable = self.sets.iter().filter(|set| !set.is_rebuilt && set.is_rebuildable()).count();
        CollectionError::NoSnapshot { sets: self.sets.len(), rebuildable }
    }
}

#[cfg(test)]
mod protection_tests;
#[cfg(test)]
mod refresh_tests;
#[cfg(test)]
mod tests;
