//! A range of an object as one ordered stream that is fetched in several parts at once.
//!
//! Each part is fetched by its own task; the reader takes the chunks of the parts in order. The first part of a stream
//! is always fetched. Later parts are fetched only as far as the budget allows that all streams share. So memory is
//! bounded, and a reader that pauses does not block others. Dropping the stream aborts its tasks.
//!
//! Chunks that were read are retained within a bound. If the request is interrupted, they are kept together with those that were
//! not read, and a later stream of the object begins with them.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::AbortHandle;

use super::bucket::S3Bucket;
use super::kept_bytes::{KeptBytes, KeptPieces};
use super::part_task::{ChunkQueue, PartTask};
use super::part_window::PART_BYTES;
use crate::storage::{ObjectInfo, StorageError};
use dupfs_base::sync::Monitor;
use dupfs_base::{ByteRange, ErrorKind, RequestContext};

/// A range of an object. The position in it, the current chunk and the parts change together, so they are not split into
/// separate types.
pub(super) struct S3Stream {
    bucket: Arc<S3Bucket>,
    handle: Handle,
    object: ObjectInfo,
    /// Parts that are being fetched or are complete, in order.
    parts: VecDeque<StreamPart>,
    /// The start of the next part to be fetched, and the end of the range.
    next: u64,
    end: u64,
    /// The chunk that is being read, its position, and the number of its bytes that were read.
    current: Vec<u8>,
    at: u64,
    read: usize,
    /// Bytes of an earlier stream that are not to be fetched again.
    kept: KeptPieces,
    retained: RetainedChunks,
    failed: Option<StorageError>,
    context: RequestContext,
}

/// A part of a stream. The task is aborted when it is dropped.
struct StreamPart {
    queue: Arc<Monitor<ChunkQueue>>,
    /// The end of its range, and the number of bytes that were not taken yet.
    end: u64,
    left: u64,
    /// `None` for a part that was kept.
    task: Option<AbortHandle>,
    _readahead: Option<OwnedSemaphorePermit>,
}

impl Drop for StreamPart {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

/// Chunks that were read, as long as there is room for them.
struct RetainedChunks {
    kept: Arc<KeptBytes>,
    pieces: KeptPieces,
    /// Room that is reserved for the bytes of an earlier stream until they are read.
    spare: u64,
}

impl RetainedChunks {
    fn push(&mut self, start: u64, chunk: Vec<u8>) {
        let len = chunk.len() as u64;
        if let Some(spare) = self.spare.checked_sub(len) {
            self.spare = spare;
        } else if !self.kept.reserve(len) {
            return;
        }
        self.pieces.push(start, chunk);
    }

    /// Keeps the chunks for the next stream of `object`.
    fn keep(&mut self, object: &ObjectInfo) {
        self.kept.keep(object, std::mem::take(&mut self.pieces));
    }
}

impl Drop for RetainedChunks {
    fn drop(&mut self) {
        self.kept.release(self.pieces.len().saturating_add(self.spare));
    }
}

impl S3Stream {
    /// Starts to fetch `range`, which lies within the object and is not empty, and waits for its first bytes.
    ///
    /// # Errors
    /// [`StorageError`] if the first bytes do not arrive, or for the end of the request.
    pub(super) fn open(
        bucket: Arc<S3Bucket>,
        handle: Handle,
        object: ObjectInfo,
        range: ByteRange,
        context: RequestContext,
    ) -> Result<Self, StorageError> {
        let (next, end) = (range.start, range.end);
        let (parts, current) = (VecDeque::new(), Vec::new());
        let kept = bucket.kept.take(&object);
        let (pieces, spare) = (KeptPieces::default(), kept.len());
        let retained = RetainedChunks { kept: Arc::clone(&bucket.kept), pieces, spare };
        let (at, read, failed) = (next, 0, None);
        let mut stream =
            Self { bucket, handle, object, parts, next, end, current, at, read, kept, retained, failed, context };
        stream.receive()?;
        Ok(stream)
    }

    /// Starts the next parts, as far as the budget allows.
    fn start_parts(&mut self) {
        let window = self.bucket.window.parts();
        let is_running = |part: &&StreamPart| part.task.as_ref().is_some_and(|task| !task.is_finished());
        // Those that have arrived do not keep the link busy; a reader that is late for a moment would leave it idle.
        while self.next < self.end
            && self.parts.len() < 2 * window
            && self.parts.iter().filter(is_running).count() < window
        {
            if let Some(piece) = self.kept.take_at(self.next, self.end) {
                let queue = Monitor::new(ChunkQueue::complete(piece.chunks));
                let (end, left) = (piece.range.end, piece.range.len());
                self.parts.push_back(StreamPart { queue, end, left, task: None, _readahead: None });
                self.next = end;
                continue;
            }
            let end = self.end.min(self.next.saturating_add(PART_BYTES));
            let range = ByteRange { start: self.next, end: end.min(self.kept.next_start(self.next).unwrap_or(end)) };
            let readahead = if self.parts.is_empty() {
                None
            } else {
                let Some(permit) = self.bucket.try_readahead(range.len()) else { return };
                Some(permit)
            };
            let queue = Monitor::new(ChunkQueue::default());
            let task = PartTask::new(Arc::clone(&self.bucket), self.object.clone(), range, readahead.is_some());
            let task = self.handle.spawn(task.run(ChunkQueue::sender(&queue))).abort_handle();
            let (end, left, task) = (range.end, range.len(), Some(task));
            self.parts.push_back(StreamPart { queue, end, left, task, _readahead: readahead });
            self.next = range.end;
        }
    }

    /// Waits for the next chunk; at the end of the range the current chunk is empty.
    fn receive(&mut self) -> Result<(), StorageError> {
        self.read = 0;
        self.retained.push(self.at, std::mem::take(&mut self.current));
        if self.parts.front().is_some_and(|part| part.left == 0) {
            self.parts.pop_front();
        }
        self.start_parts();
        let Some(part) = self.parts.front_mut() else { return Ok(()) };
        let next = part.queue.wait_until(&self.context, |queue| match queue.pop() {
            Some(chunk) => Some(chunk),
            None if queue.is_closed() => {
                let reason = "the store was closed while it was read";
                Some(Err(StorageError::new(ErrorKind::Io, &self.object.name, reason)))
            }
            None => None,
        });
        let chunk = next.map_err(|stopped| StorageError::stopped(&self.object.name, stopped))??;
        self.at = part.end.saturating_sub(part.left);
        part.left = part.left.saturating_sub(chunk.len() as u64);
        self.current = chunk;
        Ok(())
    }

    /// Ends the tasks. The received bytes are kept if the request was interrupted; after any other failure they may be
    /// its cause.
    fn end(&mut self) {
        if self.context.cancel_token().is_cancelled() {
            self.retained.push(self.at, std::mem::take(&mut self.current));
            for part in &self.parts {
                let mut at = part.end.saturating_sub(part.left);
                while let Some(Ok(chunk)) = part.queue.update(ChunkQueue::pop) {
                    let len = chunk.len() as u64;
                    self.retained.push(at, chunk);
                    at = at.saturating_add(len);
                }
            }
            while let Some(piece) = self.kept.pop() {
                let mut at = piece.range.start;
                for chunk in piece.chunks {
                    let len = chunk.len() as u64;
                    self.retained.push(at, chunk);
                    at = at.saturating_add(len);
                }
            }
            self.retained.keep(&self.object);
        }
        self.parts.clear();
    }
}

impl Drop for S3Stream {
    fn drop(&mut self) {
        self.end();
    }
}

impl Read for S3Stream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        if self.read == self.current.len() && self.failed.is_none() {
            self.failed = self.receive().err();
            if self.failed.is_some() {
                // The stream may outlive the request: its tasks must not.
                self.end();
            }
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
