//! A bounded number of threads that run jobs in the order of submission.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::prim::{Condvar, Mutex, thread};

/// Work for a [`ThreadPool`].
pub type Job = Box<dyn FnOnce() + Send>;

/// Threads that run jobs. A thread is started when a job is submitted and no thread is idle, up to a maximum. A thread
/// without a job ends if enough others are idle; those stay until the pool is dropped. The queue has no bound: the
/// callers bound how many jobs there are.
#[derive(Debug)]
pub struct ThreadPool {
    shared: Arc<PoolShared>,
}

#[derive(Debug)]
struct PoolShared {
    name: &'static str,
    max_threads: usize,
    max_idle: usize,
    state: Mutex<PoolState>,
    /// Notified when a job is queued and when the pool is closed.
    changed: Condvar,
}

#[derive(Default)]
struct PoolState {
    queue: VecDeque<Job>,
    threads: usize,
    /// Threads that wait for a job, including those that were notified and do not run yet.
    idle: usize,
    is_closed: bool,
}

impl fmt::Debug for PoolState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PoolState").field("queue", &self.queue.len()).field("threads", &self.threads).finish()
    }
}

impl ThreadPool {
    /// A pool of at most `max_threads` threads called `name`; none is started yet.
    pub fn new(name: &'static str, max_threads: usize) -> Self {
        Self::with_idle(name, max_threads, max_threads)
    }

    /// As [`Self::new`], with at most `max_idle` idle threads.
    pub fn with_idle(name: &'static str, max_threads: usize, max_idle: usize) -> Self {
        let (state, changed) = (Mutex::default(), Condvar::new());
        Self { shared: Arc::new(PoolShared { name, max_threads, max_idle, state, changed }) }
    }

    /// Runs `job` on a thread of the pool, after the jobs that were submitted before it have begun.
    ///
    /// # Errors
    /// If the pool has no thread and none can be started; the job is dropped.
    pub fn submit(&self, job: Job) -> io::Result<()> {
        let shared = &self.shared;
        let mut state = shared.state.lock();
        state.queue.push_back(job);
        if state.idle >= state.queue.len() || state.threads >= shared.max_threads {
            drop(state);
            shared.changed.notify_one();
            return Ok(());
        }
        state.threads = state.threads.saturating_add(1);
        drop(state);
        let worker = Arc::clone(shared);
        let spawned = thread::Builder::new().name(shared.name.into()).spawn(move || worker.run());
        let Err(error) = spawned else { return Ok(()) };
        let mut state = shared.state.lock();
        state.threads = state.threads.saturating_sub(1);
        if state.threads > 0 {
            drop(state);
            shared.changed.notify_one();
            return Ok(());
        }
        let stranded = std::mem::take(&mut state.queue);
        drop(state);
        drop(stranded);
        Err(error)
    }

    /// Number of threads.
    pub fn threads(&self) -> usize {
        self.shared.state.lock().threads
    }
}

impl Drop for ThreadPool {
    /// Drops the jobs that have not begun. Each thread ends after its current job; a thread that hangs is not waited for.
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        state.is_closed = true;
        let unserved = std::mem::take(&mut state.queue);
        drop(state);
        drop(unserved);
        self.shared.changed.notify_all();
    }
}

impl PoolShared {
    fn run(&self) {
        let mut state = self.state.lock();
        while !state.is_closed {
            state = match state.queue.pop_front() {
                Some(job) => {
                    drop(state);
                    // A panic ends the job, not the thread.
                    let _ = catch_unwind(AssertUnwindSafe(job));
                    self.state.lock()
                }
                None if state.idle >= self.max_idle => {
                    state.threads = state.threads.saturating_sub(1);
                    return;
                }
                None => {
                    state.idle = state.idle.saturating_add(1);
                    let mut woken = self.changed.wait(state);
                    woken.idle = woken.idle.saturating_sub(1);
                    woken
                }
            };
        }
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
    fn jobs_beyond_the_maximum_of_threads_are_queued() {
        let pool = ThreadPool::new("test", 3);
        let together = Arc::new(Barrier::new(3));
        let (tx, rx) = channel();
        for _ in 0..9 {
            let (together, tx) = (Arc::clone(&together), tx.clone());
            pool.submit(Box::new(move || {
                together.wait();
                tx.send(()).unwrap();
            }))
            .unwrap();
        }
        for _ in 0..9 {
            rx.recv_timeout(SOON).unwrap();
        }
        assert_eq!(pool.threads(), 3);
    }

    #[test]
    fn idle_threads_end_except_for_the_minimum() {
        let pool = ThreadPool::with_idle("test", 8, 2);
        for _ in 0..3 {
            let together = Arc::new(Barrier::new(8));
            let (tx, rx) = channel();
            for _ in 0..8 {
                let (together, tx) = (Arc::clone(&together), tx.clone());
                pool.submit(Box::new(move || {
                    together.wait();
                    tx.send(()).unwrap();
                }))
                .unwrap();
            }
            (0..8).for_each(|_| rx.recv_timeout(SOON).unwrap());
            let started = std::time::Instant::now();
            while pool.threads() > 2 {
                assert!(started.elapsed() < SOON, "{} threads are kept", pool.threads());
                std::thread::yield_now();
            }
        }
    }

    #[test]
    fn a_job_that_panics_does_not_end_its_thread() {
        let pool = ThreadPool::new("test", 1);
        pool.submit(Box::new(|| panic!("on purpose"))).unwrap();
        let (tx, rx) = channel();
        pool.submit(Box::new(move || tx.send(()).unwrap())).unwrap();
        rx.recv_timeout(SOON).unwrap();
        assert_eq!(pool.threads(), 1);
    }

    #[test]
    fn a_dropped_pool_drops_the_jobs_that_have_not_begun() {
        let pool = ThreadPool::new("test", 1);
        let (release, gate) = channel::<()>();
        let (begun_tx, begun_rx) = channel();
        pool.submit(Box::new(move || {
            begun_tx.send(()).unwrap();
            let _ = gate.recv();
        }))
        .unwrap();
        begun_rx.recv_timeout(SOON).unwrap();
        let (tx, rx) = channel();
        pool.submit(Box::new(move || tx.send(()).unwrap())).unwrap();
        drop(pool);
        assert!(rx.recv_timeout(SOON).is_err(), "the queued job was dropped without a call");
        drop(release);
    }
}
