//! Single flight: concurrent callers of one key share one run of the work.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::ThreadId;
use std::time::Instant;

use dupfs_base::sync::lock;
use dupfs_base::{ErrorKind, HasKind};

/// Why a waiter got no result of the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FlightFailure {
    /// The caller that did the work panicked.
    #[error("the work was abandoned by a failure inside dupfs; try again")]
    Abandoned,
    /// The result did not come before the deadline.
    #[error("no result before the deadline; the store is slow or unreachable")]
    Deadline,
    /// The work asks for its own result.
    #[error("the work waits for itself")]
    Reentrant,
}

impl HasKind for FlightFailure {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Abandoned | Self::Reentrant => ErrorKind::Io,
            Self::Deadline => ErrorKind::Timeout,
        }
    }
}

/// The work under way, by key. Nothing is kept once it ends: results are for a cache to keep, errors for nobody.
pub struct Flight<K, V, E> {
    runs: Mutex<HashMap<K, Arc<Run<V, E>>>>,
}

struct Run<V, E> {
    runner: ThreadId,
    result: Mutex<Option<Result<V, E>>>,
    done: Condvar,
}

impl<K: Eq + Hash + Clone, V: Clone, E: Clone + From<FlightFailure>> Flight<K, V, E> {
    /// No work under way.
    pub fn new() -> Self {
        Self { runs: Mutex::default() }
    }

    /// Runs `work` for `key`, or waits for the run that is under way and shares its result or error.
    ///
    /// # Errors
    /// What the work returned, or a [`FlightFailure`].
    pub fn run(&self, key: K, work: impl FnOnce() -> Result<V, E>) -> Result<V, E> {
        self.run_until(key, None, work)
    }

    /// As [`Flight::run`]; who only waits gives up at `deadline`, while the work goes on for the others. The caller
    /// that does the work is not stopped: the work has its own deadlines.
    ///
    /// # Errors
    /// What the work returned, or a [`FlightFailure`].
    pub fn run_until(&self, key: K, deadline: Option<Instant>, work: impl FnOnce() -> Result<V, E>) -> Result<V, E> {
        let run = {
            let mut runs = lock(&self.runs);
            match runs.entry(key.clone()) {
                Entry::Occupied(entry) => {
                    let run = Arc::clone(entry.get());
                    drop(runs);
                    return run.wait(deadline);
                }
                Entry::Vacant(entry) => Arc::clone(entry.insert(Arc::new(Run::new()))),
            }
        };
        let mut guard = Guard { flight: self, key, run, result: None };
        let result = work();
        guard.result = Some(result.clone());
        drop(guard);
        result
    }

    /// Number of runs under way.
    pub fn len(&self) -> usize {
        lock(&self.runs).len()
    }

    /// Whether no run is under way.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<K: Eq + Hash + Clone, V: Clone, E: Clone + From<FlightFailure>> Default for Flight<K, V, E> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K, V, E> fmt::Debug for Flight<K, V, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flight").field("runs", &lock(&self.runs).len()).finish()
    }
}

impl<V: Clone, E: Clone + From<FlightFailure>> Run<V, E> {
    fn new() -> Self {
        Self { runner: std::thread::current().id(), result: Mutex::new(None), done: Condvar::new() }
    }

    fn wait(&self, deadline: Option<Instant>) -> Result<V, E> {
        if self.runner == std::thread::current().id() {
            return Err(FlightFailure::Reentrant.into());
        }
        let mut result = lock(&self.result);
        loop {
            if let Some(result) = result.as_ref() {
                return result.clone();
            }
            result = match deadline {
                None => self.done.wait(result).unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Err(FlightFailure::Deadline.into());
                    }
                    self.done.wait_timeout(result, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }
}

/// Publishes the result, or that there is none, also when the work panics.
struct Guard<'a, K: Eq + Hash, V, E: From<FlightFailure>> {
    flight: &'a Flight<K, V, E>,
    key: K,
    run: Arc<Run<V, E>>,
    result: Option<Result<V, E>>,
}

impl<K: Eq + Hash, V, E: From<FlightFailure>> Drop for Guard<'_, K, V, E> {
    fn drop(&mut self) {
        // Out of the map before the result is out: who comes later must not get an old error.
        lock(&self.flight.runs).remove(&self.key);
        let result = self.result.take().unwrap_or_else(|| Err(FlightFailure::Abandoned.into()));
        *lock(&self.run.result) = Some(result);
        self.run.done.notify_all();
    }
}

#[cfg(test)]
#[path = "flight/tests.rs"]
mod tests;
