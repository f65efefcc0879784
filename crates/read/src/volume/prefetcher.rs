//! Prefetch: the volumes that a sequential scan reads next are decoded in the background.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::thread;

use super::block_store::OnBlock;
use super::error::VolumeError;
use super::read_hint::ReadHint;
use super::scan::{ScanTracker, VolumeRange};
use dupfs_base::sync::{Semaphore, lock};
use dupfs_base::{ByteRange, CancelToken, RequestContext};
use dupfs_cache::{BlockIndex, LentMemory};
use dupfs_format::VolumeId;

/// Upper bound of the volumes that are prefetched from the one that is read. A reader of small files waits for each of them
/// and leaves processors idle; a large file needs them all later.
const MAX_DEPTH: u32 = 3;

/// The volumes that a [`Prefetcher`] decodes.
pub(super) trait PrefetchSource: Send + Sync + std::fmt::Debug {
    /// Returns true if volume `id` can be decoded and is not cached.
    fn is_prefetchable(&self, id: VolumeId) -> bool;

    /// Decodes volume `id` into the cache, unless it is cached, and calls `on_block` for each block.
    ///
    /// # Errors
    /// [`VolumeError`].
    fn prefetch(self: Arc<Self>, id: VolumeId, on_block: OnBlock, context: &RequestContext) -> Result<(), VolumeError>;
}

/// Detects sequential scans and prefetches for them.
#[derive(Debug)]
pub(super) struct Prefetcher {
    source: Arc<dyn PrefetchSource>,
    /// The capacity of the cache of the source, in bytes.
    cache_bytes: u64,
    /// The part of that which is lent.
    lent: LentMemory,
    scans: ScanTracker,
    /// A permit for each volume that may be prefetched at the same time.
    slots: Semaphore,
    running: Arc<Mutex<RunningPrefetches>>,
}

/// The jobs whose first volumes are decoded now.
#[derive(Debug, Default)]
struct RunningPrefetches {
    by_id: BTreeMap<u64, RunningPrefetch>,
    next_id: u64,
}

/// A job whose first volume is decoded now.
#[derive(Clone, Debug)]
struct RunningPrefetch {
    job: PrefetchJob,
    /// The volumes that follow; `None` once they were started.
    rest: Arc<Mutex<Option<PrefetchJob>>>,
}

/// Volumes to be prefetched one after the other.
#[derive(Clone, Debug)]
struct PrefetchJob {
    volumes: VolumeRange,
    /// Length of the plaintext of the volume before them, and so about of each of them.
    plain_len: u64,
    /// Stops the volume that is decoded, and those that follow.
    cancel: CancelToken,
}

impl Prefetcher {
    /// A prefetcher for a source with a cache of `cache_bytes`, which lends the memory `lent`.
    pub(super) fn new(source: Arc<dyn PrefetchSource>, cache_bytes: u64, lent: LentMemory) -> Self {
        let slots = thread::available_parallelism().map_or(2, usize::from).max(2);
        Self {
            source,
            cache_bytes,
            lent,
            scans: ScanTracker::default(),
            slots: Semaphore::new(slots as u64),
            running: Arc::default(),
        }
    }

    /// Bytes of the cache without the memory that is lent.
    fn own_bytes(&self) -> u64 {
        self.cache_bytes.saturating_sub(self.lent.taken_from(self.cache_bytes))
    }

    /// Records a read of `range` of volume `id`, whose plaintext has `plain_len` bytes. Starts to prefetch if it is part of a
    /// scan and `may_start` is true.
    pub(super) fn record_read(
        self: &Arc<Self>,
        id: VolumeId,
        range: ByteRange,
        (plain_len, may_start): (u64, bool),
        hint: ReadHint,
    ) {
        let depth = if may_start { depth(self.own_bytes(), plain_len) } else { 0 };
        if let Some(volumes) = self.scans.record(id, range, plain_len, hint, depth)
            && !self.append(volumes)
        {
            self.start(PrefetchJob { volumes, plain_len, cancel: CancelToken::new() });
        }
    }

    /// Appends `volumes` to a running job that ends before them, so that they are decoded in their order. Returns false if there
    /// is none.
    fn append(&self, volumes: VolumeRange) -> bool {
        let running: Vec<RunningPrefetch> = lock(&self.running).by_id.values().cloned().collect();
        running.iter().any(|running| match &mut *lock(&running.rest) {
            Some(rest) if !rest.cancel.is_cancelled() => rest.volumes.append(volumes),
            _ => false,
        })
    }

    /// Decodes volume `id` of `stored_len` bytes on this thread, if it is not cached and the cache has room for some of its length.
    ///
    /// # Errors
    /// [`VolumeError`].
    pub(super) fn fetch_ahead(
        &self,
        id: VolumeId,
        stored_len: u64,
        context: &RequestContext,
    ) -> Result<(), VolumeError> {
        // Its plaintext may be longer.
        if depth(self.own_bytes(), stored_len.saturating_mul(2)) < 2 || !self.source.is_prefetchable(id) {
            return Ok(());
        }
        Arc::clone(&self.source).prefetch(id, Box::new(|_| {}), context)
    }

    /// Returns true if a volume is prefetched now.
    pub(super) fn is_running(&self) -> bool {
        !lock(&self.running).by_id.is_empty()
    }

    /// Records that the reader of `file` is gone. The prefetch for it stops, unless the scan has continued with another file.
    pub(super) fn leave(&self, file: u64) {
        self.scans.leave(file);
        self.stop_if(|volumes| self.scans.is_left(volumes));
    }

    /// Stops all that is prefetched now and that no request waits for. A scan that continues starts it again.
    pub(super) fn stop(&self) {
        self.stop_if(|_| true);
    }

    fn stop_if(&self, is_unwanted: impl Fn(VolumeRange) -> bool) {
        let running: Vec<PrefetchJob> = lock(&self.running).by_id.values().map(|running| running.job.clone()).collect();
        running.iter().filter(|job| is_unwanted(job.volumes)).for_each(|job| job.cancel.cancel());
    }

    /// Counts the first volume of `job` as running until the returned value is dropped.
    fn begin(&self, job: &PrefetchJob, rest: &Arc<Mutex<Option<PrefetchJob>>>) -> BegunPrefetch {
        let mut running = lock(&self.running);
        let id = running.next_id;
        running.next_id = id.wrapping_add(1);
        running.by_id.insert(id, RunningPrefetch { job: job.clone(), rest: Arc::clone(rest) });
        drop(running);
        BegunPrefetch { running: Arc::clone(&self.running), id }
    }

    /// Starts to decode the first volume of `job` in the background. Half way through it the next one is started. If
    /// all were started at once, they would share the link and end together, and the link would be idle until the
    /// next request of the reader.
    fn start(self: &Arc<Self>, mut job: PrefetchJob) {
        let (id, rest) = loop {
            let Some((id, volumes)) = job.volumes.split_first() else { return };
            let rest = PrefetchJob { volumes, ..job.clone() };
            if self.source.is_prefetchable(id) {
                break (id, rest);
            }
            job = rest;
        };
        let volumes = job.volumes;
        let permit = if job.cancel.is_cancelled() { None } else { self.slots.try_acquire(1) };
        let is_started = permit.is_some_and(|permit| {
            let this = Arc::clone(self);
            let (cancel, half) = (rest.cancel.clone(), BlockIndex::containing(rest.plain_len / 2));
            let rest = Arc::new(Mutex::new(Some(rest)));
            let begun = self.begin(&job, &rest);
            let work = move || {
                this.decode(id, (rest, half), &cancel);
                if cancel.is_cancelled() {
                    this.scans.retract(volumes);
                }
                drop(begun);
                drop(permit);
            };
            thread::Builder::new().name("dupfs-prefetch".into()).spawn(work).is_ok()
        });
        if !is_started {
            self.scans.retract(volumes);
        }
    }

    /// Decodes volume `id` and starts `rest` half way through it, until it is cancelled.
    fn decode(
        self: &Arc<Self>,
        id: VolumeId,
        (rest, half): (Arc<Mutex<Option<PrefetchJob>>>, BlockIndex),
        cancel: &CancelToken,
    ) {
        let (this, rest_at_half) = (Arc::clone(self), Arc::clone(&rest));
        let on_block = move |block| {
            if block >= half
                && let Some(rest) = lock(&rest_at_half).take()
            {
                this.start(rest);
            }
        };
        // A reader of the volume meets the same failure and reports it.
        let context = RequestContext::new(None, cancel.clone());
        if let Err(error) = Arc::clone(&self.source).prefetch(id, Box::new(on_block), &context) {
            log::debug!("prefetch: {error}");
        }
        // The volume was shorter than expected, or the pass of another request.
        let rest = lock(&rest).take();
        if let Some(rest) = rest {
            self.start(rest);
        }
    }
}

/// A prefetch that counts as running. Also one that panics ends.
struct BegunPrefetch {
    running: Arc<Mutex<RunningPrefetches>>,
    id: u64,
}

impl Drop for BegunPrefetch {
    fn drop(&mut self) {
        lock(&self.running).by_id.remove(&self.id);
    }
}

/// The number of volumes to prefetch: as many as a cache of `cache_bytes` holds beside the one that is read, whose plaintext
/// has `plain_len` bytes. The other volumes of a set have about the same length. More of them would evict each other before
/// they are read.
fn depth(cache_bytes: u64, plain_len: u64) -> u32 {
    let volumes = cache_bytes / plain_len.max(1);
    (1..=MAX_DEPTH).rev().find(|&depth| u64::from(depth) < volumes).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::time::Duration;

    use super::*;
    use dupfs_format::{SetIndex, VolumeNumber};

    const MIB: u64 = 1 << 20;
    /// The volume that a store does not deliver.
    const STUCK: u32 = 12;

    #[test]
    fn prefetching_is_limited_to_the_size_of_the_cache() {
        let cache = 192 * MIB;
        let depths = [1, 25, 64, 65, 96, 97, 193, 5000].map(|mib: u64| depth(cache, mib * MIB));
        assert_eq!(depths, [3, 3, 2, 1, 1, 0, 0, 0]);
        assert_eq!(depth(cache, 0), 3);
    }

    /// Reports each volume that is requested, and then the block that the test names.
    #[derive(Debug)]
    struct TestSource {
        started: Sender<u32>,
        blocks: Mutex<Receiver<u64>>,
    }

    impl PrefetchSource for TestSource {
        fn is_prefetchable(&self, id: VolumeId) -> bool {
            id.number.0 != 3
        }

        fn prefetch(
            self: Arc<Self>,
            id: VolumeId,
            mut on_block: OnBlock,
            context: &RequestContext,
        ) -> Result<(), VolumeError> {
            self.started.send(id.number.0).unwrap();
            if id.number.0 == STUCK {
                while context.check().is_ok() {
                    thread::yield_now();
                }
                return Ok(());
            }
            let block = lock(&self.blocks).recv().unwrap();
            on_block(BlockIndex::new(block).unwrap());
            Ok(())
        }
    }

    #[test]
    fn the_next_volume_is_started_half_way_through_the_one_before() {
        let ((started, volumes), (decoded, blocks)) = (channel(), channel());
        let source = Arc::new(TestSource { started, blocks: Mutex::new(blocks) });
        let prefetcher = Arc::new(Prefetcher::new(source, 1 << 40, LentMemory::default()));
        let (set, next) = (SetIndex(0), |volumes: &Receiver<u32>| volumes.recv_timeout(Duration::from_secs(20)));
        let hint = ReadHint { file: 1, last_volume: Some(VolumeNumber(9)), read_once: true };
        let id = VolumeId { set, number: VolumeNumber(1) };
        prefetcher.record_read(id, ByteRange::at(0, 8 * MIB), (64 * MIB, true), hint);
        assert_eq!(next(&volumes), Ok(2));
        assert!(volumes.recv_timeout(Duration::from_millis(50)).is_err(), "two volumes are decoded from the start");
        // Volume 3 is cached already.
        decoded.send(128).unwrap();
        assert_eq!(next(&volumes), Ok(4));
        decoded.send(0).unwrap();
        assert!(volumes.recv_timeout(Duration::from_millis(50)).is_err(), "more volumes than requested are decoded");
    }

    #[test]
    fn a_scan_that_was_recorded_before_prefetch_may_start_prefetches_at_once() {
        let ((started, volumes), (decoded, blocks)) = (channel(), channel());
        let source = Arc::new(TestSource { started, blocks: Mutex::new(blocks) });
        let prefetcher = Arc::new(Prefetcher::new(source, 1 << 40, LentMemory::default()));
        let hint = ReadHint { file: 1, last_volume: Some(VolumeNumber(2)), read_once: true };
        let id = VolumeId { set: SetIndex(0), number: VolumeNumber(1) };
        for at in 0..40 {
            prefetcher.record_read(id, ByteRange::at(at * MIB, MIB), (64 * MIB, false), hint);
        }
        assert!(volumes.try_recv().is_err());
        prefetcher.record_read(id, ByteRange::at(40 * MIB, MIB), (64 * MIB, true), hint);
        assert_eq!(volumes.recv_timeout(Duration::from_secs(20)), Ok(2));
        decoded.send(0).unwrap();
    }

    #[test]
    fn volumes_that_a_scan_needs_later_follow_those_that_are_prefetched() {
        let ((started, volumes), (decoded, blocks)) = (channel(), channel());
        let source = Arc::new(TestSource { started, blocks: Mutex::new(blocks) });
        let prefetcher = Arc::new(Prefetcher::new(source, 1 << 40, LentMemory::default()));
        let next = |volumes: &Receiver<u32>| volumes.recv_timeout(Duration::from_secs(20));
        let hint = ReadHint { file: 1, last_volume: Some(VolumeNumber(9)), read_once: true };
        let id = |number| VolumeId { set: SetIndex(0), number: VolumeNumber(number) };
        // From volume 4 on: 5, 6 and 7. The reader then enters volume 5, and 8 becomes due.
        prefetcher.record_read(id(4), ByteRange::at(0, 8 * MIB), (64 * MIB, true), hint);
        assert_eq!(next(&volumes), Ok(5));
        prefetcher.record_read(id(5), ByteRange::at(0, 8 * MIB), (64 * MIB, true), hint);
        assert!(volumes.recv_timeout(Duration::from_millis(50)).is_err(), "volume 8 is started before 6 and 7");
        for expected in [6, 7, 8] {
            decoded.send(128).unwrap();
            assert_eq!(next(&volumes), Ok(expected));
        }
        decoded.send(128).unwrap();
    }

    #[test]
    fn a_prefetch_whose_reader_is_gone_ends() {
        let ((started, volumes), (_decoded, blocks)) = (channel(), channel());
        let source = Arc::new(TestSource { started, blocks: Mutex::new(blocks) });
        let prefetcher = Arc::new(Prefetcher::new(source, 1 << 40, LentMemory::default()));
        let hint = ReadHint { file: 1, last_volume: Some(VolumeNumber(12)), read_once: true };
        let id = VolumeId { set: SetIndex(0), number: VolumeNumber(11) };
        prefetcher.record_read(id, ByteRange::at(0, 8 * MIB), (64 * MIB, true), hint);
        assert_eq!(volumes.recv_timeout(Duration::from_secs(20)), Ok(STUCK));
        let cancelled =
            || lock(&prefetcher.running).by_id.values().next().map(|running| running.job.cancel.is_cancelled());
        prefetcher.leave(2);
        assert_eq!(cancelled(), Some(false), "another file");
        prefetcher.leave(1);
        let start = std::time::Instant::now();
        while cancelled().is_some() {
            assert!(start.elapsed() < Duration::from_secs(20), "it continues");
            thread::yield_now();
        }
    }

    #[test]
    fn a_stopped_prefetch_ends_and_its_scan_can_restart_it() {
        let ((started, volumes), (_decoded, blocks)) = (channel(), channel());
        let source = Arc::new(TestSource { started, blocks: Mutex::new(blocks) });
        let prefetcher = Arc::new(Prefetcher::new(source, 1 << 40, LentMemory::default()));
        let hint = ReadHint { file: 1, last_volume: Some(VolumeNumber(12)), read_once: true };
        let id = VolumeId { set: SetIndex(0), number: VolumeNumber(11) };
        for offset in [0, 8 * MIB] {
            prefetcher.record_read(id, ByteRange::at(offset, 8 * MIB), (64 * MIB, true), hint);
            assert_eq!(volumes.recv_timeout(Duration::from_secs(20)), Ok(STUCK));
            prefetcher.stop();
            // The thread has ended once it has retracted its volumes and returned its permit.
            let all = thread::available_parallelism().map_or(2, usize::from).max(2) as u64;
            while prefetcher.slots.try_acquire(all).is_none() {
                thread::yield_now();
            }
        }
    }
}
