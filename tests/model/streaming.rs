//! Content of volumes that are still being read: it is served if the signature archive proves it, and no other byte is.

use std::io::{self, Read};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use dupfs::vfs::{FileSystem, FsError, Ino, ROOT_INO};
use dupfs_base::{ErrorKind, HasKind, RequestContext};
use dupfs_read::storage::{ObjectStore, WrappingStore};

use crate::reference::encode::{Repository, encode};
use crate::reference::history::{Addition, Change, Edit, History, Meta, Sort, Step};
use crate::reference::layout::{Wrap, usual};
use crate::reference::store::MemoryStore;
use crate::reference::subject;
use crate::reference::tree::{Content, Kind, Path};
use crate::support::noise;

const MEMORY: u64 = 64 << 20;
/// A request that is not answered within this time fails a test.
const PLENTY: Duration = Duration::from_secs(60);
/// The time that a request takes which cannot be answered.
const SHORT: Duration = Duration::from_millis(150);

fn file(name: &str, size: usize) -> Addition {
    let meta = Meta { mode: 0o644, uid: 1, gid: 2, owner: ("", ""), mtime: 1_000_000 };
    Addition { parent: 0, name: name.into(), sort: Sort::File { size, seed: 7, grain: 0 }, meta }
}

fn path(name: &str) -> Path {
    vec![name.as_bytes().to_vec()]
}

/// A repository of the files `sizes`, in plain volumes of `volume_bytes`. Each of `edits` changes the content of the first file for
/// one increment.
fn repository(sizes: &[(&str, usize)], edits: &[fn(&mut Vec<u8>)], volume_bytes: usize) -> Repository {
    let base = sizes.iter().map(|(name, size)| file(name, *size)).collect();
    let meta = Meta { mode: 0o755, uid: 1, gid: 2, owner: ("", ""), mtime: 1_000_000 };
    let step = |_| Step { full: false, edits: vec![Edit::Content(0, vec![Change::Append { len: 1 }])] };
    let history = History { lone_file: None, root_meta: meta, base, steps: edits.iter().map(step).collect() };
    let mut trees = history.trees();
    for (seed, (name, size)) in sizes.iter().enumerate() {
        let mut content = noise(seed as u64 + 1, *size);
        for (set, tree) in trees.iter_mut().enumerate() {
            if let Some(edit) = set.checked_sub(1).and_then(|edit| edits.get(edit)).filter(|_| seed == 0) {
                edit(&mut content);
            }
            tree.get_mut(&path(name)).unwrap().kind = Kind::File(Content(Arc::new(content.clone())));
        }
    }
    let fulls: Vec<bool> = (0..trees.len()).map(|set| set == 0).collect();
    let mut layout = usual(volume_bytes);
    layout.sets[0].wrap = Wrap::Plain;
    encode(&trees, &fulls, &layout)
}

/// The delivery of a volume: at most `limit` bytes of each stream, until it is raised.
#[derive(Debug)]
struct Delivery {
    limit: AtomicUsize,
    delivered: AtomicUsize,
    /// The time that each read takes.
    pace: Duration,
}

impl Delivery {
    fn up_to(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit: AtomicUsize::new(limit), delivered: AtomicUsize::new(0), pace: Duration::ZERO })
    }

    fn release(&self) {
        self.limit.store(usize::MAX, Ordering::SeqCst);
    }
}

/// Delivers everything when a test ends, so that its threads end too.
struct ReleaseOnDrop(Arc<Delivery>);

impl Drop for ReleaseOnDrop {
    fn drop(&mut self) {
        self.0.release();
    }
}

struct HeldStream {
    inner: Box<dyn Read + Send>,
    at: usize,
    delivery: Arc<Delivery>,
}

impl Read for HeldStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let room = loop {
            let room = self.delivery.limit.load(Ordering::SeqCst).saturating_sub(self.at);
            if room > 0 {
                break room.min(buffer.len()).min(32 << 10);
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        std::thread::sleep(self.delivery.pace);
        let len = self.inner.read(&mut buffer[..room])?;
        self.at += len;
        self.delivery.delivered.fetch_add(len, Ordering::SeqCst);
        Ok(len)
    }
}

/// The store of `repository`, which delivers `volume` as `delivery` says.
fn held(repository: &Repository, volume: &str, delivery: &Arc<Delivery>) -> Arc<dyn ObjectStore> {
    let (volume, delivery) = (volume.to_owned(), Arc::clone(delivery));
    Arc::new(WrappingStore::new(MemoryStore::new(&repository.objects), move |object, inner| {
        if *object.name != *volume {
            return inner;
        }
        let stream: Box<dyn Read + Send> = Box::new(HeldStream { inner, at: 0, delivery: Arc::clone(&delivery) });
        stream
    }))
}

fn open(store: Arc<dyn ObjectStore>, repository: &Repository) -> Arc<dyn FileSystem> {
    subject::open_streaming(store, repository, MEMORY, Some(Duration::ZERO)).unwrap()
}

fn find(fs: &dyn FileSystem, repository: &Repository, set: usize, name: &str) -> Ino {
    let names = [b"snapshots".to_vec(), repository.sets[set].snapshot().into_bytes(), name.as_bytes().to_vec()];
    names.iter().fold(ROOT_INO, |ino, name| fs.lookup(ino, name, &RequestContext::unlimited()).unwrap().ino)
}

fn read_within(fs: &dyn FileSystem, ino: Ino, range: Range<usize>, timeout: Duration) -> Result<Vec<u8>, FsError> {
    let context = RequestContext::with_timeout(timeout);
    read_opened(fs, (ino, fs.open(ino, &context)?.handle), range, &context)
}

/// As [`read_within`]; the file is opened without its size.
fn read_unsized_within(
    fs: &dyn FileSystem,
    ino: Ino,
    range: Range<usize>,
    timeout: Duration,
) -> Result<Vec<u8>, FsError> {
    let context = RequestContext::with_timeout(timeout);
    read_opened(fs, (ino, fs.open_unsized(ino, &context)?.handle), range, &context)
}

fn read_opened(
    fs: &dyn FileSystem,
    (ino, handle): (Ino, u64),
    range: Range<usize>,
    context: &RequestContext,
) -> Result<Vec<u8>, FsError> {
    let read = fs.read(ino, handle, range.start as u64, range.len(), context);
    fs.release(ino, handle);
    read
}

fn content(repository: &Repository, set: usize, name: &str) -> Vec<u8> {
    repository.sets[set].tree[&path(name)].content().unwrap().to_vec()
}

/// The offset of the content of `name` in the only volume.
fn offset_in(volume: &[u8], content: &[u8]) -> usize {
    volume.windows(64).position(|window| window == &content[..64]).unwrap()
}

#[test]
fn a_file_is_served_while_its_volume_is_being_read() {
    let repository = repository(&[("a", 300_000), ("b", 400_000), ("dump", 3_000_000), ("z", 100)], &[], 10_000_000);
    let volume = repository.sets[0].volumes[0].clone();
    let delivery = Delivery::up_to(repository.objects[&volume].len() / 2);
    let _release = ReleaseOnDrop(Arc::clone(&delivery));
    let fs = open(held(&repository, &volume, &delivery), &repository);
    for name in ["b", "a", "b"] {
        let ino = find(&*fs, &repository, 0, name);
        let expected = content(&repository, 0, name);
        let attr = fs.getattr(ino, &RequestContext::with_timeout(PLENTY)).unwrap();
        assert_eq!(attr.size, expected.len() as u64, "{name}");
        for range in [0..expected.len(), 0..1, 511..513, 70_000..140_001, expected.len() - 1..expected.len() + 5] {
            let read = read_within(&*fs, ino, range.clone(), PLENTY).unwrap();
            assert!(read == expected[range.start..range.end.min(expected.len())], "{name} {range:?}");
        }
    }
    // Their ends are not there.
    for name in ["dump", "z"] {
        let error = read_within(&*fs, find(&*fs, &repository, 0, name), 0..1, SHORT).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout, "{name}: {error}");
    }
    delivery.release();
    for name in ["a", "b", "dump", "z"] {
        let expected = content(&repository, 0, name);
        let read = read_within(&*fs, find(&*fs, &repository, 0, name), 0..expected.len() + 1, PLENTY).unwrap();
        assert!(read == expected, "{name}");
    }
}

#[test]
fn nothing_is_served_before_the_volume_is_verified_if_so_requested() {
    let repository = repository(&[("a", 300_000), ("dump", 3_000_000)], &[], 10_000_000);
    let volume = repository.sets[0].volumes[0].clone();
    for prove_after in [None, Some(PLENTY)] {
        let delivery = Delivery::up_to(repository.objects[&volume].len() / 2);
        let _release = ReleaseOnDrop(Arc::clone(&delivery));
        let store = held(&repository, &volume, &delivery);
        let fs = subject::open_streaming(store, &repository, MEMORY, prove_after).unwrap();
        let ino = find(&*fs, &repository, 0, "a");
        let error = read_within(&*fs, ino, 0..1, SHORT).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
        delivery.release();
        assert!(read_within(&*fs, ino, 0..300_000, PLENTY).unwrap() == content(&repository, 0, "a"));
    }
}

#[test]
fn the_beginning_of_a_large_file_and_of_its_later_versions_is_served_from_a_volume_that_is_being_read() {
    let edits: [fn(&mut Vec<u8>); 3] = [
        |content| content[10_000..15_000].copy_from_slice(&noise(8, 5_000)),
        |content| drop(content.splice(100_000..100_000, noise(9, 3_333))),
        |content| content.extend(noise(10, 70_000)),
    ];
    let repository = repository(&[("dump", 4_000_000), ("z", 100)], &edits, 1_600_000);
    let volumes = &repository.sets[0].volumes;
    assert!(volumes.len() > 2, "{volumes:?}");
    let delivery = Delivery::up_to(repository.objects[&volumes[0]].len() / 2);
    let _release = ReleaseOnDrop(Arc::clone(&delivery));
    let fs = open(held(&repository, &volumes[0], &delivery), &repository);
    for set in 0..4 {
        let (ino, expected) = (find(&*fs, &repository, set, "dump"), content(&repository, set, "dump"));
        for range in [0..5, 9_000..131_072, 131_072..262_144, expected.len() - 9..expected.len()] {
            let read = read_within(&*fs, ino, range.clone(), PLENTY).unwrap();
            assert!(read == expected[range.clone()], "set {set} {range:?}");
        }
        let error = read_within(&*fs, ino, 1_200_000..1_200_001, SHORT).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout, "set {set}: {error}");
    }
    delivery.release();
    for set in 0..4 {
        let (ino, expected) = (find(&*fs, &repository, set, "dump"), content(&repository, set, "dump"));
        assert!(read_within(&*fs, ino, 0..expected.len(), PLENTY).unwrap() == expected, "set {set}");
    }
}

#[test]
fn a_changed_bit_is_never_served() {
    let names = [("a", 200_000), ("b", 100_000), ("c", 300_000), ("d", 512), ("e", 700_000), ("z", 300_000)];
    let healthy = repository(&names, &[], 10_000_000);
    let volume = healthy.sets[0].volumes[0].clone();
    let stored = healthy.objects[&volume].to_vec();
    let (mut served, mut refused) = (0, 0);
    // In the headers and contents of several files, at their ends, and in the last bytes.
    let start = offset_in(&stored, &content(&healthy, 0, "c"));
    let mut positions: Vec<usize> = (0..stored.len()).step_by(stored.len() / 12).collect();
    positions.extend([start, start - 300, start + 299_999, start + 65_536, stored.len() - 1]);
    for at in positions {
        let mut repository = healthy.clone();
        let mut damaged = stored.clone();
        damaged[at] ^= 1;
        repository.objects.insert(volume.clone(), Arc::new(damaged));
        let delivery = Delivery::up_to(stored.len() - 1);
        let _release = ReleaseOnDrop(Arc::clone(&delivery));
        let fs = open(held(&repository, &volume, &delivery), &repository);
        let check = |name: &str, range: Range<usize>, timeout: Duration| {
            let ino = find(&*fs, &repository, 0, name);
            match read_within(&*fs, ino, range.clone(), timeout) {
                Ok(read) => {
                    assert!(read == content(&healthy, 0, name)[range.clone()], "{name} {range:?} with a flip at {at}");
                    true
                }
                Err(_) => false,
            }
        };
        for (name, size) in names {
            for range in [0..size, 0..1, size / 2..size / 2 + 100, size - 1..size] {
                let is_served = check(name, range, Duration::from_millis(25));
                served += usize::from(is_served);
                refused += usize::from(!is_served);
            }
        }
        delivery.release();
        for (name, size) in names {
            check(name, 0..size, PLENTY);
        }
    }
    assert!(served > 100 && refused > 50, "{served} reads were answered early, {refused} were not");
}

/// Reads all of an open file in order, in reads of 128 KiB.
fn read_in_order(fs: &dyn FileSystem, ino: Ino, handle: u64) -> (Vec<u8>, Option<FsError>) {
    let mut read = Vec::new();
    loop {
        match fs.read(ino, handle, read.len() as u64, 128 << 10, &RequestContext::with_timeout(PLENTY)) {
            Ok(bytes) if bytes.is_empty() => return (read, None),
            Ok(bytes) => read.extend(bytes),
            Err(error) => return (read, Some(error)),
        }
    }
}

#[test]
fn a_large_file_is_read_in_order_before_the_volume_with_its_end_is_fetched() {
    let repository = repository(&[("dump", 6_000_000), ("z", 100)], &[], 2_400_000);
    let volumes = &repository.sets[0].volumes;
    let last = volumes.last().unwrap();
    let expected = content(&repository, 0, "dump");
    let delivery = Delivery::up_to(0);
    let _release = ReleaseOnDrop(Arc::clone(&delivery));
    let context = || RequestContext::with_timeout(PLENTY);
    // With exact sizes it cannot be opened.
    let exact = open(held(&repository, last, &delivery), &repository);
    let error = exact.open(find(&*exact, &repository, 0, "dump"), &RequestContext::with_timeout(SHORT)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");

    let fs = open(held(&repository, last, &delivery), &repository);
    let ino = find(&*fs, &repository, 0, "dump");
    let opened = fs.open_unsized(ino, &context()).unwrap();
    assert!(opened.direct_io, "its size is not known");
    let error = fs.getattr(ino, &RequestContext::with_timeout(SHORT)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "no caller gets a wrong size: {error}");
    // Up to the last volume.
    for start in (0..4_300_000).step_by(128 << 10) {
        let read = fs.read(ino, opened.handle, start as u64, 128 << 10, &context()).unwrap();
        assert!(read == expected[start..start + (128 << 10)], "{start}");
    }
    for start in [5_200_000, 5_999_999, 7_000_000] {
        let end = RequestContext::with_timeout(SHORT);
        let error = fs.read(ino, opened.handle, start, 128 << 10, &end).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout, "{start}: {error}");
    }

    delivery.release();
    let (read, error) = read_in_order(&*fs, ino, opened.handle);
    assert!(read == expected && error.is_none(), "{error:?}");
    assert_eq!(fs.read(ino, opened.handle, 5_999_990, 100, &context()).unwrap(), expected[5_999_990..]);
    let attr = fs.getattr(ino, &context()).unwrap();
    assert_eq!((attr.size, attr.exact), (6_000_000, true));
    let again = fs.open_unsized(ino, &context()).unwrap();
    assert!(again.keep_cache && !again.direct_io, "its size is known");
    fs.release(ino, opened.handle);
    fs.release(ino, again.handle);
}

#[test]
fn a_large_file_within_one_volume_is_read_before_its_end_is_decoded() {
    let repository = repository(&[("a", 300_000), ("dump", 4_000_000)], &[], 10_000_000);
    let volume = &repository.sets[0].volumes[0];
    let delivery = Delivery::up_to(repository.objects[volume].len() / 2);
    let _release = ReleaseOnDrop(Arc::clone(&delivery));
    let fs = open(held(&repository, volume, &delivery), &repository);
    let (ino, expected) = (find(&*fs, &repository, 0, "dump"), content(&repository, 0, "dump"));
    for range in [0..131_072, 1_000_000..1_131_072, 5..7] {
        assert!(read_unsized_within(&*fs, ino, range.clone(), PLENTY).unwrap() == expected[range.clone()], "{range:?}");
    }
    assert_eq!(read_unsized_within(&*fs, ino, 3_000_000..3_000_001, SHORT).unwrap_err().kind(), ErrorKind::Timeout);
    delivery.release();
    assert!(read_unsized_within(&*fs, ino, 0..4_000_001, PLENTY).unwrap() == expected);
}

#[test]
fn files_without_a_provable_beginning_are_opened_with_their_sizes() {
    let edits: [fn(&mut Vec<u8>); 1] = [|content| content.extend(noise(10, 70_000))];
    let changed = repository(&[("dump", 4_000_000), ("small", 700_000), ("z", 0)], &edits, 1_600_000);
    let fs = open(MemoryStore::new(&changed.objects), &changed);
    // A delta, whose size is in itself, and files that are not large.
    for (set, name) in [(1, "dump"), (0, "small"), (0, "z")] {
        let ino = find(&*fs, &changed, set, name);
        let opened = fs.open_unsized(ino, &RequestContext::with_timeout(PLENTY)).unwrap();
        assert!(!opened.direct_io && opened.keep_cache, "{name}");
        let (read, error) = read_in_order(&*fs, ino, opened.handle);
        assert!(read == content(&changed, set, name) && error.is_none(), "{name}: {error:?}");
    }
    // A block that the sums do not prove.
    let whole = repository(&[("dump", 4_000_000), ("z", 100)], &[], 1_600_000);
    let mut damaged = whole.clone();
    let volume = &whole.sets[0].volumes[0];
    let mut stored = whole.objects[volume].to_vec();
    let at = offset_in(&stored, &content(&whole, 0, "dump")) + 200_000;
    stored[at] ^= 1;
    damaged.objects.insert(volume.clone(), Arc::new(stored));
    let fs = open(MemoryStore::new(&damaged.objects), &damaged);
    let ino = find(&*fs, &damaged, 0, "dump");
    let opened = fs.open_unsized(ino, &RequestContext::with_timeout(PLENTY)).unwrap();
    let (read, error) = read_in_order(&*fs, ino, opened.handle);
    assert!(read.len() <= 200_000 && read == content(&whole, 0, "dump")[..read.len()], "{}", read.len());
    assert!(error.is_some(), "the volume is damaged");
}

#[test]
fn small_files_of_a_volume_cost_it_once_and_nothing_behind_the_last_one_is_fetched() {
    let names: Vec<String> = (0..60).map(|i| format!("file{i:02}")).collect();
    let sizes: Vec<(&str, usize)> = names.iter().map(|name| (&**name, 100_000)).collect();
    let repository = repository(&sizes, &[], 100_000_000);
    let volume = repository.sets[0].volumes[0].clone();
    let stored = repository.objects[&volume].len();
    let read_all = |fs: &dyn FileSystem, names: &[String]| {
        for name in names {
            let ino = find(fs, &repository, 0, name);
            let size = fs.getattr(ino, &RequestContext::with_timeout(PLENTY)).unwrap().size as usize;
            assert!(read_within(fs, ino, 0..size, PLENTY).unwrap() == content(&repository, 0, name), "{name}");
            fs.leave(ino);
        }
    };
    let delivery = Delivery {
        limit: AtomicUsize::new(usize::MAX),
        delivered: AtomicUsize::new(0),
        pace: Duration::from_millis(6),
    };
    let delivery = Arc::new(delivery);
    let fs = open(held(&repository, &volume, &delivery), &repository);
    let delivered = || delivery.delivered.load(Ordering::SeqCst);
    // The fetch has stopped once nothing comes for some time.
    let settle = || {
        let (mut before, mut since) = (delivered(), Instant::now());
        while since.elapsed() < Duration::from_millis(1500) {
            std::thread::sleep(Duration::from_millis(20));
            if delivered() != before {
                (before, since) = (delivered(), Instant::now());
            }
        }
        before
    };
    read_all(&*fs, &names[..1]);
    let first = settle();
    assert!(first < stored * 3 / 4, "{first} of {stored} bytes are fetched for the first file");
    read_all(&*fs, &names);
    settle();
    read_all(&*fs, &names);
    assert_eq!(delivered(), stored, "the volume is fetched once");
}
