//! Ranges of volume numbers in messages.

use crate::VolumeNumber;

/// Upper bound of the ranges that a message names, so that the line stays readable.
const MAX_SHOWN_RANGES: usize = 10;

/// Ranges of volume numbers, each with its first and last (inclusive) number.
pub(super) type VolumeRanges = Vec<(u32, u32)>;

/// Joins `numbers`, which must ascend, into ranges.
fn join(numbers: impl IntoIterator<Item = VolumeNumber>) -> VolumeRanges {
    let mut ranges = VolumeRanges::new();
    for VolumeNumber(number) in numbers {
        match ranges.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(number) => *last = number,
            _ => ranges.push((number, number)),
        }
    }
    ranges
}

/// Returns the ranges from 1 to the highest of `numbers`, which must ascend, that `numbers` does not contain.
pub(super) fn missing_ranges(numbers: impl IntoIterator<Item = VolumeNumber>) -> VolumeRanges {
    let mut missing = VolumeRanges::new();
    let mut expected = 1;
    for VolumeNumber(number) in numbers {
        if number > expected {
            missing.push((expected, number - 1));
        }
        expected = number.saturating_add(1);
    }
    missing
}

/// Returns `volume 2 is` or `volumes 2-4, 7 are`.
pub(super) fn describe_ranges(ranges: &VolumeRanges) -> String {
    if let [(first, last)] = ranges.as_slice()
        && first == last
    {
        return format!("volume {first} is");
    }
    let shown = ranges.iter().take(MAX_SHOWN_RANGES);
    let mut text: Vec<String> =
        shown.map(|(first, last)| if first == last { first.to_string() } else { format!("{first}-{last}") }).collect();
    if let Some(more) = ranges.len().checked_sub(MAX_SHOWN_RANGES).filter(|more| *more > 0) {
        text.push(format!("and {more} more ranges"));
    }
    format!("volumes {} are", text.join(", "))
}

/// Returns `volume 2 is` or `volumes 2-4, 7 are`: the subject of a sentence about `numbers`, which must ascend.
pub fn describe_volumes(numbers: impl IntoIterator<Item = VolumeNumber>) -> String {
    describe_ranges(&join(numbers))
}
