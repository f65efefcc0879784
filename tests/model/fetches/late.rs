//! Objects that arrive late or fail at first. A reader does not get the failure of another request, and a listing
//! that was taken while a backup was being written is repeated.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use dupfs::vfs::{FileSystem, ROOT_INO};
use dupfs_base::{AwaitedObject, CancelToken, ErrorKind, HasKind, RequestContext};
use dupfs_read::storage::{Effect, Fault, FaultyStore, Nth, ObjectStore, Target, WrappingStore};

use super::{Counted, MEMORY, add, meta, path, subject};
use crate::reference::encode::encode;
use crate::reference::history::{Change, Edit, History, Step};
use crate::reference::layout::usual;
use crate::reference::tree::{Content, Kind};

#[test]
fn a_failed_prefetch_is_retried_by_the_reader_that_waits_for_it() {
    let base = vec![add(b"dump", 100), add(b"z", 100)];
    let history = History { lone_file: None, root_meta: meta(), base, steps: vec![] };
    let mut trees = history.trees();
    let noise = (0..6_000_000u64).map(|i| (i.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8).collect();
    trees[0].get_mut(&path(b"dump")).unwrap().kind = Kind::File(Content(Arc::new(noise)));
    let repository = encode(&trees, &[true], &usual(1_600_000));
    let volumes = repository.sets[0].volumes.clone();
    assert!(volumes.len() > 3, "{volumes:?}");
    let counted = Counted::new(repository);
    let fault = |effect| Fault::on(&volumes[1], effect).at(Nth::Only(0));
    let plan = vec![fault(Effect::Delay(Duration::from_millis(800))), fault(Effect::Error(ErrorKind::Timeout))];
    let store = Arc::new(FaultyStore::new(Arc::clone(&counted.store), plan));
    let fs = subject::open(store.clone(), &counted.repository, MEMORY).unwrap();
    // Three quarters of the first volume, so that the second is prefetched; then the second, while the prefetch runs.
    counted.read(&*fs, 0, &path(b"dump"), 0..1_200_000);
    let start = Instant::now();
    while store.opens(&volumes[1]) == 0 {
        assert!(start.elapsed() < Duration::from_secs(10), "nothing is read ahead");
        std::thread::sleep(Duration::from_millis(5));
    }
    counted.read(&*fs, 0, &path(b"dump"), 2_000_000..2_100_000);
    assert_eq!(store.opens(&volumes[1]), 2);
}

#[test]
fn a_signature_archive_that_the_first_listing_lacks_is_looked_up_again() {
    let counted = Counted::new(super::repository());
    let target = Target::Containing(".sigtar".to_owned());
    let plan = vec![Fault { target, nth: Nth::Only(0), effect: Effect::Hidden }];
    let store = Arc::new(FaultyStore::new(Arc::clone(&counted.store), plan));
    let fs = subject::open(store.clone(), &counted.repository, MEMORY).unwrap();
    assert_eq!(store.lists(), 2);
    let root = counted.find(&*fs, 3, &vec![]).ino;
    assert!(fs.lookup(root, b"dump", &RequestContext::unlimited()).is_ok());
    assert!(fs.getattr(ROOT_INO, &RequestContext::unlimited()).is_ok());
    assert!(counted.volumes_fetched().is_empty(), "the tree was made of volumes");
}

/// The state of a stream that returns small pieces with delays, as long as it is slow.
#[derive(Debug)]
struct Pace {
    is_slow: AtomicBool,
    reads: AtomicUsize,
}

struct TrickleStream {
    inner: Box<dyn Read + Send>,
    pace: Arc<Pace>,
}

impl Read for TrickleStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.pace.reads.fetch_add(1, Ordering::SeqCst);
        if !self.pace.is_slow.load(Ordering::SeqCst) {
            return self.inner.read(buffer);
        }
        std::thread::sleep(Duration::from_millis(50));
        let len = buffer.len().min(1);
        self.inner.read(&mut buffer[..len])
    }
}

/// The store, of which `slow` arrives at `pace`.
fn trickling(counted: &Counted, slow: &str, pace: &Arc<Pace>) -> Arc<dyn ObjectStore> {
    let (slow, pace) = (slow.to_owned(), Arc::clone(pace));
    Arc::new(WrappingStore::new(Arc::clone(&counted.store), move |object, inner| {
        if *object.name != *slow {
            return inner;
        }
        Box::new(TrickleStream { inner, pace: Arc::clone(&pace) })
    }))
}

#[test]
fn loading_of_a_tree_without_waiters_stops_and_a_later_request_resumes_it() {
    let overwrite = |at| Step { full: false, edits: vec![Edit::Content(0, vec![Change::Overwrite { at, len: 9 }])] };
    let base = vec![add(b"dump", 2_000_000), add(b"z", 100)];
    let history = History { lone_file: None, root_meta: meta(), base, steps: vec![overwrite(5)] };
    let counted = Counted::new(encode(&history.trees(), &[true, false], &usual(1_000_000)));
    let sets = counted.repository.sets.iter();
    let sigtars: Vec<String> = sets.map(|set| set.sigtar.clone()).collect();
    let stored = counted.repository.objects[&sigtars[1]].len();
    assert!(stored > 100, "{stored} bytes take less than five seconds");
    let pace = Arc::new(Pace { is_slow: AtomicBool::new(false), reads: AtomicUsize::new(0) });
    let store = trickling(&counted, &sigtars[1], &pace);
    let fs = subject::open(store, &counted.repository, MEMORY).unwrap();
    let reads = || pace.reads.load(Ordering::SeqCst);
    let snapshots = fs.lookup(ROOT_INO, b"snapshots", &RequestContext::unlimited()).unwrap().ino;
    let name = counted.repository.sets[1].snapshot().into_bytes();
    let before = reads();
    pace.is_slow.store(true, Ordering::SeqCst);
    let token = CancelToken::new();
    std::thread::scope(|scope| {
        let context = RequestContext::new(None, token.clone());
        let (fs, name) = (&fs, &name);
        let request = scope.spawn(move || fs.lookup(snapshots, name, &context));
        let start = Instant::now();
        while reads() < before + 5 {
            assert!(start.elapsed() < Duration::from_secs(20), "the archive is not read");
            std::thread::sleep(Duration::from_millis(5));
        }
        token.cancel();
        let error = request.join().unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Cancelled, "{error}");
    });
    std::thread::sleep(Duration::from_secs(1));
    let stopped = reads();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(reads(), stopped, "the archive is still read");
    counted.store.take_counts();
    pace.is_slow.store(false, Ordering::SeqCst);
    let root = fs.lookup(snapshots, &name, &RequestContext::unlimited()).unwrap().ino;
    assert!(fs.lookup(root, b"z", &RequestContext::unlimited()).is_ok());
    let fetched = counted.fetched();
    assert!(!fetched.contains(&sigtars[0]) && fetched.contains(&sigtars[1]), "{fetched:?}");
}

#[test]
fn the_status_names_the_object_that_a_request_waits_for_and_its_progress() {
    let counted = Counted::new(super::repository());
    let volume = counted.repository.data_volumes(0, &path(b"dump"), 300_000..300_001).pop_first().unwrap();
    let stored = counted.repository.objects[&volume].len() as u64;
    let pace = Arc::new(Pace { is_slow: AtomicBool::new(false), reads: AtomicUsize::new(0) });
    let store = trickling(&counted, &volume, &pace);
    let fs = subject::open(store, &counted.repository, MEMORY).unwrap();
    let ino = counted.find(&*fs, 0, &path(b"dump")).ino;
    let snapshots = fs.status().snapshots;
    let names = [0, 6].map(|set: usize| Some(counted.repository.sets[set].snapshot()));
    assert_eq!((snapshots.count, [snapshots.oldest, snapshots.newest]), (7, names));
    assert_eq!(fs.status().fetching, []);
    pace.is_slow.store(true, Ordering::SeqCst);
    let (token, awaited) = (CancelToken::new(), Arc::<AwaitedObject>::default());
    let until = |what: &str, is_true: &dyn Fn() -> bool| {
        let start = Instant::now();
        while !is_true() {
            assert!(start.elapsed() < Duration::from_secs(20), "{what}: {:?}", fs.status());
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    std::thread::scope(|scope| {
        let context = RequestContext::new(None, token.clone()).recording(Arc::clone(&awaited));
        let fs = &fs;
        let request = scope.spawn(move || {
            let opened = fs.open(ino, &context)?;
            fs.read(ino, opened.handle, 300_000, 1, &context)
        });
        until("the volume is fetched", &|| {
            let fetching = fs.status().fetching;
            fetching
                .iter()
                .any(|fetch| fetch.object.as_ref() == Some(&volume) && fetch.bytes > 2 && fetch.size == stored)
        });
        assert_eq!(awaited.get().as_deref(), Some(volume.as_str()));
        assert!(fs.status().link.bytes_per_second > 0, "{:?}", fs.status());
        token.cancel();
        assert_eq!(request.join().unwrap().unwrap_err().kind(), ErrorKind::Cancelled);
    });
    assert_eq!(awaited.get(), None);
    until("the fetch ends", &|| fs.status().fetching.is_empty());
}

#[test]
fn a_request_that_follows_an_abandoned_one_at_once_gets_its_answer() {
    let overwrite = |at| Step { full: false, edits: vec![Edit::Content(0, vec![Change::Overwrite { at, len: 9 }])] };
    let steps = (0..6).map(|n| overwrite(n * 100)).collect();
    let base = vec![add(b"dump", 100_000), add(b"z", 100)];
    let history = History { lone_file: None, root_meta: meta(), base, steps };
    let fulls = [true, false, false, false, false, false, false];
    let counted = Counted::new(encode(&history.trees(), &fulls, &usual(100_000)));
    let sizes = |fs: &dyn FileSystem| (0..7).map(|set| counted.find(fs, set, &path(b"dump")).size).collect::<Vec<_>>();
    let expected = sizes(&*counted.open());
    for delay in 0..150 {
        let fs = counted.open();
        let root = counted.find(&*fs, 6, &vec![]).ino;
        let token = CancelToken::new();
        std::thread::scope(|scope| {
            let context = RequestContext::new(None, token.clone());
            let abandoned = &fs;
            scope.spawn(move || abandoned.lookup(root, b"z", &context).is_ok());
            std::thread::sleep(Duration::from_micros(delay * 20));
            token.cancel();
            assert!(fs.lookup(root, b"z", &RequestContext::unlimited()).is_ok(), "after {delay}");
        });
        assert_eq!(sizes(&*fs), expected, "after {delay}");
    }
}
