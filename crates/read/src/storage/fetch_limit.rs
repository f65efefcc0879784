//! An upper bound of the bytes that are fetched in all, and the store that keeps to it.

use std::io::{self, Read};
use std::sync::{Arc, Mutex};

use super::{BucketLocation, DirectoryListing, ObjectInfo, ObjectStore, RejectedCopy, StorageError, Traffic};
use dupfs_base::sync::lock;
use dupfs_base::{ByteRange, ErrorKind, RequestContext, Secret};

/// An upper bound of the bytes of objects that are fetched in all. It can be lifted.
#[derive(Debug)]
pub struct FetchLimit {
    max_bytes: u64,
    /// The last words of the error: how to go on.
    remedy: String,
    spent: Mutex<SpentBytes>,
}

#[derive(Debug, Default)]
struct SpentBytes {
    /// Bytes that readers have received.
    delivered: u64,
    /// Bytes that the open readers will receive.
    promised: u64,
    is_lifted: bool,
}

impl FetchLimit {
    /// A limit of `max_bytes`. Errors end with `remedy`.
    pub fn new(max_bytes: u64, remedy: impl Into<String>) -> Arc<Self> {
        Arc::new(Self { max_bytes, remedy: remedy.into(), spent: Mutex::default() })
    }

    /// Lifts the limit. Returns the bytes that readers have received so far.
    pub fn lift(&self) -> u64 {
        let mut spent = lock(&self.spent);
        spent.is_lifted = true;
        spent.delivered
    }

    /// Promises `bytes` of `object` to a reader of a store that has received `received` bytes.
    fn promise(&self, object: &str, bytes: u64, received: u64) -> Result<(), StorageError> {
        let mut spent = lock(&self.spent);
        let used = spent.delivered.saturating_add(spent.promised).max(received);
        if !spent.is_lifted && used.saturating_add(bytes) > self.max_bytes {
            let fetched = spent.delivered.max(received);
            drop(spent);
            let reason = format!(
                "not fetched: {bytes} bytes would exceed --fetch-limit of {} bytes, of which {fetched} were fetched; {}",
                self.max_bytes, self.remedy
            );
            return Err(StorageError::new(ErrorKind::OverLimit, object, reason));
        }
        spent.promised = spent.promised.saturating_add(bytes);
        Ok(())
    }

    fn deliver(&self, bytes: u64) {
        let mut spent = lock(&self.spent);
        spent.promised = spent.promised.saturating_sub(bytes);
        spent.delivered = spent.delivered.saturating_add(bytes);
    }

    fn give_back(&self, bytes: u64) {
        let mut spent = lock(&self.spent);
        spent.promised = spent.promised.saturating_sub(bytes);
    }
}

/// Keeps the reads of another store within a limit. Listings do not count.
#[derive(Debug)]
pub struct LimitedStore<S> {
    inner: S,
    limit: Arc<FetchLimit>,
}

impl<S: ObjectStore> LimitedStore<S> {
    /// Reads from `inner` within `limit`.
    pub fn new(inner: S, limit: Arc<FetchLimit>) -> Self {
        Self { inner, limit }
    }
}

impl<S: ObjectStore> ObjectStore for LimitedStore<S> {
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
        let bytes = range.end.min(object.size).saturating_sub(range.start);
        self.limit.promise(&object.name, bytes, self.inner.traffic().bytes)?;
        let promised = PromisedBytes { limit: Arc::clone(&self.limit), left: bytes };
        let inner = self.inner.open(object, range, context)?;
        Ok(Box::new(LimitedStream { inner, promised }))
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

/// Bytes that a reader will receive. Those that it does not are given back.
struct PromisedBytes {
    limit: Arc<FetchLimit>,
    left: u64,
}

impl Drop for PromisedBytes {
    fn drop(&mut self) {
        self.limit.give_back(self.left);
    }
}

struct LimitedStream {
    inner: Box<dyn Read + Send>,
    promised: PromisedBytes,
}

impl Read for LimitedStream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let got = self.inner.read(buf)?;
        let counted = (got as u64).min(self.promised.left);
        self.promised.left = self.promised.left.saturating_sub(counted);
        self.promised.limit.deliver(counted);
        Ok(got)
    }
}

#[cfg(test)]
mod tests {
    use super::super::MemoryStore;
    use super::*;

    #[test]
    fn readers_get_what_the_limit_allows_and_all_once_it_is_lifted() {
        let memory = MemoryStore::new();
        memory.put("a", vec![1; 600]);
        memory.put("b", vec![2; 600]);
        let limit = FetchLimit::new(1000, "lift it");
        let store = LimitedStore::new(memory, Arc::clone(&limit));
        let context = RequestContext::unlimited();
        let mut objects = store.list(&context).unwrap();
        objects.sort_by(|a, b| a.name.cmp(&b.name));
        let whole = ByteRange::at(0, 600);
        let mut first = store.open(&objects[0], whole, &context).unwrap();
        // What another reader will receive is not free.
        assert_eq!(store.open(&objects[1], whole, &context).err().unwrap().kind, ErrorKind::OverLimit);
        first.read_exact(&mut [0; 100]).unwrap();
        drop(first);
        assert_eq!(store.open(&objects[1], whole, &context).unwrap().read_to_end(&mut Vec::new()).unwrap(), 600);
        let error = store.open(&objects[0], whole, &context).err().unwrap();
        assert_eq!(
            error.to_string(),
            "a: not fetched: 600 bytes would exceed --fetch-limit of 1000 bytes, of which 700 were fetched; lift it"
        );
        assert!(store.open(&objects[0], ByteRange::at(0, 300), &context).is_ok());
        assert_eq!(limit.lift(), 700);
        assert_eq!(store.open(&objects[0], whole, &context).unwrap().read_to_end(&mut Vec::new()).unwrap(), 600);
    }
}
