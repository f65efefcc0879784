//! Snapshots: every complete set whose increments' start times lead back to a full set. They form a tree where clients
//! raced (docs/FORMAT.md section 10, step 3).

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use super::chains::{BaseOfSet, Chains};
use super::set::BackupSet;
use super::set_list::{SetList, SetRenumbering};
use crate::{BackupTime, SetIndex};

/// A readable state of the source: a set together with the sets that it builds on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The time of the set.
    pub time: BackupTime,
    /// The name of the snapshot's directory, unique in the collection: the time. If several sets have this time, the
    /// name of all but the first has a suffix.
    pub name: Arc<str>,
    /// The set itself.
    pub set: SetIndex,
    /// The index of the branch of this snapshot in [`super::Collection::branches`]. The snapshots of one linear chain
    /// are on one branch.
    pub branch: usize,
    /// The number of sets of that branch, from the full set on, that make up this snapshot.
    pub depth: usize,
    /// The branch itself.
    sets: Arc<[SetIndex]>,
}

impl Snapshot {
    /// Returns the sets that make up the snapshot: the full set first, the snapshot's own set last.
    pub fn lineage(&self) -> &[SetIndex] {
        self.sets.get(..self.depth).unwrap_or(&self.sets)
    }
}

/// Upper bound of the sets that branches have in common with others, as each branch lists all its sets. Branches that exceed it
/// are not shown: a backup has few, and 20,000 increments of a chain of as many sets would take 1.6 GB.
const MAX_SHARED_SETS: usize = 1 << 22;

/// All snapshots of a collection and their branches.
#[derive(Clone, Debug)]
pub(super) struct SnapshotList {
    snapshots: Vec<Snapshot>,
    branches: Vec<Arc<[SetIndex]>>,
    /// By set: the position of its snapshot.
    position_of_set: Vec<Option<usize>>,
}

impl SnapshotList {
    /// Finds the snapshots of `sets`, which are sorted. `bases` has duplicity's own choices of what an increment builds
    /// on.
    pub(super) fn new(sets: &SetList, chains: &Chains, bases: &BaseOfSet) -> Self {
        let (mut nodes, order) = link(sets, bases);
        choose_successors(&mut nodes, &order, chains);
        let (branches, positions) = build_branches(&nodes, &order, sets);
        let mut list = Self { snapshots: Vec::new(), branches, position_of_set: vec![None; sets.len()] };
        let mut names = HashSet::new();
        for ((set, position), slot) in sets.iter().zip(positions).zip(&mut list.position_of_set) {
            let Some((branch, depth)) = position else { continue };
            let Some(branch_sets) = list.branches.get(branch).cloned() else { continue };
            *slot = Some(list.snapshots.len());
            let name = unique_name(set, &mut names);
            let (time, set) = (set.time, set.index);
            list.snapshots.push(Snapshot { time, name, set, branch, depth, sets: branch_sets });
        }
        list
    }

    pub(super) fn all(&self) -> &[Snapshot] {
        &self.snapshots
    }

    pub(super) fn branches(&self) -> &[Arc<[SetIndex]>] {
        &self.branches
    }

    /// Returns the snapshot that ends with `set`.
    pub(super) fn of_set(&self, set: SetIndex) -> Option<&Snapshot> {
        self.snapshots.get(self.position_of_set(set)?)
    }

    /// Returns the position of the snapshot that ends with `set`.
    pub(super) fn position_of_set(&self, set: SetIndex) -> Option<usize> {
        self.position_of_set.get(set.position()).copied().flatten()
    }

    /// Appends the snapshots of a later listing that are new. `indices` are the indices in `sets` of the sets of that
    /// listing.
    pub(super) fn merge(&mut self, later: &Self, indices: &SetRenumbering, sets: &SetList) {
        self.position_of_set.resize(sets.len(), None);
        let mut names: HashSet<Arc<str>> = self.snapshots.iter().map(|snapshot| Arc::clone(&snapshot.name)).collect();
        let renumber = |snapshot: &Snapshot| -> Option<Vec<SetIndex>> {
            snapshot.lineage().iter().map(|set| indices.get(*set)).collect()
        };
        let is_known =
            |snapshot: &Snapshot| indices.get(snapshot.set).is_none_or(|set| self.position_of_set(set).is_some());
        // Their own lists, which are renumbered one by one, would take memory by the square of their number.
        let mut new: Vec<&Snapshot> = later.snapshots.iter().filter(|snapshot| !is_known(snapshot)).collect();
        // By time, but a snapshot follows those that it builds on, whatever the clocks showed.
        let latest_time = |snapshot: &Snapshot| {
            let numbers = snapshot.lineage().iter().filter_map(|set| indices.get(*set));
            numbers.filter_map(|set| sets.get(set)).map(|set| set.time).max()
        };
        new.sort_by_cached_key(|snapshot| (latest_time(snapshot), snapshot.depth));
        for snapshot in new {
            let Some(lineage) = renumber(snapshot) else { continue };
            let Some(set) = lineage.last().and_then(|set| sets.get(*set)) else { continue };
            let name = unique_name(set, &mut names);
            self.append(set, name, lineage);
        }
    }

    /// Appends the snapshot `name` of `set`, which is the last set of `lineage`.
    fn append(&mut self, set: &BackupSet, name: Arc<str>, lineage: Vec<SetIndex>) {
        let depth = lineage.len();
        let sets: Arc<[SetIndex]> = lineage.into();
        let base = sets.split_last().map_or(&[][..], |(_, base)| base);
        let listed = self.branches.iter().map(|branch| branch.len()).fold(base.len(), usize::saturating_add);
        // A branch that ends with the base grows. Otherwise a new branch begins.
        let grows = (!base.is_empty()).then(|| self.branches.iter().position(|branch| **branch == *base)).flatten();
        let branch = match grows.and_then(|position| Some((position, self.branches.get_mut(position)?))) {
            Some((position, branch)) => {
                *branch = Arc::clone(&sets);
                // Its snapshots share one list, of which each is a beginning.
                let on_branch = self.snapshots.iter_mut().filter(|snapshot| snapshot.branch == position);
                on_branch.for_each(|snapshot| snapshot.sets = Arc::clone(&sets));
                position
            }
            None if listed.saturating_sub(self.snapshots.len()) > MAX_SHARED_SETS => return,
            None => {
                self.branches.push(Arc::clone(&sets));
                self.branches.len() - 1
            }
        };
        let Some(slot) = self.position_of_set.get_mut(set.index.position()) else { return };
        *slot = Some(self.snapshots.len());
        self.snapshots.push(Snapshot { time: set.time, name, set: set.index, branch, depth, sets });
    }
}

/// Returns the name of the snapshot of `set` that is not in `names`, and adds it there. Two sets of one time differ in
/// their start, so the start makes the name unique.
fn unique_name(set: &BackupSet, names: &mut HashSet<Arc<str>>) -> Arc<str> {
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

/// A set in the tree of sets that build on each other.
#[derive(Clone, Default)]
struct LineageNode {
    parent: Option<usize>,
    children: Vec<usize>,
    /// Number of sets on the longest path down, including this one.
    height: usize,
    /// The child that continues the branch of this set.
    successor: Option<usize>,
}

/// Links increments to their bases, from the full sets down, so that a cycle of start times is never entered. Also
/// returns the positions of the linked sets, parents before children.
fn link(sets: &SetList, bases: &BaseOfSet) -> (Vec<LineageNode>, Vec<usize>) {
    let mut nodes = vec![LineageNode::default(); sets.len()];
    let mut waiting: HashMap<BackupTime, Vec<usize>> = HashMap::new();
    let mut queue = VecDeque::new();
    let protected_times: HashSet<BackupTime> =
        sets.iter().filter(|set| set.is_protected()).map(|set| set.time).collect();
    for (position, set) in sets.iter().enumerate().filter(|(_, set)| set.is_complete()) {
        match set.start {
            None => queue.push_back(position),
            Some(start) => waiting.entry(start).or_default().push(position),
        }
    }
    let mut order = Vec::new();
    while let Some(position) = queue.pop_front() {
        let Some(set) = sets.all().get(position) else { continue };
        order.push(position);
        let Some(candidates) = waiting.get_mut(&set.time) else { continue };
        // A protected increment builds on a protected set if one has the time: a set that was planted with that time
        // must not become its base.
        let is_doubtful = !set.is_protected() && protected_times.contains(&set.time);
        let fits = |candidate: &mut usize| {
            let Some(candidate) = sets.all().get(*candidate) else { return false };
            !(is_doubtful && candidate.is_protected())
                && bases.get(&candidate.index).is_none_or(|base| *base == set.index)
        };
        let children: Vec<usize> = candidates.extract_if(.., fits).collect();
        for &child in &children {
            if let Some(child) = nodes.get_mut(child) {
                child.parent = Some(position);
            }
        }
        queue.extend(&children);
        if let Some(node) = nodes.get_mut(position) {
            node.children = children;
        }
    }
    (nodes, order)
}

/// Chooses for each set the child that continues its branch: the one in duplicity's chain, else the one with the
/// longest path down.
fn choose_successors(nodes: &mut [LineageNode], order: &[usize], chains: &Chains) {
    let chained: HashSet<usize> =
        chains.chains.iter().flat_map(|chain| &chain.sets).map(|index| index.position()).collect();
    for &position in order.iter().rev() {
        let Some(node) = nodes.get(position) else { continue };
        let rank = |child: &usize| (chained.contains(child), nodes.get(*child).map_or(0, |n| n.height), *child);
        let successor = node.children.iter().copied().max_by_key(rank);
        let below = node.children.iter().filter_map(|child| nodes.get(*child)).map(|n| n.height).max();
        if let Some(node) = nodes.get_mut(position) {
            node.successor = successor;
            node.height = below.unwrap_or(0) + 1;
        }
    }
}

/// By set: its branch, and its depth on that branch.
type BranchPositions = Vec<Option<(usize, usize)>>;

fn build_branches(nodes: &[LineageNode], order: &[usize], sets: &SetList) -> (Vec<Arc<[SetIndex]>>, BranchPositions) {
    let mut branches: Vec<Arc<[SetIndex]>> = Vec::new();
    let mut positions: BranchPositions = vec![None; nodes.len()];
    let mut shared: usize = 0;
    for &head in order {
        if positions.get(head).copied().flatten().is_some() {
            continue;
        }
        let parent = nodes.get(head).and_then(|node| node.parent);
        let above = parent.and_then(|parent| positions.get(parent).copied().flatten());
        let trunk = above.and_then(|(branch, depth)| branches.get(branch).and_then(|sets| sets.get(..depth)));
        shared = shared.saturating_add(trunk.map_or(0, <[SetIndex]>::len));
        if parent.is_some() && (trunk.is_none() || shared > MAX_SHARED_SETS) {
            continue;
        }
        let mut branch = trunk.unwrap_or_default().to_vec();
        let mut next = Some(head);
        while let Some(position) = next {
            branch.extend(sets.all().get(position).map(|set| set.index));
            if let Some(slot) = positions.get_mut(position) {
                *slot = Some((branches.len(), branch.len()));
            }
            next = nodes.get(position).and_then(|node| node.successor);
        }
        branches.push(branch.into());
    }
    (branches, positions)
}
