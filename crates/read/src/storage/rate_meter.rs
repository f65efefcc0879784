//! Bytes per second over the last seconds, counted without a lock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The seconds that a rate is the average of.
const WINDOW: u64 = 10;

/// Seconds that are counted separately: a power of two above the window.
const SLOTS: usize = 16;

/// Bits of a slot that count bytes. The others have the number of the second.
const BYTE_BITS: u32 = 40;

const BYTE_MASK: u64 = (1 << BYTE_BITS) - 1;

/// Counts bytes by the second in which they come.
#[derive(Debug)]
pub(super) struct RateMeter {
    start: Instant,
    /// For each second, modulo the number of slots, the number of the second and its bytes in one word.
    slots: [AtomicU64; SLOTS],
}

impl Default for RateMeter {
    fn default() -> Self {
        Self { start: Instant::now(), slots: Default::default() }
    }
}

impl RateMeter {
    /// Counts `bytes` that came now.
    pub(super) fn add(&self, bytes: u64) {
        self.add_at(bytes, self.start.elapsed());
    }

    /// Bytes per second, on the average of the last ten seconds, or of all the time if that is less.
    pub(super) fn bytes_per_second(&self) -> u64 {
        self.rate_at(self.start.elapsed())
    }

    fn add_at(&self, bytes: u64, age: Duration) {
        let second = age.as_secs();
        let Some(slot) = slot_of(second).and_then(|at| self.slots.get(at)) else { return };
        let counted = |old: u64| {
            let before = if old >> BYTE_BITS == tag(second) { old & BYTE_MASK } else { 0 };
            Some((tag(second) << BYTE_BITS) | before.saturating_add(bytes).min(BYTE_MASK))
        };
        // The closure always returns a value.
        let _ = slot.fetch_update(Ordering::Relaxed, Ordering::Relaxed, counted);
    }

    fn rate_at(&self, age: Duration) -> u64 {
        let now = age.as_secs();
        let first = now.saturating_sub(WINDOW - 1);
        let bytes_of = |second: u64| {
            let slot = self.slots.get(slot_of(second)?)?.load(Ordering::Relaxed);
            (slot >> BYTE_BITS == tag(second)).then_some(slot & BYTE_MASK)
        };
        let bytes: u64 = (first..=now).filter_map(bytes_of).fold(0, u64::saturating_add);
        let millis = u64::try_from(age.saturating_sub(Duration::from_secs(first)).as_millis()).unwrap_or(u64::MAX);
        // The first tenth of a second is too short for a rate.
        bytes.saturating_mul(1000) / millis.max(100)
    }
}

/// The number of a second in a slot.
fn tag(second: u64) -> u64 {
    second & (u64::MAX >> BYTE_BITS)
}

fn slot_of(second: u64) -> Option<usize> {
    usize::try_from(second % (SLOTS as u64)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn the_rate_is_the_average_of_the_last_seconds() {
        let meter = RateMeter::default();
        assert_eq!(meter.rate_at(at(5)), 0);
        meter.add_at(1000, at(50));
        assert_eq!(meter.rate_at(at(50)), 10_000, "no rate of less than a tenth of a second");
        meter.add_at(1000, at(900));
        assert_eq!(meter.rate_at(at(2000)), 1000);
        for second in 0..100 {
            meter.add_at(7000, at(second * 1000 + 10));
        }
        assert_eq!(meter.rate_at(at(99_999)), 7000);
        assert_eq!(meter.rate_at(at(104_999)), 3500, "half of the window has no bytes");
        assert_eq!(meter.rate_at(at(109_000)), 0);
    }

    #[test]
    fn counts_of_a_second_do_not_spill_into_others() {
        let meter = RateMeter::default();
        for _ in 0..3 {
            meter.add_at(u64::MAX, at(3000));
        }
        assert_eq!(meter.rate_at(at(4000)), BYTE_MASK / 4);
        assert_eq!(meter.rate_at(at(14_000)), 0);
    }
}
