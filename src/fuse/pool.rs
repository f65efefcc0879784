//! Workers for requests that wait, in lanes by cost: names are not stuck behind sizes, nor sizes behind reads, nor any of them
//! behind passes over archives.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;

use super::lock;

/// What a deferred request may cost, and so which workers serve it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    /// Signature archives at most: lookup, readdir, readlink, extended attributes.
    Names,
    /// One volume at most: getattr and open, which find exact sizes.
    Sizes,
    /// Any number of volumes: read.
    Data,
    /// Passes over archives: names and sizes in `unpacked/`.
    Passes,
}

impl Lane {
    /// The lane of the same request in `unpacked/`.
    pub(super) fn unpacking(self) -> Self {
        match self {
            Self::Names | Self::Sizes | Self::Passes => Self::Passes,
            Self::Data => Self::Data,
        }
    }
}

/// A deferred request. The kernel bounds how many there are: one for each waiting thread, plus its read-ahead.
pub(super) type Job = Box<dyn FnOnce() + Send>;

/// A bounded number of threads for each lane, started as they are needed.
#[derive(Debug)]
pub(super) struct Pool {
    names: Arc<Workers>,
    sizes: Arc<Workers>,
    data: Arc<Workers>,
    passes: Arc<Workers>,
}

#[derive(Debug)]
struct Workers {
    name: &'static str,
    max: usize,
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Job>,
    threads: usize,
    idle: usize,
    closed: bool,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("queue", &self.queue.len()).field("threads", &self.threads).finish()
    }
}

impl Pool {
    /// A pool of at most 8, 8, 16 and 8 threads.
    pub(super) fn new() -> Self {
        Self::with_threads(8, 8, 16, 8)
    }

    fn with_threads(names: usize, sizes: usize, data: usize, passes: usize) -> Self {
        let workers =
            |name, max| Arc::new(Workers { name, max, state: Mutex::new(State::default()), wake: Condvar::new() });
        Self {
            names: workers("dupfs-names", names),
            sizes: workers("dupfs-sizes", sizes),
            data: workers("dupfs-data", data),
            passes: workers("dupfs-passes", passes),
        }
    }

    /// Runs `job` on a worker of `lane`, after those that came before it.
    ///
    /// # Errors
    /// When the lane has no thread and none can be started; the job is dropped.
    pub(super) fn submit(&self, lane: Lane, job: Job) -> std::io::Result<()> {
        let workers = self.lane(lane);
        let mut state = lock(&workers.state);
        state.queue.push_back(job);
        if state.idle >= state.queue.len() || state.threads >= workers.max {
            drop(state);
            workers.wake.notify_one();
            return Ok(());
        }
        state.threads += 1;
        drop(state);
        let theirs = Arc::clone(workers);
        let spawned = thread::Builder::new().name(workers.name.into()).spawn(move || work(&theirs));
        let Err(error) = spawned else { return Ok(()) };
        let mut state = lock(&workers.state);
        state.threads -= 1;
        if state.threads > 0 {
            drop(state);
            workers.wake.notify_one();
            return Ok(());
        }
        let stranded = std::mem::take(&mut state.queue);
        drop(state);
        drop(stranded);
        Err(error)
    }

    fn lane(&self, lane: Lane) -> &Arc<Workers> {
        match lane {
            Lane::Names => &self.names,
            Lane::Sizes => &self.sizes,
            Lane::Data => &self.data,
            Lane::Passes => &self.passes,
        }
    }
}

impl Drop for Pool {
    /// Threads end after the job they are at; one that hangs is left behind.
    fn drop(&mut self) {
        for workers in [&self.names, &self.sizes, &self.data, &self.passes] {
            let mut state = lock(&workers.state);
            state.closed = true;
            let unserved = std::mem::take(&mut state.queue);
            drop(state);
            drop(unserved);
            workers.wake.notify_all();
        }
    }
}

fn work(workers: &Workers) {
    let mut state = lock(&workers.state);
    loop {
        if state.closed {
            return;
        }
        state = match state.queue.pop_front() {
            Some(job) => {
                drop(state);
                // A panic must cost one request, not the worker; its ticket answers when it is dropped.
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
    fn names_and_sizes_are_served_while_every_other_worker_waits() {
        let pool = Pool::with_threads(1, 1, 2, 2);
        let (release, gate) = channel::<()>();
        let gate = Arc::new(Mutex::new(gate));
        for lane in [Lane::Data, Lane::Names.unpacking(), Lane::Sizes.unpacking()].repeat(8) {
            let gate = Arc::clone(&gate);
            pool.submit(lane, Box::new(move || assert!(gate.lock().unwrap().recv().is_err()))).unwrap();
        }
        let (tell, told) = channel();
        for lane in [Lane::Names, Lane::Sizes] {
            let tell = tell.clone();
            pool.submit(lane, Box::new(move || tell.send(()).unwrap())).unwrap();
            told.recv_timeout(SOON).unwrap();
        }
        drop(release);
    }

    #[test]
    fn a_lane_runs_as_many_jobs_at_once_as_it_has_threads_and_queues_the_rest() {
        let pool = Pool::with_threads(1, 1, 3, 1);
        let together = Arc::new(Barrier::new(3));
        let (tell, told) = channel();
        for _ in 0..9 {
            let (together, tell) = (Arc::clone(&together), tell.clone());
            pool.submit(
                Lane::Data,
                Box::new(move || {
                    together.wait();
                    tell.send(()).unwrap();
                }),
            )
            .unwrap();
        }
        for _ in 0..9 {
            told.recv_timeout(SOON).unwrap();
        }
        assert_eq!(lock(&pool.data.state).threads, 3);
    }

    #[test]
    fn a_panicking_job_does_not_cost_the_worker() {
        let pool = Pool::with_threads(1, 1, 1, 1);
        pool.submit(Lane::Sizes, Box::new(|| panic!("on purpose"))).unwrap();
        let (tell, told) = channel();
        pool.submit(Lane::Sizes, Box::new(move || tell.send(()).unwrap())).unwrap();
        told.recv_timeout(SOON).unwrap();
    }
}
