//! A store that fetches small objects before they are read, many at a time.

use std::collections::HashMap;
use std::io::{self, Cursor, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::handed_over_stream::HandedOverStream;
use super::{BucketLocation, DirectoryListing, ObjectInfo, ObjectStore, RejectedCopy, StorageError, Traffic};
use dupfs_base::sync::{Monitor, Permit, Semaphore, ThreadPool};
use dupfs_base::{ByteRange, ChildToken, RequestContext, Secret};

/// Upper bound of the size of an object that is fetched as a whole. The time of a smaller one is that of a round trip.
const MAX_STAGED_OBJECT: u64 = 256 << 10;
/// Upper bound of the objects that are fetched at a time.
const MAX_CONCURRENT_FETCHES: usize = 16;
/// Upper bound of the bytes that are fetched and not read.
const MAX_STAGED_BYTES: u64 = 8 << 20;
/// Bytes that are read at a time.
const CHUNK: usize = 16 << 10;

/// Fetches announced objects of another store in advance. The first reader of an object gets its bytes.
#[derive(Debug)]
pub struct StagedStore {
    shared: Arc<StagingArea>,
    pool: ThreadPool,
    batches: AtomicU64,
}

#[derive(Debug)]
struct StagingArea {
    inner: Arc<dyn ObjectStore>,
    objects: Arc<Monitor<HashMap<Arc<str>, StagedObject>>>,
    /// One permit for each byte.
    room: Semaphore,
}

/// An object that was announced and not read.
struct StagedObject {
    object: ObjectInfo,
    batch: u64,
    state: StageState,
}

enum StageState {
    Queued,
    Fetching,
    Fetched(Vec<u8>, Permit),
    /// A large object, of which the store has begun to fetch the beginning.
    Opened(Box<dyn Read + Send>),
}

impl std::fmt::Debug for StagedObject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StagedObject").field("object", &self.object).field("batch", &self.batch).finish_non_exhaustive()
    }
}

/// Announced objects. When it is dropped, those that were not read are forgotten and their fetches end.
#[derive(Debug)]
pub struct StagedBatch {
    shared: Arc<StagingArea>,
    batch: u64,
    /// Cancelled with the request that has staged it, or alone.
    cancel: ChildToken,
}

impl Drop for StagedBatch {
    fn drop(&mut self) {
        self.cancel.token().cancel();
        let forgotten = self
            .shared
            .objects
            .update(|objects| objects.extract_if(|_, staged| staged.batch == self.batch).collect::<Vec<_>>());
        drop(forgotten);
    }
}

impl StagedStore {
    /// A store over `inner`.
    pub fn new(inner: Arc<dyn ObjectStore>) -> Self {
        let shared =
            StagingArea { inner, objects: Monitor::new(HashMap::new()), room: Semaphore::new(MAX_STAGED_BYTES) };
        let pool = ThreadPool::with_idle("dupfs-stage", MAX_CONCURRENT_FETCHES, 0);
        Self { shared: Arc::new(shared), pool, batches: AtomicU64::new(0) }
    }

    /// Announces that `objects` will be read as wholes, in about this order. The small ones are fetched now, many at a time,
    /// and of the large ones the first is opened. An object that cannot be fetched is forgotten, so that its reader tries again: what
    /// failed then may work now.
    pub fn stage(&self, objects: impl IntoIterator<Item = ObjectInfo>, context: &RequestContext) -> StagedBatch {
        let batch = self.batches.fetch_add(1, Ordering::Relaxed);
        let cancel = context.cancel_token().child();
        let own = RequestContext::new(context.deadline(), cancel.token().clone());
        let staged = StagedBatch { shared: Arc::clone(&self.shared), batch, cancel };
        let mut has_large = false;
        for object in objects {
            let is_large = object.size > MAX_STAGED_OBJECT;
            if is_large && std::mem::replace(&mut has_large, true) {
                continue;
            }
            let name = Arc::clone(&object.name);
            let is_new = self.shared.objects.update(|objects| {
                let is_new = !objects.contains_key(&name);
                if is_new {
                    let state = StageState::Queued;
                    objects.insert(Arc::clone(&name), StagedObject { object: object.clone(), batch, state });
                }
                is_new
            });
            let fetch = StagedFetch { shared: Arc::clone(&self.shared), object, batch, context: own.clone() };
            // An object that is not fetched in advance is fetched by its reader.
            if is_new && self.pool.submit(Box::new(move || fetch.run(is_large))).is_err() {
                self.shared.objects.update(|objects| objects.remove(&name));
            }
        }
        staged
    }
}

/// The fetch of one object.
struct StagedFetch {
    shared: Arc<StagingArea>,
    object: ObjectInfo,
    batch: u64,
    context: RequestContext,
}

impl StagedFetch {
    fn run(self, is_large: bool) {
        let room = if is_large { 0 } else { self.object.size };
        let Ok(room) = self.shared.room.acquire(room, &self.context) else { return };
        if !self.replace(|state| matches!(state, StageState::Queued), StageState::Fetching) {
            return;
        }
        let whole = ByteRange::at(0, self.object.size);
        let fetched = self.shared.inner.open(&self.object, whole, &self.context).and_then(|mut stream| {
            if is_large {
                return Ok(StageState::Opened(stream));
            }
            let mut bytes = Vec::with_capacity(dupfs_base::clamp_len(self.object.size, usize::MAX));
            let mut chunk = vec![0; CHUNK];
            loop {
                self.context.check().map_err(|stopped| StorageError::stopped(&self.object.name, stopped))?;
                let got = stream.read(&mut chunk).map_err(|error| StorageError::recover(&self.object.name, &error))?;
                if got == 0 {
                    return Ok(StageState::Fetched(bytes, room));
                }
                bytes.extend_from_slice(chunk.get(..got).unwrap_or_default());
            }
        });
        match fetched {
            Ok(state) => {
                self.replace(|state| matches!(state, StageState::Fetching), state);
            }
            // The reader meets the same failure and reports it.
            Err(error) => log::debug!("ahead of its reader: {error}"),
        }
    }

    /// Changes the state from one that `is_before` accepts. Returns false if it is another one, or the object was read or
    /// forgotten.
    fn replace(&self, is_before: impl Fn(&StageState) -> bool, state: StageState) -> bool {
        let before = self.shared.objects.update(|objects| {
            let staged = objects.get_mut(&self.object.name).filter(|staged| staged.batch == self.batch)?;
            is_before(&staged.state).then(|| std::mem::replace(&mut staged.state, state))
        });
        before.is_some()
    }
}

impl Drop for StagedFetch {
    /// Forgets the object if its fetch failed or panicked, so that no reader waits for it.
    fn drop(&mut self) {
        let forgotten = self.shared.objects.update(|objects| {
            let staged = objects.get(&self.object.name).filter(|staged| staged.batch == self.batch)?;
            if matches!(staged.state, StageState::Fetching) { objects.remove(&self.object.name) } else { None }
        });
        drop(forgotten);
    }
}

impl ObjectStore for StagedStore {
    fn url(&self) -> &str {
        self.shared.inner.url()
    }

    fn url_with_secrets(&self) -> Option<Secret> {
        self.shared.inner.url_with_secrets()
    }

    fn list(&self, context: &RequestContext) -> Result<Vec<ObjectInfo>, StorageError> {
        self.shared.inner.list(context)
    }

    fn list_directory(&self, dir: &str, context: &RequestContext) -> Result<DirectoryListing, StorageError> {
        self.shared.inner.list_directory(dir, context)
    }

    fn open(
        &self,
        object: &ObjectInfo,
        range: ByteRange,
        context: &RequestContext,
    ) -> Result<Box<dyn Read + Send>, StorageError> {
        if range.start > 0 || range.end < object.size {
            return self.shared.inner.open(object, range, context);
        }
        let _waiting = context.awaiting(|| Arc::clone(&object.name));
        let taken = self.shared.objects.wait_until(context, |objects| match objects.get(&object.name) {
            Some(staged) if staged.object != *object => Some(None),
            Some(StagedObject { state: StageState::Fetching, .. }) => None,
            _ => Some(objects.remove(&object.name)),
        });
        let taken = taken.map_err(|stopped| StorageError::stopped(&object.name, stopped))?;
        match taken.map(|staged| staged.state) {
            Some(StageState::Fetched(bytes, room)) => {
                Ok(Box::new(StagedBytes { bytes: Cursor::new(bytes), _room: room }))
            }
            Some(StageState::Opened(stream)) => {
                let store = Arc::clone(&self.shared.inner);
                Ok(Box::new(HandedOverStream::new(stream, store, object.clone(), context)))
            }
            Some(StageState::Queued | StageState::Fetching) | None => self.shared.inner.open(object, range, context),
        }
    }

    fn traffic(&self) -> Traffic {
        self.shared.inner.traffic()
    }

    fn reject_copy(&self, object: &ObjectInfo, is_damaged: bool) -> Option<RejectedCopy> {
        self.shared.inner.reject_copy(object, is_damaged)
    }

    fn bucket(&self) -> Option<BucketLocation> {
        self.shared.inner.bucket()
    }
}

/// The bytes of an object that was fetched.
struct StagedBytes {
    bytes: Cursor<Vec<u8>>,
    _room: Permit,
}

impl Read for StagedBytes {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.bytes.read(buf)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{MemoryStore, WrappingStore};
    use super::*;
    use dupfs_base::ErrorKind;

    /// `count` objects in memory, a store whose reads wait until `meet` of them have begun, and the number of reads so far.
    fn store(count: usize, meet: usize) -> (Arc<MemoryStore>, Arc<Monitor<usize>>, StagedStore, Vec<ObjectInfo>) {
        let memory = Arc::new(MemoryStore::new());
        (0..count).for_each(|i| memory.put(&format!("object-{i:02}"), vec![7; 100 + i]));
        let mut objects = memory.list(&RequestContext::unlimited()).unwrap();
        objects.sort_by(|a, b| a.name.cmp(&b.name));
        let begun = Monitor::new(0);
        let counter = Arc::clone(&begun);
        let meeting = WrappingStore::new(Arc::clone(&memory), move |_, stream| {
            counter.update(|begun| *begun += 1);
            counter.wait_until(&RequestContext::unlimited(), |begun| (*begun >= meet).then_some(())).unwrap();
            stream
        });
        (memory, begun, StagedStore::new(Arc::new(meeting)), objects)
    }

    fn read(store: &StagedStore, object: &ObjectInfo) -> Result<Vec<u8>, StorageError> {
        let mut bytes = Vec::new();
        store.open(object, ByteRange::at(0, u64::MAX), &RequestContext::unlimited())?.read_to_end(&mut bytes).unwrap();
        Ok(bytes)
    }

    #[test]
    fn objects_are_fetched_at_the_same_time_and_once() {
        let (_, begun, store, objects) = store(40, MAX_CONCURRENT_FETCHES);
        let staged = store.stage(objects.iter().cloned(), &RequestContext::unlimited());
        for (i, object) in objects.iter().enumerate() {
            assert_eq!(read(&store, object).unwrap(), vec![7; 100 + i]);
        }
        assert_eq!(*begun.lock(), 40);
        assert_eq!(store.shared.room.available(), MAX_STAGED_BYTES);
        assert_eq!(read(&store, &objects[0]).unwrap().len(), 100);
        assert_eq!(*begun.lock(), 41, "a second read fetches again");
        drop(staged);
    }

    #[test]
    fn dropping_a_batch_forgets_its_objects() {
        let (_, _, store, objects) = store(3, 0);
        let staged = store.stage(objects.iter().cloned(), &RequestContext::unlimited());
        assert_eq!(read(&store, &objects[1]).unwrap().len(), 101);
        drop(staged);
        assert_eq!(read(&store, &objects[2]).unwrap().len(), 102);
        assert!(store.shared.objects.lock().is_empty());
        store
            .shared
            .room
            .acquire(MAX_STAGED_BYTES, &RequestContext::with_timeout(std::time::Duration::from_secs(60)))
            .unwrap();
    }

    /// A stream that fails with an error of this kind after so many bytes.
    struct FailingStream(Box<dyn Read + Send>, usize, ErrorKind);

    impl Read for FailingStream {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            if self.1 == 0 {
                return Err(StorageError::new(self.2, "large", "interrupted").into_io());
            }
            let len = buf.len().min(self.1);
            let got = self.0.read(&mut buf[..len])?;
            self.1 -= got;
            Ok(got)
        }
    }

    #[test]
    fn a_stream_that_fails_after_it_was_begun_for_another_request_is_continued_by_its_reader() {
        for kind in [ErrorKind::Cancelled, ErrorKind::Io] {
            continues_a_stream_that_fails(kind);
        }
    }

    fn continues_a_stream_that_fails(kind: ErrorKind) {
        let memory = Arc::new(MemoryStore::new());
        let bytes: Vec<u8> = (0..300_000_u32).map(|i| (i >> 3).to_le_bytes()[0]).collect();
        memory.put("large", bytes.clone());
        let object = memory.list(&RequestContext::unlimited()).unwrap().remove(0);
        let opened = AtomicU64::new(0);
        let ending = WrappingStore::new(Arc::clone(&memory), move |_: &ObjectInfo, stream| -> Box<dyn Read + Send> {
            match opened.fetch_add(1, Ordering::SeqCst) {
                0 => Box::new(FailingStream(stream, 1000, kind)),
                _ => stream,
            }
        });
        let store = StagedStore::new(Arc::new(ending));
        let staged = store.stage([object.clone()], &RequestContext::unlimited());
        let is_opened = |objects: &mut HashMap<Arc<str>, StagedObject>| {
            objects.values().any(|staged| matches!(staged.state, StageState::Opened(_))).then_some(())
        };
        store.shared.objects.wait_until(&RequestContext::unlimited(), is_opened).unwrap();
        assert_eq!(read(&store, &object).unwrap(), bytes);
        drop(staged);
    }

    #[test]
    fn a_failure_is_that_of_the_reader() {
        let (memory, _, store, objects) = store(2, 0);
        memory.remove(&objects[0].name);
        let _staged = store.stage(objects.iter().cloned(), &RequestContext::unlimited());
        assert_eq!(read(&store, &objects[0]).unwrap_err().kind, ErrorKind::Missing);
        assert_eq!(read(&store, &objects[1]).unwrap().len(), 101);
    }

    #[test]
    fn an_object_that_failed_ahead_is_read_when_the_store_works_again() {
        let memory = Arc::new(MemoryStore::new());
        memory.put("small", vec![7; 1000]);
        let object = memory.list(&RequestContext::unlimited()).unwrap().remove(0);
        let opened = AtomicU64::new(0);
        let failing = WrappingStore::new(Arc::clone(&memory), move |_: &ObjectInfo, stream| -> Box<dyn Read + Send> {
            match opened.fetch_add(1, Ordering::SeqCst) {
                0 => Box::new(FailingStream(stream, 500, ErrorKind::Io)),
                _ => stream,
            }
        });
        let store = StagedStore::new(Arc::new(failing));
        let staged = store.stage([object.clone()], &RequestContext::unlimited());
        let is_forgotten = |objects: &mut HashMap<Arc<str>, StagedObject>| objects.is_empty().then_some(());
        store.shared.objects.wait_until(&RequestContext::unlimited(), is_forgotten).unwrap();
        assert_eq!(read(&store, &object).unwrap(), vec![7; 1000]);
        drop(staged);
    }
}
