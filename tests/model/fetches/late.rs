//! What comes late or fails only at first: a reader is not told of a failure that is none of theirs, and a listing that was
//! taken while the backup was being written is not believed.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use dupfs::vfs::ROOT_INO;
use dupfs_base::{ByteRange, ErrorKind, RequestContext};
use dupfs_read::storage::{ObjectInfo, ObjectStore, StorageError};

use super::{Counted, MEMORY, add, meta, path, subject};
use crate::reference::encode::encode;
use crate::reference::history::History;
use crate::reference::layout::usual;
use crate::reference::store::MemoryStore;
use crate::reference::tree::{Content, Kind};

/// A store that is late with one object, once, and fails then; or that does not list one kind of objects at first.
#[derive(Debug)]
struct Late {
    inner: Arc<MemoryStore>,
    object: String,
    opens: AtomicUsize,
    /// What the names of objects contain that the first listing lacks.
    unlisted: &'static str,
    lists: AtomicUsize,
}

impl Late {
    fn new(inner: &Arc<MemoryStore>, object: &str, unlisted: &'static str) -> Arc<Self> {
        let (opens, lists) = Default::default();
        Arc::new(Self { inner: Arc::clone(inner), object: object.to_owned(), opens, unlisted, lists })
    }
}

impl ObjectStore for Late {
    fn url(&self) -> &str {
        self.inner.url()
    }

    fn list(&self, context: &RequestContext) -> Result<Vec<ObjectInfo>, StorageError> {
        let mut objects = self.inner.list(context)?;
        if self.lists.fetch_add(1, Ordering::SeqCst) == 0 {
            objects.retain(|object| !object.name.contains(self.unlisted));
        }
        Ok(objects)
    }

    fn open(
        &self,
        object: &ObjectInfo,
        range: ByteRange,
        context: &RequestContext,
    ) -> Result<Box<dyn Read + Send>, StorageError> {
        if *object.name == *self.object && self.opens.fetch_add(1, Ordering::SeqCst) == 0 {
            std::thread::sleep(Duration::from_millis(800));
            return Err(StorageError::new(ErrorKind::Timeout, &self.object, "told to be late"));
        }
        self.inner.open(object, range, context)
    }
}

#[test]
fn what_failed_while_it_was_read_ahead_is_tried_again_by_the_reader_who_waits_for_it() {
    let base = vec![add(b"dump", 100), add(b"z", 100)];
    let history = History { lone_file: None, root_meta: meta(), base, steps: vec![] };
    let mut trees = history.trees();
    let noise = (0..6_000_000u64).map(|i| (i.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8).collect();
    trees[0].get_mut(&path(b"dump")).unwrap().kind = Kind::File(Content(Arc::new(noise)));
    let repository = encode(&trees, &[true], &usual(1_600_000));
    let volumes = repository.sets[0].volumes.clone();
    assert!(volumes.len() > 3, "{volumes:?}");
    let counted = Counted::new(repository);
    let store = Late::new(&counted.store, &volumes[1], "nothing");
    let fs = subject::open(store.clone(), &counted.repository, MEMORY).unwrap();
    // Three quarters of the first volume, so that the second is begun ahead; then the second, while it is.
    counted.read(&*fs, 0, &path(b"dump"), 0..1_200_000);
    let start = Instant::now();
    while store.opens.load(Ordering::SeqCst) == 0 {
        assert!(start.elapsed() < Duration::from_secs(10), "nothing is read ahead");
        std::thread::sleep(Duration::from_millis(5));
    }
    counted.read(&*fs, 0, &path(b"dump"), 2_000_000..2_100_000);
    assert_eq!(store.opens.load(Ordering::SeqCst), 2);
}

#[test]
fn a_signature_archive_that_the_first_listing_lacks_is_looked_for_once_more() {
    let counted = Counted::new(super::repository());
    let store = Late::new(&counted.store, "", ".sigtar");
    let fs = subject::open(store.clone(), &counted.repository, MEMORY).unwrap();
    assert_eq!(store.lists.load(Ordering::SeqCst), 2);
    let root = counted.find(&*fs, 3, &vec![]).ino;
    assert!(fs.lookup(root, b"dump", &RequestContext::unlimited()).is_ok());
    assert!(fs.getattr(ROOT_INO, &RequestContext::unlimited()).is_ok());
    assert!(counted.volumes_fetched().is_empty(), "the tree was made of volumes");
}
