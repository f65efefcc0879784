//! A branch of sets (a full and the increments on it) and its table, loaded set by set when a snapshot is first asked for.

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, mpsc};

use super::error::TreeError;
use super::load_set::{self, LoadedSet};
use super::tree_index::{self, TreeSaver};
use super::version_table::VersionTable;
use crate::volume::Repository;
use dupfs_base::sync::{SingleFlight, SingleFlightError, lock};
use dupfs_base::{ErrorKind, HasKind, RequestContext};
use dupfs_format::SetIndex;

/// Stored bytes of the signature archives that are staged at a time, beside the one that enters the table next.
const MAX_STAGED: u64 = 64 << 20;

/// One branch of sets and the table of versions over it.
#[derive(Debug)]
pub struct Branch {
    /// Grows when a later listing shows a set that continues the branch.
    sets: RwLock<Arc<[SetIndex]>>,
    table: Arc<RwLock<VersionTable>>,
    flight: SingleFlight<(), (), TreeError>,
    /// The position that cannot be loaded, and why, where trying again cannot help.
    failed: Mutex<Option<(u32, TreeError)>>,
    saver: TreeSaver,
}

impl Branch {
    fn new(sets: Arc<[SetIndex]>) -> Self {
        let (table, flight, failed, saver) = Default::default();
        Self { sets: RwLock::new(sets), table, flight, failed, saver }
    }

    /// The set at `position`.
    pub fn set_at(&self, position: u32) -> Option<SetIndex> {
        self.sets.read().unwrap_or_else(PoisonError::into_inner).get(position as usize).copied()
    }

    fn sets(&self) -> Arc<[SetIndex]> {
        Arc::clone(&self.sets.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn grow(&self, sets: &Arc<[SetIndex]>) {
        if sets.len() > self.sets().len() {
            let mut own = self.sets.write().unwrap_or_else(PoisonError::into_inner);
            if sets.len() > own.len() {
                *own = Arc::clone(sets);
            }
        }
    }

    /// The table as far as it is loaded. Hold the guard for in-memory work only.
    pub fn table(&self) -> RwLockReadGuard<'_, VersionTable> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the first `depth` sets are loaded.
    pub fn is_loaded(&self, depth: u32) -> bool {
        self.table().depth() >= depth
    }

    /// Loads the first `depth` sets: from the signature archives, or from the volumes' headers where an archive is
    /// missing or damaged.
    ///
    /// # Errors
    /// [`TreeError`] when what a snapshot of `depth` sets shows cannot be known at all.
    pub fn ensure(
        self: &Arc<Self>,
        repository: &Arc<Repository>,
        depth: u32,
        context: &RequestContext,
    ) -> Result<(), TreeError> {
        while !self.is_loaded(depth) {
            if let Some(error) = self.known_failure(depth) {
                return Err(error);
            }
            let (this, repository) = (Arc::clone(self), Arc::clone(repository));
            let work = move |context: &RequestContext| this.load(&repository, depth, context);
            let loaded = self.flight.run((), "dupfs-tree", context, work);
            // The run that was shared may have failed on a set that this snapshot does not need.
            if let Err(error) = loaded
                && !self.is_loaded(depth)
            {
                return Err(error);
            }
        }
        Ok(())
    }

    fn load(&self, repository: &Arc<Repository>, depth: u32, context: &RequestContext) -> Result<(), TreeError> {
        let sets = self.sets();
        let recalled = self.saver.load(repository, &sets, self.table().is_empty());
        if let Some(table) = recalled {
            let loaded = table.depth();
            *self.write() = table;
            tree_index::load_exact_sizes(repository, &sets, &self.table, 0..loaded);
        }
        let start = self.table().depth();
        if start >= depth {
            return Ok(());
        }
        let loaded = self.load_all(repository, start..depth, context);
        self.write().finish_building();
        let end = self.table().depth();
        tree_index::load_exact_sizes(repository, &sets, &self.table, start..end);
        self.saver.note_loaded(repository, &sets, &self.table);
        loaded
    }

    /// Loads the sets at `positions`, several side by side, and enters them in their order.
    fn load_all(
        &self,
        repository: &Arc<Repository>,
        positions: std::ops::Range<u32>,
        context: &RequestContext,
    ) -> Result<(), TreeError> {
        let most = std::thread::available_parallelism().map_or(2, usize::from).min(4).min(positions.len());
        let queue = LoadQueue::new(positions.start, positions.end);
        let (send, results) = mpsc::channel();
        let next = || {
            let position = queue.next(|position| self.staged_weight(repository, position))?;
            // Whoever waits for room in the queue waits for this one.
            let loaded = catch_unwind(AssertUnwindSafe(|| self.load_set(repository, position, context)));
            Some((position, loaded.unwrap_or(Err(TreeError::Internal))))
        };
        let work = |send: mpsc::Sender<_>| {
            while let Some(loaded) = next() {
                if send.send(loaded).is_err() {
                    return;
                }
            }
        };
        std::thread::scope(|scope| {
            let _stop = CloseOnDrop(&queue);
            let started = (0..most).filter(|_| {
                let (work, send) = (&work, send.clone());
                std::thread::Builder::new().name("dupfs-tree".into()).spawn_scoped(scope, move || work(send)).is_ok()
            });
            match started.count() {
                0 => self.enter_all(positions, &queue, next),
                _ => {
                    drop(send);
                    self.enter_all(positions, &queue, || results.recv().ok())
                }
            }
        })
    }

    fn load_set(
        &self,
        repository: &Arc<Repository>,
        position: u32,
        context: &RequestContext,
    ) -> Result<LoadedSet, TreeError> {
        context.check().map_err(SingleFlightError::from)?;
        let set = self.set_at(position).ok_or(TreeError::NoSet { position })?;
        load_set::load_set(repository, set, position, context)
    }

    /// Saves in the index what is not there yet, and waits until it is.
    pub(super) fn finish(&self) {
        self.saver.finish();
    }

    /// Enters the sets at `positions` into the table as they come, in their order.
    fn enter_all(
        &self,
        positions: std::ops::Range<u32>,
        queue: &LoadQueue,
        mut next: impl FnMut() -> Option<(u32, Result<LoadedSet, TreeError>)>,
    ) -> Result<(), TreeError> {
        let mut early = HashMap::new();
        for position in positions {
            let loaded = loop {
                if let Some(loaded) = early.remove(&position) {
                    break loaded;
                }
                let (at, loaded) = next().ok_or(TreeError::Internal)?;
                early.insert(at, loaded);
            };
            loaded.and_then(|loaded| self.enter(loaded)).inspect_err(|error| self.note_failure(position, error))?;
            queue.entered();
        }
        Ok(())
    }

    /// Enters the next set into the table, a piece at a time, so that readers never wait long.
    fn enter(&self, loaded: LoadedSet) -> Result<(), TreeError> {
        let mut staged = match loaded {
            LoadedSet::First(table) => {
                *self.write() = *table;
                return Ok(());
            }
            LoadedSet::Next(staged) => staged,
        };
        self.write().begin_set()?;
        let mut path = Vec::new();
        loop {
            let entries = staged.take_piece(&mut path)?;
            let mut table = self.write();
            if entries.is_empty() {
                if staged.rebuilt {
                    table.mark_rebuilt();
                }
                for range in std::mem::take(&mut staged.missing) {
                    table.push_missing_range(range);
                }
                table.publish_set();
                return Ok(());
            }
            for (path, change) in entries {
                table.push(&path, change)?;
            }
        }
    }

    /// What the set at `position` may take while it is staged, at most: its archive holds more than its entries.
    fn staged_weight(&self, repository: &Repository, position: u32) -> u64 {
        let set = self.set_at(position).and_then(|set| repository.set(set).ok());
        let weight = set.map_or(0, |set| set.signatures.as_ref().map_or(MAX_STAGED, |object| object.size));
        if position == 0 { 0 } else { weight }
    }

    fn write(&self) -> RwLockWriteGuard<'_, VersionTable> {
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn known_failure(&self, depth: u32) -> Option<TreeError> {
        let failed = lock(&self.failed);
        failed.as_ref().filter(|(position, _)| *position < depth).map(|(_, error)| error.clone())
    }

    fn note_failure(&self, position: u32, error: &TreeError) {
        if matches!(error.kind(), ErrorKind::KeyMissing | ErrorKind::Unsupported) {
            *lock(&self.failed) = Some((position, error.clone()));
        }
    }
}

/// The sets that are to be loaded, given out in order; not more at a time than memory has room for.
struct LoadQueue {
    state: Mutex<LoadQueueState>,
    changed: Condvar,
}

struct LoadQueueState {
    /// The next to be given out, the next to be entered, and the end.
    next: u32,
    entered: u32,
    end: u32,
    /// What each that was given out and not entered may weigh, and the sum.
    weights: VecDeque<u64>,
    staged: u64,
}

impl LoadQueue {
    fn new(start: u32, end: u32) -> Self {
        let state = LoadQueueState { next: start, entered: start, end, weights: VecDeque::new(), staged: 0 };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    /// The next position once there is room for it, which there always is for the one that is entered next.
    fn next(&self, weigh: impl Fn(u32) -> u64) -> Option<u32> {
        let mut state = lock(&self.state);
        loop {
            let position = state.next;
            if position >= state.end {
                return None;
            }
            let weight = weigh(position);
            if position == state.entered || state.staged.saturating_add(weight) <= MAX_STAGED {
                state.next = position.saturating_add(1);
                state.staged = state.staged.saturating_add(weight);
                state.weights.push_back(weight);
                return Some(position);
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn entered(&self) {
        let mut state = lock(&self.state);
        let weight = state.weights.pop_front().unwrap_or(0);
        state.staged = state.staged.saturating_sub(weight);
        state.entered = state.entered.saturating_add(1);
        self.changed.notify_all();
    }
}

/// Keeps the workers from beginning with further sets.
struct CloseOnDrop<'a>(&'a LoadQueue);

impl Drop for CloseOnDrop<'_> {
    fn drop(&mut self) {
        lock(&self.0.state).end = 0;
        self.0.changed.notify_all();
    }
}

/// All branches of a collection.
#[derive(Debug, Default)]
pub struct Branches {
    branches: Mutex<HashMap<usize, Arc<Branch>>>,
}

impl Branches {
    /// The branch numbered `number` over `sets`; made at its first use. It grows with `sets`, which always begin with those that the
    /// branch had before.
    pub fn branch(&self, number: usize, sets: &Arc<[SetIndex]>) -> Arc<Branch> {
        let mut branches = lock(&self.branches);
        let branch = Arc::clone(branches.entry(number).or_insert_with(|| Arc::new(Branch::new(Arc::clone(sets)))));
        drop(branches);
        branch.grow(sets);
        branch
    }

    /// Keeps on disk what was learnt, and waits until it is there.
    pub fn finish(&self) {
        self.all().iter().for_each(|branch| branch.finish());
    }

    fn all(&self) -> Vec<Arc<Branch>> {
        lock(&self.branches).values().cloned().collect()
    }

    /// Number of paths known so far.
    pub fn paths(&self) -> u64 {
        let branches = self.all();
        branches.iter().map(|branch| branch.table().len() as u64).fold(0, u64::saturating_add)
    }
}

impl Drop for Branches {
    fn drop(&mut self) {
        self.finish();
    }
}
