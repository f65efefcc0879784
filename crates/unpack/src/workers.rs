//! Threads for work that may be done before anybody waits for it, and by whoever waits if none of them has begun.
//!
//! At most as much of it runs at once as there are processors, whoever runs it: decoding a bzip2 block walks megabytes at
//! random, and two that take turns on one processor throw each other's out of its cache, which doubles the time of both.

use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;

use dupfs_base::sync::lock;

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
    turns: Arc<Turns>,
    state: Mutex<State<T>>,
    done: Condvar,
}

trait Run: Send + Sync {
    /// Does the work, unless somebody else has begun.
    fn run(&self, turn: &Turn<'_>);
}

impl<T: Send> Run for Task<T> {
    fn run(&self, _turn: &Turn<'_>) {
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
        let waiting = matches!(*lock(&self.state), State::Waiting(_));
        if waiting {
            self.run(&self.turns.take());
        }
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

/// Who may run now: so many at once, in the order in which they came.
struct Turns {
    line: Mutex<Line>,
    moved: Condvar,
}

struct Line {
    free: usize,
    /// The number of who comes next.
    next: u64,
    /// The number of whose turn comes next.
    first: u64,
}

/// The right to run, until it is dropped. Who has it waits for nothing, so everybody's turn comes.
struct Turn<'a>(&'a Turns);

impl Turns {
    fn new(free: usize) -> Self {
        Self { line: Mutex::new(Line { free, next: 0, first: 0 }), moved: Condvar::new() }
    }

    fn take(&self) -> Turn<'_> {
        let mut line = lock(&self.line);
        let own = line.next;
        line.next += 1;
        while line.free == 0 || line.first != own {
            line = self.moved.wait(line).unwrap_or_else(PoisonError::into_inner);
        }
        line.free -= 1;
        line.first += 1;
        let more = line.free > 0;
        drop(line);
        if more {
            self.moved.notify_all();
        }
        Turn(self)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        lock(&self.0.line).free += 1;
        self.0.moved.notify_all();
    }
}

/// As many threads as there are processors, started when they are first needed.
pub(super) struct Workers {
    shared: Arc<Shared>,
    most: usize,
}

struct Shared {
    turns: Arc<Turns>,
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
        Self::of(thread::available_parallelism().map_or(1, usize::from))
    }

    fn of(most: usize) -> Self {
        let turns = Arc::new(Turns::new(most));
        Self { shared: Arc::new(Shared { turns, queue: Mutex::default(), wake: Condvar::new() }), most }
    }

    /// Does `job` at once, by the caller, when its turn has come.
    pub(super) fn in_turn<T>(&self, job: impl FnOnce() -> T) -> T {
        let _turn = self.shared.turns.take();
        job()
    }

    /// How many tasks can run at once.
    pub(super) fn width(&self) -> usize {
        self.most
    }

    /// Queues `job`.
    pub(super) fn submit<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> Arc<Task<T>> {
        let task = Arc::new(Task {
            turns: Arc::clone(&self.shared.turns),
            state: Mutex::new(State::Waiting(Box::new(job))),
            done: Condvar::new(),
        });
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
        if queue.tasks.is_empty() {
            queue = shared.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
            continue;
        }
        drop(queue);
        // Nothing is begun before its turn has come, so that whoever needs it meanwhile can.
        let turn = shared.turns.take();
        let task = lock(&shared.queue).tasks.pop_front();
        if let Some(task) = task {
            task.run(&turn);
        }
        drop(turn);
        queue = lock(&shared.queue);
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
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn results_come_back_whoever_did_the_work() {
        let workers = Workers::new();
        let tasks: Vec<_> = (0..100_u32).map(|n| workers.submit(move || n * 2)).collect();
        let results: Vec<_> = tasks.iter().rev().map(|task| task.finish()).collect();
        assert_eq!(results, (0..100).rev().map(|n| Some(n * 2)).collect::<Vec<_>>());
    }

    #[test]
    fn no_more_runs_at_once_than_there_are_processors_whoever_runs_it() {
        let (workers, running, most) = (Workers::of(2), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let job = || {
            let (running, most) = (Arc::clone(&running), Arc::clone(&most));
            move || {
                most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                thread::sleep(std::time::Duration::from_millis(2));
                running.fetch_sub(1, Ordering::SeqCst);
            }
        };
        thread::scope(|scope| {
            for _ in 0..6 {
                scope.spawn(|| {
                    let tasks: Vec<_> = (0..6).map(|_| workers.submit(job())).collect();
                    workers.in_turn(job());
                    assert!(tasks.iter().all(|task| task.finish().is_some()));
                });
            }
        });
        assert_eq!(most.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn work_that_panics_leaves_nobody_waiting() {
        let workers = Workers::new();
        let task = workers.submit(|| panic!("on purpose"));
        assert_eq!(task.finish(), None::<()>);
        assert_eq!(workers.submit(|| 1).finish(), Some(1));
    }
}
