//! Chains as duplicity sees them, by the rules of its `collections` code including unusual cases (docs/FORMAT.md
//! section 7).

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::set::{BackupSet, NamedSignature};
use super::set_list::{SetList, SetRenumbering};
use crate::{BackupTime, SetIndex};

/// A full set and the increments that duplicity restores on top of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// The full set, then the increments by time. Never empty.
    pub sets: Vec<SetIndex>,
    /// The time of the full set.
    pub start: BackupTime,
    /// The time of the last increment, or of the full set.
    pub end: BackupTime,
}

/// A full signature archive and the incremental ones that continue it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignatureChain {
    /// Object names, the full one first.
    pub names: Vec<Arc<str>>,
    /// The time of the full one.
    pub start: BackupTime,
    /// The time of the last one.
    pub end: BackupTime,
}

/// An increment that duplicity drops because a later one has the same start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplacedSet {
    /// The increment that is dropped.
    pub set: SetIndex,
    /// The increment that stays in the chain.
    pub by: SetIndex,
}

/// The chains that `duplicity collection-status` shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chains {
    /// All chains, sorted by end time. A discarded set is still in its chain.
    pub chains: Vec<Chain>,
    /// The position of the primary chain: the last one, if a signature chain ends with its last set or with the set
    /// before that.
    pub primary: Option<usize>,
    /// The last set of the primary chain, if duplicity discards it because its signature archive is missing.
    pub discarded: Option<SetIndex>,
    /// Increments that fit no chain.
    pub orphaned: Vec<SetIndex>,
    /// Sets without a manifest.
    pub incomplete: Vec<SetIndex>,
    /// Increments that are dropped because a later one has the same start.
    pub replaced: Vec<ReplacedSet>,
    /// Signature chains, sorted by end time.
    pub signature_chains: Vec<SignatureChain>,
    /// Incremental signature archives that fit no signature chain.
    pub orphaned_signatures: Vec<Arc<str>>,
}

/// The reason why a time does not select a chain.
#[derive(Debug)]
pub(super) enum ChainSelectionError<'a> {
    /// There is no chain.
    NoChain,
    /// Two chains cover the time.
    TwoChains(&'a Chain, &'a Chain),
}

impl Chain {
    /// Returns `20170101T000000Z-20170128T021500Z`, or the single time of a chain without increments.
    pub fn span(&self) -> String {
        if self.start == self.end { self.start.to_string() } else { format!("{}-{}", self.start, self.end) }
    }

    /// Returns the sets up to the newest one that is not newer than `at`, at least the full set.
    pub(super) fn sets_until(&self, sets: &SetList, at: BackupTime) -> &[SetIndex] {
        let is_newer = |index: &SetIndex| sets.get(*index).is_none_or(|set| set.time > at);
        let end = self.sets.iter().skip(1).position(is_newer).map_or(self.sets.len(), |i| i + 1);
        self.sets.get(..end).unwrap_or_default()
    }
}

impl Chains {
    /// Returns the chain that duplicity restores from for a time.
    pub(super) fn select(&self, at: BackupTime) -> Result<&Chain, ChainSelectionError<'_>> {
        let mut covering = self.chains.iter().filter(|chain| chain.start <= at && at <= chain.end);
        match (covering.next(), covering.next()) {
            (Some(first), Some(second)) => return Err(ChainSelectionError::TwoChains(first, second)),
            (Some(chain), None) => return Ok(chain),
            (None, _) => {}
        }
        let older = self.chains.iter().rev().find(|chain| chain.end < at);
        older.or(self.chains.first()).ok_or(ChainSelectionError::NoChain)
    }

    /// Replaces all indices of sets by those in `indices`.
    pub(super) fn renumber(&mut self, indices: &SetRenumbering) {
        let renumber = |sets: &mut Vec<SetIndex>| *sets = sets.iter().filter_map(|set| indices.get(*set)).collect();
        self.chains.iter_mut().for_each(|chain| renumber(&mut chain.sets));
        renumber(&mut self.orphaned);
        renumber(&mut self.incomplete);
        self.discarded = self.discarded.and_then(|set| indices.get(set));
        for replaced in &mut self.replaced {
            if let (Some(set), Some(by)) = (indices.get(replaced.set), indices.get(replaced.by)) {
                *replaced = ReplacedSet { set, by };
            }
        }
    }
}

/// By set that is or was in a chain: the set before it there.
pub(super) type BaseOfSet = HashMap<SetIndex, SetIndex>;

/// Builds the chains of `sets` and `signatures`, both sorted by their times.
pub(super) fn build_chains(sets: &SetList, signatures: &[NamedSignature]) -> (Chains, BaseOfSet) {
    let mut builder = ChainBuilder::default();
    sets.iter().for_each(|set| builder.add(set));
    let mut chains = Chains {
        chains: builder.chains,
        orphaned: builder.orphaned,
        incomplete: builder.incomplete,
        replaced: builder.replaced,
        ..Chains::default()
    };
    chains.chains.sort_by_key(|chain| chain.end);
    (chains.signature_chains, chains.orphaned_signatures) = signature_chains(signatures);
    match_signatures(sets, &mut chains);
    (chains, builder.bases)
}

/// Builds the chains of the [protected](BackupSet::is_protected) sets alone, as if there were no others. Sorted by end
/// time.
pub(super) fn build_protected_chains(sets: &SetList) -> (Vec<Chain>, BaseOfSet) {
    let mut builder = ChainBuilder::default();
    sets.iter().filter(|set| set.is_protected()).for_each(|set| builder.add(set));
    builder.chains.sort_by_key(|chain| chain.end);
    (builder.chains, builder.bases)
}

/// The chains in the order of their full sets, indexed by the times that an increment can attach to.
#[derive(Default)]
struct ChainBuilder {
    chains: Vec<Chain>,
    by_end: HashMap<BackupTime, BTreeSet<usize>>,
    by_last_start: HashMap<BackupTime, BTreeSet<usize>>,
    last_start: Vec<Option<BackupTime>>,
    bases: BaseOfSet,
    orphaned: Vec<SetIndex>,
    incomplete: Vec<SetIndex>,
    replaced: Vec<ReplacedSet>,
}

impl ChainBuilder {
    fn add(&mut self, set: &BackupSet) {
        if !set.is_complete() {
            self.incomplete.push(set.index);
            return;
        }
        let Some(start) = set.start else {
            self.by_end.entry(set.time).or_default().insert(self.chains.len());
            self.chains.push(Chain { sets: vec![set.index], start: set.time, end: set.time });
            self.last_start.push(None);
            return;
        };
        // The first chain that fits gets the increment: as its next one, or replacing its last one.
        let continued = self.by_end.get(&start).and_then(BTreeSet::first).copied();
        let forked = self.by_last_start.get(&start).and_then(|fits| {
            fits.iter().copied().find(|&i| self.chains.get(i).is_some_and(|chain| set.time > chain.end))
        });
        match (continued, forked) {
            (Some(a), b) if b.is_none_or(|b| a <= b) => self.attach(a, set, start, false),
            (_, Some(b)) => self.attach(b, set, start, true),
            (_, None) => self.orphaned.push(set.index),
        }
    }

    fn attach(&mut self, position: usize, set: &BackupSet, start: BackupTime, replace: bool) {
        let (Some(chain), Some(last_start)) = (self.chains.get_mut(position), self.last_start.get_mut(position)) else {
            return;
        };
        if replace && let Some(old) = chain.sets.pop() {
            self.replaced.push(ReplacedSet { set: old, by: set.index });
        }
        if let Some(base) = chain.sets.last() {
            self.bases.insert(set.index, *base);
        }
        chain.sets.push(set.index);
        move_key(&mut self.by_end, Some(chain.end), set.time, position);
        move_key(&mut self.by_last_start, *last_start, start, position);
        chain.end = set.time;
        *last_start = Some(start);
    }
}

fn move_key(map: &mut HashMap<BackupTime, BTreeSet<usize>>, old: Option<BackupTime>, new: BackupTime, position: usize) {
    if let Some(positions) = old.and_then(|old| map.get_mut(&old)) {
        positions.remove(&position);
    }
    map.entry(new).or_default().insert(position);
}

/// Builds the chains of signature archives, independently of the sets. An increment continues the first chain that ends
/// at its start time.
fn signature_chains(signatures: &[NamedSignature]) -> (Vec<SignatureChain>, Vec<Arc<str>>) {
    let mut chains = Vec::new();
    let mut increments = Vec::new();
    let mut by_end: HashMap<BackupTime, BTreeSet<usize>> = HashMap::new();
    for signature in signatures {
        let time = signature.times.end;
        match signature.times.start {
            Some(start) => increments.push((start, time, &signature.name)),
            None => {
                by_end.entry(time).or_default().insert(chains.len());
                chains.push(SignatureChain { names: vec![signature.name.clone()], start: time, end: time });
            }
        }
    }
    increments.sort();
    let mut orphaned = Vec::new();
    for (start, time, name) in increments {
        let first = by_end.get(&start).and_then(BTreeSet::first).copied();
        match first.and_then(|position| chains.get_mut(position).map(|chain| (position, chain))) {
            Some((position, chain)) => {
                chain.names.push(name.clone());
                chain.end = time;
                move_key(&mut by_end, Some(start), time, position);
            }
            None => orphaned.push(name.clone()),
        }
    }
    chains.sort_by_key(|chain| chain.end);
    (chains, orphaned)
}

/// Finds the primary chain, and the set that duplicity discards. In a chain of a full set and one increment, the
/// increment is never discarded: duplicity compares with the end time of the full set there, which does not exist.
fn match_signatures(sets: &SetList, chains: &mut Chains) {
    let Some(last) = chains.chains.last() else { return };
    let before_last = last.sets.iter().rev().nth(1).and_then(|index| sets.get(*index));
    let before_last = before_last.filter(|set| !set.is_full()).map(|set| set.time);
    for signature_chain in chains.signature_chains.iter().rev() {
        let whole = signature_chain.end == last.end;
        if whole || Some(signature_chain.end) == before_last {
            chains.discarded = last.sets.last().filter(|_| !whole).copied();
            chains.primary = Some(chains.chains.len() - 1);
            return;
        }
    }
}
