//! The progress of a command on a terminal, as far as it is not counted otherwise: the bytes that come from the store, those that
//! are unpacked, and what the command works on.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use indicatif::HumanDuration;

use super::activity::Activity;
use super::progress_line::{self, ProgressLine};
use super::quantities::human_bytes;
use crate::vfs::FileSystem;
use dupfs_base::RequestContext;
use dupfs_base::sync::Monitor;
use dupfs_read::volume::{ExpectedProgress, Repository};

/// Interval of the updates: loading a tree is one step that may take long.
const INTERVAL: Duration = Duration::from_millis(250);

/// The progress of the work that is in progress now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct WorkProgress {
    /// The text before the numbers, instead of that of the command.
    pub(super) text: Option<String>,
    /// The fetches that are expected.
    pub(super) expected: Option<ExpectedProgress>,
    /// Bytes that were fetched of the objects that are being fetched, and the bytes of these.
    pub(super) fetching: Option<(u64, u64)>,
    /// Bytes that come from the store in a second.
    pub(super) bytes_per_second: u64,
    /// Bytes of a stored file that were unpacked, and its size.
    pub(super) unpacking: Option<(u64, u64)>,
}

/// Shows the progress of the work of a command, from when it has taken a second in all. A thread updates the line, which disappears
/// when nothing is in progress, and at the end.
#[derive(Debug)]
pub(super) struct FetchProgress {
    activity: Activity,
    is_over: Arc<Monitor<bool>>,
    updater: Option<thread::JoinHandle<()>>,
}

/// The line, while something is in progress.
struct FetchedLine<S> {
    source: S,
    activity: Activity,
    begun: Instant,
    /// The line of what is expected.
    expected: Option<ProgressLine>,
    /// The duration of the fetches before those of the line.
    earlier: Duration,
    /// The line of all else.
    other: Option<ProgressLine>,
    /// The stored file that is being unpacked, by its size, with the time and place from which on its rate is measured.
    unpacked: Option<(u64, Instant, u64)>,
}

impl FetchProgress {
    /// The progress of the fetches of `repository`.
    pub(super) fn of_repository(repository: &Arc<Repository>) -> Self {
        let repository = Arc::clone(repository);
        Self::begin(move || {
            let status = repository.status();
            let objects = status.transfers.iter().filter(|transfer| transfer.object.is_some());
            WorkProgress {
                expected: repository.expected_progress(),
                fetching: sum(objects.map(|transfer| (transfer.bytes, transfer.size))),
                bytes_per_second: status.bytes_per_second,
                ..WorkProgress::default()
            }
        })
    }

    /// The progress of the work of `fs`.
    pub(super) fn of_file_system<F: FileSystem + ?Sized + 'static>(fs: &Arc<F>) -> Self {
        let fs = Arc::clone(fs);
        Self::begin(move || {
            let status = fs.status();
            let objects = status.fetching.iter().filter(|transfer| transfer.object.is_some());
            WorkProgress {
                expected: fs.expected_progress(),
                fetching: sum(objects.map(|transfer| (transfer.bytes, transfer.size))),
                bytes_per_second: status.link.bytes_per_second,
                unpacking: fs.unpacking(),
                text: None,
            }
        })
    }

    /// The progress that `source` gives.
    pub(super) fn begin(source: impl Fn() -> WorkProgress + Send + 'static) -> Self {
        let (activity, is_over) = (Activity::new(), Monitor::new(false));
        let (end, shared) = (Arc::clone(&is_over), activity.clone());
        let update = move || {
            let mut line = FetchedLine::new(source, shared);
            while end.wait_until(&RequestContext::with_timeout(INTERVAL), |is_over| is_over.then_some(())).is_err() {
                line.update();
            }
        };
        // Without a thread no progress is shown.
        let spawn = || thread::Builder::new().name("dupfs-progress".into()).spawn(update).ok();
        Self { activity, is_over, updater: progress_line::is_wanted().then(spawn).flatten() }
    }

    /// Sets the text before the numbers; without one it counts the backup sets.
    pub(super) fn describe(&self, text: String) {
        self.activity.replace(text);
    }

    /// The text before the numbers, for a command that sets it.
    pub(super) fn activity(&self) -> Activity {
        self.activity.clone()
    }
}

/// The sum of pairs of numbers; `None` without any.
fn sum(pairs: impl Iterator<Item = (u64, u64)>) -> Option<(u64, u64)> {
    pairs.reduce(|(a, b), (c, d)| (a.saturating_add(c), b.saturating_add(d)))
}

impl Drop for FetchProgress {
    fn drop(&mut self) {
        self.is_over.update(|is_over| *is_over = true);
        if self.updater.take().is_some_and(|updater| updater.join().is_err()) {
            log::debug!("the thread that shows the progress has panicked");
        }
    }
}

impl<S: Fn() -> WorkProgress> FetchedLine<S> {
    fn new(source: S, activity: Activity) -> Self {
        let (begun, earlier) = (Instant::now(), Duration::ZERO);
        Self { source, activity, begun, expected: None, earlier, other: None, unpacked: None }
    }

    fn update(&mut self) {
        let progress = (self.source)();
        // Less than before is of other fetches.
        let is_same = |line: &ProgressLine| progress.expected.is_some_and(|now| now.fetched >= line.done());
        if let Some(line) = self.expected.take_if(|line| !is_same(line)) {
            self.earlier = line.begun().elapsed();
        }
        if let Some(expected) = progress.expected {
            self.other = None;
            self.show_expected(progress.text, expected);
            return;
        }
        let text = if self.activity.has_own_line() { String::new() } else { self.text(&progress) };
        if text.is_empty() {
            self.other = None;
            return;
        }
        let begun = self.begun;
        let line = self.other.get_or_insert_with(|| ProgressLine::of_text_since(begun));
        line.describe(text);
        line.advance(0);
    }

    fn show_expected(&mut self, text: Option<String>, progress: ExpectedProgress) {
        let earlier = self.earlier;
        let line = self.expected.get_or_insert_with(|| {
            let now = Instant::now();
            ProgressLine::of_bytes_since(now.checked_sub(earlier).unwrap_or(now), (progress.fetched, progress.expected))
        });
        line.describe(text.or_else(|| self.activity.text()).unwrap_or_else(|| sets_text(progress.sets)));
        line.set(progress.fetched, progress.expected);
    }

    /// The text for work whose end is not known: what the command works on, and how far the objects are that it waits for.
    fn text(&mut self, progress: &WorkProgress) -> String {
        let text = progress.text.clone().or_else(|| self.activity.text());
        let text = text.unwrap_or_default();
        // Numbers may follow the text of a command.
        let text = text.trim_end_matches(", ");
        let mut parts: Vec<String> = Some(text.to_owned()).filter(|text| !text.is_empty()).into_iter().collect();
        if let Some((bytes, size)) = progress.unpacking {
            let known = self.unpacked.filter(|(of, _, from)| *of == size && *from <= bytes);
            let (_, since, from) = *self.unpacked.insert(known.unwrap_or((size, Instant::now(), bytes)));
            let seconds = since.elapsed().as_secs();
            let rate = bytes.saturating_sub(from).checked_div(seconds).unwrap_or(0);
            parts.push(format!("unpacked {}", numbers((bytes, size), rate)));
        }
        if let Some(transferred) = progress.fetching {
            parts.push(format!("fetched {}", numbers(transferred, progress.bytes_per_second)));
        }
        parts.join(", ")
    }
}

/// `3.0 MiB of 25.0 MiB, 1.5 MiB/s, 14s left`.
fn numbers((bytes, size): (u64, u64), rate: u64) -> String {
    let left = size.saturating_sub(bytes).checked_div(rate).map(Duration::from_secs);
    let end = match left {
        Some(left) => format!("{}/s, {:#} left", human_bytes(rate), HumanDuration(left)),
        None => "time left unknown".to_owned(),
    };
    format!("{} of {}, {end}", human_bytes(bytes), human_bytes(size))
}

/// The backup set that is read now, of `all`.
fn sets_text((read, all): (u64, u64)) -> String {
    match all {
        0 => String::new(),
        all => format!("backup set {} of {all}, ", read.saturating_add(1).min(all)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line() -> FetchedLine<impl Fn() -> WorkProgress> {
        FetchedLine::new(WorkProgress::default, Activity::new())
    }

    #[test]
    fn work_without_a_known_end_shows_what_it_waits_for() {
        let mut line = line();
        assert_eq!(line.text(&WorkProgress::default()), "");
        line.activity.replace("5 objects listed, ".to_owned());
        assert_eq!(line.text(&WorkProgress::default()), "5 objects listed");
        let mut progress = WorkProgress { fetching: Some((3 << 20, 25 << 20)), ..WorkProgress::default() };
        assert_eq!(line.text(&progress), "5 objects listed, fetched 3.0 MiB of 25.0 MiB, time left unknown");
        progress.bytes_per_second = 2 << 20;
        assert_eq!(line.text(&progress), "5 objects listed, fetched 3.0 MiB of 25.0 MiB, 2.0 MiB/s, 11s left");
    }

    #[test]
    fn the_rate_of_unpacking_is_that_of_the_file_that_is_unpacked_now() {
        let mut line = line();
        let mut progress = WorkProgress { unpacking: Some((1 << 20, 9 << 20)), ..WorkProgress::default() };
        assert_eq!(line.text(&progress), "unpacked 1.0 MiB of 9.0 MiB, time left unknown");
        line.unpacked =
            line.unpacked.map(|(size, since, from)| (size, since.checked_sub(Duration::from_secs(2)).unwrap(), from));
        progress.unpacking = Some((5 << 20, 9 << 20));
        assert_eq!(line.text(&progress), "unpacked 5.0 MiB of 9.0 MiB, 2.0 MiB/s, 2s left");
        // Another file.
        progress.unpacking = Some((5 << 20, 8 << 20));
        assert_eq!(line.text(&progress), "unpacked 5.0 MiB of 8.0 MiB, time left unknown");
    }
}
