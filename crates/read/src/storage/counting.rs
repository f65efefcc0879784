//! What was asked of a store, counted: tests prove with it what was fetched, users see with it what was spent.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Read};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::{ObjectInfo, ObjectStore, StorageError, Traffic};
use dupfs_base::sync::lock;
use dupfs_base::{ByteRange, RequestContext};

/// What was read of one object, or of several together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadCount {
    /// Successful and failed opens.
    pub opens: u64,
    /// Bytes delivered to readers.
    pub bytes: u64,
    /// Opens and reads that failed.
    pub errors: u64,
}

impl ReadCount {
    fn add(&mut self, other: Self) {
        self.opens = self.opens.saturating_add(other.opens);
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.errors = self.errors.saturating_add(other.errors);
    }
}

#[derive(Debug, Default)]
struct ReadCounters {
    opens: AtomicU64,
    bytes: AtomicU64,
    errors: AtomicU64,
}

impl ReadCounters {
    fn get(&self) -> ReadCount {
        ReadCount {
            opens: self.opens.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            errors: self.errors.load(Ordering::Relaxed),
        }
    }
}

/// Counts what passes through it.
#[derive(Debug)]
pub struct CountingStore<S> {
    inner: S,
    lists: AtomicU64,
    objects: Mutex<HashMap<Arc<str>, Arc<ReadCounters>>>,
}

impl<S: ObjectStore> CountingStore<S> {
    /// Counts what is asked of `inner`.
    pub fn new(inner: S) -> Self {
        Self { inner, lists: AtomicU64::new(0), objects: Mutex::default() }
    }

    /// The store underneath.
    pub fn inner(&self) -> &S {
        &self.inner
    }

    /// How often the store was listed.
    pub fn lists(&self) -> u64 {
        self.lists.load(Ordering::Relaxed)
    }

    /// What was read of each object that was opened, by name.
    pub fn reads(&self) -> BTreeMap<Arc<str>, ReadCount> {
        lock(&self.objects).iter().map(|(name, counters)| (Arc::clone(name), counters.get())).collect()
    }

    /// What was read, summed by what `kind` makes of an object's name.
    pub fn reads_by<K: Ord>(&self, kind: impl Fn(&str) -> K) -> BTreeMap<K, ReadCount> {
        let mut out: BTreeMap<K, ReadCount> = BTreeMap::new();
        for (name, count) in self.reads() {
            out.entry(kind(&name)).or_default().add(count);
        }
        out
    }

    /// What was read in all.
    pub fn total(&self) -> ReadCount {
        self.reads_by(|_| ()).remove(&()).unwrap_or_default()
    }

    /// Starts counting anew. Streams that are open count no more.
    pub fn reset(&self) {
        self.lists.store(0, Ordering::Relaxed);
        lock(&self.objects).clear();
    }
}

impl<S: ObjectStore> ObjectStore for CountingStore<S> {
    fn traffic(&self) -> Traffic {
        self.inner.traffic()
    }

    fn url(&self) -> &str {
        self.inner.url()
    }

    fn list(&self, context: &RequestContext) -> Result<Vec<ObjectInfo>, StorageError> {
        self.lists.fetch_add(1, Ordering::Relaxed);
        self.inner.list(context)
    }

    fn open(
        &self,
        object: &ObjectInfo,
        range: ByteRange,
        context: &RequestContext,
    ) -> Result<Box<dyn Read + Send>, StorageError> {
        let counters = Arc::clone(lock(&self.objects).entry(Arc::clone(&object.name)).or_default());
        counters.opens.fetch_add(1, Ordering::Relaxed);
        match self.inner.open(object, range, context) {
            Ok(inner) => Ok(Box::new(CountingStream { inner, counters })),
            Err(e) => {
                counters.errors.fetch_add(1, Ordering::Relaxed);
                Err(e)
            }
        }
    }
}

struct CountingStream {
    inner: Box<dyn Read + Send>,
    counters: Arc<ReadCounters>,
}

impl Read for CountingStream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let result = self.inner.read(buf);
        match &result {
            Ok(got) => self.counters.bytes.fetch_add(u64::try_from(*got).unwrap_or(0), Ordering::Relaxed),
            Err(_) => self.counters.errors.fetch_add(1, Ordering::Relaxed),
        };
        result
    }
}
