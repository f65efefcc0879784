//! Chains as duplicity itself sees them: the rules of its `collections` code, odd cases included (FORMAT.md section 7).

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::set::{self, BackupSet, NamedSignature};
use crate::{BackupTime, SetIndex};

/// A full set and the increments that duplicity restores on top of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// The full set, then the increments by time. Never empty.
    pub sets: Vec<SetIndex>,
    /// Time of the full set.
    pub start: BackupTime,
    /// Time of the last increment, or of the full set.
    pub end: BackupTime,
}

/// A full signature archive and the incremental ones that continue it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignatureChain {
    /// Object names, the full one first.
    pub names: Vec<Arc<str>>,
    /// Time of the full one.
    pub start: BackupTime,
    /// Time of the last one.
    pub end: BackupTime,
}

/// An increment that duplicity drops in favour of a later one with the same start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replaced {
    /// The increment dropped.
    pub set: SetIndex,
    /// The increment kept.
    pub by: SetIndex,
}

/// What `duplicity collection-status` tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chains {
    /// All chains, sorted by end time. A set that duplicity discards (below) is still in its chain.
    pub chains: Vec<Chain>,
    /// The primary chain: the last one, if a signature chain ends with it or with the set before its last.
    pub primary: Option<usize>,
    /// The last set of the primary chain, if duplicity discards it because its signature archive is missing.
    pub discarded: Option<SetIndex>,
    /// Increments that fit no chain.
    pub orphaned: Vec<SetIndex>,
    /// Sets without a manifest.
    pub incomplete: Vec<SetIndex>,
    /// Increments dropped in favour of a later one with the same start.
    pub replaced: Vec<Replaced>,
    /// Signature chains, sorted by end time.
    pub signature_chains: Vec<SignatureChain>,
    /// Incremental signature archives that fit no signature chain.
    pub orphaned_signatures: Vec<Arc<str>>,
}

/// Why a time does not pick one chain.
#[derive(Debug)]
pub(super) enum NotOne<'a> {
    None,
    Two(&'a Chain, &'a Chain),
}

impl Chain {
    /// `20170101T000000Z-20170128T021500Z`, or the one time of a chain without increments.
    pub fn span(&self) -> String {
        if self.start == self.end { self.start.to_string() } else { format!("{}-{}", self.start, self.end) }
    }

    /// The newest set not younger than `at`, or the full set.
    pub(super) fn newest_at(&self, sets: &[Arc<BackupSet>], at: BackupTime) -> Option<SetIndex> {
        let time = |index: &SetIndex| Some(sets.get(usize::try_from(index.0).ok()?)?.time);
        let young = |index: &SetIndex| time(index).is_none_or(|time| time > at);
        let end = self.sets.iter().skip(1).position(young).map_or(self.sets.len(), |i| i + 1);
        self.sets.get(..end).and_then(<[_]>::last).copied()
    }
}

impl Chains {
    /// The chain that duplicity restores from for a time.
    pub(super) fn at(&self, at: BackupTime) -> Result<&Chain, NotOne<'_>> {
        let mut covering = self.chains.iter().filter(|chain| chain.start <= at && at <= chain.end);
        match (covering.next(), covering.next()) {
            (Some(first), Some(second)) => return Err(NotOne::Two(first, second)),
            (Some(chain), None) => return Ok(chain),
            (None, _) => {}
        }
        let older = self.chains.iter().rev().find(|chain| chain.end < at);
        older.or(self.chains.first()).ok_or(NotOne::None)
    }
}

/// For each set that is or was in a chain: the set before it there.
pub(super) type Bases = HashMap<SetIndex, SetIndex>;

/// Builds the chains over `sets` and `signatures`, both sorted by key.
pub(super) fn build(sets: &[BackupSet], signatures: &[NamedSignature]) -> (Chains, Bases) {
    let mut building = Building::default();
    for set in sets {
        building.add(set);
    }
    let mut chains = Chains {
        chains: building.chains,
        orphaned: building.orphaned,
        incomplete: building.incomplete,
        replaced: building.replaced,
        ..Chains::default()
    };
    chains.chains.sort_by_key(|chain| chain.end);
    (chains.signature_chains, chains.orphaned_signatures) = signature_chains(signatures);
    match_signatures(sets, &mut chains);
    (chains, building.bases)
}

/// Chains in the order of their full sets, indexed by what an increment may attach to.
#[derive(Default)]
struct Building {
    chains: Vec<Chain>,
    by_end: HashMap<BackupTime, BTreeSet<usize>>,
    by_last_start: HashMap<BackupTime, BTreeSet<usize>>,
    last_start: Vec<Option<BackupTime>>,
    bases: Bases,
    orphaned: Vec<SetIndex>,
    incomplete: Vec<SetIndex>,
    replaced: Vec<Replaced>,
}

impl Building {
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
        // The first chain that takes the increment gets it: to continue it, or in place of its last increment.
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

    fn attach(&mut self, place: usize, set: &BackupSet, start: BackupTime, replace: bool) {
        let (Some(chain), Some(last_start)) = (self.chains.get_mut(place), self.last_start.get_mut(place)) else {
            return;
        };
        if replace && let Some(old) = chain.sets.pop() {
            self.replaced.push(Replaced { set: old, by: set.index });
        }
        if let Some(base) = chain.sets.last() {
            self.bases.insert(set.index, *base);
        }
        chain.sets.push(set.index);
        move_key(&mut self.by_end, Some(chain.end), set.time, place);
        move_key(&mut self.by_last_start, *last_start, start, place);
        chain.end = set.time;
        *last_start = Some(start);
    }
}

fn move_key(map: &mut HashMap<BackupTime, BTreeSet<usize>>, old: Option<BackupTime>, new: BackupTime, place: usize) {
    if let Some(places) = old.and_then(|old| map.get_mut(&old)) {
        places.remove(&place);
    }
    map.entry(new).or_default().insert(place);
}

/// Signature archives are chained apart from the sets: by start time, each to the first chain that ends there.
fn signature_chains(signatures: &[NamedSignature]) -> (Vec<SignatureChain>, Vec<Arc<str>>) {
    let mut chains = Vec::new();
    let mut increments = Vec::new();
    let mut by_end: HashMap<BackupTime, BTreeSet<usize>> = HashMap::new();
    for signature in signatures {
        let time = signature.key.time;
        match signature.key.start {
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
        match first.and_then(|place| chains.get_mut(place).map(|chain| (place, chain))) {
            Some((place, chain)) => {
                chain.names.push(name.clone());
                chain.end = time;
                move_key(&mut by_end, Some(start), time, place);
            }
            None => orphaned.push(name.clone()),
        }
    }
    chains.sort_by_key(|chain| chain.end);
    (chains, orphaned)
}

/// Finds the primary chain, and the set that duplicity discards. A chain of a full set and one increment never loses
/// the increment: duplicity compares with the full set's (absent) end time there.
fn match_signatures(sets: &[BackupSet], chains: &mut Chains) {
    let Some(last) = chains.chains.last() else { return };
    let before_last = last.sets.iter().rev().nth(1).and_then(|index| set::at(sets, *index));
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
