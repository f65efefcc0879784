//! Threads for work that may be done before anybody waits for it, and by whoever waits if none of them has begun.

use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;

use crate::storage::sync::lock;

type Job<T> = Box<dyn FnOnce() -> T + Send>;

enum State<T> {
    Waiting(Job<T>),
    Running,
    Done(T),
    /// It panicked, or its result was taken.
    Gone,
}

/// A piece of work that needs nothing but the processor. Whoever needs its result does it if nobody has begun.
pub(super) struct Task<T> {
    state: Mutex<State<T>>,
    done: Condvar,
}

trait Run: Send + Sync {
    fn run(&self);
}

impl<T: Send> Run for Task<T> {
    fn run(&self) {
        let job = {
            let mut state = lock(&self.state);
            match std::mem::replace(&mut *state, State::Running) {
                State::Waiting(job) => job,
                other => {
                    *state = other;
                    return;
                }
            }
        };
        let result = catch_unwind(AssertUnwindSafe(job));
        *lock(&self.state) = result.map_or(State::Gone, State::Done);
        self.done.notify_all();
    }
}

impl<T: Send> Task<T> {
    /// The result; `None` if the work panicked.
    pub(super) fn finish(&self) -> Option<T> {
        self.run();
        let mut state = lock(&self.state);
        loop {
            match std::mem::replace(&mut *state, State::Gone) {
                State::Done(result) => return Some(result),
                State::Gone => return None,
                running => *state = running,
            }
            state = self.done.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// As many threads as there are processors, started when they are first needed.
pub(super) struct Workers {
    shared: Arc<Shared>,
    most: usize,
}

struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
}

#[derive(Default)]
struct Queue {
    tasks: VecDeque<Arc<dyn Run>>,
    threads: usize,
    closed: bool,
}

impl Workers {
    pub(super) fn new() -> Self {
        let most = thread::available_parallelism().map_or(1, usize::from);
        Self { shared: Arc::new(Shared { queue: Mutex::default(), wake: Condvar::new() }), most }
    }

    /// How many tasks can run at once.
    pub(super) fn width(&self) -> usize {
        self.most
    }

    /// Queues `job`.
    pub(super) fn submit<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> Arc<Task<T>> {
        let task = Arc::new(Task { state: Mutex::new(State::Waiting(Box::new(job))), done: Condvar::new() });
        let start = {
            let mut queue = lock(&self.shared.queue);
            queue.tasks.push_back(Arc::clone(&task) as Arc<dyn Run>);
            let start = queue.threads < self.most;
            queue.threads += usize::from(start);
            start
        };
        self.shared.wake.notify_one();
        if start {
            let shared = Arc::clone(&self.shared);
            let spawned = thread::Builder::new().name("dupfs-unpack".into()).spawn(move || work(&shared));
            if spawned.is_err() {
                // Whoever waits does the work.
                lock(&self.shared.queue).threads -= 1;
            }
        }
        task
    }
}

fn work(shared: &Shared) {
    let mut queue = lock(&shared.queue);
    while !queue.closed {
        match queue.tasks.pop_front() {
            Some(task) => {
                drop(queue);
                task.run();
                drop(task);
                queue = lock(&shared.queue);
            }
            None => queue = shared.wake.wait(queue).unwrap_or_else(PoisonError::into_inner),
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        let mut queue = lock(&self.shared.queue);
        queue.closed = true;
        let left = std::mem::take(&mut queue.tasks);
        drop(queue);
        drop(left);
        self.shared.wake.notify_all();
    }
}

impl fmt::Debug for Workers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Workers").field("most", &self.most).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_back_whoever_did_the_work() {
        let workers = Workers::new();
        let tasks: Vec<_> = (0..100_u32).map(|n| workers.submit(move || n * 2)).collect();
        let results: Vec<_> = tasks.iter().rev().map(|task| task.finish()).collect();
        assert_eq!(results, (0..100).rev().map(|n| Some(n * 2)).collect::<Vec<_>>());
    }

    #[test]
    fn work_that_panics_leaves_nobody_waiting() {
        let workers = Workers::new();
        let task = workers.submit(|| panic!("on purpose"));
        assert_eq!(task.finish(), None::<()>);
        assert_eq!(workers.submit(|| 1).finish(), Some(1));
    }
}
