//! Reports that a store sends nothing although readers wait for it, and that it does again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use dupfs_base::clamp_len;

/// The time without data after which an outage is assumed.
const OUTAGE_AFTER: Duration = Duration::from_secs(10);
/// The interval in which this is checked.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// Checks without a waiting reader after which the thread ends.
const MAX_IDLE_CHECKS: u32 = 3;

/// Watches the readers of one store that wait, by a thread that runs only while there are any.
#[derive(Debug)]
pub(super) struct OutageWatch {
    url: String,
    start: Instant,
    /// Readers that wait now.
    waiting: AtomicU64,
    /// The last time at which data came or the first reader began to wait, in milliseconds after the start.
    last: AtomicU64,
    is_watched: AtomicBool,
}

/// A change that is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OutageEvent {
    /// Nothing has come for this time.
    Begins(Duration),
    /// Data comes again, after this time.
    Ends(Duration),
}

/// The outage that was reported.
#[derive(Debug, Default)]
struct OutageState {
    /// The last time before it at which data came.
    since: Option<u64>,
}

impl OutageState {
    /// The change at `now`, in milliseconds as `last` is.
    fn check(&mut self, waiting: u64, last: u64, now: u64) -> Option<OutageEvent> {
        let millis = |span: u64| Duration::from_millis(span);
        match self.since {
            None if waiting > 0 && millis(now.saturating_sub(last)) >= OUTAGE_AFTER => {
                self.since = Some(last);
                Some(OutageEvent::Begins(millis(now.saturating_sub(last))))
            }
            Some(since) if last > since => {
                self.since = None;
                Some(OutageEvent::Ends(millis(last.saturating_sub(since))))
            }
            _ => None,
        }
    }
}

impl OutageWatch {
    /// A watch of the store at `url`.
    pub(super) fn new(url: &str) -> Arc<Self> {
        let (waiting, last, is_watched) = Default::default();
        Arc::new(Self { url: url.to_owned(), start: Instant::now(), waiting, last, is_watched })
    }

    /// Records that a reader waits for data until the guard is dropped.
    pub(super) fn wait(self: &Arc<Self>) -> DataWait<'_> {
        // While others wait, the time counts from the last data of any of them.
        if self.waiting.fetch_add(1, Ordering::SeqCst) == 0 && !self.is_watched.load(Ordering::SeqCst) {
            self.last.store(self.now(), Ordering::SeqCst);
            self.start_thread();
        }
        DataWait { watch: self, has_come: false }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn start_thread(self: &Arc<Self>) {
        if self.is_watched.swap(true, Ordering::SeqCst) {
            return;
        }
        let watch = Arc::downgrade(self);
        let run = move || {
            let (mut state, mut idle) = (OutageState::default(), 0);
            loop {
                thread::sleep(CHECK_INTERVAL);
                let Some(watch) = watch.upgrade() else { return };
                let waiting = watch.waiting.load(Ordering::SeqCst);
                if waiting == 0 && state.since.is_none() {
                    // A reader that begins to wait later waits from then on.
                    watch.last.store(watch.now(), Ordering::SeqCst);
                }
                if let Some(event) = state.check(waiting, watch.last.load(Ordering::SeqCst), watch.now()) {
                    watch.report(event);
                }
                idle = if waiting > 0 || state.since.is_some() { 0 } else { idle + 1 };
                if idle >= MAX_IDLE_CHECKS {
                    watch.is_watched.store(false, Ordering::SeqCst);
                    // A reader may have begun to wait meanwhile and seen the thread.
                    if watch.waiting.load(Ordering::SeqCst) == 0 || watch.is_watched.swap(true, Ordering::SeqCst) {
                        return;
                    }
                    idle = 0;
                }
            }
        };
        // Without a thread nothing is reported, and nothing else is lost.
        if thread::Builder::new().name("dupfs-outage".into()).spawn(run).is_err() {
            self.is_watched.store(false, Ordering::SeqCst);
        }
    }

    fn report(&self, event: OutageEvent) {
        match event {
            OutageEvent::Begins(silent) => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                let of_day = now.saturating_sub(silent).as_secs() % 86_400;
                let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
                log::warn!("no data from {} since {hour:02}:{minute:02}:{second:02} UTC, waiting", self.url);
            }
            OutageEvent::Ends(silent) => {
                log::warn!("data comes again from {}, after {} s", self.url, clamp_len(silent.as_secs(), usize::MAX));
            }
        }
    }
}

/// A reader that waits for data.
pub(super) struct DataWait<'a> {
    watch: &'a OutageWatch,
    has_come: bool,
}

impl DataWait<'_> {
    /// Ends the wait because data came.
    pub(super) fn end(mut self) {
        self.has_come = true;
    }
}

impl Drop for DataWait<'_> {
    fn drop(&mut self) {
        if self.has_come {
            self.watch.last.store(self.watch.now(), Ordering::SeqCst);
        }
        self.watch.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_reported_once_at_its_beginning_and_at_its_end() {
        let mut state = OutageState::default();
        let seconds = Duration::from_secs;
        // Nobody waits; data comes; nothing comes for ten seconds; a minute later it does.
        assert_eq!(state.check(0, 0, 60_000), None);
        assert_eq!(state.check(2, 61_000, 62_000), None);
        assert_eq!(state.check(2, 61_000, 70_999), None);
        assert_eq!(state.check(2, 61_000, 71_000), Some(OutageEvent::Begins(seconds(10))));
        assert_eq!(state.check(2, 61_000, 75_000), None);
        assert_eq!(state.check(0, 61_000, 76_000), None, "a reader that gave up is no data");
        assert_eq!(state.check(1, 131_000, 131_500), Some(OutageEvent::Ends(seconds(70))));
        assert_eq!(state.check(1, 131_000, 132_000), None);
    }

    #[test]
    fn readers_are_counted_and_data_is_dated() {
        let watch = OutageWatch::new("memory:");
        let (first, second) = (watch.wait(), watch.wait());
        let before = watch.last.load(Ordering::SeqCst);
        thread::sleep(Duration::from_millis(20));
        drop(first);
        assert_eq!(watch.last.load(Ordering::SeqCst), before);
        second.end();
        assert!(watch.last.load(Ordering::SeqCst) > before);
        assert_eq!(watch.waiting.load(Ordering::SeqCst), 0);
    }
}
