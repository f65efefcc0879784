//! Volume numbers in a line for people.

use crate::VolumeNumber;

/// Ranges of numbers, first and last.
pub(super) type Ranges = Vec<(u32, u32)>;

/// The ranges that `numbers`, which ascend, make up.
pub(super) fn join(numbers: impl IntoIterator<Item = VolumeNumber>) -> Ranges {
    let mut ranges = Ranges::new();
    for VolumeNumber(number) in numbers {
        match ranges.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(number) => *last = number,
            _ => ranges.push((number, number)),
        }
    }
    ranges
}

/// The ranges of numbers from 1 on that `numbers`, which ascend, lack below the highest.
pub(super) fn gaps(numbers: impl IntoIterator<Item = VolumeNumber>) -> Ranges {
    let mut gaps = Ranges::new();
    let mut expected = 1;
    for VolumeNumber(number) in numbers {
        if number > expected {
            gaps.push((expected, number - 1));
        }
        expected = number.saturating_add(1);
    }
    gaps
}

/// `volume 2 is`, `volumes 2-4, 7 are`; at most so many ranges that the line stays readable.
pub(super) fn describe(ranges: &Ranges) -> String {
    const SHOWN: usize = 10;
    if let [(first, last)] = ranges.as_slice()
        && first == last
    {
        return format!("volume {first} is");
    }
    let shown = ranges.iter().take(SHOWN);
    let mut text: Vec<String> =
        shown.map(|(first, last)| if first == last { first.to_string() } else { format!("{first}-{last}") }).collect();
    if let Some(more) = ranges.len().checked_sub(SHOWN).filter(|more| *more > 0) {
        text.push(format!("and {more} more ranges"));
    }
    format!("volumes {} are", text.join(", "))
}

/// `volume 2 is`, `volumes 2-4, 7 are`: the subject of a line about `numbers`, which ascend.
pub fn name_volumes(numbers: impl IntoIterator<Item = VolumeNumber>) -> String {
    describe(&join(numbers))
}
