//! A branch of sets and its table, loaded set by set when a snapshot is first used.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard, mpsc};

use super::error::TreeError;
use super::ids::list_index;
use super::load_queue::{LoadQueue, MAX_STAGED_BYTES};
use super::load_set::{self, LoadedSet};
use super::tree_index::{self, TreeSaver};
use super::version_table::VersionTable;
use crate::volume::{ExpectedFetch, Repository};
use dupfs_base::sync::{self, Semaphore, SingleFlight, lock};
use dupfs_base::{ErrorKind, HasKind, RequestContext};
use dupfs_format::SetIndex;

/// Sets that are loaded at a time. Most of the time of a small archive is the latency of the store, so these are more than
/// there are processors. [`LoadQueue`] bounds their memory.
const MAX_CONCURRENT_LOADS: usize = 8;

/// A full set and the increments of one line of descent, and the table of versions over them.
#[derive(Debug)]
pub struct Branch {
    /// Grows when a later listing shows a set that continues the branch.
    sets: RwLock<Arc<[SetIndex]>>,
    table: Arc<RwLock<VersionTable>>,
    loads: SingleFlight<(), (), TreeError>,
    /// One permit, for the load that changes the table: an abandoned one may still run when the next begins.
    table_access: Semaphore,
    /// The position of a set that cannot be loaded, and the error, where a retry cannot help.
    failed: Mutex<Option<(u32, TreeError)>>,
    /// Sets that were read when one before them failed, by position. Their memory is bounded as that of [`LoadQueue`].
    staged: Mutex<HashMap<u32, LoadedSet>>,
    saver: TreeSaver,
}

impl Branch {
    /// A branch of `sets`, of which none is loaded.
    pub(super) fn new(sets: Arc<[SetIndex]>) -> Self {
        let (table, loads, failed, staged, saver) = Default::default();
        Self { sets: RwLock::new(sets), table, loads, table_access: Semaphore::new(1), failed, staged, saver }
    }

    /// The set at `position`.
    pub fn set_at(&self, position: u32) -> Option<SetIndex> {
        sync::read(&self.sets).get(list_index(position)).copied()
    }

    fn sets(&self) -> Arc<[SetIndex]> {
        Arc::clone(&sync::read(&self.sets))
    }

    /// Adds the sets that `sets` has more than the branch; it begins with those of the branch.
    pub(super) fn grow(&self, sets: &Arc<[SetIndex]>) {
        if sets.len() > self.sets().len() {
            let mut own = sync::write(&self.sets);
            if sets.len() > own.len() {
                *own = Arc::clone(sets);
            }
        }
    }

    /// The table as far as it is loaded. The guard is for in-memory work only.
    pub fn table(&self) -> RwLockReadGuard<'_, VersionTable> {
        sync::read(&self.table)
    }

    /// Returns true if the first `depth` sets are loaded.
    pub fn is_loaded(&self, depth: u32) -> bool {
        self.table().depth() >= depth
    }

    /// Loads the first `depth` sets: from the signature archives, or from the volumes' headers where an archive is
    /// missing or damaged.
    ///
    /// # Errors
    /// [`TreeError`] when no part of a snapshot of `depth` sets can be determined.
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
            let loaded = self.loads.run((), "dupfs-tree", context, work);
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
        let _access = self.table_access.acquire(1, context)?;
        let sets = self.sets();
        let saved = self.saver.load(repository, &sets, self.table().is_empty());
        if let Some(table) = saved {
            let loaded = table.depth();
            *self.write() = table;
            tree_index::load_exact_sizes(repository, &sets, &self.table, 0..loaded);
        }
        let start = self.table().depth();
        if start >= depth {
            return Ok(());
        }
        let loaded = self.load_all(repository, start..depth, context);
        self.report_repeated_paths(repository);
        self.write().finish_building();
        let end = self.table().depth();
        tree_index::load_exact_sizes(repository, &sets, &self.table, start..end);
        self.saver.record_loaded(repository, &sets, &self.table);
        loaded
    }

    /// Loads the sets at `positions`, several concurrently, and enters them in their order.
    fn load_all(
        &self,
        repository: &Arc<Repository>,
        positions: std::ops::Range<u32>,
        context: &RequestContext,
    ) -> Result<(), TreeError> {
        let sets: Vec<_> =
            positions.clone().filter(|at| !self.is_staged(*at)).filter_map(|at| self.set_at(at)).collect();
        let bytes = sets.iter().map(|set| repository.signatures_fetch_len(*set)).fold(0, u64::saturating_add);
        let expected = repository.expect_fetch(bytes, positions.len());
        let _fetched = repository.stage_signatures(&sets, context);
        let max_workers = MAX_CONCURRENT_LOADS.min(positions.len());
        let queue = LoadQueue::new(positions.start, positions.end);
        let (send, results) = mpsc::channel();
        let next = || {
            let position = queue.take(context, |position| self.staged_weight(repository, position))?;
            // A panic is reported like an error: later sets wait for this one.
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
            let started = (0..max_workers).filter(|_| {
                let (work, send) = (&work, send.clone());
                std::thread::Builder::new().name("dupfs-tree".into()).spawn_scoped(scope, move || work(send)).is_ok()
            });
            match started.count() {
                0 => self.enter_all(positions, (&queue, &expected), context, next),
                _ => {
                    drop(send);
                    let entered = self.enter_all(positions, (&queue, &expected), context, || results.recv().ok());
                    if entered.is_err() {
                        queue.close();
                        results.iter().for_each(|(position, loaded)| self.keep_staged(position, loaded));
                    }
                    entered
                }
            }
        })
    }

    fn is_staged(&self, position: u32) -> bool {
        lock(&self.staged).contains_key(&position)
    }

    /// Keeps a set that was read for the next attempt, after a set before it failed.
    fn keep_staged(&self, position: u32, loaded: Result<LoadedSet, TreeError>) {
        if let Ok(loaded) = loaded {
            lock(&self.staged).insert(position, loaded);
        }
    }

    fn load_set(
        &self,
        repository: &Arc<Repository>,
        position: u32,
        context: &RequestContext,
    ) -> Result<LoadedSet, TreeError> {
        context.check()?;
        let staged = lock(&self.staged).remove(&position);
        if let Some(loaded) = staged {
            return Ok(loaded);
        }
        let set = self.set_at(position).ok_or(TreeError::NoSet { position })?;
        load_set::load_set(repository, set, position, context)
    }

    /// Saves the tree if it is not in the index, and waits until it is.
    pub(super) fn finish(&self) {
        self.saver.finish();
    }

    /// Enters the sets at `positions` into the table as they are loaded, in their order.
    fn enter_all(
        &self,
        positions: std::ops::Range<u32>,
        (queue, expected): (&LoadQueue, &ExpectedFetch),
        context: &RequestContext,
        mut next: impl FnMut() -> Option<(u32, Result<LoadedSet, TreeError>)>,
    ) -> Result<(), TreeError> {
        let mut early = HashMap::new();
        for position in positions {
            let loaded = loop {
                if let Some(loaded) = early.remove(&position) {
                    break loaded;
                }
                let Some((at, loaded)) = next() else {
                    context.check()?;
                    return Err(TreeError::Internal);
                };
                early.insert(at, loaded);
            };
            let entered = loaded.and_then(|loaded| self.enter(loaded));
            if let Err(error) = entered {
                self.record_failure(position, &error);
                early.into_iter().for_each(|(position, loaded)| self.keep_staged(position, loaded));
                return Err(error);
            }
            queue.advance();
            expected.advance();
        }
        Ok(())
    }

    /// Logs that sets in the table name paths more than once (FORMAT.md 4.3, last row).
    fn report_repeated_paths(&self, repository: &Repository) {
        let Some((count, position, path)) = self.write().take_repeated() else { return };
        let set = self.set_at(position).map_or_else(|| "an unknown set".into(), |set| repository.label(set));
        log::warn!(
            "{set}: names {path} more than once (such names in this chain: {count}), because its source had names in two \
             encodings; of several objects under one name only the last is shown"
        );
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
                if let Some(allowance) = staged.allowance.take() {
                    table.set_allowance(allowance);
                }
                return table.publish_set();
            }
            for (path, change) in entries {
                table.push(&path, change)?;
            }
        }
    }

    /// Upper bound of the bytes that the set at `position` takes while it is staged: its archive contains more than its
    /// entries.
    fn staged_weight(&self, repository: &Repository, position: u32) -> u64 {
        let set = self.set_at(position).and_then(|set| repository.set(set).ok());
        let weight = set.map_or(0, |set| set.signatures.as_ref().map_or(MAX_STAGED_BYTES, |object| object.size));
        if position == 0 { 0 } else { weight }
    }

    fn write(&self) -> RwLockWriteGuard<'_, VersionTable> {
        sync::write(&self.table)
    }

    fn known_failure(&self, depth: u32) -> Option<TreeError> {
        let failed = lock(&self.failed);
        failed.as_ref().filter(|(position, _)| *position < depth).map(|(_, error)| error.clone())
    }

    fn record_failure(&self, position: u32, error: &TreeError) {
        if matches!(error.kind(), ErrorKind::KeyMissing | ErrorKind::Unsupported) {
            *lock(&self.failed) = Some((position, error.clone()));
        }
    }
}

/// Keeps the workers from loading further sets.
struct CloseOnDrop<'a>(&'a LoadQueue);

impl Drop for CloseOnDrop<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}
