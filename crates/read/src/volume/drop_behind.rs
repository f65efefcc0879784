//! Drop-behind: finds the blocks that a sequential reader has passed. They are not expected to be read again, so they are evicted
//! first and not written to the spill file: a restore reads everything once.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::ops::Range;
use std::sync::Mutex;

use super::block_span::block_numbers;
use dupfs_base::ByteRange;
use dupfs_base::sync::lock;
use dupfs_cache::BlockIndex;
use dupfs_format::{SetIndex, VolumeId, VolumeNumber};

/// Distance from the furthest read at which blocks are passed. The kernel reads ahead by 2 MiB, by twice that for programs that
/// announce sequential reads, two such windows at a time, and sends the requests out of order.
const DISTANCE: u64 = 16 << 20;

/// Upper bound of the volumes behind a reader whose last blocks are not passed yet. Blocks of smaller volumes are evicted like
/// all others.
const MAX_FINISHED_VOLUMES: usize = 64;

/// Upper bound of the readers of one set that are distinguished.
const MAX_READERS: usize = 4;

/// Blocks of a volume that a reader has passed. The end may lie beyond the end of the volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PassedBlocks {
    pub(super) id: VolumeId,
    pub(super) blocks: Range<BlockIndex>,
}

/// The position of a sequential reader of one set, and the blocks before it that are not passed yet.
#[derive(Debug)]
struct ReaderTrack {
    volume: VolumeNumber,
    /// Length of its plaintext.
    plain_len: u64,
    /// The offset where reading began in the volume, the end of the furthest read, and the number of bytes read in between.
    /// Skipped bytes may still be wanted.
    start: u64,
    end: u64,
    consumed: u64,
    /// The first block that is not passed yet, and the blocks from there on that will be read again.
    next: BlockIndex,
    reread: BTreeSet<BlockIndex>,
    /// Bytes read since the track began, in all volumes.
    total: u64,
    finished: VecDeque<FinishedVolume>,
}

/// A volume that was read to its end. Its last blocks are passed once the reader is far enough in the following volumes.
#[derive(Debug)]
struct FinishedVolume {
    volume: VolumeNumber,
    next: BlockIndex,
    reread: BTreeSet<BlockIndex>,
    /// The track's `total` at that time.
    total: u64,
}

impl ReaderTrack {
    fn new(volume: VolumeNumber, start: u64, plain_len: u64) -> Self {
        Self {
            volume,
            plain_len,
            start,
            end: start,
            consumed: 0,
            next: BlockIndex::starting_from(start),
            reread: BTreeSet::new(),
            total: 0,
            finished: VecDeque::new(),
        }
    }

    /// Returns true if a read from `start` of `volume` continues the last one. The kernel sends reads slightly out of order.
    fn is_continued_by(&self, volume: VolumeNumber, start: u64) -> bool {
        volume == self.volume && start.saturating_add(DISTANCE) >= self.end
    }

    /// Returns true if the volume was read to its end, or nearly so: some of the files near the end may not be read.
    fn is_at_end(&self) -> bool {
        self.is_dense() && self.plain_len.saturating_sub(self.end) < DISTANCE / 4
    }

    /// Returns true if the reader has read, and not skipped, most of the bytes behind it.
    fn is_dense(&self) -> bool {
        self.consumed >= self.end.saturating_sub(self.start) / 2
    }

    /// The track at `start` of the next volume.
    fn in_next(self, volume: VolumeNumber, start: u64, plain_len: u64) -> Self {
        let Self { volume: last, next, reread, total, mut finished, .. } = self;
        if finished.len() >= MAX_FINISHED_VOLUMES {
            finished.pop_front();
        }
        finished.push_back(FinishedVolume { volume: last, next, reread, total });
        Self { total, finished, ..Self::new(volume, start, plain_len) }
    }

    /// Records a read of `range` of its volume, which is `id`; returns the blocks that are passed now.
    fn advance(&mut self, id: VolumeId, range: ByteRange, read_once: bool) -> Vec<PassedBlocks> {
        let mut passed = Vec::new();
        self.consumed = self.consumed.saturating_add(range.len());
        self.total = self.total.saturating_add(range.len());
        self.end = self.end.max(range.end);
        if !read_once {
            let blocks = block_numbers(BlockIndex::range(range));
            self.reread.extend(blocks.filter(|&block| block >= self.next));
        }
        let total = self.total;
        while self.finished.front().is_some_and(|finished| total.saturating_sub(finished.total) >= DISTANCE) {
            let Some(FinishedVolume { volume, next, reread, .. }) = self.finished.pop_front() else { break };
            let id = VolumeId { set: id.set, number: volume };
            passed.extend(without(next..BlockIndex::LAST, &reread).map(|blocks| PassedBlocks { id, blocks }));
        }
        if !self.is_dense() {
            return passed;
        }
        let end = BlockIndex::containing(self.end.saturating_sub(DISTANCE));
        if end > self.next {
            passed.extend(without(self.next..end, &self.reread).map(|blocks| PassedBlocks { id, blocks }));
            self.next = end;
            self.reread = self.reread.split_off(&end);
        }
        passed
    }
}

/// The relation of a read to the tracks of its set.
enum TrackMatch {
    /// It continues the track at this position.
    Continues(usize),
    /// It continues with the volume after that of the track at this position.
    EntersNext(usize),
    /// It is a late read of a volume that a track has finished.
    OfFinishedVolume,
    /// It belongs to no track.
    None,
}

impl TrackMatch {
    fn find(tracks: &[ReaderTrack], volume: VolumeNumber, start: u64) -> Self {
        let positions = || tracks.iter().enumerate();
        let here = positions().filter(|(_, track)| track.is_continued_by(volume, start));
        if let Some((position, _)) = here.min_by_key(|(_, track)| track.end.abs_diff(start)) {
            return Self::Continues(position);
        }
        let comes = |track: &ReaderTrack| volume.0 == track.volume.0.saturating_add(1) && track.is_at_end();
        if let Some((position, _)) = positions().find(|(_, track)| comes(track)) {
            return Self::EntersNext(position);
        }
        let was_there = |track: &ReaderTrack| track.finished.iter().any(|finished| finished.volume == volume);
        if tracks.iter().any(was_there) { Self::OfFinishedVolume } else { Self::None }
    }
}

/// The sequential readers of all sets.
#[derive(Debug, Default)]
pub(super) struct DropBehind {
    /// For each set its readers, the one that read last at the end.
    tracks: Mutex<HashMap<SetIndex, Vec<ReaderTrack>>>,
}

impl DropBehind {
    /// Records a read of `range` of volume `id`, whose plaintext has `plain_len` bytes; returns the blocks that are passed by
    /// it, each block once. Bytes that are not `read_once` will be read again; they may be read out of order.
    pub(super) fn record_read(
        &self,
        id: VolumeId,
        range: ByteRange,
        plain_len: u64,
        read_once: bool,
    ) -> Vec<PassedBlocks> {
        let mut tracks = lock(&self.tracks);
        let tracks = tracks.entry(id.set).or_default();
        let track = match TrackMatch::find(tracks, id.number, range.start) {
            TrackMatch::Continues(position) => tracks.remove(position),
            TrackMatch::EntersNext(position) => tracks.remove(position).in_next(id.number, range.start, plain_len),
            TrackMatch::OfFinishedVolume => return Vec::new(),
            TrackMatch::None if !read_once && !tracks.is_empty() => return Vec::new(),
            TrackMatch::None => ReaderTrack::new(id.number, range.start, plain_len),
        };
        if tracks.len() >= MAX_READERS {
            // A random reader must not end the tracks of sequential ones.
            tracks.remove(tracks.iter().position(|track| track.total < DISTANCE).unwrap_or(0));
        }
        tracks.push(track);
        tracks.last_mut().map_or_else(Vec::new, |track| track.advance(id, range, read_once))
    }
}

/// The parts of `blocks` between those in `reread`.
fn without(blocks: Range<BlockIndex>, reread: &BTreeSet<BlockIndex>) -> impl Iterator<Item = Range<BlockIndex>> {
    let mut start = blocks.start;
    let boundaries = reread.range(blocks.clone()).copied().chain([blocks.end]);
    let parts = boundaries.map(move |block| std::mem::replace(&mut start, block.next())..block);
    parts.filter(|part| part.start < part.end)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn id(number: u32) -> VolumeId {
        VolumeId { set: SetIndex(0), number: VolumeNumber(number) }
    }

    /// The blocks from `start` to the end of the volume.
    fn from(start: u64) -> Range<u64> {
        start..BlockIndex::LAST.number()
    }

    fn numbers(passed: PassedBlocks) -> (u32, Range<u64>) {
        (passed.id.number.0, passed.blocks.start.number()..passed.blocks.end.number())
    }

    /// The blocks passed by reads of 1 MiB at `starts` of a volume of `len` (in MiB).
    fn scan(readers: &DropBehind, volume: u32, len: u64, starts: impl Iterator<Item = u64>) -> Vec<(u32, Range<u64>)> {
        let read = |at| readers.record_read(id(volume), ByteRange::at(at * MIB, MIB), len * MIB, true);
        starts.flat_map(read).map(numbers).collect()
    }

    #[test]
    fn a_sequential_reader_passes_each_block_once() {
        let readers = DropBehind::default();
        let passed = scan(&readers, 3, 20, 0..20);
        assert_eq!(passed, [(3, 0..4), (3, 4..8), (3, 8..12), (3, 12..16)]);
        // The rest of the volume when the reader is well within the next; late reads of it change nothing.
        assert_eq!(scan(&readers, 4, 30, 0..15), []);
        assert_eq!(scan(&readers, 3, 20, 19..20), []);
        assert_eq!(scan(&readers, 4, 30, 15..17), [(3, from(16)), (4, 0..4)]);
    }

    #[test]
    fn blocks_that_are_read_again_are_not_passed() {
        let readers = DropBehind::default();
        let again = |at: u64| readers.record_read(id(1), ByteRange::at(at * MIB + 5, 100), 60 * MIB, false);
        let mut passed = scan(&readers, 1, 60, 0..10);
        assert_eq!(again(9), []);
        // A jump to such bytes and back does not end the track.
        passed.extend(scan(&readers, 1, 60, 10..40));
        assert_eq!(again(3), []);
        passed.extend(scan(&readers, 1, 60, 40..42));
        let blocks: BTreeSet<u64> = passed.into_iter().flat_map(|(_, blocks)| blocks).collect();
        assert_eq!(blocks, (0..26 * 4).filter(|&block| block != 36).collect());
    }

    #[test]
    fn readers_of_one_set_each_pass_their_own_blocks() {
        let readers = DropBehind::default();
        let mut passed = Vec::new();
        for i in 0..20 {
            passed.extend(scan(&readers, 3, 20, i..i + 1));
            passed.extend(scan(&readers, 9, 20, i..i + 1));
            // A random reader.
            passed.extend(scan(&readers, 30, 60, std::iter::once(i * 37 % 60)));
            passed.extend(scan(&readers, 40 + u32::try_from(i).unwrap(), 60, 5..6));
        }
        let of =
            |volume| passed.iter().filter(|(v, _)| *v == volume).map(|(_, blocks)| blocks.clone()).collect::<Vec<_>>();
        assert_eq!((of(3), of(9)), (vec![0..4, 4..8, 8..12, 12..16], vec![0..4, 4..8, 8..12, 12..16]));
        assert_eq!(passed.len(), 8);
    }

    #[test]
    fn volumes_smaller_than_the_distance_are_passed_too() {
        let readers = DropBehind::default();
        let passed: Vec<_> = (1..8).flat_map(|volume| scan(&readers, volume, 5, 0..5)).collect();
        assert_eq!(passed, [(1, from(0)), (2, from(0)), (3, from(0))]);
    }

    #[test]
    fn reads_slightly_out_of_order_pass_the_same_blocks() {
        let readers = DropBehind::default();
        let passed = scan(&readers, 1, 32, (0..32).map(|at| at ^ 1));
        let blocks: Vec<u64> = passed.into_iter().flat_map(|(_, blocks)| blocks).collect();
        // The block before the first read was not seen to be read from its beginning.
        assert_eq!(blocks, (4..16 * 4).collect::<Vec<_>>());
    }

    #[test]
    fn a_reader_that_skips_or_jumps_passes_nothing() {
        let readers = DropBehind::default();
        assert_eq!(scan(&readers, 1, 120, (0..40).map(|i| i * 3)), []);
        assert_eq!(scan(&readers, 2, 60, (0..40).map(|i| i * 37 % 60)), []);
        assert_eq!(scan(&readers, 3, 40, (0..40).rev()), []);
        for volume in [9, 4, 7, 1, 12] {
            assert_eq!(scan(&readers, volume, 2, 0..2), []);
        }
    }

    #[test]
    fn a_reader_from_the_middle_does_not_pass_blocks_before_its_start() {
        let readers = DropBehind::default();
        assert_eq!(scan(&readers, 1, 28, 10..28), [(1, 40..44), (1, 44..48)]);
    }
}
