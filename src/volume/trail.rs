//! What readers leave behind them: blocks that one who reads a set's volumes in order has gone past. Nobody is likely to want
//! them again, so they need not be sealed and written to disk when memory is short: a restore reads everything once.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Mutex;

use super::ahead::BACK_STEP;
use super::pass::BLOCK;
use crate::storage::sync::lock;
use crate::types::{ByteRange, SetIndex, VolumeId, VolumeNumber};

/// Where the reader of one set is, and where they came from.
#[derive(Clone, Copy, Debug)]
struct Trail {
    volume: VolumeNumber,
    /// Where the reading began in the volume, how far it has come, and how many bytes were read between: what was skipped may
    /// still be wanted.
    from: u64,
    upto: u64,
    consumed: u64,
    /// The first block that was not left behind yet.
    next: u32,
    /// The end of the volume before, left behind once the reader is well within this one.
    before: Option<(VolumeNumber, u32)>,
}

impl Trail {
    fn new(volume: VolumeNumber, from: u64) -> Self {
        let next = block_of(from.div_ceil(BLOCK as u64));
        Self { volume, from, upto: from, consumed: 0, next, before: None }
    }

    /// Whether a read from `start` of `volume` goes on where the last one ended; the kernel sends reads out of order by a little.
    fn goes_on(&self, volume: VolumeNumber, start: u64) -> bool {
        volume == self.volume && start.saturating_add(BACK_STEP) >= self.upto
    }

    /// Whether the reader has read, and not skipped, most of what lies behind.
    fn is_dense(&self) -> bool {
        self.consumed >= self.upto.saturating_sub(self.from) / 2
    }
}

/// The trails of the readers of all sets.
#[derive(Debug, Default)]
pub(super) struct Trails(Mutex<HashMap<SetIndex, Trail>>);

impl Trails {
    /// Takes note that `range` of volume `id` was read, and gives the blocks that were left behind by it, each once.
    pub(super) fn note(&self, id: VolumeId, range: ByteRange) -> Vec<(VolumeId, Range<u32>)> {
        let mut trails = lock(&self.0);
        let trail = trails.entry(id.set).or_insert_with(|| Trail::new(id.number, range.start));
        let mut left = Vec::new();
        if id.number.0 == trail.volume.0.saturating_add(1) && trail.is_dense() {
            let before = Some((trail.volume, trail.next));
            *trail = Trail { before, ..Trail::new(id.number, range.start) };
        } else if Some(id.number) == trail.before.map(|(volume, _)| volume) {
            // The last reads of the volume before, out of order.
            return left;
        } else if !trail.goes_on(id.number, range.start) {
            *trail = Trail::new(id.number, range.start);
        }
        trail.consumed = trail.consumed.saturating_add(range.len());
        trail.upto = trail.upto.max(range.end);
        if !trail.is_dense() || trail.upto.saturating_sub(trail.from) < BACK_STEP {
            return left;
        }
        if let Some((volume, next)) = trail.before.take() {
            left.push((VolumeId { set: id.set, number: volume }, next..u32::MAX));
        }
        let end = block_of(trail.upto.saturating_sub(BACK_STEP) / BLOCK as u64);
        if end > trail.next {
            left.push((id, trail.next..end));
            trail.next = end;
        }
        left
    }
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

    /// The blocks left behind by reads of 1 MiB at `starts` (in MiB) of a volume.
    fn walk(trails: &Trails, volume: u32, starts: impl Iterator<Item = u64>) -> Vec<(u32, Range<u32>)> {
        let left = starts.flat_map(|at| trails.note(id(volume), ByteRange::at(at * MIB, MIB)));
        left.map(|(id, blocks)| (id.number.0, blocks)).collect()
    }

    #[test]
    fn who_reads_on_leaves_each_block_once() {
        let trails = Trails::default();
        let left = walk(&trails, 3, 0..8);
        assert_eq!(left, [(3, 0..4), (3, 4..8), (3, 8..12), (3, 12..16)]);
        // The rest of the volume when the reader is well within the next; late reads of it change nothing.
        assert_eq!(walk(&trails, 4, 0..3), []);
        assert_eq!(walk(&trails, 3, 7..8), []);
        assert_eq!(walk(&trails, 4, 3..5), [(3, 16..u32::MAX), (4, 0..4)]);
    }

    #[test]
    fn reads_out_of_order_by_a_little_leave_the_same() {
        let trails = Trails::default();
        let left = walk(&trails, 1, (0..32).map(|at| at ^ 1));
        let blocks: Vec<u32> = left.into_iter().flat_map(|(_, blocks)| blocks).collect();
        // What lies before the first read was not seen to be read from its beginning.
        assert_eq!(blocks, (4..28 * 4).collect::<Vec<_>>());
    }

    #[test]
    fn who_skips_or_jumps_leaves_nothing() {
        let trails = Trails::default();
        assert_eq!(walk(&trails, 1, (0..40).map(|i| i * 3)), []);
        assert_eq!(walk(&trails, 2, (0..40).map(|i| i * 37 % 60)), []);
        assert_eq!(walk(&trails, 3, (0..40).rev()), []);
        for volume in [9, 4, 7, 1, 12] {
            assert_eq!(walk(&trails, volume, 0..2), []);
        }
    }

    #[test]
    fn a_reader_from_the_middle_leaves_what_lies_before_alone() {
        let trails = Trails::default();
        assert_eq!(walk(&trails, 1, 10..16), [(1, 40..44), (1, 44..48)]);
    }
}
