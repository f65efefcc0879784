//! Rank 2: names to sets to chains to snapshots, with every problem reported; pure.
//!
//! [`Collection::from_listing`] takes one listing and nothing else: no object is opened here. What it tells:
//! - **sets**: every backup set named in the listing, complete or not, sorted by time;
//! - **chains**: the linear chains that duplicity itself would see, for `sets` and for [`Collection::select`];
//! - **snapshots**: every set that can be read, found by following the increments' start times, so that increments of
//!   clients that raced are there too, although duplicity drops them (FORMAT.md section 7);
//! - **problems**: whatever is missing, doubled, orphaned or refused, each in one line with its remedy.

mod chains;
mod error;
mod follow;
mod lineage;
mod names;
mod prefix;
mod problems;
mod ranges;
mod set;

use std::sync::Arc;

pub use chains::{Chain, Chains, Replaced, SignatureChain};
pub use error::CollectionError;
pub use lineage::Snapshot;
pub use prefix::{OtherBackup, PrefixOptions, Prefixes};
pub use problems::{Problem, ProblemKind, Severity};
pub use ranges::name_volumes;
pub use set::{BackupSet, Packing, Role, Spare};

use crate::ObjectInfo;
use crate::{BackupTime, SetIndex};

/// Everything that the names in one listing of a repository tell.
#[derive(Clone, Debug)]
pub struct Collection {
    sets: Vec<Arc<BackupSet>>,
    /// By set: whether nothing of it is left in the store.
    gone: Vec<bool>,
    chains: Chains,
    snapshots: Vec<Snapshot>,
    lines: Vec<Arc<[SetIndex]>>,
    snapshot_of_set: Vec<Option<usize>>,
    problems: Vec<Problem>,
    prefixes: Prefixes,
    others: Vec<OtherBackup>,
    foreign: usize,
}

impl Collection {
    /// Reads the names of `objects`, in any order; equal listings give equal collections.
    ///
    /// With prefixes given, only names that carry them count. Without, the backup without a prefix is used, else the
    /// only one there is. Foreign names are counted and otherwise ignored.
    ///
    /// # Errors
    /// [`CollectionError`]: nothing of duplicity's is there (or not under that prefix), several backups are there and
    /// none was chosen, or all that is there is encrypted with gpgsm. A backup of which no set is complete is no error
    /// here: [`Self::snapshots`] is empty and [`Self::problems`] says why.
    pub fn from_listing(objects: &[ObjectInfo], prefixes: &PrefixOptions) -> Result<Self, CollectionError> {
        let prefix::Chosen { members, prefixes, others, foreign } = prefix::choose(objects, prefixes)?;
        let grouped = set::group(&members);
        let (chains, bases) = chains::build(&grouped.sets, &grouped.signatures);
        let lineage = lineage::build(&grouped.sets, &chains, &bases);
        let mut collection = Self {
            snapshot_of_set: lineage.snapshot_of_set,
            snapshots: lineage.snapshots,
            lines: lineage.lines,
            gone: vec![false; grouped.sets.len()],
            sets: grouped.sets.into_iter().map(Arc::new).collect(),
            chains,
            problems: Vec::new(),
            prefixes,
            others,
            foreign,
        };
        if collection.is_all_cms() {
            return Err(CollectionError::Cms { sets: collection.sets.len() });
        }
        collection.problems = problems::find(&collection, &grouped.stray_signatures);
        Ok(collection)
    }

    /// All sets, complete or not; a set's place is its [`SetIndex`]. Sorted by time, except that those which a later listing
    /// brought ([`Self::follow`]) stand behind the others.
    pub fn sets(&self) -> &[Arc<BackupSet>] {
        &self.sets
    }

    /// The set of that index.
    pub fn set(&self, index: SetIndex) -> Option<&Arc<BackupSet>> {
        self.sets.get(usize::try_from(index.0).ok()?)
    }

    /// Whether nothing of the set is left in the store, after it was there in an earlier listing.
    pub fn is_gone(&self, index: SetIndex) -> bool {
        usize::try_from(index.0).ok().and_then(|place| self.gone.get(place)).copied().unwrap_or(false)
    }

    /// Every snapshot that can be read, in the order of the sets; also those that are gone.
    pub fn snapshots(&self) -> &[Snapshot] {
        &self.snapshots
    }

    /// The snapshot that ends with the set of that index; `None` if the set is incomplete or orphaned.
    pub fn snapshot_of(&self, index: SetIndex) -> Option<&Snapshot> {
        self.snapshots.get(self.place_of(index)?)
    }

    /// The place in [`Self::snapshots`] of the snapshot that ends with the set of that index.
    pub fn place_of(&self, index: SetIndex) -> Option<usize> {
        self.snapshot_of_set.get(usize::try_from(index.0).ok()?).copied()?
    }

    /// The snapshot whose directory has that name.
    pub fn snapshot_named(&self, name: &str) -> Option<&Snapshot> {
        self.snapshots.iter().find(|snapshot| &*snapshot.name == name)
    }

    /// The newest snapshot that duplicity would restore; `None` only if there is no snapshot at all.
    ///
    /// It is `select` at the end of time, so a set dated in the future by a wrong clock counts. With clients that
    /// raced, a snapshot of a branch that duplicity drops can be newer; it is in [`Self::snapshots`], and
    /// [`Self::problems`] names it.
    pub fn latest(&self) -> Option<&Snapshot> {
        self.select(BackupTime(i64::MAX)).ok()
    }

    /// The longest linear lineages, full set first; see [`Snapshot::line`].
    pub fn lines(&self) -> &[Arc<[SetIndex]>] {
        &self.lines
    }

    /// The chains that duplicity sees, and the sets it leaves out of them.
    pub fn chains(&self) -> &Chains {
        &self.chains
    }

    /// Everything that is wrong or worth knowing, the gravest first, then by time.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// The prefixes of the names in use.
    pub fn prefixes(&self) -> &Prefixes {
        &self.prefixes
    }

    /// Other backups seen in the same place, under other prefixes.
    pub fn other_backups(&self) -> &[OtherBackup] {
        &self.others
    }

    /// How many objects of the listing are not duplicity's (or not of a kind a restore needs).
    pub fn foreign_objects(&self) -> usize {
        self.foreign
    }

    /// The snapshot that `duplicity restore --time` picks (FORMAT.md section 7): of the chain that covers `at`, else of
    /// the last chain that ended before, else of the oldest chain, the newest set that is not younger than `at`; and
    /// the full set of that chain if all are. A time before everything thus gives the oldest full set.
    ///
    /// One difference is deliberate: duplicity leaves out the newest set of the newest chain if its signature archive is
    /// missing; here it counts, as its tree can be rebuilt from its volumes.
    ///
    /// # Errors
    /// [`CollectionError::TwoChains`] when two chains cover `at`, as duplicity refuses it;
    /// [`CollectionError::NoSnapshot`] when there is no chain.
    pub fn select(&self, at: BackupTime) -> Result<&Snapshot, CollectionError> {
        let chain = self.chains.at(at).map_err(|e| match e {
            chains::NotOne::None => CollectionError::NoSnapshot { sets: self.sets.len() },
            chains::NotOne::Two(a, b) => CollectionError::TwoChains { at, first: a.span(), second: b.span() },
        })?;
        let newest = chain.newest_at(&self.sets, at);
        // Every set of a chain is complete and linked to the chain's full set, so it has a snapshot.
        newest.and_then(|set| self.snapshot_of(set)).ok_or(CollectionError::NoSnapshot { sets: self.sets.len() })
    }

    fn is_all_cms(&self) -> bool {
        !self.sets.is_empty() && self.sets.iter().all(|set| set.packing == Packing::Cms)
    }
}

#[cfg(test)]
mod tests;
