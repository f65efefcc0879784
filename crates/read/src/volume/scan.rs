//! Detection of sequential scans over the volumes of a set: a large file up to its last volume, or many small files in path
//! order. Random reads are no scan.

use std::collections::HashMap;
use std::sync::Mutex;

use super::read_hint::ReadHint;
use dupfs_base::ByteRange;
use dupfs_base::sync::lock;
use dupfs_format::{SetIndex, VolumeId, VolumeNumber};

/// A reader scans once it has read this fraction of a volume in ascending order ...
const SCANNED_FRACTION: u64 = 8;
/// ... and at least this many bytes.
const MIN_SCANNED_BYTES: u64 = 1 << 20;
/// Upper bound of a step back that still counts as ascending: the kernel sends its readahead out of order.
const MAX_STEP_BACK: u64 = 4 << 20;
/// Upper bound of the readers of one set that are distinguished: several programs, and those that read files at random.
const MAX_READERS: usize = 8;
/// After this many files in ascending order a reader is expected to read all files.
const SCANNED_FILES: u32 = 8;

/// Consecutive volumes of a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct VolumeRange {
    pub(super) set: SetIndex,
    pub(super) first: VolumeNumber,
    pub(super) last: VolumeNumber,
}

impl VolumeRange {
    /// The first volume and the others; `None` if there are no volumes.
    pub(super) fn split_first(self) -> Option<(VolumeId, Self)> {
        let id = VolumeId { set: self.set, number: self.first };
        let rest = Self { first: VolumeNumber(self.first.0.checked_add(1)?), ..self };
        (self.first <= self.last).then_some((id, rest))
    }

    /// Adds `next` if it begins with the volume after these. Returns false if it does not.
    pub(super) fn append(&mut self, next: Self) -> bool {
        let follows = next.set == self.set && self.last.0.checked_add(1) == Some(next.first.0);
        if follows {
            self.last = next.last;
        }
        follows
    }
}

/// The position of one reader of a set.
#[derive(Clone, Copy, Debug)]
struct Scan {
    volume: VolumeNumber,
    /// Bytes of the volume that were read in ascending order, each counted once: a reader that reads at random within one
    /// volume does not advance.
    consumed: u64,
    /// End of the furthest of these reads.
    end: u64,
    is_sequential: bool,
    /// The file that was read last, and the number of files read one after the other.
    file: u64,
    files: u32,
    /// The highest volume that was prefetched.
    prefetched: VolumeNumber,
    /// The reader of the file that was read last is gone, and nothing was read since.
    is_left: bool,
}

impl Scan {
    fn new(volume: VolumeNumber, file: u64) -> Self {
        Self { volume, consumed: 0, end: 0, is_sequential: false, file, files: 1, prefetched: volume, is_left: false }
    }

    /// Returns true if a read from `start` of the volume is in ascending order.
    fn is_ascending(&self, start: u64) -> bool {
        start.saturating_add(MAX_STEP_BACK) >= self.end
    }

    /// The scan at the beginning of the next volume.
    fn in_next(self, volume: VolumeNumber) -> Self {
        Self { volume, consumed: 0, end: 0, prefetched: self.prefetched.max(volume), ..self }
    }

    /// Counts a read of `range`.
    fn advance(&mut self, range: ByteRange, plain_len: u64, file: u64) {
        if self.is_ascending(range.start) {
            self.consumed = self.consumed.saturating_add(range.end.saturating_sub(range.start.max(self.end)));
            self.end = self.end.max(range.end);
            self.files = self.files.saturating_add(u32::from(self.file != file));
        } else {
            self.files = 1;
        }
        self.file = file;
        self.is_left = false;
        self.is_sequential |= self.consumed >= (plain_len / SCANNED_FRACTION).max(MIN_SCANNED_BYTES);
    }
}

/// Removes from `scans` the scan that a read from `start` of `volume` continues, and returns it. It is one in this
/// volume that the read continues in ascending order, else a sequential one in the volume before, else any in this
/// volume. If there is none, makes room for a new one: drops the random reader that has read least, else the scan that
/// was idle longest.
fn take(scans: &mut Vec<Scan>, volume: VolumeNumber, start: u64) -> Option<Scan> {
    let there = scans.iter().position(|scan| scan.volume == volume);
    if let Some(position) = there
        && scans.get(position).is_some_and(|scan| scan.is_ascending(start))
    {
        return Some(scans.remove(position));
    }
    let comes = |scan: &Scan| scan.is_sequential && volume.0 == scan.volume.0.saturating_add(1);
    if let Some(position) = scans.iter().position(comes) {
        let scan = scans.remove(position).in_next(volume);
        scans.retain(|scan| scan.volume != volume);
        return Some(scan);
    }
    if let Some(position) = there {
        return Some(scans.remove(position));
    }
    if scans.len() >= MAX_READERS {
        let random = scans.iter().enumerate().filter(|(_, scan)| !scan.is_sequential);
        let least = random.min_by_key(|(_, scan)| scan.consumed);
        scans.remove(least.map_or(0, |(position, _)| position));
    }
    None
}

/// The scans of all sets.
#[derive(Debug, Default)]
pub(super) struct ScanTracker {
    /// For each set its scans, the one that was read last at the end.
    scans: Mutex<HashMap<SetIndex, Vec<Scan>>>,
}

impl ScanTracker {
    /// Records a read of `range` of volume `id`, whose plaintext has `plain_len` bytes, and returns the volumes to prefetch, at
    /// most `depth` from the one that was read.
    pub(super) fn record(
        &self,
        id: VolumeId,
        range: ByteRange,
        plain_len: u64,
        hint: ReadHint,
        depth: u32,
    ) -> Option<VolumeRange> {
        let mut scans = lock(&self.scans);
        let scans = scans.entry(id.set).or_default();
        let mut scan = take(scans, id.number, range.start).unwrap_or_else(|| Scan::new(id.number, hint.file));
        scan.advance(range, plain_len, hint.file);
        let furthest = id.number.0.saturating_add(depth);
        let is_beyond_file = scan.files >= SCANNED_FILES;
        // If the end of the file is unknown, nothing beyond the volume that is read.
        let end_of_file = hint.last_volume.unwrap_or(id.number);
        let last = VolumeNumber(if is_beyond_file { furthest } else { furthest.min(end_of_file.0) });
        let before =
            (scan.is_sequential && scan.prefetched < last).then(|| std::mem::replace(&mut scan.prefetched, last));
        scans.push(scan);
        before.map(|before| VolumeRange { set: id.set, first: VolumeNumber(before.0.saturating_add(1)), last })
    }

    /// Records that the reader of `file` is gone. A scan that has read it last counts as left until it continues.
    pub(super) fn leave(&self, file: u64) {
        for scan in lock(&self.scans).values_mut().flatten().filter(|scan| scan.file == file) {
            scan.is_left = true;
        }
    }

    /// Returns true if the scan for which `volumes` are prefetched is left.
    pub(super) fn is_left(&self, volumes: VolumeRange) -> bool {
        let scans = lock(&self.scans);
        let is_for = |scan: &&Scan| (scan.volume..=scan.prefetched).contains(&volumes.first);
        let mut readers = scans.get(&volumes.set).into_iter().flatten().filter(is_for).peekable();
        // Without a reader it is unknown: the scan made room for others.
        readers.peek().is_some() && readers.all(|scan| scan.is_left)
    }

    /// Records that `volumes` are not prefetched after all: the next read requests them again.
    pub(super) fn retract(&self, volumes: VolumeRange) {
        let prefetched = VolumeNumber(volumes.first.0.saturating_sub(1));
        for scan in lock(&self.scans).get_mut(&volumes.set).into_iter().flatten() {
            scan.prefetched = scan.prefetched.min(prefetched).max(scan.volume);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEN: u64 = 64 << 20;
    const DEPTH: u32 = 3;

    fn id(number: u32) -> VolumeId {
        VolumeId { set: SetIndex(0), number: VolumeNumber(number) }
    }

    fn hint(file: u64, last_volume: u32) -> ReadHint {
        ReadHint { file, last_volume: Some(VolumeNumber(last_volume)), read_once: true }
    }

    /// The first and the last volume to prefetch after a read of file 1, which ends in volume 6.
    fn read(scans: &ScanTracker, number: u32, start: u64, len: u64) -> Option<(u32, u32)> {
        read_for(scans, number, start, len, hint(1, 6))
    }

    fn read_for(scans: &ScanTracker, number: u32, start: u64, len: u64, hint: ReadHint) -> Option<(u32, u32)> {
        let volumes = scans.record(id(number), ByteRange::at(start, len), LEN, hint, DEPTH);
        volumes.map(|volumes| (volumes.first.0, volumes.last.0))
    }

    #[test]
    fn nothing_is_prefetched_for_a_file_whose_end_is_unknown() {
        for (last_volume, expected) in [(None, 0), (Some(VolumeNumber(9)), 1)] {
            let scans = ScanTracker::default();
            let hint = ReadHint { file: 1, last_volume, read_once: true };
            let steps = (0..LEN >> 20).map(|i| ByteRange::at(i << 20, 1 << 20));
            let prefetched = steps.filter_map(|range| scans.record(id(2), range, LEN, hint, DEPTH)).count();
            assert_eq!(prefetched, expected, "{last_volume:?}");
        }
    }

    #[test]
    fn a_scan_asks_for_the_next_volumes_once() {
        let scans = ScanTracker::default();
        let asked: Vec<_> = (0..LEN / (1 << 20)).filter_map(|i| read(&scans, 2, i << 20, 1 << 20)).collect();
        assert_eq!(asked, [(3, 5)]);
        assert_eq!(read(&scans, 3, 0, 1 << 20), Some((6, 6)));
        assert_eq!(read(&scans, 3, 1 << 20, 1 << 20), None);
        // Not beyond the file's last volume.
        assert_eq!(read(&scans, 4, 0, 1 << 20), None);
    }

    #[test]
    fn no_volumes_are_asked_for_at_depth_zero() {
        let scans = ScanTracker::default();
        let scan = |depth| scans.record(id(1), ByteRange::at(0, LEN / 2), LEN, hint(1, 6), depth).is_some();
        assert!(!scan(0) && scan(1));
    }

    #[test]
    fn retracted_volumes_are_asked_for_again() {
        let scans = ScanTracker::default();
        assert_eq!(read(&scans, 2, 0, LEN / 2), Some((3, 5)));
        scans.retract(VolumeRange { set: SetIndex(0), first: VolumeNumber(4), last: VolumeNumber(5) });
        assert_eq!(read(&scans, 2, LEN / 2, 4096), Some((4, 5)));
    }

    #[test]
    fn a_scan_is_left_once_its_reader_is_gone_unless_it_continues() {
        let scans = ScanTracker::default();
        let volumes = |first| VolumeRange { set: SetIndex(0), first: VolumeNumber(first), last: VolumeNumber(5) };
        assert_eq!(read(&scans, 2, 0, LEN / 2), Some((3, 5)));
        assert!(!scans.is_left(volumes(3)), "it is open");
        scans.leave(2);
        assert!(!scans.is_left(volumes(3)), "the reader of another file is gone");
        scans.leave(1);
        assert!(scans.is_left(volumes(3)) && scans.is_left(volumes(5)));
        assert!(!scans.is_left(volumes(6)), "not prefetched for it");
        read_for(&scans, 30, 0, LEN / 2, hint(1, 40));
        assert!(!scans.is_left(VolumeRange { first: VolumeNumber(31), ..volumes(0) }), "another reader");
        read(&scans, 2, LEN / 2, 4096);
        assert!(!scans.is_left(volumes(3)), "it continues");
    }

    #[test]
    fn reading_many_files_in_sequence_is_one_scan() {
        let scans = ScanTracker::default();
        let asked: Vec<_> =
            (0..LEN / (1 << 20)).filter_map(|i| read_for(&scans, 2, i << 20, 1 << 20, hint(i, 2))).collect();
        assert_eq!(asked, [(3, 5)]);
    }

    #[test]
    fn reads_slightly_out_of_order_are_a_scan() {
        let scans = ScanTracker::default();
        let order = (0..LEN / (1 << 20)).map(|i| i ^ 1);
        assert_eq!(order.filter_map(|i| read(&scans, 1, i << 20, 1 << 20)).count(), 1);
    }

    #[test]
    fn readers_of_one_set_do_not_disturb_each_other() {
        let scans = ScanTracker::default();
        let mut asked = Vec::new();
        for i in 0..LEN >> 20 {
            asked.extend(read(&scans, 2, i << 20, 1 << 20));
            asked.extend(read_for(&scans, 30, i << 20, 1 << 20, hint(2, 99)));
            // A random reader.
            for j in 0..9 {
                let number = u32::try_from((i * 9 + j) * 7 % 13).unwrap() + 50;
                asked.extend(read(&scans, number, (i * 37 % 60) << 20, 4096));
            }
        }
        assert_eq!(asked, [(3, 5), (31, 33)]);
        assert_eq!((read(&scans, 3, 0, 1 << 20), read(&scans, 31, 0, 1 << 20)), (Some((6, 6)), None));
    }

    #[test]
    fn a_reader_that_starts_over_is_a_new_scan() {
        let scans = ScanTracker::default();
        let scan = |volumes: std::ops::Range<u32>, end: u64| {
            let reads = volumes.flat_map(|volume| (0..end).map(move |i| (volume, i)));
            reads.filter_map(|(volume, i)| read_for(&scans, volume, i << 20, 1 << 20, hint(2, 99))).collect::<Vec<_>>()
        };
        assert_eq!(scan(2..4, 60), [(3, 5), (6, 6)]);
        assert_eq!(scan(1..4, 60), [(2, 4), (5, 5), (6, 6)]);
    }

    #[test]
    fn random_reads_within_one_volume_are_no_scan() {
        let scans = ScanTracker::default();
        for i in 0..2000u64 {
            assert_eq!(read(&scans, 1, (i * 37 % 60) << 20, 128 << 10), None, "{i}");
        }
    }

    #[test]
    fn random_reads_of_many_volumes_are_no_scan() {
        let scans = ScanTracker::default();
        for i in 0..200u64 {
            let number = u32::try_from(i * 7 % 13).unwrap();
            assert_eq!(read(&scans, number, (i * 37 % 60) << 20, 4096), None);
        }
        for i in (0..60u64).rev() {
            assert_eq!(read(&scans, 20, i << 20, 64 << 10), None);
        }
    }

    #[test]
    fn a_range_of_volumes_is_split() {
        let volumes = VolumeRange { set: SetIndex(0), first: VolumeNumber(4), last: VolumeNumber(5) };
        let (first, rest) = volumes.split_first().unwrap();
        let (second, none) = rest.split_first().unwrap();
        assert_eq!((first, second, none.split_first()), (id(4), id(5), None));
    }
}
