//! A store whose objects are read at no more than a given rate, all together.

use std::io::{self, Read};
use std::num::NonZeroU64;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::{BucketLocation, DirectoryListing, ObjectInfo, ObjectStore, RejectedCopy, StorageError, Traffic};
use dupfs_base::sync::{lock, pause_until};
use dupfs_base::{ByteRange, RequestContext, Secret, Stopped, clamp_len};

/// The share of a second for which a reader takes bytes at a time.
const STEPS_PER_SECOND: u64 = 8;
/// Lower bound of the bytes that a reader takes at a time.
const MIN_STEP: usize = 4096;

/// Limits the rate of another store. Listings are not limited.
#[derive(Debug)]
pub struct RateLimitedStore<S> {
    inner: S,
    limiter: Arc<RateLimiter>,
}

/// The bytes that readers may take, one after the other.
#[derive(Debug)]
struct RateLimiter {
    bytes_per_second: NonZeroU64,
    /// The time at which all bytes so far have passed.
    free_at: Mutex<Instant>,
}

impl<S: ObjectStore> RateLimitedStore<S> {
    /// Reads from `inner` at most `bytes_per_second`, by all readers together.
    pub fn new(inner: S, bytes_per_second: NonZeroU64) -> Self {
        let free_at = Mutex::new(Instant::now());
        Self { inner, limiter: Arc::new(RateLimiter { bytes_per_second, free_at }) }
    }
}

impl RateLimiter {
    /// The bytes that a reader takes at a time.
    fn step(&self) -> usize {
        clamp_len(self.bytes_per_second.get() / STEPS_PER_SECOND, usize::MAX).max(MIN_STEP)
    }

    /// Waits until `bytes` more have passed.
    fn pass(&self, bytes: u64, context: &RequestContext) -> Result<(), Stopped> {
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(self.bytes_per_second.get());
        let time = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let passed_at = {
            let mut free_at = lock(&self.free_at);
            let begin = (*free_at).max(Instant::now());
            *free_at = begin.checked_add(time).unwrap_or(begin);
            *free_at
        };
        pause_until(passed_at, context)
    }
}

impl<S: ObjectStore> ObjectStore for RateLimitedStore<S> {
    fn url(&self) -> &str {
        self.inner.url()
    }

    fn url_with_secrets(&self) -> Option<Secret> {
        self.inner.url_with_secrets()
    }

    fn list(&self, context: &RequestContext) -> Result<Vec<ObjectInfo>, StorageError> {
        self.inner.list(context)
    }

    fn list_directory(&self, dir: &str, context: &RequestContext) -> Result<DirectoryListing, StorageError> {
        self.inner.list_directory(dir, context)
    }

    fn open(
        &self,
        object: &ObjectInfo,
        range: ByteRange,
        context: &RequestContext,
    ) -> Result<Box<dyn Read + Send>, StorageError> {
        let inner = self.inner.open(object, range, context)?;
        let (limiter, name) = (Arc::clone(&self.limiter), Arc::clone(&object.name));
        Ok(Box::new(RateLimitedStream { inner, limiter, name, context: context.clone() }))
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

struct RateLimitedStream {
    inner: Box<dyn Read + Send>,
    limiter: Arc<RateLimiter>,
    name: Arc<str>,
    context: RequestContext,
}

impl Read for RateLimitedStream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let len = buf.len().min(self.limiter.step());
        let n = self.inner.read(buf.get_mut(..len).unwrap_or_default())?;
        let passed = self.limiter.pass(n as u64, &self.context);
        passed.map_err(|stopped| StorageError::stopped(&self.name, stopped).into_io())?;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use dupfs_base::CancelToken;

    use super::super::MemoryStore;
    use super::*;

    const RATE: u64 = 400_000;

    fn store(bytes: usize) -> (RateLimitedStore<MemoryStore>, ObjectInfo) {
        let memory = MemoryStore::default();
        memory.put("volume", vec![7; bytes]);
        let store = RateLimitedStore::new(memory, NonZeroU64::new(RATE).unwrap());
        let object = store.list(&RequestContext::unlimited()).unwrap().remove(0);
        (store, object)
    }

    fn read(store: &dyn ObjectStore, object: &ObjectInfo, context: &RequestContext) -> io::Result<usize> {
        let mut bytes = Vec::new();
        store.open(object, ByteRange { start: 0, end: u64::MAX }, context).unwrap().read_to_end(&mut bytes)
    }

    #[test]
    fn all_readers_together_keep_to_the_rate() {
        let (store, object) = store(60_000);
        let begun = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| assert_eq!(read(&store, &object, &RequestContext::unlimited()).unwrap(), 60_000));
            }
        });
        let expected = Duration::from_micros(180_000 * 1_000_000 / RATE);
        let elapsed = begun.elapsed();
        assert!(elapsed >= expected && elapsed < expected * 10, "{elapsed:?} instead of {expected:?}");
    }

    #[test]
    fn a_wait_ends_with_its_request() {
        // Fifty seconds.
        let (store, object) = store(20_000_000);
        let timeout = RequestContext::with_timeout(Duration::from_millis(50));
        let late = StorageError::recover("volume", &read(&store, &object, &timeout).unwrap_err());
        assert_eq!(late.kind, dupfs_base::ErrorKind::Timeout);
        let token = CancelToken::new();
        let context = RequestContext::new(None, token.clone());
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| read(&store, &object, &context).unwrap_err());
            token.cancel();
            let cancelled = StorageError::recover("volume", &reader.join().unwrap());
            assert_eq!(cancelled.kind, dupfs_base::ErrorKind::Cancelled);
        });
    }
}
