//! A line of sets (a full and the increments on it) and its table, loaded set by set when a snapshot is first asked for.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

use super::TreeError;
use super::load::{self, Staged};
use super::table::Table;
use crate::cache::Flight;
use crate::types::{Classified, ErrorClass, SetIndex};
use crate::volume::Repository;

/// One line of sets and the table of versions over it.
#[derive(Debug)]
pub struct Line {
    /// Grows when a later listing shows a set that continues the line.
    sets: RwLock<Arc<[SetIndex]>>,
    table: RwLock<Table>,
    flight: Flight<(), (), TreeError>,
    /// The position that cannot be loaded, and why, where trying again cannot help.
    failed: Mutex<Option<(u32, TreeError)>>,
}

impl Line {
    fn new(sets: Arc<[SetIndex]>) -> Self {
        Self { sets: RwLock::new(sets), table: RwLock::default(), flight: Flight::new(), failed: Mutex::new(None) }
    }

    /// The set at `position`.
    pub fn set_at(&self, position: u32) -> Option<SetIndex> {
        self.sets.read().unwrap_or_else(PoisonError::into_inner).get(position as usize).copied()
    }

    fn grow(&self, sets: &Arc<[SetIndex]>) {
        let known = self.sets.read().unwrap_or_else(PoisonError::into_inner).len();
        if sets.len() > known {
            let mut own = self.sets.write().unwrap_or_else(PoisonError::into_inner);
            if sets.len() > own.len() {
                *own = Arc::clone(sets);
            }
        }
    }

    /// The table as far as it is loaded. Hold the guard for in-memory work only.
    pub fn table(&self) -> RwLockReadGuard<'_, Table> {
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
    pub fn ensure(&self, repository: &Repository, depth: u32, patience: Duration) -> Result<(), TreeError> {
        while !self.is_loaded(depth) {
            if let Some(error) = self.known_failure(depth) {
                return Err(error);
            }
            let deadline = Instant::now().checked_add(patience);
            let loaded = self.flight.run_until((), deadline, || self.load(repository, depth));
            // The run that was shared may have failed on a set that this snapshot does not need.
            if let Err(error) = loaded
                && !self.is_loaded(depth)
            {
                return Err(error);
            }
        }
        Ok(())
    }

    fn load(&self, repository: &Repository, depth: u32) -> Result<(), TreeError> {
        let workers = std::thread::available_parallelism().map_or(2, usize::from).min(4);
        loop {
            let start = self.table().depth();
            if start >= depth {
                return Ok(());
            }
            let end = depth.min(start.saturating_add(u32::try_from(workers).unwrap_or(1)));
            for (position, staged) in (start..end).zip(self.stage(repository, start..end)) {
                let staged = staged.inspect_err(|error| self.note_failure(position, error))?;
                self.table.write().unwrap_or_else(PoisonError::into_inner).apply(position, staged)?;
            }
        }
    }

    /// Reads the sets at `positions` side by side: each costs a key derivation or a fetch of its own.
    fn stage(&self, repository: &Repository, positions: std::ops::Range<u32>) -> Vec<Result<Staged, TreeError>> {
        std::thread::scope(|scope| {
            let threads: Vec<_> = positions
                .map(|position| {
                    scope.spawn(move || match self.set_at(position) {
                        Some(set) => load::stage_set(repository, set, position),
                        None => Err(TreeError::NoSet { position }),
                    })
                })
                .collect();
            threads.into_iter().map(|t| t.join().unwrap_or(Err(TreeError::Panicked))).collect()
        })
    }

    fn known_failure(&self, depth: u32) -> Option<TreeError> {
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.as_ref().filter(|(position, _)| *position < depth).map(|(_, error)| error.clone())
    }

    fn note_failure(&self, position: u32, error: &TreeError) {
        if matches!(error.class(), ErrorClass::KeyMissing | ErrorClass::Unsupported) {
            *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some((position, error.clone()));
        }
    }
}

impl Table {
    fn apply(&mut self, position: u32, staged: Staged) -> Result<(), TreeError> {
        if self.depth() != position {
            return Ok(());
        }
        self.begin_set()?;
        for (path, change) in staged.entries {
            self.push(&path, change)?;
        }
        if staged.rebuilt {
            self.note_rebuilt();
        }
        for gap in staged.gaps {
            self.push_gap(gap);
        }
        Ok(())
    }
}

/// All lines of a collection.
#[derive(Debug, Default)]
pub struct Forest {
    lines: Mutex<HashMap<usize, Arc<Line>>>,
}

impl Forest {
    /// The line numbered `number` over `sets`; made at its first use. It grows with `sets`, which always begin with those that the
    /// line had before.
    pub fn line(&self, number: usize, sets: &Arc<[SetIndex]>) -> Arc<Line> {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let line = Arc::clone(lines.entry(number).or_insert_with(|| Arc::new(Line::new(Arc::clone(sets)))));
        drop(lines);
        line.grow(sets);
        line
    }

    /// Number of paths known so far.
    pub fn paths(&self) -> u64 {
        let lines: Vec<_> = self.lines.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        lines.iter().map(|line| line.table().len() as u64).fold(0, u64::saturating_add)
    }
}
