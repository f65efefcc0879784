//! The task that fetches one part of an object, and the queue through which the reader gets its chunks.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::primitives::ByteStream;
use tokio::time::timeout;

use super::bucket::S3Bucket;
use super::client_config::S3Client;
use super::failure::{S3Failure, chain};
use super::object_version::{is_same, tag_of};
use super::retry_timer::RetryTimer;
use crate::storage::{ObjectInfo, StorageError};
use dupfs_base::ByteRange;
use dupfs_base::sync::Monitor;

/// The received chunks of a part that were not read yet.
#[derive(Debug, Default)]
pub(super) struct ChunkQueue {
    chunks: VecDeque<Result<Vec<u8>, StorageError>>,
    /// Set when the task of the part has ended: no chunk follows.
    closed: bool,
}

impl ChunkQueue {
    /// The queue of a part whose `chunks` are there.
    pub(super) fn complete(chunks: Vec<Vec<u8>>) -> Self {
        Self { chunks: chunks.into_iter().map(Ok).collect(), closed: true }
    }

    /// The end of `queue` that the task fills.
    pub(super) fn sender(queue: &Arc<Monitor<Self>>) -> ChunkSender {
        ChunkSender(Arc::downgrade(queue))
    }

    /// Takes the oldest chunk, or the error that ended the part.
    pub(super) fn pop(&mut self) -> Option<Result<Vec<u8>, StorageError>> {
        self.chunks.pop_front()
    }

    /// Returns true if no chunk will be added.
    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }
}

/// The end of a [`ChunkQueue`] that the part's task fills. Closes the queue when it is dropped.
pub(super) struct ChunkSender(Weak<Monitor<ChunkQueue>>);

impl ChunkSender {
    /// Appends a chunk. Returns false if the reader was dropped.
    fn send(&self, chunk: Result<Vec<u8>, StorageError>) -> bool {
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

/// Fetches `at..end` of an object in one attempt or several. An attempt resumes where the one before broke off.
pub(super) struct PartTask {
    bucket: Arc<S3Bucket>,
    object: ObjectInfo,
    at: u64,
    end: u64,
    /// True if the part was started before a reader waited for it.
    is_readahead: bool,
}

impl PartTask {
    /// A task for `range` of `object`.
    pub(super) fn new(bucket: Arc<S3Bucket>, object: ObjectInfo, range: ByteRange, is_readahead: bool) -> Self {
        Self { bucket, object, at: range.start, end: range.end, is_readahead }
    }

    /// Fetches the part into `out`. The last item is an error if that fails.
    pub(super) async fn run(mut self, out: ChunkSender) {
        let mut timer = RetryTimer::of_read(self.bucket.timeout, self.bucket.read_timeout.clone());
        while self.at < self.end {
            let client = self.bucket.client();
            let Err(failure) = self.attempt(&client, &out, &mut timer).await else { continue };
            if let Err(e) = self.bucket.recover(&client, failure, &mut timer).await {
                // The reader may have been dropped.
                out.send(Err(e));
                return;
            }
        }
    }

    async fn attempt(&mut self, client: &S3Client, out: &ChunkSender, timer: &mut RetryTimer) -> Result<(), S3Failure> {
        let name = Arc::clone(&self.object.name);
        let bucket = Arc::clone(&self.bucket);
        let _permits = bucket.connection(&name, self.is_readahead).await?;
        let (part, begin) = (bucket.window.begin(), self.at);
        bucket.counters.gets.fetch_add(1, Ordering::Relaxed);
        let last = self.end.saturating_sub(1);
        let request = client
            .client
            .get_object()
            .bucket(bucket.config.bucket())
            .key(format!("{}{name}", bucket.config.prefix()))
            .set_if_match(tag_of(&self.object).map(|tag| format!("\"{tag}\"")))
            .set_request_payer(bucket.payer.clone())
            .range(format!("bytes={}-{last}", self.at));
        let limit = timer.answer_timeout();
        let output = match timeout(limit, request.send()).await {
            Ok(Ok(output)) => output,
            Ok(Err(e)) => return Err(S3Failure::of_get(&self.object, &e)),
            Err(_) => return Err(S3Failure::silent(&name, format!("no answer in {} s", limit.as_secs_f64()))),
        };
        part.answered();
        self.check(&output)?;
        self.receive(output.body, out, timer).await?;
        part.complete(self.at.saturating_sub(begin));
        Ok(())
    }

    /// Checks that the answer has the requested range of the object that was listed.
    fn check(&self, output: &GetObjectOutput) -> Result<(), S3Failure> {
        let broken = |reason: String| S3Failure::broken(&self.object.name, reason);
        // Some services ignore the condition of the request.
        if !is_same(&self.object, output.e_tag(), output.last_modified()) {
            return Err(S3Failure::last(StorageError::replaced(&self.object)));
        }
        let want = self.end.saturating_sub(self.at);
        match output.content_range() {
            Some(range) => {
                let expected = format!("bytes {}-{}/", self.at, self.end.saturating_sub(1));
                let Some(total) = range.strip_prefix(&expected) else {
                    return Err(broken(format!("requested {expected}, received {range}")));
                };
                if total != "*" && total != self.object.size.to_string() {
                    return Err(S3Failure::last(StorageError::replaced(&self.object)));
                }
            }
            // The answer to a request for the whole object may omit the range.
            None if self.at == 0 && self.end == self.object.size => {}
            None => return Err(broken("the service ignored the requested range".to_owned())),
        }
        match output.content_length().and_then(|length| u64::try_from(length).ok()) {
            Some(length) if length != want => Err(broken(format!("requested {want} bytes, received {length}"))),
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
        let limit = timer.stall_timeout();
        while self.at < self.end {
            let bytes = match timeout(limit, body.next()).await {
                Ok(Some(Ok(bytes))) => bytes,
                Ok(Some(Err(e))) => {
                    let (_, root) = chain(&e);
                    return Err(S3Failure::silent(&name, format!("the body broke off at byte {}: {root}", self.at)));
                }
                Ok(None) => {
                    return Err(S3Failure::broken(&name, format!("the body was truncated at byte {}", self.at)));
                }
                Err(_) => return Err(S3Failure::silent(&name, format!("the body stalled at byte {}", self.at))),
            };
            let got = bytes.len() as u64;
            if got > self.end.saturating_sub(self.at) {
                return Err(S3Failure::broken(&name, "received more bytes than requested"));
            }
            self.bucket.counters.bytes.fetch_add(got, Ordering::Relaxed);
            timer.progress(got);
            self.at = self.at.saturating_add(got);
            if got > 0 && !out.send(Ok(bytes.into())) {
                // The reader was dropped.
                self.at = self.end;
            }
        }
        Ok(())
    }
}
