//! Single flight: concurrent requests for one key share one execution of the work.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

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
///
/// All requests of one execution see the value `S` that it was started with.
pub struct SingleFlight<K, V, E, S = ()> {
    executions: Executions<K, V, E, S>,
}

type Executions<K, V, E, S> = Arc<Mutex<HashMap<K, Arc<Execution<V, E, S>>>>>;

struct Execution<V, E, S> {
    shared: S,
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
        self.begin(key, name, context, (), |context, ()| work(context))?.wait(context)
    }
}

impl<K, V, E, S> SingleFlight<K, V, E, S>
where
    K: Eq + Hash + Clone + Send + 'static,
    V: Clone + Send + 'static,
    E: Clone + From<SingleFlightError> + Send + 'static,
    S: Send + Sync + 'static,
{
    /// No execution in progress.
    pub fn new() -> Self {
        Self { executions: Arc::default() }
    }

    /// Joins the execution for `key`, or starts `work` on a thread called `name`, and returns without waiting. The context given
    /// to `work` has no deadline. It is cancelled once no request is interested in the outcome any more. `shared` is dropped if
    /// there is an execution already.
    ///
    /// # Errors
    /// A [`SingleFlightError`].
    pub fn begin(
        &self,
        key: K,
        name: &str,
        context: &RequestContext,
        shared: S,
        work: impl FnOnce(&RequestContext, &S) -> Result<V, E> + Send + 'static,
    ) -> Result<JoinedExecution<K, V, E, S>, E> {
        context.check_may_block().map_err(SingleFlightError::from)?;
        let mut executions = self.executions.lock();
        let joined = executions.get(&key).map(Arc::clone);
        let (execution, is_new) = match joined {
            Some(execution) => (execution, false),
            None => {
                let execution = Arc::new(Execution::new(shared));
                executions.insert(key.clone(), Arc::clone(&execution));
                (execution, true)
            }
        };
        if execution.thread.get() == Some(&thread::current().id()) {
            return Err(SingleFlightError::Reentrant.into());
        }
        *execution.waiting.lock() += 1;
        drop(executions);
        let running = is_new.then(|| RunningExecution {
            executions: Arc::clone(&self.executions),
            key: key.clone(),
            execution: Arc::clone(&execution),
        });
        let joined = JoinedExecution { executions: Arc::clone(&self.executions), key, execution };
        if let Some(running) = running {
            // Without a thread `running` is dropped, which publishes the error.
            drop(thread::Builder::new().name(name.to_owned()).spawn(move || running.run(work)));
        }
        Ok(joined)
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

impl<K, V, E, S> Default for SingleFlight<K, V, E, S>
where
    K: Eq + Hash + Clone + Send + 'static,
    V: Clone + Send + 'static,
    E: Clone + From<SingleFlightError> + Send + 'static,
    S: Send + Sync + 'static,
{
    fn default() -> Self {
        Self::new()
    }
}

impl<K, V, E, S> fmt::Debug for SingleFlight<K, V, E, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SingleFlight").field("executions", &self.executions.lock().len()).finish()
    }
}

impl<V: Clone + Send + 'static, E: Clone + Send + 'static, S> Execution<V, E, S> {
    fn new(shared: S) -> Self {
        Self {
            shared,
            thread: OnceLock::new(),
            outcome: Monitor::new(None),
            cancel: CancelToken::new(),
            waiting: Mutex::new(0),
        }
    }

    /// Publishes the outcome, unless there is one already. The execution leaves the map first: a later request must not get
    /// an old error.
    fn finish<K: Eq + Hash>(self: &Arc<Self>, executions: &Executions<K, V, E, S>, key: &K, outcome: Result<V, E>) {
        remove(executions, key, self);
        self.outcome.update(|published| {
            published.get_or_insert(outcome);
        });
    }
}

/// Removes `execution` from the map, if it is still there.
fn remove<K: Eq + Hash, V, E, S>(executions: &Executions<K, V, E, S>, key: &K, execution: &Arc<Execution<V, E, S>>) {
    let mut executions = executions.lock();
    if executions.get(key).is_some_and(|current| Arc::ptr_eq(current, execution)) {
        executions.remove(key);
    }
}

/// The interest of one request in an execution. The last one to be dropped cancels the execution.
pub struct JoinedExecution<K: Eq + Hash, V, E, S = ()> {
    executions: Executions<K, V, E, S>,
    key: K,
    execution: Arc<Execution<V, E, S>>,
}

impl<K, V, E, S> JoinedExecution<K, V, E, S>
where
    K: Eq + Hash,
    V: Clone + Send + 'static,
    E: Clone + From<SingleFlightError> + Send + 'static,
{
    /// The value that the execution was started with.
    pub fn shared(&self) -> &S {
        &self.execution.shared
    }

    /// Waits for the outcome.
    ///
    /// # Errors
    /// The error of the work, or a [`SingleFlightError`].
    pub fn wait(&self, context: &RequestContext) -> Result<V, E> {
        let outcome = self.execution.outcome.wait_until(context, |outcome| outcome.clone());
        outcome.map_err(SingleFlightError::from)?
    }

    /// Waits for the outcome until `time`; `None` if there is none then.
    ///
    /// # Errors
    /// As [`Self::wait`].
    pub fn wait_until(&self, time: Instant, context: &RequestContext) -> Result<Option<V>, E> {
        match self.execution.outcome.wait_until(&context.until(time), |outcome| outcome.clone()) {
            Ok(outcome) => outcome.map(Some),
            Err(Stopped::Deadline) if context.check().is_ok() => Ok(None),
            Err(stopped) => Err(SingleFlightError::from(stopped).into()),
        }
    }
}

impl<K: Eq + Hash, V, E, S> fmt::Debug for JoinedExecution<K, V, E, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinedExecution").finish_non_exhaustive()
    }
}

impl<K: Eq + Hash + Clone, V, E, S> Clone for JoinedExecution<K, V, E, S> {
    fn clone(&self) -> Self {
        // The count changes under the lock of the map only.
        let executions = self.executions.lock();
        *self.execution.waiting.lock() += 1;
        drop(executions);
        Self { executions: Arc::clone(&self.executions), key: self.key.clone(), execution: Arc::clone(&self.execution) }
    }
}

impl<K: Eq + Hash, V, E, S> Drop for JoinedExecution<K, V, E, S> {
    fn drop(&mut self) {
        let mut executions = self.executions.lock();
        let mut waiting = self.execution.waiting.lock();
        *waiting = waiting.saturating_sub(1);
        let is_last = *waiting == 0;
        drop(waiting);
        // Dropped after the lock: it may hold the last value that the executions share.
        let mut removed = None;
        if is_last && executions.get(&self.key).is_some_and(|current| Arc::ptr_eq(current, &self.execution)) {
            removed = executions.remove(&self.key);
        }
        drop(executions);
        drop(removed);
        if is_last {
            self.execution.cancel.cancel();
        }
    }
}

/// An execution from its start to its outcome. Dropping it publishes an error: of work that panicked, or of a thread that
/// could not be started.
struct RunningExecution<K: Eq + Hash, V: Clone + Send + 'static, E: Clone + From<SingleFlightError> + Send + 'static, S>
{
    executions: Executions<K, V, E, S>,
    key: K,
    execution: Arc<Execution<V, E, S>>,
}

impl<K: Eq + Hash, V: Clone + Send + 'static, E: Clone + From<SingleFlightError> + Send + 'static, S>
    RunningExecution<K, V, E, S>
{
    fn run(self, work: impl FnOnce(&RequestContext, &S) -> Result<V, E>) {
        let _ = self.execution.thread.set(thread::current().id());
        let context = RequestContext::new(None, self.execution.cancel.clone());
        let outcome = work(&context, &self.execution.shared);
        self.execution.finish(&self.executions, &self.key, outcome);
    }
}

impl<K: Eq + Hash, V: Clone + Send + 'static, E: Clone + From<SingleFlightError> + Send + 'static, S> Drop
    for RunningExecution<K, V, E, S>
{
    fn drop(&mut self) {
        let has_begun = self.execution.thread.get().is_some();
        let error = if has_begun { SingleFlightError::Abandoned } else { SingleFlightError::NoThread };
        self.execution.finish(&self.executions, &self.key, Err(error.into()));
    }
}

#[cfg(test)]
mod tests;
