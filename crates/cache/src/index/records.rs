//! Records by key: those not yet written, and the segments on disk.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Condvar, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime};

use super::bytes::{Reader, Writer};
use super::identity::Identity;
use super::place::Place;
use super::segment::{self, MOST_RECORD, Segment};
use dupfs_base::sync::lock;

/// What segments are called.
const PREFIX: &str = "seg-";
/// Records are written once so many bytes of them wait, or the first has waited so long.
const BATCH: usize = 4 << 20;
/// Once so many bytes wait, as the disk hangs or there is no thread to write them, what is learnt is not kept.
const MOST_PENDING: usize = 32 << 20;
const LINGER: Duration = Duration::from_secs(5);
/// So many segments are merged.
const MOST_SEGMENTS: usize = 8;
/// ... and so many are opened at all, each with a file; older ones go. There are as many only where processes wrote side by
/// side and never merged: what is lost with them is learnt anew.
const MOST_OPENED: usize = 64;
/// An index that has grown to this many bytes of records takes no more.
const MOST_BYTES: u64 = 2 << 30;
/// Numbers of a list that one record holds.
const CHUNK: u32 = 4096;

/// Records of one repository, shared by all threads.
#[derive(Debug)]
pub(super) struct Records {
    place: Arc<Place>,
    identity: Identity,
    /// Groups whose records are worth keeping.
    live: Mutex<HashSet<u64>>,
    segments: RwLock<Segments>,
    pending: Mutex<Pending>,
    wake: Condvar,
    /// One writer at a time.
    writing: Mutex<()>,
}

#[derive(Debug, Default)]
struct Segments {
    /// The oldest first; of two records of one key the later counts.
    open: Vec<Arc<Segment>>,
    /// Keys whose record was found damaged.
    damaged: HashSet<Identity>,
}

type Waiting = BTreeMap<Identity, (u64, Arc<[u8]>)>;
type Numbers = HashMap<(Identity, u64, u32), BTreeMap<u32, u64>>;

#[derive(Debug, Default)]
struct Pending {
    records: Waiting,
    numbers: Numbers,
    bytes: usize,
    since: Option<Instant>,
    /// Being written just now: still to be found.
    leaving: Arc<Waiting>,
    /// After a failed write nothing is taken any more.
    off: bool,
    stopped: bool,
}

impl Pending {
    fn takes_no_more(&self) -> bool {
        self.off || self.bytes >= MOST_PENDING
    }
}

impl Records {
    /// The records in `place` about `identity`.
    pub(super) fn open(place: Arc<Place>, identity: Identity, live: HashSet<u64>) -> Self {
        let mut names = place.list(PREFIX).unwrap_or_default();
        names.sort();
        let newest = names.split_off(names.len().saturating_sub(MOST_OPENED));
        for name in &names {
            log::debug!("{}/{name}: this part of the index is one too many", place.shown());
            place.remove(name);
        }
        let mut open = Vec::new();
        for name in newest {
            let Ok(file) = place.read(&name) else { continue };
            match Segment::open(name.clone(), file, identity) {
                Some(segment) => open.push(Arc::new(segment)),
                None => {
                    log::warn!("{}/{name}: this part of the index is damaged; it is made anew", place.shown());
                    place.remove(&name);
                }
            }
        }
        let segments = Segments { open, damaged: HashSet::new() };
        Self {
            place,
            identity,
            live: Mutex::new(live),
            segments: RwLock::new(segments),
            pending: Mutex::default(),
            wake: Condvar::new(),
            writing: Mutex::default(),
        }
    }

    /// The record of `key`. Reads the disk.
    pub(super) fn get(&self, key: &Identity) -> Option<Vec<u8>> {
        {
            let pending = lock(&self.pending);
            if let Some((_, record)) = pending.records.get(key).or_else(|| pending.leaving.get(key)) {
                return Some(record.to_vec());
            }
        }
        let (segment, entry) = {
            let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
            if segments.damaged.contains(key) {
                return None;
            }
            segments.open.iter().rev().find_map(|s| Some((Arc::clone(s), s.find(key)?)))?
        };
        let record = segment.read(&entry);
        if record.is_none() {
            let shown = self.place.shown();
            log::warn!("{shown}/{}: a record of the index is damaged; it is learnt anew", segment.name);
            self.segments.write().unwrap_or_else(PoisonError::into_inner).damaged.insert(*key);
        }
        record
    }

    /// Keeps `record`; it is written later.
    pub(super) fn put(&self, key: Identity, group: u64, record: Vec<u8>) {
        let mut pending = lock(&self.pending);
        if pending.takes_no_more() || record.len() > MOST_RECORD {
            return;
        }
        pending.bytes = pending.bytes.saturating_add(record.len()).saturating_add(64);
        pending.records.insert(key, (group, record.into()));
        self.note_pending(pending);
    }

    /// Keeps the number `value` at place `at` of list `key`.
    pub(super) fn put_number(&self, key: Identity, group: u64, at: u32, value: u64) {
        let mut pending = lock(&self.pending);
        if pending.takes_no_more() {
            return;
        }
        pending.bytes = pending.bytes.saturating_add(32);
        pending.numbers.entry((key, group, at / CHUNK)).or_default().insert(at % CHUNK, value);
        self.note_pending(pending);
    }

    /// Hands the numbers that are known of list `key`, of `len` numbers, to `take`: place, value.
    pub(super) fn numbers(&self, key: Identity, len: u32, take: &mut dyn FnMut(u32, u64)) {
        for chunk in 0..len.div_ceil(CHUNK) {
            for (at, value) in self.chunk(key, chunk) {
                take(chunk.saturating_mul(CHUNK).saturating_add(at), value);
            }
        }
    }

    fn chunk(&self, key: Identity, chunk: u32) -> BTreeMap<u32, u64> {
        let record = self.get(&chunk_key(key, chunk)).unwrap_or_default();
        parse_numbers(&record).unwrap_or_default()
    }

    fn note_pending(&self, mut pending: std::sync::MutexGuard<'_, Pending>) {
        let first = pending.since.is_none();
        pending.since.get_or_insert_with(Instant::now);
        if first || pending.bytes >= BATCH {
            drop(pending);
            self.wake.notify_all();
        }
    }

    /// Writes what waits, whenever it is time, until [`Self::stop`].
    pub(super) fn write_behind(&self) {
        loop {
            let mut pending = lock(&self.pending);
            loop {
                if pending.stopped {
                    return;
                }
                let waited = pending.since.map(|since| since.elapsed());
                let left = match waited {
                    None => None,
                    Some(waited) if pending.bytes >= BATCH || waited >= LINGER => break,
                    Some(waited) => Some(LINGER.saturating_sub(waited)),
                };
                pending = match left {
                    None => self.wake.wait(pending).unwrap_or_else(PoisonError::into_inner),
                    Some(left) => self.wake.wait_timeout(pending, left).unwrap_or_else(PoisonError::into_inner).0,
                };
            }
            drop(pending);
            self.flush();
        }
    }

    /// Ends [`Self::write_behind`].
    pub(super) fn stop(&self) {
        lock(&self.pending).stopped = true;
        self.wake.notify_all();
    }

    /// Writes what waits.
    pub(super) fn flush(&self) {
        let writing = lock(&self.writing);
        let numbers = {
            let mut pending = lock(&self.pending);
            pending.since = None;
            pending.bytes = 0;
            std::mem::take(&mut pending.numbers)
        };
        let lists: Vec<_> = numbers.into_iter().map(|(at, new)| self.merged_numbers(at, new)).collect();
        let leaving: Arc<Waiting> = {
            let mut pending = lock(&self.pending);
            pending.records.extend(lists);
            pending.leaving = Arc::new(std::mem::take(&mut pending.records));
            Arc::clone(&pending.leaving)
        };
        if !leaving.is_empty() {
            lock(&self.live).extend(leaving.values().map(|(group, _)| *group));
            let size = |s: &Segments| s.open.iter().map(|segment| segment.size).fold(0, u64::saturating_add);
            let full = size(&self.segments.read().unwrap_or_else(PoisonError::into_inner)) > MOST_BYTES;
            let records = leaving.iter().map(|(key, (group, record))| (*key, *group, record.to_vec()));
            if full {
                log::debug!("{}: the index has grown to its limit", self.place.shown());
                lock(&self.pending).off = true;
            } else {
                self.write_segment(records, &[]);
            }
            let mut segments = self.segments.write().unwrap_or_else(PoisonError::into_inner);
            segments.damaged.retain(|key| !leaving.contains_key(key));
            drop(segments);
            lock(&self.pending).leaving = Arc::default();
            self.merge();
        }
        drop(writing);
    }

    /// The record of a part of a list, with what was known before.
    fn merged_numbers(
        &self,
        (key, group, chunk): (Identity, u64, u32),
        new: BTreeMap<u32, u64>,
    ) -> (Identity, (u64, Arc<[u8]>)) {
        let mut all = self.chunk(key, chunk);
        all.extend(new);
        let (mut writer, mut last) = (Writer::default(), 0);
        for (at, value) in all {
            writer.number(u64::from(at.saturating_sub(last)));
            writer.number(value);
            last = at;
        }
        (chunk_key(key, chunk), (group, writer.out.into()))
    }

    /// Writes and opens a segment that stands for those in `merged`.
    fn write_segment(&self, records: impl Iterator<Item = (Identity, u64, Vec<u8>)>, merged: &[Arc<Segment>]) {
        let name = self.new_name();
        let written = self.place.write(&name, |file| segment::write(file, self.identity, records));
        let opened = written.and_then(|()| self.place.read(&name));
        let segment = match opened {
            Ok(file) => Segment::open(name, file, self.identity),
            Err(e) => {
                self.switch_off(&e);
                None
            }
        };
        let Some(segment) = segment else { return };
        let mut segments = self.segments.write().unwrap_or_else(PoisonError::into_inner);
        segments.open.retain(|open| !merged.iter().any(|old| Arc::ptr_eq(open, old)));
        segments.open.push(Arc::new(segment));
        drop(segments);
        for old in merged {
            self.place.remove(&old.name);
        }
    }

    /// The disk is full or broken: no more is kept, which is told once.
    pub(super) fn switch_off(&self, error: &std::io::Error) {
        let was_off = std::mem::replace(&mut lock(&self.pending).off, true);
        if !was_off {
            log::warn!("{}: what is learnt cannot be kept on disk: {error}", self.place.shown());
        }
    }

    /// Whether nothing is kept any more.
    pub(super) fn is_off(&self) -> bool {
        lock(&self.pending).off
    }

    /// Merges the newest segments, as many as are not much larger than those after them, if there are too many.
    fn merge(&self) {
        let open = self.segments.read().unwrap_or_else(PoisonError::into_inner).open.clone();
        if open.len() <= MOST_SEGMENTS {
            return;
        }
        let (mut from, mut sum) = (open.len(), 0u64);
        for (at, segment) in open.iter().enumerate().rev() {
            if open.len().saturating_sub(from) >= 2 && segment.size / 2 > sum {
                break;
            }
            (from, sum) = (at, sum.saturating_add(segment.size));
        }
        let merged = open.get(from..).unwrap_or(&[]);
        let mut newest: BTreeMap<Identity, (usize, segment::Entry)> = BTreeMap::new();
        for (at, segment) in merged.iter().enumerate() {
            newest.extend(segment.entries().iter().map(|entry| (entry.key, (at, *entry))));
        }
        let live = lock(&self.live).clone();
        let records = newest
            .into_iter()
            .filter(|(_, (_, entry))| live.contains(&entry.group))
            .filter_map(|(key, (at, entry))| merged.get(at)?.read(&entry).map(|record| (key, entry.group, record)));
        self.write_segment(records, merged);
    }

    /// A name that sorts behind those of all segments before.
    fn new_name(&self) -> String {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_micros());
        let mut random = [0u8; 4];
        if getrandom::fill(&mut random).is_err() {
            log::debug!("no random name for a segment");
        }
        format!("{PREFIX}{now:020}-{:08x}", u32::from_ne_bytes(random))
    }
}

fn chunk_key(key: Identity, chunk: u32) -> Identity {
    key.with(&[b"numbers", &chunk.to_le_bytes()])
}

/// Takes apart what [`Records::merged_numbers`] wrote.
pub(super) fn parse_numbers(record: &[u8]) -> Option<BTreeMap<u32, u64>> {
    let (mut reader, mut at, mut numbers) = (Reader::new(record), 0u32, BTreeMap::new());
    while !reader.is_at_end() {
        at = at.checked_add(reader.small()?).filter(|&at| at < CHUNK)?;
        numbers.insert(at, reader.number()?);
    }
    Some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_to_be_written_is_bounded() {
        let scratch = tempfile::tempdir().unwrap();
        let place = Arc::new(Place::open(scratch.path(), "index").unwrap());
        let records = Records::open(place, Identity::of(&[b"some repository"]), HashSet::from([7]));
        let key = |n: u32| Identity::of(&[&n.to_le_bytes()]);
        for n in 0..200 {
            records.put(key(n), 7, vec![1; 1 << 20]);
            records.put_number(key(1000 + n), 7, n, 5);
        }
        assert!(lock(&records.pending).bytes <= MOST_PENDING + (1 << 20) + 1000);
        // What was taken is kept, and there is room again once it is written.
        records.flush();
        assert!(records.get(&key(0)).is_some() && records.get(&key(199)).is_none());
        records.put(key(199), 7, vec![1; 1 << 20]);
        assert!(records.get(&key(199)).is_some());
    }

    #[test]
    fn segments_that_are_too_many_to_be_opened_go() {
        let scratch = tempfile::tempdir().unwrap();
        let identity = Identity::of(&[b"some repository"]);
        let place = Arc::new(Place::open(scratch.path(), "index").unwrap());
        let key = |n: u32| Identity::of(&[&n.to_le_bytes()]);
        for n in 0..200_u32 {
            let records = std::iter::once((key(n), 7, vec![1; 100]));
            place.write(&format!("{PREFIX}{n:020}-00000000"), |file| segment::write(file, identity, records)).unwrap();
        }
        let records = Records::open(Arc::clone(&place), identity, HashSet::from([7]));
        assert_eq!(place.list(PREFIX).unwrap().len(), MOST_OPENED);
        assert!(records.get(&key(199)).is_some() && records.get(&key(136)).is_some());
        assert!(records.get(&key(135)).is_none());
        // What is opened is merged, and nothing of it is lost.
        records.put(key(1000), 7, vec![2; 100]);
        records.flush();
        assert!(place.list(PREFIX).unwrap().len() <= MOST_SEGMENTS);
        assert!([1000, 199, 136].iter().all(|&n| records.get(&key(n)).is_some()));
    }
}
