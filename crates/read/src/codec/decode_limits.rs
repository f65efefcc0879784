//! The limits of one decoding: the request that waits for it, the expansion of the data, and the time that it may take.
//!
//! Anyone who can write to the store and knows the public key of a backup can make small objects that decompress to any
//! length. The limits make such an object an error, and stop the work once no caller waits for it.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use dupfs_base::{RequestContext, Stopped, whole_nanos};

/// Upper bound of the decompressed bytes of an object, by its stored bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpansionLimit {
    /// Bytes that every object may have.
    pub base: u64,
    /// Decompressed bytes for each stored byte.
    pub ratio: u64,
}

impl ExpansionLimit {
    /// The limit of volumes and signature archives. A tar header with another number precedes each 64 KiB of a volume, so
    /// that even bzip2 needs more than a byte for them: a file of zeros reaches 25,000 to 1, and its signature 10,000 to
    /// 1. Deflate never exceeds 1,032 to 1.
    pub const ARCHIVE: Self = Self { base: 256 << 20, ratio: 1 << 16 };

    /// The limit of manifests, which have a hash for each volume and a line for each file.
    pub const MANIFEST: Self = Self { base: 16 << 20, ratio: 1 << 10 };

    /// The upper bound for `stored` bytes.
    fn max(self, stored: u64) -> u64 {
        stored.saturating_mul(self.ratio).saturating_add(self.base)
    }
}

/// The reason why a decoding was stopped.
pub(super) enum LimitReached {
    /// The request has ended.
    Stopped(Stopped),
    /// The stored bytes decompressed to more than the limit allows.
    Expansion {
        /// Decompressed bytes.
        expanded: u64,
    },
    /// The decoding took longer than it may.
    Time {
        /// The time that it may take.
        limit: Duration,
        /// Decompressed bytes.
        expanded: u64,
    },
}

/// The limits of one decoding and its use of them. Clones share the measurements.
#[derive(Clone, Debug)]
pub struct DecodeLimits {
    context: RequestContext,
    expansion: ExpansionLimit,
    max_time: Option<Duration>,
    measured: Arc<Measurements>,
}

#[derive(Debug, Default)]
struct Measurements {
    /// Stored bytes that were read, buffers included.
    stored: AtomicU64,
    expanded: AtomicU64,
    /// True once the stored bytes decompressed to more than the limit allows.
    exceeded: AtomicBool,
    /// The first decompression.
    started: OnceLock<Instant>,
    /// Time since then that decompression waited for its input, in nanoseconds.
    waited: AtomicU64,
}

impl DecodeLimits {
    /// The limits of a decoding for `context`, which may expand within `expansion` and take `max_time` (`None`: any
    /// time), not counting the time in which it waits for stored bytes.
    pub fn new(context: &RequestContext, expansion: ExpansionLimit, max_time: Option<Duration>) -> Self {
        Self { context: context.clone(), expansion, max_time, measured: Arc::default() }
    }

    /// The time since the first decompression that was not spent waiting for stored bytes; zero for an object that is not
    /// compressed.
    pub fn time_used(&self) -> Duration {
        let elapsed = self.measured.started.get().map_or(Duration::ZERO, Instant::elapsed);
        elapsed.saturating_sub(Duration::from_nanos(self.measured.waited.load(Ordering::Relaxed)))
    }

    /// Lets the decoding appear to have begun earlier by `time`.
    #[cfg(test)]
    pub(crate) fn pretend_to_have_used(&self, time: Duration) {
        self.measured.started.get_or_init(|| Instant::now().checked_sub(time).unwrap());
    }

    /// Decompressed bytes so far.
    pub fn expanded(&self) -> u64 {
        self.measured.expanded.load(Ordering::Relaxed)
    }

    /// Returns true if the object expands to more than the limit allows.
    pub fn is_exceeded(&self) -> bool {
        self.measured.exceeded.load(Ordering::Relaxed)
    }

    /// Stored bytes that were read so far.
    pub(super) fn stored(&self) -> u64 {
        self.measured.stored.load(Ordering::Relaxed)
    }

    /// Decompressed bytes for each stored byte that the limit allows.
    pub(super) fn ratio(&self) -> u64 {
        self.expansion.ratio
    }

    /// Counts stored bytes that were read.
    pub(super) fn count_stored(&self, bytes: usize) {
        // usize has at most 64 bits on every platform.
        self.measured.stored.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Runs `read`, which gives decompression its input, and does not count its time.
    pub(super) fn wait_for_input<T>(&self, read: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let before = Instant::now();
        self.measured.started.get_or_init(|| before);
        let input = read();
        let nanos = whole_nanos(before.elapsed());
        self.measured.waited.fetch_add(nanos, Ordering::Relaxed);
        input
    }

    /// Checks that the request has not ended.
    pub(super) fn check_request(&self) -> Result<(), Stopped> {
        self.context.check()
    }

    /// Counts `bytes` that were decompressed and checks all limits.
    pub(super) fn count_expanded(&self, bytes: usize) -> Result<(), LimitReached> {
        // usize has at most 64 bits on every platform.
        let bytes = bytes as u64;
        let expanded = self.measured.expanded.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        self.check_request().map_err(LimitReached::Stopped)?;
        if expanded > self.expansion.max(self.stored()) {
            self.measured.exceeded.store(true, Ordering::Relaxed);
            return Err(LimitReached::Expansion { expanded });
        }
        match self.max_time {
            Some(limit) if self.time_used() > limit => Err(LimitReached::Time { limit, expanded }),
            _ => Ok(()),
        }
    }
}

/// No request, no limit of time, and the limit of volumes.
impl Default for DecodeLimits {
    fn default() -> Self {
        Self::new(&RequestContext::unlimited(), ExpansionLimit::ARCHIVE, None)
    }
}

#[cfg(test)]
mod tests {
    use dupfs_base::CancelToken;

    use super::*;

    #[test]
    fn the_limit_grows_with_the_stored_bytes_that_were_read() {
        let expansion = ExpansionLimit { base: 10, ratio: 100 };
        let limits = DecodeLimits::new(&RequestContext::unlimited(), expansion, None);
        assert!(limits.count_expanded(10).is_ok());
        assert!(matches!(limits.count_expanded(1), Err(LimitReached::Expansion { expanded: 11 })));
        limits.count_stored(3);
        assert!(limits.count_expanded(299).is_ok());
        assert!(matches!(limits.count_expanded(1), Err(LimitReached::Expansion { expanded: 311 })));
    }

    #[test]
    fn waiting_for_input_takes_no_time_of_the_decoding() {
        let limits =
            DecodeLimits::new(&RequestContext::unlimited(), ExpansionLimit::ARCHIVE, Some(Duration::from_millis(200)));
        let wait = |millis| {
            limits
                .wait_for_input(|| {
                    std::thread::sleep(Duration::from_millis(millis));
                    Ok(())
                })
                .unwrap();
        };
        assert_eq!(limits.time_used(), Duration::ZERO);
        wait(300);
        assert!(limits.count_expanded(1).is_ok(), "{:?}", limits.time_used());
        let started = Instant::now();
        while started.elapsed() < Duration::from_millis(220) {
            std::hint::spin_loop();
        }
        assert!(limits.time_used() >= Duration::from_millis(200));
        assert!(matches!(limits.count_expanded(1), Err(LimitReached::Time { expanded: 2, .. })));
    }

    #[test]
    fn a_cancelled_request_stops_the_decoding() {
        let token = CancelToken::new();
        let context = RequestContext::new(None, token.clone());
        let limits = DecodeLimits::new(&context, ExpansionLimit::ARCHIVE, None);
        assert!(limits.count_expanded(1).is_ok());
        token.cancel();
        assert!(matches!(limits.count_expanded(1), Err(LimitReached::Stopped(Stopped::Cancelled))));
    }
}
