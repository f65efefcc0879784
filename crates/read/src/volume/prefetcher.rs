//! Reading ahead: a reader that walks over a set's volumes in order finds the next ones decoded. A large file is such a
//! walk up to its last volume, and so are many small files in path order; reads here and there are none.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::pass::BLOCK;
use super::repository::Repository;
use dupfs_base::sync::lock;
use dupfs_base::{ByteRange, RequestContext};
use dupfs_format::{SetIndex, VolumeId, VolumeNumber};

/// Volumes decoded ahead of the reader: as long as the one who reads small files waits for each, there are processors to spare
/// that a large file will want.
const DEPTH: u32 = 3;
/// A reader walks once it has read this part of a volume in ascending order.
const WALKED_SHARE: u64 = 8;
/// How far back a read may step and still be in ascending order: the kernel sends read-ahead out of order.
const BACK_STEP: u64 = 4 << 20;
/// ... and at least so many bytes.
const WALKED_BYTES: u64 = 1 << 20;
/// Readers of one set that are told apart: several programs at once, and what only looks at files here and there.
const MOST_WALKS: usize = 8;
/// After so many files in ascending order it is not one file that is read but all of them.
const WALKED_FILES: u32 = 8;

/// The use that a caller makes of a read of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadHint {
    /// The file that the bytes belong to; different for different files.
    pub file: u64,
    /// The last volume of the set that holds parts of the file.
    pub last_volume: VolumeNumber,
    /// True if a reader of the whole file needs these bytes once. Deltas may copy the same bytes several times.
    pub read_once: bool,
}

/// Where a reader of one set is.
#[derive(Clone, Copy, Debug)]
struct Scan {
    volume: VolumeNumber,
    /// Bytes of it that were read in ascending order, each counted once: who reads here and there in one volume gets on no further.
    consumed: u64,
    /// End of the furthest of these reads.
    upto: u64,
    walking: bool,
    /// The file that was read last, and how many there were one after the other.
    file: u64,
    files: u32,
    /// Highest volume that was asked for ahead.
    asked: VolumeNumber,
}

impl Scan {
    fn new(volume: VolumeNumber, file: u64) -> Self {
        Self { volume, consumed: 0, upto: 0, walking: false, file, files: 1, asked: volume }
    }

    /// Whether a read from `start` of the volume is in ascending order.
    fn is_before(&self, start: u64) -> bool {
        start.saturating_add(BACK_STEP) >= self.upto
    }

    /// Goes on to the next volume.
    fn move_to(self, volume: VolumeNumber) -> Self {
        Self { volume, consumed: 0, upto: 0, asked: self.asked.max(volume), ..self }
    }
}

/// Takes the walk out that a read from `start` of `volume` goes on with: one that is there and not further, or that comes from
/// the volume before, or at least is there. If there is none, makes room for one: first goes what has read least without turning
/// out to be a walk, then what was idle longest.
fn take(walks: &mut Vec<Scan>, volume: VolumeNumber, start: u64) -> Option<Scan> {
    let there = walks.iter().position(|walk| walk.volume == volume);
    if let Some(place) = there
        && walks.get(place).is_some_and(|walk| walk.is_before(start))
    {
        return Some(walks.remove(place));
    }
    let comes = |walk: &Scan| walk.walking && volume.0 == walk.volume.0.saturating_add(1);
    if let Some(place) = walks.iter().position(comes) {
        let walk = walks.remove(place).move_to(volume);
        walks.retain(|walk| walk.volume != volume);
        return Some(walk);
    }
    if let Some(place) = there {
        return Some(walks.remove(place));
    }
    if walks.len() >= MOST_WALKS {
        let least = walks.iter().enumerate().filter(|(_, walk)| !walk.walking).min_by_key(|(_, walk)| walk.consumed);
        walks.remove(least.map_or(0, |(place, _)| place));
    }
    None
}

/// The walks over all sets.
#[derive(Debug, Default)]
pub(super) struct Prefetcher {
    /// Of each set those that were read last, the latest at the end.
    walks: Mutex<HashMap<SetIndex, Vec<Scan>>>,
    running: AtomicUsize,
}

impl Prefetcher {
    /// Takes note of a read, and tells which volumes, at most `depth`, to decode ahead: those in the range (exclusive,
    /// inclusive].
    fn note(
        &self,
        id: VolumeId,
        range: ByteRange,
        plain_len: u64,
        reader: ReadHint,
        depth: u32,
    ) -> Option<(VolumeNumber, VolumeNumber)> {
        let mut walks = lock(&self.walks);
        let walks = walks.entry(id.set).or_default();
        let mut walk = take(walks, id.number, range.start).unwrap_or_else(|| Scan::new(id.number, reader.file));
        if walk.is_before(range.start) {
            walk.consumed = walk.consumed.saturating_add(range.end.saturating_sub(range.start.max(walk.upto)));
            walk.upto = walk.upto.max(range.end);
            walk.files = walk.files.saturating_add(u32::from(walk.file != reader.file));
        } else {
            walk.files = 1;
        }
        walk.file = reader.file;
        walk.walking |= walk.consumed >= (plain_len / WALKED_SHARE).max(WALKED_BYTES);
        let ahead = id.number.0.saturating_add(depth);
        let target = VolumeNumber(if walk.files >= WALKED_FILES { ahead } else { ahead.min(reader.last_volume.0) });
        let from = (walk.walking && walk.asked < target).then(|| std::mem::replace(&mut walk.asked, target));
        walks.push(walk);
        from.map(|from| (from, target))
    }

    /// Takes back that volumes behind `upto` were asked for: the next read asks for them again.
    fn ask_again(&self, set: SetIndex, upto: VolumeNumber) {
        for walk in lock(&self.walks).get_mut(&set).into_iter().flatten() {
            walk.asked = walk.asked.min(upto).max(walk.volume);
        }
    }
}

/// Volumes that a cache of `room` bytes holds beside one that is read and has `plain_len` bytes of plaintext, as its
/// neighbours in the set will have about. More of them would drive each other out before they are read.
fn depth(room: u64, plain_len: u64) -> u32 {
    let volumes = room / plain_len.max(1);
    u32::try_from(volumes.saturating_sub(1)).unwrap_or(u32::MAX).min(DEPTH)
}

impl Repository {
    /// Takes note that `range` of volume `id` was read; starts decoding what a walk will need next.
    pub(super) fn note_read(&self, id: VolumeId, range: ByteRange, reader: ReadHint) {
        // Who asks only for what the index knows of volumes needs none of them.
        let table = self.cached_members(id).filter(|_| self.was_decoded(id));
        let Some(plain_len) = table.map(|table| table.plain_len()) else { return };
        if let Some((from, upto)) =
            self.ahead.note(id, range, plain_len, reader, depth(self.window.saturating_mul(2), plain_len))
        {
            let next = VolumeNumber(from.0.saturating_add(1));
            self.go_ahead(PrefetchRange { set: id.set, next, upto, plain_len });
        }
    }

    /// Starts decoding the first volume of `stretch` in the background; half way through it, the next. Side by side from the
    /// start they would share the link and end together, and while the reader takes note of that the link would stand still.
    fn go_ahead(&self, mut stretch: PrefetchRange) {
        while stretch.next <= stretch.upto && !self.is_useful(stretch.first()) {
            stretch.next = VolumeNumber(stretch.next.0.saturating_add(1));
        }
        if stretch.next > stretch.upto {
            return;
        }
        let Some(repository) = self.own.upgrade() else { return };
        let started = Worker::start(repository).is_some_and(|worker| {
            let work = move || worker.decode(stretch);
            std::thread::Builder::new().name("dupfs-ahead".into()).spawn(work).is_ok()
        });
        if !started {
            self.ahead.ask_again(stretch.set, VolumeNumber(stretch.next.0.saturating_sub(1)));
        }
    }

    /// Whether there is any use in decoding a volume ahead.
    fn is_useful(&self, id: VolumeId) -> bool {
        let listed = self.cached_manifest(id.set).is_some_and(|manifest| manifest.volume(id.number).is_some());
        let set = self.set(id.set).ok();
        let thawed =
            set.and_then(|set| set.volumes.get(&id.number).map(|object| object.archived.is_none())) == Some(true);
        listed && thawed && !self.is_cached(id)
    }
}

/// Volumes of one set that are to be decoded ahead.
#[derive(Clone, Copy, Debug)]
struct PrefetchRange {
    set: SetIndex,
    next: VolumeNumber,
    /// The last of them.
    upto: VolumeNumber,
    /// Length of the plaintext of the volume before them, and so about of each of them.
    plain_len: u64,
}

impl PrefetchRange {
    fn first(&self) -> VolumeId {
        VolumeId { set: self.set, number: self.next }
    }
}

/// A place among those that decode ahead; given back when it is dropped, however its work ended.
struct Worker(Arc<Repository>);

impl Worker {
    /// `None` if all places are taken.
    fn start(repository: Arc<Repository>) -> Option<Self> {
        let places = std::thread::available_parallelism().map_or(2, usize::from).max(2);
        let before = repository.ahead.running.fetch_add(1, Ordering::AcqRel);
        let worker = Self(repository);
        (before < places).then_some(worker)
    }

    /// Decodes the first volume of `stretch`, and has the others decoded from half way on.
    fn decode(&self, stretch: PrefetchRange) {
        let half = stretch.plain_len / 2 / BLOCK as u64;
        let next = PrefetchRange { next: VolumeNumber(stretch.next.0.saturating_add(1)), ..stretch };
        let rest = Arc::new(Mutex::new(Some(next)));
        let (repository, from_half) = (Arc::clone(&self.0), Arc::clone(&rest));
        let progress = move |block| {
            if u64::from(block) >= half
                && let Some(rest) = lock(&from_half).take()
            {
                repository.go_ahead(rest);
            }
        };
        let decoded = self.0.prepare(stretch.first(), Box::new(progress), &RequestContext::unlimited());
        // Whoever reads the volume meets the same failure and reports it.
        if let Err(error) = decoded {
            log::debug!("prefetch: {error}");
        }
        // It was shorter, or another reader's pass.
        let rest = lock(&rest).take();
        if let Some(rest) = rest {
            self.0.go_ahead(rest);
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.0.ahead.running.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEN: u64 = 64 << 20;

    fn id(number: u32) -> VolumeId {
        VolumeId { set: SetIndex(0), number: VolumeNumber(number) }
    }

    fn read(ahead: &Prefetcher, number: u32, start: u64, len: u64) -> Option<(u32, u32)> {
        read_for(ahead, number, start, len, ReadHint { file: 1, last_volume: VolumeNumber(6), read_once: true })
    }

    fn read_for(ahead: &Prefetcher, number: u32, start: u64, len: u64, reader: ReadHint) -> Option<(u32, u32)> {
        ahead.note(id(number), ByteRange::at(start, len), LEN, reader, DEPTH).map(|(from, upto)| (from.0, upto.0))
    }

    fn reader(last: u32) -> ReadHint {
        ReadHint { file: 2, last_volume: VolumeNumber(last), read_once: true }
    }

    #[test]
    fn a_walk_asks_for_the_next_volumes_once() {
        let ahead = Prefetcher::default();
        let asked: Vec<_> = (0..LEN / (1 << 20)).filter_map(|i| read(&ahead, 2, i << 20, 1 << 20)).collect();
        assert_eq!(asked, [(2, 5)]);
        assert_eq!(read(&ahead, 3, 0, 1 << 20), Some((5, 6)));
        assert_eq!(read(&ahead, 3, 1 << 20, 1 << 20), None);
        // Not beyond the file's last volume.
        assert_eq!(read(&ahead, 4, 0, 1 << 20), None);
    }

    #[test]
    fn no_more_is_read_ahead_than_the_cache_holds() {
        let room = 192 << 20;
        let depths = [1, 25, 64, 65, 96, 97, 193, 5000].map(|mib: u64| depth(room, mib << 20));
        assert_eq!(depths, [3, 3, 2, 1, 1, 0, 0, 0]);
        assert_eq!(depth(room, 0), 3);
        let ahead = Prefetcher::default();
        let reader = ReadHint { file: 1, last_volume: VolumeNumber(6), read_once: true };
        let walk = |depth| ahead.note(id(1), ByteRange::at(0, LEN / 2), LEN, reader, depth).is_some();
        assert!(!walk(0) && walk(1));
    }

    #[test]
    fn many_files_one_after_the_other_are_a_walk_beyond_each() {
        let ahead = Prefetcher::default();
        let one = |i: u64| ReadHint { file: i, last_volume: VolumeNumber(2), read_once: true };
        let asked: Vec<_> =
            (0..LEN / (1 << 20)).filter_map(|i| read_for(&ahead, 2, i << 20, 1 << 20, one(i))).collect();
        assert_eq!(asked, [(2, 5)]);
    }

    #[test]
    fn reads_out_of_order_by_a_little_are_a_walk() {
        let ahead = Prefetcher::default();
        let order = (0..LEN / (1 << 20)).map(|i| i ^ 1);
        assert_eq!(order.filter_map(|i| read(&ahead, 1, i << 20, 1 << 20)).count(), 1);
    }

    #[test]
    fn readers_of_one_set_do_not_disturb_each_other() {
        let ahead = Prefetcher::default();
        let mut asked = Vec::new();
        for i in 0..LEN >> 20 {
            asked.extend(read(&ahead, 2, i << 20, 1 << 20));
            asked.extend(read_for(&ahead, 30, i << 20, 1 << 20, reader(99)));
            // One who looks at files here and there.
            for j in 0..9 {
                let number = u32::try_from((i * 9 + j) * 7 % 13).unwrap() + 50;
                asked.extend(read(&ahead, number, (i * 37 % 60) << 20, 4096));
            }
        }
        assert_eq!(asked, [(2, 5), (30, 33)]);
        assert_eq!((read(&ahead, 3, 0, 1 << 20), read(&ahead, 31, 0, 1 << 20)), (Some((5, 6)), None));
    }

    #[test]
    fn who_starts_over_is_not_taken_for_one_who_gave_up() {
        let ahead = Prefetcher::default();
        let walk = |volumes: std::ops::Range<u32>, end: u64| {
            let reads = volumes.flat_map(|volume| (0..end).map(move |i| (volume, i)));
            reads.filter_map(|(volume, i)| read_for(&ahead, volume, i << 20, 1 << 20, reader(99))).collect::<Vec<_>>()
        };
        assert_eq!(walk(2..4, 60), [(2, 5), (5, 6)]);
        assert_eq!(walk(1..4, 60), [(1, 4), (4, 5), (5, 6)]);
    }

    #[test]
    fn reads_here_and_there_in_one_volume_are_no_walk() {
        let ahead = Prefetcher::default();
        for i in 0..2000u64 {
            assert_eq!(read(&ahead, 1, (i * 37 % 60) << 20, 128 << 10), None, "{i}");
        }
    }

    #[test]
    fn reads_here_and_there_ask_for_nothing() {
        let ahead = Prefetcher::default();
        for i in 0..200u64 {
            let number = u32::try_from(i * 7 % 13).unwrap();
            assert_eq!(read(&ahead, number, (i * 37 % 60) << 20, 4096), None);
        }
        for i in (0..60u64).rev() {
            assert_eq!(read(&ahead, 20, i << 20, 64 << 10), None);
        }
    }
}
