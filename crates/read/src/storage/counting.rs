//! A store that counts what is read of each object. Tests check with it what was fetched.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Read};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::{BucketLocation, ObjectInfo, ObjectStore, RejectedCopy, StorageError, Traffic};
use dupfs_base::sync::lock;
use dupfs_base::{ByteRange, RequestContext, Secret};

/// The reads of one object, or the sum of several.
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

/// Counts the reads of another store.
#[derive(Debug)]
pub struct CountingStore<S> {
    inner: S,
    lists: AtomicU64,
    objects: Mutex<HashMap<Arc<str>, Arc<ReadCounters>>>,
}

impl<S: ObjectStore> CountingStore<S> {
    /// Counts the reads of `inner`.
    pub fn new(inner: S) -> Self {
        Self { inner, lists: AtomicU64::new(0), objects: Mutex::default() }
    }

    /// The store underneath.
    pub fn inner(&self) -> &S {
        &self.inner
    }

    /// Number of listings.
    pub fn lists(&self) -> u64 {
        self.lists.load(Ordering::Relaxed)
    }

    /// The reads of each object that was opened, by name.
    pub fn reads(&self) -> BTreeMap<Arc<str>, ReadCount> {
        lock(&self.objects).iter().map(|(name, counters)| (Arc::clone(name), counters.get())).collect()
    }

    /// The reads, summed by the `kind` of the object's name.
    pub fn reads_by<K: Ord>(&self, kind: impl Fn(&str) -> K) -> BTreeMap<K, ReadCount> {
        let mut out: BTreeMap<K, ReadCount> = BTreeMap::new();
        for (name, count) in self.reads() {
            out.entry(kind(&name)).or_default().add(count);
        }
        out
    }

    /// The sum of all reads.
    pub fn total(&self) -> ReadCount {
        self.reads_by(|_| ()).remove(&()).unwrap_or_default()
    }

    /// Sets all counts to zero. Open streams no longer count.
    pub fn reset(&self) {
        self.lists.store(0, Ordering::Relaxed);
        lock(&self.objects).clear();
    }
}

impl<S: ObjectStore> ObjectStore for CountingStore<S> {
    fn traffic(&self) -> Traffic {
        self.inner.traffic()
    }

    fn reject_copy(&self, object: &ObjectInfo, is_damaged: bool) -> Option<RejectedCopy> {
        self.inner.reject_copy(object, is_damaged)
    }

    fn bucket(&self) -> Option<BucketLocation> {
        self.inner.bucket()
    }

    fn url(&self) -> &str {
        self.inner.url()
    }

    fn url_with_secrets(&self) -> Option<Secret> {
        self.inner.url_with_secrets()
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
            Ok(got) => self.counters.bytes.fetch_add(*got as u64, Ordering::Relaxed),
            Err(_) => self.counters.errors.fetch_add(1, Ordering::Relaxed),
        };
        result
    }
}
