//! Ranges of a file that are stored in one piece, and ranges that a file contains more than once.

use dupfs_base::ByteRange;

/// The number of a stream in an extent map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct StreamIndex(u32);

impl StreamIndex {
    /// The number of the stream at `index` in the list of streams; `None` beyond 2^32.
    pub(super) fn new(index: usize) -> Option<Self> {
        u32::try_from(index).ok().map(Self)
    }

    /// The index in the list of streams.
    pub(super) fn get(self) -> usize {
        self.0 as usize
    }
}

/// `len` bytes of the file from `start`, which are stored in `stream` at `offset`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) start: u64,
    pub(super) len: u64,
    /// `None` for a range that a damaged delta takes from beyond its base's end: an error when it is read, not before,
    /// because the rest of the file is good.
    pub(super) stream: Option<StreamIndex>,
    pub(super) offset: u64,
}

/// Ranges of streams that a file contains more than once, in order: deltas copy one range several times where content
/// repeats.
#[derive(Debug, Default)]
pub(super) struct RepeatedRanges(Vec<(StreamIndex, u64, u64)>);

impl RepeatedRanges {
    /// Bytes of memory for each range.
    pub(super) const WEIGHT: usize = size_of::<(StreamIndex, u64, u64)>();

    /// Finds the ranges.
    pub(super) fn of(extents: &[Extent]) -> Self {
        let range = |e: &Extent| Some((e.stream?, e.offset, e.offset.saturating_add(e.len)));
        let mut ranges: Vec<_> = extents.iter().filter_map(range).collect();
        ranges.sort_unstable();
        let mut repeated: Vec<(StreamIndex, u64, u64)> = Vec::new();
        // The stream of the ranges so far, and the highest end of theirs.
        let (mut current, mut reach) = (None, 0);
        for (stream, start, end) in ranges {
            if current != Some(stream) {
                (current, reach) = (Some(stream), 0);
            }
            if start < reach {
                match repeated.last_mut() {
                    Some(last) if last.0 == stream && last.2 >= start => last.2 = last.2.max(end.min(reach)),
                    _ => repeated.push((stream, start, end.min(reach))),
                }
            }
            reach = reach.max(end);
        }
        Self(repeated)
    }

    /// Returns true if any byte of `range` of a stream is in the file more than once.
    pub(super) fn overlap(&self, stream: StreamIndex, range: ByteRange) -> bool {
        let next = self.0.partition_point(|&(of, _, end)| (of, end) <= (stream, range.start));
        self.0.get(next).is_some_and(|&(of, start, _)| of == stream && start < range.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOST: usize = usize::MAX;

    fn repeated(ranges: &[(usize, u64, u64)]) -> Vec<(usize, u64, u64)> {
        let extent = |&(stream, offset, len)| Extent { start: 0, len, stream: StreamIndex::new(stream), offset };
        let found = RepeatedRanges::of(&ranges.iter().map(extent).collect::<Vec<_>>());
        found.0.into_iter().map(|(stream, start, end)| (stream.get(), start, end)).collect()
    }

    #[test]
    fn ranges_that_the_file_contains_twice_are_found() {
        assert_eq!(repeated(&[]), []);
        assert_eq!(repeated(&[(0, 500, 100), (1, 0, 50), (0, 0, 500), (1, 50, 1), (LOST, 0, 9), (LOST, 0, 9)]), []);
        assert_eq!(repeated(&[(0, 0, 100), (1, 0, 50), (0, 99, 10), (1, 20, 10)]), [(0, 99, 100), (1, 20, 30)]);
        assert_eq!(repeated(&[(0, 10, 5), (0, 0, 100), (0, 12, 30), (0, 90, 20)]), [(0, 10, 42), (0, 90, 100)]);
    }

    #[test]
    fn a_read_touches_the_extents_that_it_overlaps() {
        let repeated = RepeatedRanges(vec![(StreamIndex(0), 10, 20), (StreamIndex(0), 30, 40), (StreamIndex(2), 0, 5)]);
        let touched = |stream| {
            (0..50).filter(|&at| repeated.overlap(StreamIndex(stream), ByteRange::at(at, 2))).collect::<Vec<_>>()
        };
        assert_eq!(touched(0), (9..20).chain(29..40).collect::<Vec<_>>());
        assert_eq!(touched(1), [0u64; 0]);
        assert_eq!(touched(2), [0, 1, 2, 3, 4]);
    }
}
