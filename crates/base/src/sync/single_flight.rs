//! Single flight: concurrent requests for one key share one execution of the work.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, OnceLock};

use super::Monitor;
use super::prim::{Mutex, thread};
use crate::request::{CancelToken, RequestContext, Stopped};
use crate::{ErrorKind, HasKind};

/// The reason why a request got no result of the shared work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SingleFlightError {
    /// The work panicked.
    #[error("another request for this object failed internally; retry")]
    Abandoned,
    /// No thread could be started for the work.
    #[error("no thread can be started; retry when the system is less busy")]
    NoThread,
    /// The work asks for its own result.
    #[error("internal error (bug in dupfs): the work would wait for its own result")]
    Reentrant,
    /// The request ended first.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

impl HasKind for SingleFlightError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Abandoned | Self::NoThread | Self::Reentrant => ErrorKind::Io,
            Self::Stopped(stopped) => stopped.kind(),
        }
    }
}

/// The executions in progress, by key. Each runs on its own thread and counts the requests that wait for it. When the
/// last of them gives up, the execution is cancelled, and a later request starts a new one.
///
/// Nothing is retained once an execution ends. Results belong in a cache: the work stores its result there, and looks
/// there first, because another execution may have ended between the caller's look-up and the start of the work. Errors
/// are not retained at all.
///
/// Work may request the results of other keys, if no chain of such requests leads back to its own key: only the shortest
/// chain is detected.
pub struct SingleFlight<K, V, E> {
    executions: Executions<K, V, E>,
}

type Executions<K, V, E> = Arc<Mutex<HashMap<K, Arc<Execution<V, E>>>>>;

struct Execution<V, E> {
    /// The thread of the work; unset until the work begins.
    thread: OnceLock<thread::ThreadId>,
    outcome: Arc<Monitor<Option<Result<V, E>>>>,
    cancel: CancelToken,
    /// Number of requests that wait for the outcome. It changes under the lock of the map only, so that no request joins a
    /// cancelled execution.
    waiting: Mutex<usize>,
}

impl<K, V, E> SingleFlight<K, V, E>
where
    K: Eq + Hash + Clone + Send + 'static,
    V: Clone + Send + 'static,
    E: Clone + From<SingleFlightError> + Send + 'static,
{
    /// No execution in progress.
    pub fn new() -> Self {
        Self { executions: Arc::default() }
    }

    /// Joins the execution for `key`, or starts `work` on a thread called `name`, and waits for the outcome. The context
    /// given to `work` has no deadline. It is cancelled once no request waits for the outcome any more.
    ///
    /// # Errors
    /// The error of the work, or a [`SingleFlightError`].
    pub fn run(
        &self,
        key: K,
        name: &str,
        context: &RequestContext,
        work: impl FnOnce(&RequestContext) -> Result<V, E> + Send + 'static,
    ) -> Result<V, E> {
        context.check_may_block().map_err(SingleFlightError::from)?;
        let mut executions = self.executions.lock();
        let joined = executions.get(&key).map(Arc::clone);
        let (execution, is_new) = match joined {
            Some(execution) => (execution, false),
            None => {
                let execution = Arc::new(Execution::new());
                executions.insert(key.clone(), Arc::clone(&execution));
                (execution, true)
            }
        };
        if execution.thread.get() == Some(&thread::current().id()) {
            return Err(SingleFlightError::Reentrant.into());
        }
        *execution.waiting.lock() += 1;
        drop(executions);
        let interest = Interest { executions: &self.executions, key: &key, execution: &execution };
        if is_new {
            let running = RunningExecution {
                executions: Arc::clone(&self.executions),
                key: key.clone(),
                execution: Arc::clone(&execution),
            };
            // Without a thread `running` is dropped, which publishes the error.
            drop(thread::Builder::new().name(name.to_owned()).spawn(move || running.run(work)));
        } else {
            drop(work);
        }
        let outcome = execution.outcome.wait_until(context, |outcome| outcome.clone());
        drop(interest);
        outcome.map_err(SingleFlightError::from)?
    }

    /// Number of executions in progress that a request waits for.
    pub fn len(&self) -> usize {
        self.executions.lock().len()
    }

    /// Returns true if no execution is in progress that a request waits for.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<K, V, E> Default for SingleFlight<K, V, E>
where
    K: Eq + Hash + Clone + Send + 'static,
    V: Clone + Send + 'static,
    E: Clone + From<SingleFlightError> + Send + 'static,
{
    fn default() -> Self {
        Self::new()
    }
}

impl<K, V, E> fmt::Debug for SingleFlight<K, V, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SingleFlight").field("executions", &self.executions.lock().len()).finish()
    }
}

impl<V: Clone + Send + 'static, E: Clone + Send + 'static> Execution<V, E> {
    fn new() -> Self {
        Self {
            thread: OnceLock::new(),
            outcome: Monitor::new(None),
            cancel: CancelToken::new(),
            waiting: Mutex::new(0),
        }
    }

    /// Publishes the outcome, unless there is one already. The execution leaves the map first: a later request must not get
    /// an old error.
    fn finish<K: Eq + Hash>(self: &Arc<Self>, executions: &Executions<K, V, E>, key: &K, outcome: Result<V, E>) {
        remove(executions, key, self);
        self.outcome.update(|published| {
            published.get_or_insert(outcome);
        });
    }
}

/// Removes `execution` from the map, if it is still there.
fn remove<K: Eq + Hash, V, E>(executions: &Executions<K, V, E>, key: &K, execution: &Arc<Execution<V, E>>) {
    let mut executions = executions.lock();
    if executions.get(key).is_some_and(|current| Arc::ptr_eq(current, execution)) {
        executions.remove(key);
    }
}

/// The interest of one request in an execution. The last one to be dropped cancels the execution.
struct Interest<'a, K: Eq + Hash, V, E> {
    executions: &'a Executions<K, V, E>,
    key: &'a K,
    execution: &'a Arc<Execution<V, E>>,
}

impl<K: Eq + Hash, V, E> Drop for Interest<'_, K, V, E> {
    fn drop(&mut self) {
        let mut executions = self.executions.lock();
        let mut waiting = self.execution.waiting.lock();
        *waiting = waiting.saturating_sub(1);
        let is_last = *waiting == 0;
        drop(waiting);
        if is_last && executions.get(self.key).is_some_and(|current| Arc::ptr_eq(current, self.execution)) {
            executions.remove(self.key);
        }
        drop(executions);
        if is_last {
            self.execution.cancel.cancel();
        }
    }
}

/// An execution from its start to its outcome. Dropping it publishes an error: of work that panicked, or of a thread that
/// could not be started.
struct RunningExecution<K: Eq + Hash, V: Clone + Send + 'static, E: Clone + From<SingleFlightError> + Send + 'static> {
    executions: Executions<K, V, E>,
    key: K,
    execution: Arc<Execution<V, E>>,
}

impl<K: Eq + Hash, V: Clone + Send + 'static, E: Clone + From<SingleFlightError> + Send + 'static>
    RunningExecution<K, V, E>
{
    fn run(self, work: impl FnOnce(&RequestContext) -> Result<V, E>) {
        let _ = self.execution.thread.set(thread::current().id());
        let context = RequestContext::new(None, self.execution.cancel.clone());
        let outcome = work(&context);
        self.execution.finish(&self.executions, &self.key, outcome);
    }
}

impl<K: Eq + Hash, V: Clone + Send + 'static, E: Clone + From<SingleFlightError> + Send + 'static> Drop
    for RunningExecution<K, V, E>
{
    fn drop(&mut self) {
        let has_begun = self.execution.thread.get().is_some();
        let error = if has_begun { SingleFlightError::Abandoned } else { SingleFlightError::NoThread };
        self.execution.finish(&self.executions, &self.key, Err(error.into()));
    }
}

#[cfg(test)]
mod tests;
