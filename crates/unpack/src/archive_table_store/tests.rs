//! Archives that are opened again in one process, with their tables cached, spilled or evicted.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;
use std::sync::{Arc, Mutex};

use super::*;
use crate::test_support::{TestSource, UNLIMITED};
use crate::{Archive, ArchiveFormat, MemoryPointStore, NodeKey, PassProgress, PointStore, StreamCodec, Unpacker};
use dupfs_cache::SpillConfig;
use dupfs_test_tar::{TestHeader, noise, put, put_entry};

const MARKERS: [&str; 4] = ["MEMBERNAME-5511", "LINKTARGET-5511", "OWNERNAME-5511", "LOSTLINK-5511"];

fn counted_file(packed: Vec<u8>) -> Arc<TestSource> {
    Arc::new(TestSource::new("a.tgz", packed).with_identity(b"identity of counted"))
}

/// Records everything that is stored.
#[derive(Debug, Default)]
struct Recorder(Mutex<Vec<u8>>);

impl PointStore for Recorder {
    fn load(&self, _: &[u8]) -> Option<Vec<u8>> {
        None
    }
    fn store(&self, key: &[u8], value: &[u8]) {
        lock(&self.0).extend([key, value].concat());
    }
}

/// A .tgz of `members` members, with links, an owner and a hard link that leads nowhere.
fn packed(members: usize) -> Vec<u8> {
    let mut tar = Vec::new();
    for n in 0..members {
        put_entry(&mut tar, format!("d{}/{}-{n}", n % 7, MARKERS[0]).as_bytes(), b'0', b"text");
    }
    put(
        &mut tar,
        TestHeader::new(b"link", b'2', 0).bytes(157, MARKERS[1].as_bytes()).bytes(265, MARKERS[2].as_bytes()),
        b"",
    );
    put(&mut tar, TestHeader::new(b"lost", b'1', 0).bytes(157, MARKERS[3].as_bytes()), b"");
    put_entry(&mut tar, b"noise", b'0', &noise(300_000));
    tar.resize(tar.len() + 1024, 0);
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(&tar).unwrap();
    encoder.finish().unwrap()
}

fn unpacker(memory_bytes: u64, spill: Option<&Path>) -> Arc<Unpacker> {
    let spill = spill.map(|dir| SpillConfig { dir: dir.to_owned(), bytes: 64 << 20 });
    let points = Arc::new(MemoryPointStore::new(1 << 20));
    Unpacker::new(CacheConfig { memory_bytes, spill }, UnpackLimits::default(), points)
}

/// The encoded table of the archive, once its pass has completed, and the number of one member.
fn table(unpacker: &Arc<Unpacker>, file: &Arc<TestSource>) -> (Vec<u8>, NodeKey) {
    let archive = Archive::new(unpacker, Arc::clone(file) as _, ArchiveFormat::Tar(Some(StreamCodec::Gzip)));
    assert!(matches!(archive.wait_for_pass(&UNLIMITED).unwrap(), PassProgress::Done));
    archive.with_table(|table| (table.encode().unwrap(), table.child(NodeKey::ROOT, b"link").unwrap()))
}

/// Fills the memory of the cache with blocks of something else.
fn fill_memory(unpacker: &Unpacker, bytes: u64) {
    for number in 0..=bytes / BLOCK_BYTES as u64 {
        unpacker.cache.insert((u64::MAX, number), vec![1; BLOCK_BYTES].into());
    }
}

#[test]
fn a_cached_table_needs_no_second_pass() {
    // The longer table takes several blocks.
    for members in [3, 10_000] {
        let file = counted_file(packed(members));
        let unpacker = unpacker(32 << 20, None);
        let first = table(&unpacker, &file);
        assert!(file.take_bytes_read() > 0);
        assert_eq!(table(&unpacker, &file), first);
        assert_eq!(file.take_bytes_read(), 0, "bytes of the archive were read again");
    }
}

#[test]
fn a_table_spills_sealed_and_needs_no_second_pass() {
    let scratch = tempfile::tempdir().unwrap();
    let file = counted_file(packed(10_000));
    let unpacker = unpacker(4 << 20, Some(scratch.path()));
    let first = table(&unpacker, &file);
    let blocks = first.0.len().div_ceil(BLOCK_BYTES) as u64;
    assert!(blocks > 3 && contains(&first.0, MARKERS[0]));
    fill_memory(&unpacker, 4 << 20);
    let before = unpacker.cache.stats().spill_hits;
    file.take_bytes_read();
    assert_eq!(table(&unpacker, &file), first);
    assert_eq!(file.take_bytes_read(), 0, "bytes of the archive were read again");
    assert_eq!(unpacker.cache.stats().spill_hits - before, blocks, "the table was not on the disk");
    let spilled = open_files_below(scratch.path());
    assert!(spilled.len() as u64 > blocks * BLOCK_BYTES as u64);
    MARKERS.iter().for_each(|marker| assert!(!contains(&spilled, marker), "{marker} is on the disk in the clear"));
}

#[test]
fn a_table_that_was_evicted_is_read_again_with_the_same_numbers() {
    for members in [3, 10_000] {
        let file = counted_file(packed(members));
        let unpacker = unpacker(16 << 20, None);
        let first = table(&unpacker, &file);
        fill_memory(&unpacker, 16 << 20);
        file.take_bytes_read();
        assert_eq!(table(&unpacker, &file), first);
        assert!(file.take_bytes_read() > 0, "the table was not evicted");
        assert_eq!(table(&unpacker, &file), first);
        assert_eq!(file.take_bytes_read(), 0, "the table was not stored again");
    }
}

#[test]
fn a_table_of_which_one_block_is_gone_counts_as_absent() {
    let (store, next) = (TableStore::new(&CacheConfig { memory_bytes: 32 << 20, spill: None }), AtomicU64::new(5));
    let cache = BlockCache::new(CacheConfig { memory_bytes: 32 << 20, spill: None });
    let source = counted_file(packed(10_000));
    let (bytes, _) = table(&unpacker(32 << 20, None), &source);
    let key = |n: u8| Identity([n; 16]);
    let limits = UnpackLimits::default();
    let loaded = |n| store.load(&cache, key(n), &limits).map(|table| table.encode().unwrap());
    for gone in 0..bytes.len().div_ceil(BLOCK_BYTES) as u64 {
        store.store(&cache, &next, key(1), &bytes);
        store.store(&cache, &next, key(2), &bytes);
        assert_eq!(loaded(1).as_ref(), Some(&bytes));
        cache.remove(&(next.load(Ordering::Relaxed) - 2, gone));
        assert_eq!((loaded(1), loaded(2).as_ref()), (None, Some(&bytes)));
    }
    assert_eq!(loaded(3), None);
}

#[test]
fn a_table_that_would_evict_everything_else_is_not_stored() {
    let config = CacheConfig { memory_bytes: 1 << 20, spill: None };
    let (store, next, cache) = (TableStore::new(&config), AtomicU64::new(0), BlockCache::new(config));
    cache.insert((9, 0), vec![1; BLOCK_BYTES].into());
    store.store(&cache, &next, Identity([1; 16]), &vec![0; BLOCK_BYTES + 1]);
    assert!(cache.contains(&(9, 0)) && !cache.contains(&(0, 0)));
    assert!(store.load(&cache, Identity([1; 16]), &UnpackLimits::default()).is_none());
}

#[test]
fn nothing_from_inside_an_archive_is_given_to_the_store_of_seek_points() {
    let recorder = Arc::new(Recorder::default());
    let cache = CacheConfig { memory_bytes: 1 << 20, spill: None };
    let unpacker = Unpacker::new(cache, UnpackLimits::default(), Arc::clone(&recorder) as _);
    table(&unpacker, &counted_file(packed(10)));
    let stored = lock(&recorder.0);
    assert!(!stored.is_empty(), "the length of the stream is stored");
    MARKERS.iter().for_each(|marker| assert!(!contains(&stored, marker), "{marker}"));
}

fn contains(bytes: &[u8], marker: &str) -> bool {
    bytes.windows(marker.len()).any(|part| part == marker.as_bytes())
}

/// The bytes of all files in `dir` that this process has open, also of those without a name.
fn open_files_below(dir: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    for open in fs::read_dir("/proc/self/fd").unwrap().map(|open| open.unwrap().path()) {
        if fs::read_link(&open).is_ok_and(|target| target.starts_with(dir)) {
            File::open(&open).unwrap().read_to_end(&mut bytes).unwrap();
        }
    }
    bytes
}
