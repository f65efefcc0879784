use std::io::{self, Read};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use sha1::{Digest, Sha1};

use super::*;
use crate::codec::{DecodeOptions, Decoder, KeyOptions, Keys};
use crate::storage::{MemoryStore, ObjectStore, WrappingStore};
use dupfs_base::sync::lock;
use dupfs_base::{ByteRange, CancelToken, ErrorKind, HasKind, RequestContext, Stopped};
use dupfs_cache::CacheConfig;
use dupfs_format::collection::{Collection, PrefixOptions};
use dupfs_format::{SetIndex, VolumeId, VolumeNumber};
use dupfs_test_tar::put_entry;

/// Far longer than any step takes.
const PLENTY: Duration = Duration::from_secs(60);
/// A request that ends returns within this time, also on a busy machine.
const PROMPT: Duration = Duration::from_secs(1);

const VOLUME: &str = "duplicity-full.20200101T000000Z.vol1.difftar";
const ID: VolumeId = VolumeId { set: SetIndex(0), number: VolumeNumber(1) };
const HINT: ReadHint = ReadHint { file: 1, last_volume: Some(VolumeNumber(1)), read_once: true };
const CONTENT: [u8; 700] = [7; 700];

/// A tar file with one file, `snapshot/f`, of [`CONTENT`].
fn tar() -> Vec<u8> {
    let mut out = Vec::new();
    put_entry(&mut out, b"snapshot/f", b'0', &CONTENT);
    out.resize(out.len() + 1024, 0);
    out
}

/// A manifest without a hash of the volume.
const MANIFEST: &str = "Hostname h\nLocaldir /d\nVolume 1:\n    StartingPath   .  \n    EndingPath     f  \n";

/// A set of one unencrypted volume.
fn backup() -> MemoryStore {
    let (store, volume) = (MemoryStore::new(), tar());
    let digest = dupfs_base::hex(&Sha1::digest(&volume));
    let manifest = format!("{MANIFEST}    Hash SHA1 {digest}\n");
    store.put("duplicity-full.20200101T000000Z.manifest", manifest.into_bytes());
    store.put("duplicity-full-signatures.20200101T000000Z.sigtar", vec![0; 1024]);
    store.put(VOLUME, volume);
    store
}

fn repository(store: Arc<dyn ObjectStore>) -> Arc<Repository> {
    repository_with_deadline(store, PLENTY)
}

fn repository_with_deadline(store: Arc<dyn ObjectStore>, deadline: Duration) -> Arc<Repository> {
    let objects = store.list(&RequestContext::unlimited()).unwrap();
    let collection = Collection::from_listing(&objects, &PrefixOptions::default()).unwrap();
    let decoder = Decoder::new(Keys::load(KeyOptions::default()).unwrap(), DecodeOptions::default());
    let cache = CacheConfig { memory_bytes: 1 << 22, spill: None };
    let config = RepositoryConfig {
        cache,
        member_table_bytes: 1 << 20,
        manifest_bytes: 1 << 20,
        table_bytes: 1 << 20,
        index: None,
        archive_dir: None,
        signed: None,
        deadline,
        prove_after: None,
    };
    Repository::new(store, decoder, collection, config)
}

/// A set that the collection does not have is a bug, not damage: neither the errno nor the exit code may be that of
/// damage.
#[test]
fn an_unknown_set_is_an_internal_error_and_has_no_group_in_the_index() {
    let repository = repository(Arc::new(backup()));
    assert!(repository.index().group(SetIndex(0)).is_some());
    assert_eq!(repository.index().group(SetIndex(9)), None);
    let id = VolumeId { set: SetIndex(9), number: VolumeNumber(1) };
    let read = repository.read_volume(id, ByteRange::at(0, 1), HINT, &mut Vec::new(), &RequestContext::unlimited());
    let error = read.unwrap_err();
    assert!(matches!(error, VolumeError::NoSet { index: 9 }), "{error:?}");
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(error.to_string().starts_with("internal error (bug in dupfs): "), "{error}");
}

fn read(repository: &Repository, context: &RequestContext) -> Result<Vec<u8>, VolumeError> {
    let mut out = Vec::new();
    repository.read_volume(ID, ByteRange::at(512, 700), HINT, &mut out, context)?;
    Ok(out)
}

/// A stream that waits for a permission at each read, and returns few bytes.
struct GatedStream {
    inner: Box<dyn Read + Send>,
    started: Sender<()>,
    permissions: Receiver<()>,
    /// Dropped together with the stream.
    _closed: Sender<()>,
}

impl Read for GatedStream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.started.send(()).unwrap();
        self.permissions.recv_timeout(PLENTY).unwrap();
        let len = buf.len().min(100);
        self.inner.read(&mut buf[..len])
    }
}

/// A repository whose next open of the volume is gated, and the test's ends of the gate.
struct GatedRepository {
    repository: Arc<Repository>,
    /// Receives when a read of the store starts.
    reads: Receiver<()>,
    /// Lets one read continue.
    permit: Sender<()>,
    /// Disconnected once the stream is dropped.
    stream: Receiver<()>,
}

fn gated_repository() -> GatedRepository {
    let ((started, reads), (permit, permissions), (closed, stream)) = (channel(), channel(), channel());
    let gate = Mutex::new(Some((permissions, closed)));
    let store = WrappingStore::new(backup(), move |object, inner| {
        let gate = if &*object.name == VOLUME { lock(&gate).take() } else { None };
        let Some((permissions, closed)) = gate else { return inner };
        Box::new(GatedStream { inner, started: started.clone(), permissions, _closed: closed })
    });
    let repository = repository(Arc::new(store));
    repository.manifest(ID.set, &RequestContext::unlimited()).unwrap();
    GatedRepository { repository, reads, permit, stream }
}

#[test]
fn a_volume_is_decoded_once_and_then_read_from_memory() {
    let repository = repository(Arc::new(backup()));
    let would_block = read(&repository, &RequestContext::cached_only()).unwrap_err();
    assert!(matches!(would_block, VolumeError::Stopped(Stopped::WouldBlock)), "{would_block}");
    assert_eq!(read(&repository, &RequestContext::unlimited()).unwrap(), CONTENT);
    assert_eq!(read(&repository, &RequestContext::cached_only()).unwrap(), CONTENT);
    let table = repository.members(ID, &RequestContext::cached_only()).unwrap();
    let parts: Vec<_> = table
        .runs()
        .flat_map(|run| table.parts(&run).collect::<Vec<_>>())
        .map(|part| (part.offset, part.len))
        .collect();
    assert_eq!(parts, [(512, 700)]);
}

#[test]
fn a_range_beyond_the_end_is_an_error() {
    let repository = repository(Arc::new(backup()));
    let mut out = vec![1];
    let range = ByteRange::at(2000, 1000);
    let error = repository.read_volume(ID, range, HINT, &mut out, &RequestContext::unlimited()).unwrap_err();
    assert!(matches!(error, VolumeError::Range { start: 2000, end: 3000, len: 2560, .. }), "{error}");
    assert_eq!(out, [1]);
}

#[test]
fn a_cancelled_request_returns_at_once_and_its_pass_stops_at_the_next_read() {
    let GatedRepository { repository, reads, permit, stream } = gated_repository();
    let token = CancelToken::new();
    let context = RequestContext::new(None, token.clone());
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let result = read(&repository, &context);
            (result, Instant::now())
        });
        reads.recv_timeout(PLENTY).unwrap();
        let cancelled = Instant::now();
        token.cancel();
        let (result, returned) = reader.join().unwrap();
        assert_eq!(result.unwrap_err().kind(), ErrorKind::Cancelled);
        assert!(returned - cancelled < PROMPT, "{:?}", returned - cancelled);
    });
    // The read of the store is still in progress.
    assert!(matches!(stream.recv_timeout(Duration::ZERO), Err(RecvTimeoutError::Timeout)));
    permit.send(()).unwrap();
    assert!(matches!(stream.recv_timeout(PLENTY), Err(RecvTimeoutError::Disconnected)), "the pass continues");
    assert!(reads.try_recv().is_err(), "the pass has read again");
    // The volume can be read again; nothing of the abandoned pass is served.
    assert!(matches!(
        read(&repository, &RequestContext::cached_only()),
        Err(VolumeError::Stopped(Stopped::WouldBlock))
    ));
    assert_eq!(read(&repository, &RequestContext::unlimited()).unwrap(), CONTENT);
}

#[test]
fn a_cancelled_request_does_not_disturb_the_others() {
    let GatedRepository { repository, reads, permit, .. } = gated_repository();
    thread::scope(|scope| {
        let patient = scope.spawn(|| read(&repository, &RequestContext::unlimited()));
        reads.recv_timeout(PLENTY).unwrap();
        let late = read(&repository, &RequestContext::with_timeout(Duration::from_millis(20))).unwrap_err();
        assert_eq!(late.kind(), ErrorKind::Timeout, "{late}");
        // The reads of the rest of the volume, with its end.
        for _ in 0..100 {
            let _ = permit.send(());
        }
        assert_eq!(patient.join().unwrap().unwrap(), CONTENT);
    });
}

/// A stream that is counted while it is open.
struct CountedStream(Box<dyn Read + Send>, Arc<AtomicUsize>);

impl Read for CountedStream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read(buf)
    }
}

impl Drop for CountedStream {
    fn drop(&mut self) {
        self.1.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Zeros after the tar archive, compressed to a thousandth: some 100 GB.
fn volume_that_takes_minutes() -> Vec<u8> {
    let mut state = flate2::Compress::new(flate2::Compression::best(), false);
    let mut deflate = |plain: &[u8]| {
        let mut out = Vec::with_capacity(1 << 16);
        state.compress_vec(plain, &mut out, flate2::FlushCompress::Full).unwrap();
        out
    };
    let (start, zeros) = (deflate(&tar()), deflate(&vec![0; 1 << 20]));
    [&b"\x1f\x8b\x08\0\0\0\0\0\0\x03"[..], &start, &zeros.repeat(100_000)].concat()
}

#[test]
fn a_pass_over_its_deadline_stops_and_is_not_repeated_at_once() {
    let (inner, open) = (MemoryStore::new(), Arc::new(AtomicUsize::new(0)));
    inner.put("duplicity-full.20200101T000000Z.manifest", MANIFEST.as_bytes());
    inner.put("duplicity-full-signatures.20200101T000000Z.sigtar.gz", b"x".as_slice());
    let volume = "duplicity-full.20200101T000000Z.vol1.difftar.gz";
    inner.put(volume, volume_that_takes_minutes());
    let count = Arc::clone(&open);
    let store = WrappingStore::new(inner, move |_, stream| {
        count.fetch_add(1, Ordering::SeqCst);
        Box::new(CountedStream(stream, Arc::clone(&count)))
    });
    let deadline = Duration::from_millis(300);
    let repository = repository_with_deadline(Arc::new(store), deadline);
    repository.manifest(ID.set, &RequestContext::unlimited()).unwrap();
    let timed_out = || {
        let error = read(&repository, &RequestContext::with_timeout(deadline)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
        assert!(error.to_string().starts_with(volume), "{error}");
        error.to_string()
    };
    let first = timed_out();
    let started = Instant::now();
    while open.load(Ordering::SeqCst) > 0 {
        assert!(started.elapsed() < PLENTY, "the pass continues: {first}");
        thread::yield_now();
    }
    // The pass records the failure after it has closed the stream.
    while !timed_out().contains("retried in") {
        assert!(started.elapsed() < PLENTY);
    }
}
