//! Worker threads for deferred requests, in groups by cost: lookups do not queue behind sizes, nor sizes behind reads, nor
//! any of them behind passes over archives.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;

use dupfs_base::sync::lock;

/// Upper bound of what a deferred request costs, which selects the workers that serve it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RequestCost {
    /// Signature archives at most: lookup, readdir, readlink, extended attributes.
    Index,
    /// One volume at most: getattr and open, which find exact sizes.
    Size,
    /// Any number of volumes: read.
    Content,
    /// Passes over archives: names and sizes in `unpacked/`.
    Archive,
}

impl RequestCost {
    /// The cost of the same request in `unpacked/`.
    pub(super) fn unpacking(self) -> Self {
        match self {
            Self::Index | Self::Size | Self::Archive => Self::Archive,
            Self::Content => Self::Content,
        }
    }
}

/// The work of a deferred request. The kernel bounds how many there are: one for each waiting thread, plus its read-ahead.
pub(super) type DeferredJob = Box<dyn FnOnce() + Send>;

/// A bounded number of threads for each [`RequestCost`], started on demand.
#[derive(Debug)]
pub(super) struct WorkerPool {
    index: Arc<WorkerGroup>,
    size: Arc<WorkerGroup>,
    content: Arc<WorkerGroup>,
    archive: Arc<WorkerGroup>,
}

/// The threads and the queue of one cost.
#[derive(Debug)]
struct WorkerGroup {
    name: &'static str,
    max_threads: usize,
    state: Mutex<GroupState>,
    wake: Condvar,
}

#[derive(Default)]
struct GroupState {
    queue: VecDeque<DeferredJob>,
    threads: usize,
    idle: usize,
    closed: bool,
}

impl std::fmt::Debug for GroupState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GroupState").field("queue", &self.queue.len()).field("threads", &self.threads).finish()
    }
}

impl WorkerPool {
    /// A pool of at most 8, 8, 16 and 8 threads.
    pub(super) fn new() -> Self {
        Self::with_threads(8, 8, 16, 8)
    }

    fn with_threads(index: usize, size: usize, content: usize, archive: usize) -> Self {
        let workers = |name, max_threads| {
            Arc::new(WorkerGroup { name, max_threads, state: Mutex::new(GroupState::default()), wake: Condvar::new() })
        };
        Self {
            index: workers("dupfs-index", index),
            size: workers("dupfs-size", size),
            content: workers("dupfs-content", content),
            archive: workers("dupfs-archive", archive),
        }
    }

    /// Queues `job` for the workers of `cost`.
    ///
    /// # Errors
    /// When the group has no thread and none can be started; the job is dropped.
    pub(super) fn submit(&self, cost: RequestCost, job: DeferredJob) -> std::io::Result<()> {
        let workers = self.group(cost);
        let mut state = lock(&workers.state);
        state.queue.push_back(job);
        if state.idle >= state.queue.len() || state.threads >= workers.max_threads {
            drop(state);
            workers.wake.notify_one();
            return Ok(());
        }
        state.threads += 1;
        drop(state);
        let group = Arc::clone(workers);
        let spawned = thread::Builder::new().name(workers.name.into()).spawn(move || run_jobs(&group));
        let Err(error) = spawned else { return Ok(()) };
        let mut state = lock(&workers.state);
        state.threads -= 1;
        if state.threads > 0 {
            drop(state);
            workers.wake.notify_one();
            return Ok(());
        }
        let abandoned = std::mem::take(&mut state.queue);
        drop(state);
        drop(abandoned);
        Err(error)
    }

    fn group(&self, cost: RequestCost) -> &Arc<WorkerGroup> {
        match cost {
            RequestCost::Index => &self.index,
            RequestCost::Size => &self.size,
            RequestCost::Content => &self.content,
            RequestCost::Archive => &self.archive,
        }
    }
}

impl Drop for WorkerPool {
    /// Each thread exits after its current job; it is not waited for.
    fn drop(&mut self) {
        for workers in [&self.index, &self.size, &self.content, &self.archive] {
            let mut state = lock(&workers.state);
            state.closed = true;
            let abandoned = std::mem::take(&mut state.queue);
            drop(state);
            drop(abandoned);
            workers.wake.notify_all();
        }
    }
}

fn run_jobs(workers: &WorkerGroup) {
    let mut state = lock(&workers.state);
    loop {
        if state.closed {
            return;
        }
        state = match state.queue.pop_front() {
            Some(job) => {
                drop(state);
                // A panic fails one request, not the worker: the deferred reply answers when it is dropped.
                let _ = catch_unwind(AssertUnwindSafe(job));
                lock(&workers.state)
            }
            None => {
                state.idle += 1;
                let mut woken = workers.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
                woken.idle -= 1;
                woken
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use super::*;

    const SOON: Duration = Duration::from_secs(5);

    #[test]
    fn lookups_and_sizes_are_served_while_every_other_worker_waits() {
        let pool = WorkerPool::with_threads(1, 1, 2, 2);
        let (release, released) = channel::<()>();
        let released = Arc::new(Mutex::new(released));
        for cost in [RequestCost::Content, RequestCost::Index.unpacking(), RequestCost::Size.unpacking()].repeat(8) {
            let released = Arc::clone(&released);
            pool.submit(cost, Box::new(move || assert!(released.lock().unwrap().recv().is_err()))).unwrap();
        }
        let (tx, rx) = channel();
        for cost in [RequestCost::Index, RequestCost::Size] {
            let tx = tx.clone();
            pool.submit(cost, Box::new(move || tx.send(()).unwrap())).unwrap();
            rx.recv_timeout(SOON).unwrap();
        }
        drop(release);
    }

    #[test]
    fn a_group_runs_one_job_on_each_thread_and_queues_the_rest() {
        let pool = WorkerPool::with_threads(1, 1, 3, 1);
        let together = Arc::new(Barrier::new(3));
        let (tx, rx) = channel();
        for _ in 0..9 {
            let (together, tx) = (Arc::clone(&together), tx.clone());
            pool.submit(
                RequestCost::Content,
                Box::new(move || {
                    together.wait();
                    tx.send(()).unwrap();
                }),
            )
            .unwrap();
        }
        for _ in 0..9 {
            rx.recv_timeout(SOON).unwrap();
        }
        assert_eq!(lock(&pool.content.state).threads, 3);
    }

    #[test]
    fn a_panicking_job_does_not_end_the_worker() {
        let pool = WorkerPool::with_threads(1, 1, 1, 1);
        pool.submit(RequestCost::Size, Box::new(|| panic!("on purpose"))).unwrap();
        let (tx, rx) = channel();
        pool.submit(RequestCost::Size, Box::new(move || tx.send(()).unwrap())).unwrap();
        rx.recv_timeout(SOON).unwrap();
    }
}
