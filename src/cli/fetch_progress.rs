//! The progress of what is fetched before a command can answer, on a terminal.

use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use super::progress_line::{self, ProgressLine};
use crate::vfs::FileSystem;
use dupfs_base::RequestContext;
use dupfs_base::sync::{Monitor, lock};
use dupfs_read::volume::{ExpectedProgress, Repository};

/// Interval of the updates: loading a tree is one step that may take long.
const INTERVAL: Duration = Duration::from_millis(250);

/// Shows the progress of the fetches that a repository expects, from when they have taken a second in all. A thread updates the
/// line, which disappears when nothing is expected, and at the end.
#[derive(Debug)]
pub(super) struct FetchProgress {
    text: Arc<Mutex<Option<String>>>,
    is_over: Arc<Monitor<bool>>,
    updater: Option<thread::JoinHandle<()>>,
}

/// The line, while something is expected.
struct FetchedLine<S> {
    source: S,
    text: Arc<Mutex<Option<String>>>,
    line: Option<ProgressLine>,
    /// The duration of the fetches before those of the line.
    earlier: Duration,
}

impl FetchProgress {
    /// The progress of the fetches of `repository`.
    pub(super) fn of_repository(repository: &Arc<Repository>) -> Self {
        let repository = Arc::clone(repository);
        Self::begin(move || repository.expected_progress())
    }

    /// The progress of the fetches of `fs`.
    pub(super) fn of_file_system<F: FileSystem + ?Sized + 'static>(fs: &Arc<F>) -> Self {
        let fs = Arc::clone(fs);
        Self::begin(move || fs.expected_progress())
    }

    fn begin(source: impl Fn() -> Option<ExpectedProgress> + Send + 'static) -> Self {
        let (text, is_over) = (Arc::<Mutex<Option<String>>>::default(), Monitor::new(false));
        let (end, shared) = (Arc::clone(&is_over), Arc::clone(&text));
        let update = move || {
            let mut line = FetchedLine { source, text: shared, line: None, earlier: Duration::ZERO };
            while end.wait_until(&RequestContext::with_timeout(INTERVAL), |is_over| is_over.then_some(())).is_err() {
                line.update();
            }
        };
        // Without a thread no progress is shown.
        let spawn = || thread::Builder::new().name("dupfs-progress".into()).spawn(update).ok();
        Self { text, is_over, updater: progress_line::is_wanted().then(spawn).flatten() }
    }

    /// Sets the text before the numbers; without one it counts the backup sets.
    pub(super) fn describe(&self, text: String) {
        *lock(&self.text) = Some(text);
    }
}

impl Drop for FetchProgress {
    fn drop(&mut self) {
        self.is_over.update(|is_over| *is_over = true);
        if self.updater.take().is_some_and(|updater| updater.join().is_err()) {
            log::debug!("the thread that shows the progress has panicked");
        }
    }
}

impl<S: Fn() -> Option<ExpectedProgress>> FetchedLine<S> {
    fn update(&mut self) {
        let progress = (self.source)();
        // Less than before is of other fetches.
        let is_same = |line: &ProgressLine| progress.is_some_and(|progress| progress.fetched >= line.done());
        if let Some(line) = self.line.take_if(|line| !is_same(line)) {
            self.earlier = line.begun().elapsed();
        }
        let Some(progress) = progress else { return };
        let earlier = self.earlier;
        let line = self.line.get_or_insert_with(|| {
            let now = Instant::now();
            ProgressLine::of_bytes_since(now.checked_sub(earlier).unwrap_or(now), (progress.fetched, progress.expected))
        });
        line.describe(lock(&self.text).clone().unwrap_or_else(|| sets_text(progress.sets)));
        line.set(progress.fetched, progress.expected);
    }
}

/// The backup set that is read now, of `all`.
fn sets_text((read, all): (u64, u64)) -> String {
    match all {
        0 => String::new(),
        all => format!("backup set {} of {all}, ", read.saturating_add(1).min(all)),
    }
}
