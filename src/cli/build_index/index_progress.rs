//! The progress of building an index on a terminal, by the bytes that are fetched.

use std::io::{self, IsTerminal};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::cli::progress_line::ProgressLine;
use dupfs_base::RequestContext;
use dupfs_base::sync::{Monitor, lock};
use dupfs_read::volume::Repository;

/// Interval of the updates: loading a tree is one step that may take long.
const INTERVAL: Duration = Duration::from_millis(250);

/// The line of progress, which a thread updates.
#[derive(Debug)]
pub(super) struct IndexProgress {
    line: Arc<Mutex<FetchedLine>>,
    is_over: Arc<Monitor<bool>>,
    updater: Option<thread::JoinHandle<()>>,
}

/// The line, and the bytes that it counts.
#[derive(Debug)]
struct FetchedLine {
    line: ProgressLine,
    repository: Arc<Repository>,
    counted: u64,
    total: u64,
}

impl FetchedLine {
    fn update(&mut self) {
        let bytes = self.repository.traffic().bytes;
        self.line.advance(bytes.saturating_sub(self.counted));
        self.counted = bytes;
    }
}

impl IndexProgress {
    /// The progress of fetching from `repository`, which begins now.
    pub(super) fn begin(repository: &Arc<Repository>) -> Self {
        let counted = repository.traffic().bytes;
        let line = FetchedLine { line: ProgressLine::new(0), repository: Arc::clone(repository), counted, total: 0 };
        let (line, is_over) = (Arc::new(Mutex::new(line)), Monitor::new(false));
        let (shared, end) = (Arc::clone(&line), Arc::clone(&is_over));
        let update = move || {
            while end.wait_until(&RequestContext::with_timeout(INTERVAL), |is_over| is_over.then_some(())).is_err() {
                lock(&shared).update();
            }
        };
        // Without a thread no progress is shown.
        let spawn = || thread::Builder::new().name("dupfs-progress".into()).spawn(update).ok();
        Self { line, is_over, updater: io::stderr().is_terminal().then(spawn).flatten() }
    }

    /// Begins a phase that fetches about `bytes`.
    pub(super) fn begin_phase(&self, bytes: u64) {
        let mut line = lock(&self.line);
        line.update();
        let (total, next) = (line.total, line.counted.saturating_add(bytes));
        line.line.correct(total, next);
        line.total = next;
    }

    /// Sets the text before the numbers.
    pub(super) fn describe(&self, text: String) {
        lock(&self.line).line.describe(text);
    }

    /// Removes the line for the output of `print`.
    pub(super) fn suspend<T>(&self, print: impl FnOnce() -> T) -> T {
        lock(&self.line).line.suspend(print)
    }
}

impl Drop for IndexProgress {
    fn drop(&mut self) {
        self.is_over.update(|is_over| *is_over = true);
        if self.updater.take().is_some_and(|updater| updater.join().is_err()) {
            log::debug!("the thread that shows the progress has panicked");
        }
    }
}
