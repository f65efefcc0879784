//! Worker threads for deferred requests, in groups by cost: lookups do not wait for sizes, nor sizes for reads, nor
//! any of them for requests that need unpacking.

use dupfs_base::sync::{Job, ThreadPool};

/// Upper bound of the work of a deferred request, which selects the workers that serve it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RequestCost {
    /// Signature archives at most: lookup, readdir, readlink, extended attributes.
    Index,
    /// One volume at most: getattr and open, which find exact sizes.
    Size,
    /// Any number of volumes: read.
    Content,
    /// Passes over archives and decompression: names, sizes and content in `unpacked/`.
    Unpack,
}

/// Upper bound of the threads for requests that have to unpack something. They spend their time waiting: for passes, and for
/// their turn on a processor, of which each stored file gets the same share. So there are as many as programs may wait at once,
/// and a cheap request is not queued after expensive ones.
const MAX_UNPACK_THREADS: usize = 256;
/// Upper bound of the idle threads of these.
const IDLE_UNPACK_THREADS: usize = 8;

/// A bounded number of threads for each [`RequestCost`], started on demand. The kernel bounds how many jobs there are: one
/// for each waiting thread, plus its readahead.
#[derive(Debug)]
pub(super) struct WorkerPool {
    index: ThreadPool,
    size: ThreadPool,
    content: ThreadPool,
    unpack: ThreadPool,
}

impl WorkerPool {
    /// A pool of at most 8, 8, 16 and [`MAX_UNPACK_THREADS`] threads.
    pub(super) fn new() -> Self {
        Self::with_threads(8, 8, 16, MAX_UNPACK_THREADS)
    }

    fn with_threads(index: usize, size: usize, content: usize, unpack: usize) -> Self {
        Self {
            index: ThreadPool::new("dupfs-index", index),
            size: ThreadPool::new("dupfs-size", size),
            content: ThreadPool::new("dupfs-content", content),
            unpack: ThreadPool::with_idle("dupfs-unpacked", unpack, IDLE_UNPACK_THREADS),
        }
    }

    /// Queues `job` for the workers of `cost`. A panic of the job fails its request only: the deferred reply answers when it
    /// is dropped.
    ///
    /// # Errors
    /// When there is no thread for `cost` and none can be started; the job is dropped.
    pub(super) fn submit(&self, cost: RequestCost, job: Job) -> std::io::Result<()> {
        let threads = match cost {
            RequestCost::Index => &self.index,
            RequestCost::Size => &self.size,
            RequestCost::Content => &self.content,
            RequestCost::Unpack => &self.unpack,
        };
        threads.submit(job)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use super::*;

    const SOON: Duration = Duration::from_secs(5);

    #[test]
    fn lookups_and_sizes_are_served_while_every_other_worker_waits() {
        let pool = WorkerPool::with_threads(1, 1, 2, 2);
        let (release, released) = channel::<()>();
        let released = Arc::new(Mutex::new(released));
        for cost in [RequestCost::Content, RequestCost::Unpack].repeat(8) {
            let released = Arc::clone(&released);
            pool.submit(cost, Box::new(move || assert!(released.lock().unwrap().recv().is_err()))).unwrap();
        }
        let (tx, rx) = channel();
        for cost in [RequestCost::Index, RequestCost::Size] {
            let tx = tx.clone();
            pool.submit(cost, Box::new(move || tx.send(()).unwrap())).unwrap();
            rx.recv_timeout(SOON).unwrap();
        }
        drop(release);
    }
}
