//! Records by key: those that are not written yet, and those in the segments on disk.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::directory::IndexDirectory;
use super::encoding::{RecordDecoder, RecordEncoder};
use super::identity::Identity;
use super::segment::{self, MAX_RECORD, Segment, SegmentEntry};
use dupfs_base::sync::prim::{Condvar, Mutex, MutexGuard, RwLock};

/// Prefix of the names of segments.
const PREFIX: &str = "seg-";
/// Records are written once this many bytes of them are pending, ...
const BATCH: usize = 4 << 20;
/// ... or the first of them has been pending for this time.
const LINGER: Duration = Duration::from_secs(5);
/// Upper bound of the pending bytes. It is reached if the disk hangs or no thread can be started; further records are not
/// stored.
const MAX_PENDING: usize = 32 << 20;
/// Upper bound of the segments: more are merged.
const MAX_SEGMENTS: usize = 8;
/// Upper bound of the segments that are opened; each needs a file descriptor. There are more only if processes wrote
/// concurrently and never merged. The oldest are removed; their records have to be derived again.
const MAX_OPENED: usize = 64;
/// Upper bound of the bytes of all segments: beyond it no record is stored.
const MAX_BYTES: u64 = 2 << 30;
/// Numbers of a list in one record.
const CHUNK: u32 = 4096;

/// Records of one repository. Shared by all threads.
#[derive(Debug)]
pub(super) struct RecordStore {
    directory: Arc<IndexDirectory>,
    identity: Identity,
    /// Groups whose records are retained by a merge.
    live: Mutex<HashSet<u64>>,
    segments: RwLock<OpenSegments>,
    pending: Mutex<PendingRecords>,
    /// Notified when there is work for [`Self::write_behind`], and when it has to stop.
    wake: Condvar,
    /// Held by the thread that writes: one at a time.
    writing: Mutex<()>,
    /// [`MAX_BYTES`], except in tests.
    max_bytes: u64,
}

#[derive(Debug, Default)]
struct OpenSegments {
    /// Ordered by age, the oldest first. Of two records with the same key the newer one is valid.
    open: Vec<Arc<Segment>>,
    /// Keys whose record is damaged.
    damaged: HashSet<Identity>,
}

/// Group and record by key.
type RecordsByKey = BTreeMap<Identity, (u64, Arc<[u8]>)>;
/// Key of a list, its group, and a chunk of it.
type ListChunk = (Identity, u64, u32);

#[derive(Debug, Default)]
struct PendingRecords {
    records: RecordsByKey,
    /// Numbers by their positions in the chunk.
    numbers: HashMap<ListChunk, BTreeMap<u32, u64>>,
    bytes: usize,
    since: Option<Instant>,
    /// Records that are being written: still to be found here.
    being_written: Arc<RecordsByKey>,
    /// Set by a failed write, or if the index is full: no further record is stored.
    is_off: bool,
    is_stopped: bool,
}

impl PendingRecords {
    fn is_full(&self) -> bool {
        self.is_off || self.bytes >= MAX_PENDING
    }
}

impl RecordStore {
    /// The records in `directory` for `identity`.
    pub(super) fn open(directory: Arc<IndexDirectory>, identity: Identity, live: HashSet<u64>) -> Self {
        let mut names = directory.list(PREFIX).unwrap_or_default();
        names.sort();
        let newest = names.split_off(names.len().saturating_sub(MAX_OPENED));
        for name in &names {
            log::debug!("{}/{name}: removing this segment of the index: there are too many", directory.display_path());
            directory.remove_file(name);
        }
        let mut open = Vec::new();
        for name in newest {
            let Ok(file) = directory.open_file(&name) else { continue };
            match Segment::open(name.clone(), file, identity) {
                Some(segment) => open.push(Arc::new(segment)),
                None => {
                    log::warn!(
                        "{}/{name}: this segment of the index is damaged; removing it",
                        directory.display_path()
                    );
                    directory.remove_file(&name);
                }
            }
        }
        let segments = OpenSegments { open, damaged: HashSet::new() };
        Self {
            directory,
            identity,
            live: Mutex::new(live),
            segments: RwLock::new(segments),
            pending: Mutex::default(),
            wake: Condvar::new(),
            writing: Mutex::default(),
            max_bytes: MAX_BYTES,
        }
    }

    /// Loads the record of `key`. May read the disk.
    pub(super) fn load(&self, key: &Identity) -> Option<Vec<u8>> {
        {
            let pending = self.pending.lock();
            if let Some((_, record)) = pending.records.get(key).or_else(|| pending.being_written.get(key)) {
                return Some(record.to_vec());
            }
        }
        let (segment, entry) = {
            let segments = self.segments.read();
            if segments.damaged.contains(key) {
                return None;
            }
            segments.open.iter().rev().find_map(|s| Some((Arc::clone(s), s.find(key)?)))?
        };
        let record = segment.read(&entry);
        if record.is_none() {
            let path = self.directory.display_path();
            log::warn!("{path}/{}: a record of the index is damaged; ignoring it", segment.name);
            self.segments.write().damaged.insert(*key);
        }
        record
    }

    /// Returns true if there is a record of `key` that is not known to be damaged.
    pub(super) fn contains(&self, key: &Identity) -> bool {
        {
            let pending = self.pending.lock();
            if pending.records.contains_key(key) || pending.being_written.contains_key(key) {
                return true;
            }
        }
        let segments = self.segments.read();
        !segments.damaged.contains(key) && segments.open.iter().any(|segment| segment.find(key).is_some())
    }

    /// Stores `record`. It is written to disk later.
    pub(super) fn store(&self, key: Identity, group: u64, record: Vec<u8>) {
        let mut pending = self.pending.lock();
        if pending.is_full() || record.len() > MAX_RECORD {
            return;
        }
        pending.bytes = pending.bytes.saturating_add(record.len()).saturating_add(64);
        pending.records.insert(key, (group, record.into()));
        self.wake_writer(pending);
    }

    /// Stores the number `value` at position `at` of list `key`. It is written to disk later.
    pub(super) fn store_number(&self, key: Identity, group: u64, at: u32, value: u64) {
        let mut pending = self.pending.lock();
        if pending.is_full() {
            return;
        }
        pending.bytes = pending.bytes.saturating_add(32);
        pending.numbers.entry((key, group, at / CHUNK)).or_default().insert(at % CHUNK, value);
        self.wake_writer(pending);
    }

    /// Passes the written numbers of list `key`, of `len` numbers, to `take`: position, value.
    pub(super) fn load_numbers(&self, key: Identity, len: u32, take: &mut dyn FnMut(u32, u64)) {
        for chunk in 0..len.div_ceil(CHUNK) {
            for (at, value) in self.load_chunk(key, chunk) {
                take(chunk.saturating_mul(CHUNK).saturating_add(at), value);
            }
        }
    }

    fn load_chunk(&self, key: Identity, chunk: u32) -> BTreeMap<u32, u64> {
        let record = self.load(&chunk_key(key, chunk)).unwrap_or_default();
        decode_numbers(&record).unwrap_or_default()
    }

    fn wake_writer(&self, mut pending: MutexGuard<'_, PendingRecords>) {
        let is_first = pending.since.is_none();
        pending.since.get_or_insert_with(Instant::now);
        if is_first || pending.bytes >= BATCH {
            drop(pending);
            self.wake.notify_all();
        }
    }

    /// Writes the pending records to disk whenever it is time, until [`Self::stop`].
    pub(super) fn write_behind(&self) {
        loop {
            let mut pending = self.pending.lock();
            loop {
                if pending.is_stopped {
                    return;
                }
                let waited = pending.since.map(|since| since.elapsed());
                let left = match waited {
                    None => None,
                    Some(waited) if pending.bytes >= BATCH || waited >= LINGER => break,
                    Some(waited) => Some(LINGER.saturating_sub(waited)),
                };
                pending = match left {
                    None => self.wake.wait(pending),
                    Some(left) => self.wake.wait_timeout(pending, left),
                };
            }
            drop(pending);
            self.flush();
        }
    }

    /// Ends [`Self::write_behind`].
    pub(super) fn stop(&self) {
        self.pending.lock().is_stopped = true;
        self.wake.notify_all();
    }

    /// Writes the pending records to disk.
    pub(super) fn flush(&self) {
        let writing = self.writing.lock();
        let numbers = {
            let mut pending = self.pending.lock();
            pending.since = None;
            pending.bytes = 0;
            std::mem::take(&mut pending.numbers)
        };
        let lists: Vec<_> = numbers.into_iter().map(|(chunk, new)| self.merged_numbers(chunk, new)).collect();
        let being_written: Arc<RecordsByKey> = {
            let mut pending = self.pending.lock();
            pending.records.extend(lists);
            pending.being_written = Arc::new(std::mem::take(&mut pending.records));
            Arc::clone(&pending.being_written)
        };
        if !being_written.is_empty() {
            self.live.lock().extend(being_written.values().map(|(group, _)| *group));
            let size = |s: &OpenSegments| s.open.iter().map(|segment| segment.size).fold(0, u64::saturating_add);
            let is_full = size(&self.segments.read()) > self.max_bytes;
            let records = being_written.iter().map(|(key, (group, record))| (*key, *group, record.to_vec()));
            if is_full {
                self.stop_at_limit();
            } else {
                self.write_segment(records, &[]);
            }
            self.segments.write().damaged.retain(|key| !being_written.contains_key(key));
            self.pending.lock().being_written = Arc::default();
            self.merge();
        }
        drop(writing);
    }

    /// The key and the record of a chunk of a list: the numbers stored before, and `new` ones.
    fn merged_numbers(&self, (key, group, chunk): ListChunk, new: BTreeMap<u32, u64>) -> (Identity, (u64, Arc<[u8]>)) {
        let mut all = self.load_chunk(key, chunk);
        all.extend(new);
        (chunk_key(key, chunk), (group, encode_numbers(&all).into()))
    }

    /// Writes and opens a segment of `records`. It replaces the segments in `merged`.
    fn write_segment(&self, records: impl Iterator<Item = (Identity, u64, Vec<u8>)>, merged: &[Arc<Segment>]) {
        let name = self.new_name();
        let written = self.directory.create_file(&name, |file| segment::write(file, self.identity, records));
        let opened = written.and_then(|()| self.directory.open_file(&name));
        let segment = match opened {
            Ok(file) => Segment::open(name, file, self.identity),
            Err(e) => {
                self.switch_off(&e);
                None
            }
        };
        let Some(segment) = segment else { return };
        let mut segments = self.segments.write();
        segments.open.retain(|open| !merged.iter().any(|old| Arc::ptr_eq(open, old)));
        segments.open.push(Arc::new(segment));
        drop(segments);
        for old in merged {
            self.directory.remove_file(&old.name);
        }
    }

    /// Stops storing after a failed write, which is logged once.
    pub(super) fn switch_off(&self, error: &std::io::Error) {
        let was_off = std::mem::replace(&mut self.pending.lock().is_off, true);
        if !was_off {
            log::warn!("{}: the index cannot be written to disk: {error}", self.directory.display_path());
        }
    }

    /// Stops storing because the index is full, which is logged once.
    fn stop_at_limit(&self) {
        let was_off = std::mem::replace(&mut self.pending.lock().is_off, true);
        if !was_off {
            let directory = self.directory.display_path();
            log::warn!("{directory}: the index has reached its limit of {} bytes, no more is stored", self.max_bytes);
        }
    }

    /// Returns true if no further record is stored.
    pub(super) fn is_off(&self) -> bool {
        self.pending.lock().is_off
    }

    /// Merges the newest segments if there are too many: as many as are not much larger than the newer ones together.
    fn merge(&self) {
        let open = self.segments.read().open.clone();
        if open.len() <= MAX_SEGMENTS {
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
        let mut newest: BTreeMap<Identity, (usize, SegmentEntry)> = BTreeMap::new();
        for (at, segment) in merged.iter().enumerate() {
            newest.extend(segment.entries().iter().map(|entry| (entry.key, (at, *entry))));
        }
        let live = self.live.lock().clone();
        let records = newest
            .into_iter()
            .filter(|(_, (_, entry))| live.contains(&entry.group))
            .filter_map(|(key, (at, entry))| merged.get(at)?.read(&entry).map(|record| (key, entry.group, record)));
        self.write_segment(records, merged);
    }

    /// A name that sorts after those of all earlier segments.
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

/// Encodes a chunk of a list: for each number the distance of its position from the previous one, and its value.
pub(super) fn encode_numbers(numbers: &BTreeMap<u32, u64>) -> Vec<u8> {
    let (mut encoder, mut last) = (RecordEncoder::default(), 0);
    for (&at, &value) in numbers {
        encoder.number(u64::from(at.saturating_sub(last)));
        encoder.number(value);
        last = at;
    }
    encoder.out
}

/// Decodes a chunk that [`encode_numbers`] wrote.
pub(super) fn decode_numbers(record: &[u8]) -> Option<BTreeMap<u32, u64>> {
    let (mut decoder, mut at, mut numbers) = (RecordDecoder::new(record), 0u32, BTreeMap::new());
    while !decoder.is_at_end() {
        at = at.checked_add(decoder.number_u32()?).filter(|&at| at < CHUNK)?;
        numbers.insert(at, decoder.number()?);
    }
    Some(numbers)
}

#[cfg(test)]
mod tests {
    use dupfs_base::sync::lock;

    use super::*;

    #[test]
    fn the_pending_records_are_bounded() {
        let scratch = tempfile::tempdir().unwrap();
        let directory = Arc::new(IndexDirectory::open(scratch.path(), "index").unwrap());
        let records = RecordStore::open(directory, Identity::of(&[b"some repository"]), HashSet::from([7]));
        let key = |n: u32| Identity::of(&[&n.to_le_bytes()]);
        for n in 0..200 {
            records.store(key(n), 7, vec![1; 1 << 20]);
            records.store_number(key(1000 + n), 7, n, 5);
        }
        assert!(records.pending.lock().bytes <= MAX_PENDING + (1 << 20) + 1000);
        // The accepted records are found, and further ones are accepted after a flush.
        records.flush();
        assert!(records.load(&key(0)).is_some() && records.load(&key(199)).is_none());
        records.store(key(199), 7, vec![1; 1 << 20]);
        assert!(records.load(&key(199)).is_some());
    }

    #[test]
    fn surplus_segments_are_removed() {
        let scratch = tempfile::tempdir().unwrap();
        let identity = Identity::of(&[b"some repository"]);
        let directory = Arc::new(IndexDirectory::open(scratch.path(), "index").unwrap());
        let key = |n: u32| Identity::of(&[&n.to_le_bytes()]);
        for n in 0..200_u32 {
            let records = std::iter::once((key(n), 7, vec![1; 100]));
            let name = format!("{PREFIX}{n:020}-00000000");
            directory.create_file(&name, |file| segment::write(file, identity, records)).unwrap();
        }
        let records = RecordStore::open(Arc::clone(&directory), identity, HashSet::from([7]));
        assert_eq!(directory.list(PREFIX).unwrap().len(), MAX_OPENED);
        assert!(records.load(&key(199)).is_some() && records.load(&key(136)).is_some());
        assert!(records.load(&key(135)).is_none());
        // A merge keeps every record of the opened segments.
        records.store(key(1000), 7, vec![2; 100]);
        records.flush();
        assert!(directory.list(PREFIX).unwrap().len() <= MAX_SEGMENTS);
        assert!([1000, 199, 136].iter().all(|&n| records.load(&key(n)).is_some()));
    }

    /// The warnings of this process.
    struct Warnings(std::sync::Mutex<Vec<String>>);

    static WARNINGS: Warnings = Warnings(std::sync::Mutex::new(Vec::new()));

    impl log::Log for Warnings {
        fn enabled(&self, _: &log::Metadata<'_>) -> bool {
            true
        }

        fn log(&self, record: &log::Record<'_>) {
            if record.level() <= log::Level::Warn {
                lock(&self.0).push(record.args().to_string());
            }
        }

        fn flush(&self) {}
    }

    #[test]
    fn a_full_index_is_reported_once_as_a_warning() {
        // Fails if another test has set a logger, and then the assertion below fails as well.
        let _ = log::set_logger(&WARNINGS);
        log::set_max_level(log::LevelFilter::Warn);
        let scratch = tempfile::tempdir().unwrap();
        let directory = Arc::new(IndexDirectory::open(scratch.path(), "index").unwrap());
        let shown = directory.display_path().to_string();
        let mut records = RecordStore::open(directory, Identity::of(&[b"some repository"]), HashSet::from([7]));
        records.max_bytes = 100;
        for n in 0..4_u32 {
            records.store(Identity::of(&[&n.to_le_bytes()]), 7, vec![1; 1000]);
            records.flush();
        }
        assert!(records.is_off() && records.load(&Identity::of(&[&0_u32.to_le_bytes()])).is_some());
        let warnings = lock(&WARNINGS.0).clone();
        let of_limit: Vec<_> = warnings.iter().filter(|line| line.starts_with(&shown)).collect();
        assert_eq!(of_limit.len(), 1, "{warnings:?}");
        assert!(of_limit[0].contains("has reached its limit of 100 bytes"), "{of_limit:?}");
    }
}
