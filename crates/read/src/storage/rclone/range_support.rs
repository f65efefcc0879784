//! Services that ignore ranges: the evidence for it, and how long it counts. Does no I/O.

use std::time::{Duration, Instant};

/// The time for which a verdict about a service counts. It may be changed, or be one of several servers that differ.
const VERDICT_AGE: Duration = Duration::from_secs(600);

/// The knowledge of whether a service ignores ranges.
#[derive(Debug, Default)]
pub(super) struct RangeSupport {
    /// True if it ignores them, and the time of the evidence.
    ignored: Option<(bool, Instant)>,
}

impl RangeSupport {
    /// Returns true if the service ignores ranges; `None` if that is not known at the time `now`.
    pub(super) fn ignored(&self, now: Instant) -> Option<bool> {
        self.ignored
            .filter(|(_, since)| now.saturating_duration_since(*since) < VERDICT_AGE)
            .map(|(ignored, _)| ignored)
    }

    /// Records a proof. Returns true if it differs from the last one.
    pub(super) fn record(&mut self, ignored: bool, now: Instant) -> bool {
        let last = self.ignored.replace((ignored, now));
        last.is_none_or(|(last, _)| last != ignored)
    }
}

/// The conclusion from two parts of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RangeVerdict {
    /// The service sends the requested part.
    Served,
    /// The service sends the beginning of the object in its place.
    Ignored,
    /// The second part did not arrive: rclone sends no byte if it got more than it requested. This alone proves nothing: the
    /// object may be cut short, or a part of it unreadable.
    NotSent,
    /// The parts prove nothing.
    Undecided,
    /// No service sends both of these parts.
    Contradictory,
}

/// Compares the beginning `both` of an object with the answer to a request for the second half of it. A part that was cut short
/// is `None`.
pub(super) fn judge(both: Option<&[u8]>, second: Option<&[u8]>) -> RangeVerdict {
    match (both, second) {
        (_, None) => RangeVerdict::NotSent,
        (None, Some(_)) => RangeVerdict::Undecided,
        (Some(both), Some(second)) => {
            let (before, same) = both.split_at(second.len().min(both.len()));
            match (before == second, same == second) {
                (false, true) => RangeVerdict::Served,
                (true, false) => RangeVerdict::Ignored,
                (true, true) => RangeVerdict::Undecided,
                (false, false) => RangeVerdict::Contradictory,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_bytes_prove_that_ranges_are_ignored_or_served() {
        for (both, second, verdict) in [
            (Some("abcdef"), Some("def"), RangeVerdict::Served),
            (Some("abcdef"), Some("abc"), RangeVerdict::Ignored),
            (Some("abcabc"), Some("abc"), RangeVerdict::Undecided),
            (Some("abcdef"), Some("xyz"), RangeVerdict::Contradictory),
            (Some("abcdef"), None, RangeVerdict::NotSent),
            (None, None, RangeVerdict::NotSent),
            (None, Some("abc"), RangeVerdict::Undecided),
            (Some(""), Some(""), RangeVerdict::Undecided),
        ] {
            assert_eq!(judge(both.map(str::as_bytes), second.map(str::as_bytes)), verdict, "{both:?} {second:?}");
        }
    }

    #[test]
    fn a_service_is_asked_again_after_a_while() {
        let begun = Instant::now();
        let mut support = RangeSupport::default();
        assert_eq!(support.ignored(begun), None);
        for ignored in [true, false] {
            assert!(support.record(ignored, begun) && !support.record(ignored, begun));
            assert_eq!(support.ignored(begun + VERDICT_AGE - Duration::from_secs(1)), Some(ignored));
            assert_eq!(support.ignored(begun + VERDICT_AGE), None);
        }
    }
}
