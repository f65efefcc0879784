//! A store that reports what is read of it now, how far, and how fast.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::outage_watch::OutageWatch;
use super::rate_meter::RateMeter;
use super::{BucketLocation, DirectoryListing, ObjectInfo, ObjectStore, RejectedCopy, StorageError, Traffic};
use dupfs_base::sync::lock;
use dupfs_base::{AwaitGuard, ByteRange, ErrorKind, RequestContext, Secret};

/// A read of an object that has begun and not ended, or a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActiveTransfer {
    /// The name of the object; `None` for a listing.
    pub object: Option<Arc<str>>,
    /// Bytes to read; 0 for a listing.
    pub size: u64,
    /// Bytes that were read.
    pub bytes: u64,
    /// The time since it began.
    pub elapsed: Duration,
}

/// Measures the reads of a store.
#[derive(Debug, Default)]
pub struct StoreMeter {
    /// By their beginnings. Locked for work in memory only.
    running: Mutex<Running>,
    rate: RateMeter,
}

#[derive(Debug, Default)]
struct Running {
    transfers: BTreeMap<u64, Arc<RunningTransfer>>,
    next: u64,
}

#[derive(Debug)]
struct RunningTransfer {
    object: Option<Arc<str>>,
    size: u64,
    bytes: AtomicU64,
    since: Instant,
}

impl StoreMeter {
    /// The reads that have begun and not ended, the oldest first.
    pub fn transfers(&self) -> Vec<ActiveTransfer> {
        let running: Vec<_> = lock(&self.running).transfers.values().cloned().collect();
        let shown = running.iter().map(|transfer| ActiveTransfer {
            object: transfer.object.clone(),
            size: transfer.size,
            bytes: transfer.bytes.load(Ordering::Relaxed),
            elapsed: transfer.since.elapsed(),
        });
        shown.collect()
    }

    /// Bytes per second that came from the store, on the average of the last ten seconds.
    pub fn bytes_per_second(&self) -> u64 {
        self.rate.bytes_per_second()
    }

    fn begin(self: &Arc<Self>, object: Option<Arc<str>>, size: u64) -> TransferGuard {
        let transfer = Arc::new(RunningTransfer { object, size, bytes: AtomicU64::new(0), since: Instant::now() });
        let mut running = lock(&self.running);
        let number = running.next;
        running.next = number.wrapping_add(1);
        running.transfers.insert(number, Arc::clone(&transfer));
        drop(running);
        TransferGuard { meter: Arc::clone(self), number, transfer }
    }
}

/// A transfer that is reported until this is dropped.
struct TransferGuard {
    meter: Arc<StoreMeter>,
    number: u64,
    transfer: Arc<RunningTransfer>,
}

impl Drop for TransferGuard {
    fn drop(&mut self) {
        let ended = lock(&self.meter.running).transfers.remove(&self.number);
        drop(ended);
    }
}

/// Measures the reads of another store.
#[derive(Debug)]
pub struct MeteredStore {
    inner: Arc<dyn ObjectStore>,
    meter: Arc<StoreMeter>,
    outages: Arc<OutageWatch>,
}

impl MeteredStore {
    /// Measures the reads of `inner` by `meter`.
    pub fn new(inner: Arc<dyn ObjectStore>, meter: Arc<StoreMeter>) -> Self {
        let outages = OutageWatch::new(inner.url());
        Self { inner, meter, outages }
    }
}

/// Returns true if the store has answered, be it by a refusal.
fn is_answer<T>(result: &Result<T, StorageError>) -> bool {
    !result.as_ref().is_err_and(|error| matches!(error.kind, ErrorKind::Io | ErrorKind::Timeout | ErrorKind::Cancelled))
}

impl ObjectStore for MeteredStore {
    fn url(&self) -> &str {
        self.inner.url()
    }

    fn url_with_secrets(&self) -> Option<Secret> {
        self.inner.url_with_secrets()
    }

    fn list(&self, context: &RequestContext) -> Result<Vec<ObjectInfo>, StorageError> {
        let _listing = self.meter.begin(None, 0);
        let wait = self.outages.wait();
        let listed = self.inner.list(context);
        if is_answer(&listed) {
            wait.end();
        }
        listed
    }

    fn list_directory(&self, dir: &str, context: &RequestContext) -> Result<DirectoryListing, StorageError> {
        let _listing = self.meter.begin(None, 0);
        self.inner.list_directory(dir, context)
    }

    fn open(
        &self,
        object: &ObjectInfo,
        range: ByteRange,
        context: &RequestContext,
    ) -> Result<Box<dyn Read + Send>, StorageError> {
        let size = range.end.min(object.size).saturating_sub(range.start);
        let guard = self.meter.begin(Some(Arc::clone(&object.name)), size);
        // A request that shares the read with others has recorded it already.
        let waiting = context.awaiting(|| Arc::clone(&object.name));
        let wait = self.outages.wait();
        let inner = self.inner.open(object, range, context);
        if is_answer(&inner) {
            wait.end();
        }
        let inner = inner?;
        let outages = Arc::clone(&self.outages);
        Ok(Box::new(MeteredStream { inner, guard, outages, _waiting: waiting }))
    }

    fn traffic(&self) -> Traffic {
        self.inner.traffic()
    }

    fn reject_copy(&self, object: &ObjectInfo, is_damaged: bool) -> Option<RejectedCopy> {
        self.inner.reject_copy(object, is_damaged)
    }

    fn bucket(&self) -> Option<BucketLocation> {
        self.inner.bucket()
    }
}

struct MeteredStream {
    inner: Box<dyn Read + Send>,
    guard: TransferGuard,
    outages: Arc<OutageWatch>,
    _waiting: AwaitGuard,
}

impl Read for MeteredStream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let wait = self.outages.wait();
        let got = self.inner.read(buf)?;
        wait.end();
        self.guard.transfer.bytes.fetch_add(got as u64, Ordering::Relaxed);
        self.guard.meter.rate.add(got as u64);
        Ok(got)
    }
}

#[cfg(test)]
mod tests {
    use super::super::MemoryStore;
    use super::*;

    #[test]
    fn a_read_is_reported_from_its_beginning_to_its_end() {
        let memory = MemoryStore::new();
        memory.put("volume", vec![7; 1000]);
        let meter = Arc::<StoreMeter>::default();
        let store = MeteredStore::new(Arc::new(memory), Arc::clone(&meter));
        let context = RequestContext::unlimited();
        let objects = store.list(&context).unwrap();
        assert_eq!(meter.transfers(), []);
        let mut stream = store.open(&objects[0], ByteRange { start: 100, end: u64::MAX }, &context).unwrap();
        stream.read_exact(&mut [0; 300]).unwrap();
        let running = meter.transfers();
        let [transfer] = &running[..] else { panic!("{running:?}") };
        assert_eq!((transfer.object.as_deref(), transfer.size, transfer.bytes), (Some("volume"), 900, 300));
        assert!(meter.bytes_per_second() > 0);
        drop(stream);
        assert_eq!(meter.transfers(), []);
        let missing = ObjectInfo { name: "missing".into(), ..objects[0].clone() };
        assert!(store.open(&missing, ByteRange::at(0, 1), &context).is_err());
        assert_eq!(meter.transfers(), []);
    }
}
