//! Threads for work that may be done before it is waited for, and by the waiting thread if none of them has begun.
//!
//! At most as many pieces of work run at once as there are processors, in any thread: decoding a bzip2 block accesses
//! megabytes at random, and two that share one processor evict each other's data from its cache, which doubles the time
//! of
//! both. All decoding takes turns on the processors, and all decoding from one stored file is one flow: a file that is
//! crafted for hours of decoding does not delay the others by more than its share.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;

use dupfs_base::sync::{FairQueue, Monitor, Turn, lock};
use dupfs_base::{RequestContext, Stopped};

type DecodeJob<T> = Box<dyn FnOnce() -> T + Send>;

enum JobState<T> {
    Waiting(DecodeJob<T>),
    Running,
    Done(T),
    /// It panicked, or its result was taken.
    Taken,
}

/// A piece of work that only computes. The thread that needs its result does it if no worker has
/// begun.
pub(super) struct DecodeTask<T> {
    processors: FairQueue,
    flow: u64,
    state: Arc<Monitor<JobState<T>>>,
}

trait RunTask: Send + Sync {
    /// Does the work, unless another thread has begun.
    fn run(&self, turn: &Turn);
}

impl<T: Send + 'static> RunTask for DecodeTask<T> {
    fn run(&self, _turn: &Turn) {
        let job = {
            let mut state = self.state.lock();
            match std::mem::replace(&mut *state, JobState::Running) {
                JobState::Waiting(job) => job,
                other => {
                    *state = other;
                    return;
                }
            }
        };
        let result = catch_unwind(AssertUnwindSafe(job));
        self.state.update(|state| *state = result.map_or(JobState::Taken, JobState::Done));
    }
}

impl<T: Send + 'static> DecodeTask<T> {
    /// The result; `None` if the work panicked.
    ///
    /// # Errors
    /// [`Stopped`] when the request ended first. The result may be waited for again.
    pub(super) fn finish(&self, context: &RequestContext) -> Result<Option<T>, Stopped> {
        let is_waiting = matches!(*self.state.lock(), JobState::Waiting(_));
        if is_waiting {
            self.run(&self.processors.acquire(self.flow, context)?);
        }
        self.state.wait_until(context, |state| match std::mem::replace(state, JobState::Taken) {
            JobState::Done(result) => Some(Some(result)),
            JobState::Taken => Some(None),
            running => {
                *state = running;
                None
            }
        })
    }
}

/// As many threads as there are processors, started when they are first needed.
pub(super) struct DecodeWorkers {
    shared: Arc<WorkerQueue>,
    max_threads: usize,
}

struct WorkerQueue {
    processors: FairQueue,
    tasks: Mutex<QueuedTasks>,
    wake: Condvar,
}

#[derive(Default)]
struct QueuedTasks {
    /// By flow; none is empty.
    tasks: BTreeMap<u64, VecDeque<Arc<dyn RunTask>>>,
    /// The flow that a thread has chosen last.
    chosen: u64,
    threads: usize,
    is_closed: bool,
}

impl QueuedTasks {
    fn push(&mut self, flow: u64, task: Arc<dyn RunTask>) {
        self.tasks.entry(flow).or_default().push_back(task);
    }

    /// The next flow that has tasks, each in its turn.
    fn choose(&mut self) -> Option<u64> {
        let next = self.tasks.range(self.chosen.saturating_add(1)..).next().or_else(|| self.tasks.iter().next());
        self.chosen = *next?.0;
        Some(self.chosen)
    }

    fn pop(&mut self, flow: u64) -> Option<Arc<dyn RunTask>> {
        let tasks = self.tasks.get_mut(&flow)?;
        let task = tasks.pop_front();
        if tasks.is_empty() {
            self.tasks.remove(&flow);
        }
        task
    }
}

impl DecodeWorkers {
    pub(super) fn new() -> Self {
        Self::with_threads(thread::available_parallelism().map_or(1, usize::from))
    }

    fn with_threads(max_threads: usize) -> Self {
        let processors = FairQueue::new(max_threads);
        Self {
            shared: Arc::new(WorkerQueue { processors, tasks: Mutex::default(), wake: Condvar::new() }),
            max_threads,
        }
    }

    /// Waits for a processor for `flow`, which belongs to the caller until the result is dropped. The caller has none
    /// yet, and waits for
    /// nothing while it has it.
    ///
    /// # Errors
    /// [`Stopped`] when the request ended first.
    pub(super) fn turn(&self, flow: u64, context: &RequestContext) -> Result<Turn, Stopped> {
        self.shared.processors.acquire(flow, context)
    }

    /// Returns true if others wait for a processor.
    pub(super) fn is_contended(&self) -> bool {
        self.shared.processors.waiting() > 0
    }

    /// The number of tasks that can run at once.
    pub(super) fn width(&self) -> usize {
        self.max_threads
    }

    /// Queues `job` of `flow`.
    pub(super) fn submit<T: Send + 'static>(
        &self,
        flow: u64,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Arc<DecodeTask<T>> {
        let task = Arc::new(DecodeTask {
            processors: self.shared.processors.clone(),
            flow,
            state: Monitor::new(JobState::Waiting(Box::new(job))),
        });
        let start = {
            let mut queue = lock(&self.shared.tasks);
            queue.push(flow, Arc::clone(&task) as Arc<dyn RunTask>);
            let start = queue.threads < self.max_threads;
            queue.threads += usize::from(start);
            start
        };
        self.shared.wake.notify_one();
        if start {
            let shared = Arc::clone(&self.shared);
            let spawned = thread::Builder::new().name("dupfs-unpack".into()).spawn(move || run_tasks(&shared));
            if spawned.is_err() {
                // The thread that waits does the work.
                lock(&self.shared.tasks).threads -= 1;
            }
        }
        task
    }
}

fn run_tasks(shared: &WorkerQueue) {
    let mut queue = lock(&shared.tasks);
    while !queue.is_closed {
        let Some(flow) = queue.choose() else {
            queue = shared.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
            continue;
        };
        drop(queue);
        // Nothing is begun before there is a processor for it, so that a thread that needs the result meanwhile can
        // begin.
        if let Ok(turn) = shared.processors.acquire(flow, &RequestContext::unlimited()) {
            let task = lock(&shared.tasks).pop(flow);
            if let Some(task) = task {
                task.run(&turn);
            }
        }
        queue = lock(&shared.tasks);
    }
}

impl Drop for DecodeWorkers {
    fn drop(&mut self) {
        let mut queue = lock(&self.shared.tasks);
        queue.is_closed = true;
        let left = std::mem::take(&mut queue.tasks);
        drop(queue);
        drop(left);
        self.shared.wake.notify_all();
    }
}

impl fmt::Debug for DecodeWorkers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DecodeWorkers").field("max_threads", &self.max_threads).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn results_arrive_whichever_thread_does_the_work() {
        let workers = DecodeWorkers::new();
        let tasks: Vec<_> = (0..100_u32).map(|n| workers.submit(0, move || n * 2)).collect();
        let results: Vec<_> =
            tasks.iter().rev().map(|task| task.finish(&RequestContext::unlimited()).unwrap()).collect();
        assert_eq!(results, (0..100).rev().map(|n| Some(n * 2)).collect::<Vec<_>>());
    }

    #[test]
    fn no_more_tasks_run_at_once_than_there_are_processors() {
        let (workers, running, max) =
            (DecodeWorkers::with_threads(2), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let job = || {
            let (running, max) = (Arc::clone(&running), Arc::clone(&max));
            move || {
                max.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                thread::sleep(std::time::Duration::from_millis(2));
                running.fetch_sub(1, Ordering::SeqCst);
            }
        };
        thread::scope(|scope| {
            for flow in 0..6 {
                let (workers, job) = (&workers, &job);
                scope.spawn(move || {
                    let tasks: Vec<_> = (0..6).map(|_| workers.submit(flow, job())).collect();
                    let turn = workers.turn(flow, &RequestContext::unlimited()).unwrap();
                    job()();
                    drop(turn);
                    assert!(tasks.iter().all(|task| task.finish(&RequestContext::unlimited()).unwrap().is_some()));
                });
            }
        });
        assert_eq!(max.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn a_task_that_panics_wakes_its_waiters() {
        let workers = DecodeWorkers::new();
        let task = workers.submit(0, || panic!("on purpose"));
        assert_eq!(task.finish(&RequestContext::unlimited()).unwrap(), None::<()>);
        assert_eq!(workers.submit(0, || 1).finish(&RequestContext::unlimited()).unwrap(), Some(1));
    }

    #[test]
    fn a_cancelled_request_does_not_wait_for_its_task_and_the_next_request_uses_it() {
        let workers = DecodeWorkers::with_threads(1);
        let (tx, rx) = std::sync::mpsc::channel();
        let task = workers.submit(0, move || rx.recv().unwrap());
        let soon = RequestContext::with_timeout(std::time::Duration::from_millis(20));
        while matches!(*task.state.lock(), JobState::Waiting(_)) {
            thread::yield_now();
        }
        assert_eq!(task.finish(&soon), Err(Stopped::Deadline));
        assert_eq!(workers.turn(0, &soon).map(drop), Err(Stopped::Deadline));
        tx.send(5).unwrap();
        assert_eq!(task.finish(&RequestContext::unlimited()), Ok(Some(5)));
    }
}
