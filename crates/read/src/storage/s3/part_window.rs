//! The size of the parts of a stream, and the number of them that are fetched at once.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Bytes of a part: large enough that the overhead of requests is small, small enough that few connections cover the link and
/// that none idles long at the end of an object.
pub(super) const PART_BYTES: u64 = 2 << 20;

/// Bounds of the number of parts at once, and the number while the rate of the store is unknown. A reader waits for the first of
/// them, and the others take their share of the link, so there are not more than the link needs.
const MIN_PARTS: u64 = 3;
const FIRST_PARTS: u64 = 4;
const MAX_PARTS: u64 = 8;

/// The parts at once shall last for two round trips and this time in microseconds at the rate of the store.
const SPARE_MICROS: u64 = 150_000;

/// Counts the parts that are fetched, and measures their rate.
#[derive(Debug, Default)]
pub(super) struct PartWindow {
    running: AtomicU64,
    /// Bytes per second of all parts together, smoothed; 0 while it is unknown.
    rate: AtomicU64,
    /// The least time from a request to the beginning of its answer, in microseconds, or a little more; 0 while it is unknown.
    round_trip: AtomicU64,
}

/// A part that is being fetched.
#[derive(Debug)]
pub(super) struct RunningPart<'a> {
    window: &'a PartWindow,
    begin: Instant,
}

impl PartWindow {
    /// The number of parts of a stream to fetch at once. It grows with the rate that they reach.
    pub(super) fn parts(&self) -> usize {
        let parts = match self.rate.load(Ordering::Relaxed) {
            0 => FIRST_PARTS,
            rate => {
                let covered = self.round_trip.load(Ordering::Relaxed).saturating_mul(2).saturating_add(SPARE_MICROS);
                let bytes = u128::from(rate) * u128::from(covered) / 1_000_000;
                u64::try_from(bytes / u128::from(PART_BYTES)).unwrap_or(MAX_PARTS).clamp(MIN_PARTS, MAX_PARTS)
            }
        };
        dupfs_base::clamp_len(parts, usize::MAX)
    }

    /// Counts a part as running until the returned value is dropped.
    pub(super) fn begin(&self) -> RunningPart<'_> {
        self.running.fetch_add(1, Ordering::Relaxed);
        RunningPart { window: self, begin: Instant::now() }
    }

    fn measure(&self, bytes: u64, elapsed: Duration) {
        let micros = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX).max(1);
        let own = bytes.saturating_mul(1_000_000) / micros;
        let all = own.saturating_mul(self.running.load(Ordering::Relaxed).max(1));
        let smooth = |rate: u64| Some(if rate == 0 { all } else { rate.saturating_mul(3).saturating_add(all) / 4 });
        let _ = self.rate.fetch_update(Ordering::Relaxed, Ordering::Relaxed, smooth);
    }
}

impl RunningPart<'_> {
    /// Records that the answer begins.
    pub(super) fn answered(&self) {
        let micros = u64::try_from(self.begin.elapsed().as_micros()).unwrap_or(u64::MAX).max(1);
        // It grows slowly, because an answer also waits for the parts before it.
        let least = |known: u64| match known {
            0 => Some(micros),
            known => Some(micros.min(known.saturating_add(known / 64).saturating_add(1))),
        };
        let _ = self.window.round_trip.fetch_update(Ordering::Relaxed, Ordering::Relaxed, least);
    }

    /// Measures the rate of the part, of which `bytes` came. Small ones measure round trips.
    pub(super) fn complete(&self, bytes: u64) {
        if bytes >= PART_BYTES / 2 {
            self.window.measure(bytes, self.begin.elapsed());
        }
    }
}

impl Drop for RunningPart<'_> {
    fn drop(&mut self) {
        self.window.running.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_at_once_grow_with_the_rate() {
        let window = PartWindow::default();
        assert_eq!(window.parts(), 4);
        let running: Vec<_> = (0..4).map(|_| window.begin()).collect();
        running.first().unwrap().complete(1000);
        assert_eq!(window.parts(), 4, "a small part says nothing");
        // Four parts of 2 MiB in a second each: 8 MiB a second.
        window.measure(PART_BYTES, Duration::from_secs(1));
        assert_eq!(window.parts(), 3);
        // 25 MB a second: for a round trip of 200 ms more than without one.
        for _ in 0..30 {
            window.measure(25_000_000 / 4, Duration::from_secs(1));
        }
        assert_eq!(window.parts(), 3);
        window.round_trip.store(200_000, Ordering::Relaxed);
        assert_eq!(window.parts(), 6);
        for _ in 0..30 {
            window.measure(PART_BYTES, Duration::from_millis(20));
        }
        assert_eq!(window.parts(), 8);
        drop(running);
        assert_eq!(window.running.load(Ordering::Relaxed), 0);
    }
}
