//! Conversions between types of numbers whose result is right for every input.

use std::time::Duration;

/// Returns the smaller of `len` and `max`: the length of the part of a buffer of `max` bytes that `len` bytes take.
pub fn clamp_len(len: u64, max: usize) -> usize {
    // A length that does not fit usize is greater than any length in memory.
    usize::try_from(len).map_or(max, |len| len.min(max))
}

/// Returns the nanoseconds of `duration`. More than 584 years, which no clock of a process counts, are `u64::MAX`.
pub fn whole_nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smaller_length_is_returned() {
        assert_eq!([clamp_len(0, 7), clamp_len(6, 7), clamp_len(7, 7)], [0, 6, 7]);
        assert_eq!([clamp_len(8, 7), clamp_len(u64::MAX, 7), clamp_len(1 << 32, 7)], [7, 7, 7]);
    }

    #[test]
    fn nanoseconds_are_whole_and_bounded() {
        assert_eq!(whole_nanos(Duration::new(2, 3)), 2_000_000_003);
        assert_eq!(whole_nanos(Duration::MAX), u64::MAX);
    }
}
