//! What readers leave behind them: blocks that one who reads a set's volumes in order has gone past. Nobody is likely to want
//! them again, so they need not be sealed and written to disk when memory is short: a restore reads everything once.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::ops::Range;
use std::sync::Mutex;

use super::pass::BLOCK;
use dupfs_base::ByteRange;
use dupfs_base::sync::lock;
use dupfs_format::{SetIndex, VolumeId, VolumeNumber};

/// How far behind the furthest read blocks are left. The kernel reads ahead by 2 MiB, twice that for programs that tell it that
/// they read in order, two such stretches at a time, and sends the requests out of order.
const BEHIND: u64 = 16 << 20;

/// Volumes remembered at most until they are left behind; what tiny ones hold goes as any block does.
const MOST_BEFORE: usize = 64;

/// Readers of one set that are told apart.
const MOST_TRAILS: usize = 4;

/// Where a reader of one set is, and where they came from.
#[derive(Debug)]
struct Passage {
    volume: VolumeNumber,
    /// Length of its plaintext.
    plain_len: u64,
    /// Where the reading began in the volume, how far it has come, and how many bytes were read between: what was skipped may
    /// still be wanted.
    from: u64,
    upto: u64,
    consumed: u64,
    /// The first block that was not left behind yet, and those from there on that will be wanted again.
    next: u32,
    again: BTreeSet<u32>,
    /// Bytes read since the trail began, in all volumes.
    total: u64,
    before: VecDeque<Before>,
}

/// The end of a volume that was read to its end: left behind once the reader is well beyond.
#[derive(Debug)]
struct Before {
    volume: VolumeNumber,
    next: u32,
    again: BTreeSet<u32>,
    /// What the trail's `total` was then.
    at: u64,
}

impl Passage {
    fn new(volume: VolumeNumber, from: u64, plain_len: u64) -> Self {
        let next = block_of(from.div_ceil(BLOCK as u64));
        Self {
            volume,
            plain_len,
            from,
            upto: from,
            consumed: 0,
            next,
            again: BTreeSet::new(),
            total: 0,
            before: VecDeque::new(),
        }
    }

    /// Whether a read from `start` of `volume` goes on where the last one ended; the kernel sends reads out of order by a little.
    fn goes_on(&self, volume: VolumeNumber, start: u64) -> bool {
        volume == self.volume && start.saturating_add(BEHIND) >= self.upto
    }

    /// Whether the volume was read to its end, or nearly so: of the files on either side of the border some are not read.
    fn is_at_end(&self) -> bool {
        self.is_dense() && self.plain_len.saturating_sub(self.upto) < BEHIND / 4
    }

    /// Whether the reader has read, and not skipped, most of what lies behind.
    fn is_dense(&self) -> bool {
        self.consumed >= self.upto.saturating_sub(self.from) / 2
    }
}

/// How a read follows a trail.
enum Step {
    /// It goes on in the volume.
    On(usize),
    /// It goes on with the next volume.
    Next(usize),
    /// It is one of the last of a volume before, out of order.
    Before,
    /// It follows none.
    None,
}

impl Step {
    fn of(trails: &[Passage], volume: VolumeNumber, start: u64) -> Self {
        let places = || trails.iter().enumerate();
        let here = places().filter(|(_, trail)| trail.goes_on(volume, start));
        if let Some((place, _)) = here.min_by_key(|(_, trail)| trail.upto.abs_diff(start)) {
            return Self::On(place);
        }
        let comes = |trail: &Passage| volume.0 == trail.volume.0.saturating_add(1) && trail.is_at_end();
        if let Some((place, _)) = places().find(|(_, trail)| comes(trail)) {
            return Self::Next(place);
        }
        let was_there = |trail: &Passage| trail.before.iter().any(|before| before.volume == volume);
        if trails.iter().any(was_there) { Self::Before } else { Self::None }
    }
}

/// The trails of the readers of all sets, of each set the one that was read last at the end.
#[derive(Debug, Default)]
pub(super) struct DropBehind(Mutex<HashMap<SetIndex, Vec<Passage>>>);

impl DropBehind {
    /// Takes note that `range` of volume `id`, whose plaintext has `plain_len` bytes, was read, and gives the blocks that were
    /// left behind by it, each once. Bytes that will be wanted again, as `once` tells of others, are read here and there.
    pub(super) fn note(
        &self,
        id: VolumeId,
        range: ByteRange,
        plain_len: u64,
        once: bool,
    ) -> Vec<(VolumeId, Range<u32>)> {
        let mut trails = lock(&self.0);
        let trails = trails.entry(id.set).or_default();
        let trail = match Step::of(trails, id.number, range.start) {
            Step::On(place) => trails.remove(place),
            Step::Next(place) => trails.remove(place).into_next(id.number, range.start, plain_len),
            Step::Before => return Vec::new(),
            Step::None if !once && !trails.is_empty() => return Vec::new(),
            Step::None => Passage::new(id.number, range.start, plain_len),
        };
        if trails.len() >= MOST_TRAILS {
            // One who reads here and there must not end the trails of those who read on.
            trails.remove(trails.iter().position(|trail| trail.total < BEHIND).unwrap_or(0));
        }
        trails.push(trail);
        trails.last_mut().map_or_else(Vec::new, |trail| trail.go_on(id, range, once))
    }
}

impl Passage {
    /// Goes on with the next volume.
    fn into_next(self, volume: VolumeNumber, from: u64, plain_len: u64) -> Self {
        let Self { volume: last, next, again, total, mut before, .. } = self;
        if before.len() >= MOST_BEFORE {
            before.pop_front();
        }
        before.push_back(Before { volume: last, next, again, at: total });
        Self { total, before, ..Self::new(volume, from, plain_len) }
    }

    /// Takes note that `range` of its volume was read; gives the blocks that were left behind by it.
    fn go_on(&mut self, id: VolumeId, range: ByteRange, once: bool) -> Vec<(VolumeId, Range<u32>)> {
        let mut left = Vec::new();
        self.consumed = self.consumed.saturating_add(range.len());
        self.total = self.total.saturating_add(range.len());
        self.upto = self.upto.max(range.end);
        if !once {
            self.again.extend(blocks_of(range).filter(|&block| block >= self.next));
        }
        let total = self.total;
        while self.before.front().is_some_and(|before| total.saturating_sub(before.at) >= BEHIND) {
            let Some(Before { volume, next, again, .. }) = self.before.pop_front() else { break };
            let id = VolumeId { set: id.set, number: volume };
            left.extend(without(next..u32::MAX, &again).map(|blocks| (id, blocks)));
        }
        if !self.is_dense() {
            return left;
        }
        let end = block_of(self.upto.saturating_sub(BEHIND) / BLOCK as u64);
        if end > self.next {
            left.extend(without(self.next..end, &self.again).map(|blocks| (id, blocks)));
            self.next = end;
            self.again = self.again.split_off(&end);
        }
        left
    }
}

/// The parts of `blocks` between those in `again`.
fn without(blocks: Range<u32>, again: &BTreeSet<u32>) -> impl Iterator<Item = Range<u32>> {
    let mut from = blocks.start;
    let kept = again.range(blocks.clone()).copied().chain([blocks.end]);
    let parts = kept.map(move |block| std::mem::replace(&mut from, block.saturating_add(1))..block);
    parts.filter(|part| !part.is_empty())
}

fn blocks_of(range: ByteRange) -> Range<u32> {
    block_of(range.start / BLOCK as u64)..block_of(range.end.div_ceil(BLOCK as u64))
}

fn block_of(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn id(number: u32) -> VolumeId {
        VolumeId { set: SetIndex(0), number: VolumeNumber(number) }
    }

    /// The blocks left behind by reads of 1 MiB at `starts` of a volume of `len` (in MiB).
    fn walk(trails: &DropBehind, volume: u32, len: u64, starts: impl Iterator<Item = u64>) -> Vec<(u32, Range<u32>)> {
        let left = starts.flat_map(|at| trails.note(id(volume), ByteRange::at(at * MIB, MIB), len * MIB, true));
        left.map(|(id, blocks)| (id.number.0, blocks)).collect()
    }

    #[test]
    fn who_reads_on_leaves_each_block_once() {
        let trails = DropBehind::default();
        let left = walk(&trails, 3, 20, 0..20);
        assert_eq!(left, [(3, 0..4), (3, 4..8), (3, 8..12), (3, 12..16)]);
        // The rest of the volume when the reader is well within the next; late reads of it change nothing.
        assert_eq!(walk(&trails, 4, 30, 0..15), []);
        assert_eq!(walk(&trails, 3, 20, 19..20), []);
        assert_eq!(walk(&trails, 4, 30, 15..17), [(3, 16..u32::MAX), (4, 0..4)]);
    }

    #[test]
    fn what_is_wanted_again_is_not_left() {
        let trails = DropBehind::default();
        let again = |at: u64| trails.note(id(1), ByteRange::at(at * MIB + 5, 100), 60 * MIB, false);
        let mut left = walk(&trails, 1, 60, 0..10);
        assert_eq!(again(9), []);
        // A jump to such a place and back does not end the trail.
        left.extend(walk(&trails, 1, 60, 10..40));
        assert_eq!(again(3), []);
        left.extend(walk(&trails, 1, 60, 40..42));
        let blocks: BTreeSet<u32> = left.into_iter().flat_map(|(_, blocks)| blocks).collect();
        assert_eq!(blocks, (0..26 * 4).filter(|&block| block != 36).collect());
    }

    #[test]
    fn readers_of_one_set_each_leave_their_own() {
        let trails = DropBehind::default();
        let mut left = Vec::new();
        for i in 0..20 {
            left.extend(walk(&trails, 3, 20, i..i + 1));
            left.extend(walk(&trails, 9, 20, i..i + 1));
            // One who reads here and there.
            left.extend(walk(&trails, 30, 60, std::iter::once(i * 37 % 60)));
            left.extend(walk(&trails, 40 + u32::try_from(i).unwrap(), 60, 5..6));
        }
        let of =
            |volume| left.iter().filter(|(v, _)| *v == volume).map(|(_, blocks)| blocks.clone()).collect::<Vec<_>>();
        assert_eq!((of(3), of(9)), (vec![0..4, 4..8, 8..12, 12..16], vec![0..4, 4..8, 8..12, 12..16]));
        assert_eq!(left.len(), 8);
    }

    #[test]
    fn volumes_smaller_than_the_distance_are_left_too() {
        let trails = DropBehind::default();
        let left: Vec<_> = (1..8).flat_map(|volume| walk(&trails, volume, 5, 0..5)).collect();
        assert_eq!(left, [(1, 0..u32::MAX), (2, 0..u32::MAX), (3, 0..u32::MAX)]);
    }

    #[test]
    fn reads_out_of_order_by_a_little_leave_the_same() {
        let trails = DropBehind::default();
        let left = walk(&trails, 1, 32, (0..32).map(|at| at ^ 1));
        let blocks: Vec<u32> = left.into_iter().flat_map(|(_, blocks)| blocks).collect();
        // What lies before the first read was not seen to be read from its beginning.
        assert_eq!(blocks, (4..16 * 4).collect::<Vec<_>>());
    }

    #[test]
    fn who_skips_or_jumps_leaves_nothing() {
        let trails = DropBehind::default();
        assert_eq!(walk(&trails, 1, 120, (0..40).map(|i| i * 3)), []);
        assert_eq!(walk(&trails, 2, 60, (0..40).map(|i| i * 37 % 60)), []);
        assert_eq!(walk(&trails, 3, 40, (0..40).rev()), []);
        for volume in [9, 4, 7, 1, 12] {
            assert_eq!(walk(&trails, volume, 2, 0..2), []);
        }
    }

    #[test]
    fn a_reader_from_the_middle_leaves_what_lies_before_alone() {
        let trails = DropBehind::default();
        assert_eq!(walk(&trails, 1, 28, 10..28), [(1, 40..44), (1, 44..48)]);
    }
}
