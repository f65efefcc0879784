//! An object's range as one ordered stream, fetched in parts at once.
//!
//! Each part is a task of its own that tries, resumes where it broke off, and puts what it gets into its queue; the
//! reader drains the queues in order. The first part of a stream is always fetched; those ahead of it only as long
//! as there is room in the budget that all streams share. So memory is bounded, a reader that stands still keeps
//! nobody from reading, and no lock is held.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::primitives::ByteStream;
use tokio::runtime::Handle;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::connect::S3Client;
use super::failure::S3Failure;
use super::list::{is_same, tag_of};
use super::retry::RetryTimer;
use super::{PERMIT_BYTES, S3Bucket};
use crate::storage::{ObjectInfo, StorageError};
use dupfs_base::sync::Monitor;
use dupfs_base::{ByteRange, ErrorKind, RequestContext};

/// Bytes of a part: large enough that requests cost little, small enough that a volume comes over several connections.
const PART_BYTES: u64 = 8 << 20;
/// Most parts of one stream under way.
const WINDOW: usize = 8;

/// What comes of a part. `Bytes` of the HTTP layer, without naming its crate.
type BodyChunk = Vec<u8>;

/// The range of an object.
pub(super) struct S3Stream {
    core: Arc<S3Bucket>,
    handle: Handle,
    object: ObjectInfo,
    /// Parts that are under way or done, in order.
    parts: VecDeque<StreamPart>,
    /// Where the next part to be started begins, and where the range ends.
    next: u64,
    end: u64,
    /// What was received and not yet read.
    current: BodyChunk,
    read: usize,
    failed: Option<StorageError>,
    context: RequestContext,
}

/// Received chunks of a part that were not read yet.
#[derive(Debug, Default)]
struct ChunkQueue {
    chunks: VecDeque<Result<BodyChunk, StorageError>>,
    /// Set when the task of the part has ended: no chunk follows.
    closed: bool,
}

/// The end of a [`ChunkQueue`] that the part's task fills. Closes the queue when it is dropped.
struct ChunkSender(Weak<Monitor<ChunkQueue>>);

impl ChunkSender {
    /// Appends a chunk. Returns false if the reader is gone.
    fn send(&self, chunk: Result<BodyChunk, StorageError>) -> bool {
        let queue = self.0.upgrade();
        queue.map(|queue| queue.update(|queue| queue.chunks.push_back(chunk))).is_some()
    }
}

impl Drop for ChunkSender {
    fn drop(&mut self) {
        if let Some(queue) = self.0.upgrade() {
            queue.update(|queue| queue.closed = true);
        }
    }
}

struct StreamPart {
    queue: Arc<Monitor<ChunkQueue>>,
    /// Bytes still to come.
    left: u64,
    task: AbortHandle,
    _room: Option<OwnedSemaphorePermit>,
}

impl Drop for StreamPart {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl S3Stream {
    /// Starts fetching `range`, which lies within the object and is not empty, and waits for its first bytes.
    ///
    /// # Errors
    /// Whatever keeps the first bytes from coming.
    pub(super) fn open(
        core: Arc<S3Bucket>,
        handle: Handle,
        object: ObjectInfo,
        range: ByteRange,
        context: RequestContext,
    ) -> Result<Self, StorageError> {
        let (next, end) = (range.start, range.end);
        let (parts, current) = (VecDeque::new(), Vec::new());
        let mut stream = Self { core, handle, object, parts, next, end, current, read: 0, failed: None, context };
        stream.receive()?;
        Ok(stream)
    }

    /// Starts what parts there is room for.
    fn start_parts(&mut self) {
        while self.next < self.end && self.parts.len() < WINDOW {
            let range = ByteRange { start: self.next, end: self.end.min(self.next.saturating_add(PART_BYTES)) };
            let room = if self.parts.is_empty() {
                None
            } else {
                let permits = u32::try_from(range.len().div_ceil(PERMIT_BYTES)).unwrap_or(u32::MAX);
                match Arc::clone(&self.core.room).try_acquire_many_owned(permits) {
                    Ok(room) => Some(room),
                    Err(_) => return,
                }
            };
            let queue = Monitor::new(ChunkQueue::default());
            let sender = ChunkSender(Arc::downgrade(&queue));
            let (core, object) = (Arc::clone(&self.core), self.object.clone());
            let task = PartTask { core, object, at: range.start, end: range.end, ahead: room.is_some() };
            let task = self.handle.spawn(task.run(sender)).abort_handle();
            self.parts.push_back(StreamPart { queue, left: range.len(), task, _room: room });
            self.next = range.end;
        }
    }

    /// Waits for the next bytes; without any at the end of the range.
    fn receive(&mut self) -> Result<(), StorageError> {
        (self.read, self.current) = (0, Vec::new());
        if self.parts.front().is_some_and(|part| part.left == 0) {
            self.parts.pop_front();
        }
        self.start_parts();
        let Some(part) = self.parts.front_mut() else { return Ok(()) };
        let next = part.queue.wait_until(&self.context, |queue| match queue.chunks.pop_front() {
            Some(chunk) => Some(chunk),
            None if queue.closed => {
                let reason = "the store was closed while it was read";
                Some(Err(StorageError::new(ErrorKind::Io, &self.object.name, reason)))
            }
            None => None,
        });
        let chunk = next.map_err(|stopped| StorageError::stopped(&self.object.name, stopped))??;
        part.left = part.left.saturating_sub(u64::try_from(chunk.len()).unwrap_or(u64::MAX));
        self.current = chunk;
        Ok(())
    }
}

impl Read for S3Stream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        if self.read == self.current.len() && self.failed.is_none() {
            self.failed = self.receive().err();
        }
        if let Some(error) = &self.failed {
            return Err(error.clone().into_io());
        }
        let rest = self.current.get(self.read..).unwrap_or_default();
        let got = rest.len().min(buf.len());
        if let (Some(to), Some(from)) = (buf.get_mut(..got), rest.get(..got)) {
            to.copy_from_slice(from);
        }
        self.read += got;
        Ok(got)
    }
}

/// Fetches `at..end` of an object, over as many attempts as it takes.
struct PartTask {
    core: Arc<S3Bucket>,
    object: ObjectInfo,
    at: u64,
    end: u64,
    /// Whether it was started before somebody waited for it.
    ahead: bool,
}

impl PartTask {
    async fn run(mut self, out: ChunkSender) {
        let mut timer = RetryTimer::new(self.core.timeout);
        while self.at < self.end {
            let session = self.core.session();
            let Err(failure) = self.attempt(&session, &out, &mut timer).await else { continue };
            if let Err(e) = self.core.recover(&session, failure, &mut timer).await {
                // The reader may be gone, then nobody wants to know.
                out.send(Err(e));
                return;
            }
        }
    }

    async fn attempt(
        &mut self,
        session: &S3Client,
        out: &ChunkSender,
        timer: &mut RetryTimer,
    ) -> Result<(), S3Failure> {
        let name = Arc::clone(&self.object.name);
        let core = Arc::clone(&self.core);
        let closed = |_| S3Failure::last(StorageError::new(ErrorKind::Io, &name, "the store is closed"));
        let _ahead = if self.ahead { Some(core.ahead.acquire().await.map_err(closed)?) } else { None };
        let _place = core.connections.acquire().await.map_err(closed)?;
        core.counters.gets.fetch_add(1, Ordering::Relaxed);
        let last = self.end.saturating_sub(1);
        let request = session
            .client
            .get_object()
            .bucket(&core.plan.bucket)
            .key(format!("{}{name}", core.plan.prefix))
            .set_if_match(tag_of(&self.object).map(|tag| format!("\"{tag}\"")))
            .range(format!("bytes={}-{last}", self.at));
        let longest = timer.answer();
        let output = match timeout(longest, request.send()).await {
            Ok(Ok(output)) => output,
            Ok(Err(e)) => return Err(S3Failure::of_get(&self.object, &e)),
            Err(_) => return Err(S3Failure::silent(&name, format!("no answer in {} s", longest.as_secs_f64()))),
        };
        self.check(&output)?;
        self.receive(output.body, out, timer).await
    }

    /// Makes sure that the answer is what was asked for, of the object that was listed.
    fn check(&self, output: &GetObjectOutput) -> Result<(), S3Failure> {
        let broken = |reason: String| S3Failure::broken(&self.object.name, reason);
        // Not every service minds the condition.
        if !is_same(&self.object, output.e_tag(), output.last_modified()) {
            return Err(S3Failure::last(StorageError::replaced(&self.object)));
        }
        let want = self.end.saturating_sub(self.at);
        match output.content_range() {
            Some(range) => {
                let right = format!("bytes {}-{}/", self.at, self.end.saturating_sub(1));
                let Some(total) = range.strip_prefix(&right) else {
                    return Err(broken(format!("asked for {right} and got {range}")));
                };
                if total != "*" && total != self.object.size.to_string() {
                    return Err(S3Failure::last(StorageError::replaced(&self.object)));
                }
            }
            // The whole object in place of a range that is all of it.
            None if self.at == 0 && self.end == self.object.size => {}
            None => return Err(broken("the service ignored the range that was asked for".to_owned())),
        }
        match output.content_length().and_then(|length| u64::try_from(length).ok()) {
            Some(length) if length != want => Err(broken(format!("asked for {want} bytes and got {length}"))),
            _ => Ok(()),
        }
    }

    async fn receive(
        &mut self,
        mut body: ByteStream,
        out: &ChunkSender,
        timer: &mut RetryTimer,
    ) -> Result<(), S3Failure> {
        let name = Arc::clone(&self.object.name);
        let stall = timer.stall();
        while self.at < self.end {
            let bytes = match timeout(stall, body.next()).await {
                Ok(Some(Ok(bytes))) => bytes,
                Ok(Some(Err(e))) => {
                    let (_, root) = super::failure::chain(&e);
                    return Err(S3Failure::silent(&name, format!("the body broke off at byte {}: {root}", self.at)));
                }
                Ok(None) => {
                    return Err(S3Failure::broken(&name, format!("the body was cut short at byte {}", self.at)));
                }
                Err(_) => return Err(S3Failure::silent(&name, format!("the body stalled at byte {}", self.at))),
            };
            let got = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
            if got > self.end.saturating_sub(self.at) {
                return Err(S3Failure::broken(&name, "more bytes came than were asked for"));
            }
            self.core.counters.bytes.fetch_add(got, Ordering::Relaxed);
            timer.progress(got);
            self.at = self.at.saturating_add(got);
            if got > 0 && !out.send(Ok(bytes.into())) {
                // The reader is gone.
                self.at = self.end;
            }
        }
        Ok(())
    }
}
