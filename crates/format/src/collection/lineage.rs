//! Snapshots: every complete set whose increments' start times lead back to a full set, as a tree when clients raced
//! (FORMAT.md section 10.3).

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use super::chains::{Bases, Chains};
use super::set::BackupSet;
use crate::{BackupTime, SetIndex};

/// A state of the source that can be read: a set together with the sets it builds on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Time of the set.
    pub time: BackupTime,
    /// Name of the snapshot's directory, unique in the collection: the time, and for a further set of the very same
    /// time what tells it apart.
    pub name: Arc<str>,
    /// The set itself.
    pub set: SetIndex,
    /// Index of the line in [`super::Collection::lines`] that this snapshot is on. Snapshots of one linear chain are on
    /// one line.
    pub line: usize,
    /// How many sets of that line, from the full set on, make up this snapshot.
    pub depth: usize,
    /// The line itself.
    sets: Arc<[SetIndex]>,
}

impl Snapshot {
    /// The snapshot of `set`, the last one of line number `line`.
    pub(super) fn on(lines: &[Arc<[SetIndex]>], line: usize, time: BackupTime, name: Arc<str>, set: SetIndex) -> Self {
        let sets = lines.get(line).cloned().unwrap_or_default();
        Self { time, name, set, line, depth: sets.len(), sets }
    }

    /// The sets that make up the snapshot: the full set first, the snapshot's own set last.
    pub fn lineage(&self) -> &[SetIndex] {
        self.sets.get(..self.depth).unwrap_or(&self.sets)
    }
}

/// Snapshots and their lines.
#[derive(Debug)]
pub(super) struct Lineage {
    pub(super) snapshots: Vec<Snapshot>,
    pub(super) lines: Vec<Arc<[SetIndex]>>,
    /// By set: the place of its snapshot.
    pub(super) snapshot_of_set: Vec<Option<usize>>,
}

#[derive(Clone, Default)]
struct Node {
    /// Whether the set leads back to a full set.
    rooted: bool,
    parent: Option<usize>,
    children: Vec<usize>,
    /// Number of sets on the longest way down, this one included.
    height: usize,
    /// The child on whose line this set is.
    heir: Option<usize>,
}

/// Finds the snapshots of `sets`, which are sorted; `bases` are duplicity's own choices of what an increment builds on.
pub(super) fn build(sets: &[BackupSet], chains: &Chains, bases: &Bases) -> Lineage {
    let (mut nodes, order) = link(sets, bases);
    choose_heirs(&mut nodes, &order, chains);
    let (lines, places) = draw_lines(&nodes, &order);
    let mut lineage = Lineage { snapshots: Vec::new(), lines, snapshot_of_set: vec![None; sets.len()] };
    let mut names = HashSet::new();
    for ((set, place), slot) in sets.iter().zip(places).zip(&mut lineage.snapshot_of_set) {
        let Some((line, depth)) = place else { continue };
        let Some(line_sets) = lineage.lines.get(line).cloned() else { continue };
        *slot = Some(lineage.snapshots.len());
        let name = unique_name(set, &mut names);
        lineage.snapshots.push(Snapshot { time: set.time, name, set: set.index, line, depth, sets: line_sets });
    }
    lineage
}

/// Two sets of one time differ in their start, so the start tells them apart.
pub(super) fn unique_name(set: &BackupSet, names: &mut HashSet<Arc<str>>) -> Arc<str> {
    let mut name: Arc<str> = set.time.to_string().into();
    if names.contains(&name) {
        name = match set.start {
            None => format!("{name}-full"),
            Some(start) => format!("{name}-from-{start}"),
        }
        .into();
    }
    names.insert(name.clone());
    name
}

/// Links increments to what they build on, from the full sets down, so that a cycle of start times is never entered.
/// Also returns the rooted sets, parents before children.
fn link(sets: &[BackupSet], bases: &Bases) -> (Vec<Node>, Vec<usize>) {
    let mut nodes = vec![Node::default(); sets.len()];
    let mut waiting: HashMap<BackupTime, Vec<usize>> = HashMap::new();
    let mut queue = VecDeque::new();
    for (place, set) in sets.iter().enumerate().filter(|(_, set)| set.is_complete()) {
        match set.start {
            None => queue.push_back(place),
            Some(start) => waiting.entry(start).or_default().push(place),
        }
    }
    let mut order = Vec::new();
    while let Some(place) = queue.pop_front() {
        let (Some(set), Some(node)) = (sets.get(place), nodes.get_mut(place)) else { continue };
        node.rooted = true;
        order.push(place);
        let Some(candidates) = waiting.get_mut(&set.time) else { continue };
        let fits = |i: &mut usize| {
            let index = sets.get(*i).map(|set| set.index);
            index.and_then(|index| bases.get(&index)).is_none_or(|base| *base == set.index)
        };
        let children: Vec<usize> = candidates.extract_if(.., fits).collect();
        for &child in &children {
            if let Some(child) = nodes.get_mut(child) {
                child.parent = Some(place);
            }
        }
        queue.extend(&children);
        if let Some(node) = nodes.get_mut(place) {
            node.children = children;
        }
    }
    (nodes, order)
}

/// A set shares its line with the child that duplicity's chain goes on to, else with the child that leads farthest.
fn choose_heirs(nodes: &mut [Node], order: &[usize], chains: &Chains) {
    let chained: HashSet<usize> =
        chains.chains.iter().flat_map(|chain| &chain.sets).filter_map(|index| usize::try_from(index.0).ok()).collect();
    for &place in order.iter().rev() {
        let Some(node) = nodes.get(place) else { continue };
        let rank = |child: &usize| (chained.contains(child), nodes.get(*child).map_or(0, |n| n.height), *child);
        let heir = node.children.iter().copied().max_by_key(rank);
        let below = node.children.iter().filter_map(|child| nodes.get(*child)).map(|n| n.height).max();
        if let Some(node) = nodes.get_mut(place) {
            node.heir = heir;
            node.height = below.unwrap_or(0) + 1;
        }
    }
}

/// By set: its line and its depth on it.
type Places = Vec<Option<(usize, usize)>>;

fn draw_lines(nodes: &[Node], order: &[usize]) -> (Vec<Arc<[SetIndex]>>, Places) {
    let index = |place: usize| SetIndex(u32::try_from(place).unwrap_or(u32::MAX));
    let mut lines: Vec<Arc<[SetIndex]>> = Vec::new();
    let mut places: Places = vec![None; nodes.len()];
    for &head in order {
        if places.get(head).copied().flatten().is_some() {
            continue;
        }
        let parent = nodes.get(head).and_then(|node| node.parent);
        let above = parent.and_then(|parent| places.get(parent).copied().flatten());
        let trunk = above.and_then(|(line, depth)| lines.get(line).and_then(|sets| sets.get(..depth)));
        let mut line = trunk.unwrap_or_default().to_vec();
        let mut next = Some(head);
        while let Some(place) = next {
            line.push(index(place));
            if let Some(slot) = places.get_mut(place) {
                *slot = Some((lines.len(), line.len()));
            }
            next = nodes.get(place).and_then(|node| node.heir);
        }
        lines.push(line.into());
    }
    (lines, places)
}
