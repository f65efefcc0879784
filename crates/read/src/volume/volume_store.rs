//! Volumes as verified plaintext and member tables: from the caches, or else by one pass that all requests share.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::answered_passes::AnsweredPasses;
use super::block_span::BlockSpan;
use super::block_store::{BlockStore, OnBlock};
use super::decode_volume::{TableLimits, decode_volume};
use super::error::VolumeError;
use super::fetch_log;
use super::live_collection::LiveCollection;
use super::manifest_store::ManifestStore;
use super::member_table::MemberTable;
use super::object_reader::{DecodeMode, DecodeThreads, FetchGate, ObjectReader};
use super::pass_join::{DecodedVolume, JoinedPass, PassKey, RunningPasses};
use super::pass_wait::PassWait;
use super::prefetcher::PrefetchSource;
use super::repository_index::RepositoryIndex;
use super::running_volume::RunningVolume;
use super::volume_progress::{EndOnDrop, VolumeInterest, VolumeProgress};
use dupfs_base::{ByteRange, RequestContext};
use dupfs_cache::{BlockIndex, CacheStats, SharedLru};
use dupfs_format::name::NameSuffix;
use dupfs_format::{ArchivePath, VolumeId};

/// Number of passes of other requests that a request joins before it starts one for its own range.
const MAX_JOINS: usize = 2;

/// Bytes that are not wanted: a pass for the member table alone, or a prefetch.
const NO_BYTES: ByteRange = ByteRange { start: 0, end: 0 };

/// The parts of a repository that a [`VolumeStore`] works with.
#[derive(Debug)]
pub(super) struct VolumeSources {
    pub(super) objects: ObjectReader,
    pub(super) collection: Arc<LiveCollection>,
    pub(super) manifests: Arc<ManifestStore>,
    pub(super) index: Arc<RepositoryIndex>,
    pub(super) table_limits: TableLimits,
}

/// The volumes of a repository.
#[derive(Debug)]
pub(super) struct VolumeStore {
    sources: VolumeSources,
    blocks: Arc<BlockStore>,
    tables: SharedLru<VolumeId, Arc<MemberTable>>,
    table_limits: TableLimits,
    passes: RunningPasses,
    running_passes: AtomicUsize,
    /// The time after which a pass is slow; `None` if nothing is served before a volume is verified.
    slow_after: Option<Duration>,
    answered: AnsweredPasses,
}

impl VolumeStore {
    /// The volumes of `sources`, with an empty cache of tables, and their blocks in `blocks`. Passes that take longer than
    /// `slow_after` may answer requests that prove the content themselves.
    pub(super) fn new(
        sources: VolumeSources,
        blocks: Arc<BlockStore>,
        member_table_bytes: u64,
        slow_after: Option<Duration>,
    ) -> Self {
        let table_limits = sources.table_limits.clone();
        Self {
            table_limits,
            sources,
            blocks,
            tables: SharedLru::new(member_table_bytes),
            passes: RunningPasses::new(),
            running_passes: AtomicUsize::new(0),
            slow_after,
            answered: AnsweredPasses::default(),
        }
    }

    /// Returns true if slow passes may answer requests.
    pub(super) fn serves_slow_passes(&self) -> bool {
        self.slow_after.is_some()
    }

    /// Records that a part of the file at `path`, with the number `file` in read hints, was served from `running`: its pass
    /// continues.
    pub(super) fn record_answer(&self, running: &RunningVolume, file: u64, path: &ArchivePath) {
        running.record_answer(file, path);
        let progress = running.joined.shared();
        self.answered.add(progress, || running.joined.clone());
        if progress.is_ended() {
            self.answered.remove(progress);
        }
    }

    /// Records that the reader of `file` is gone: passes that continue for it are suspended.
    pub(super) fn leave(&self, file: u64) {
        self.answered.leave(file);
    }

    /// Ends the passes that no request waits for.
    pub(super) fn end_answered_passes(&self) {
        self.answered.clear();
    }

    /// The member table of volume `id`. The volume is decoded if neither memory nor the index has it.
    ///
    /// # Errors
    /// [`VolumeError`] if the volume is missing, damaged or cannot be decrypted, or for the end of the request or of `wait`.
    pub(super) fn members(
        self: &Arc<Self>,
        id: VolumeId,
        wait: PassWait<'_>,
        context: &RequestContext,
    ) -> Result<Arc<MemberTable>, VolumeError> {
        if let Some(table) = self.cached_members(id) {
            return Ok(table);
        }
        context.check_may_block()?;
        let (object, expected) = self.sources.manifests.volume_object(id, context)?;
        if let Some(table) = self.sources.index.load_members(&object, expected.as_ref()) {
            let table = Arc::new(table);
            self.tables.insert(&id, &table, table.weight());
            return Ok(table);
        }
        self.decode_for_reader(id, NO_BYTES, wait, context).map(|decoded| decoded.table)
    }

    /// Returns true if the member table of volume `id` is in memory or in the index.
    ///
    /// # Errors
    /// [`VolumeError`] if the store or the manifest does not have the volume, or the manifest cannot be read.
    pub(super) fn has_members(self: &Arc<Self>, id: VolumeId, context: &RequestContext) -> Result<bool, VolumeError> {
        if self.cached_members(id).is_some() {
            return Ok(true);
        }
        let (object, expected) = self.sources.manifests.volume_object(id, context)?;
        Ok(self.sources.index.has_members(&object, expected.as_ref()))
    }

    /// The member table of volume `id`, if it is in memory.
    pub(super) fn cached_members(&self, id: VolumeId) -> Option<Arc<MemberTable>> {
        self.tables.get(&id)
    }

    /// Returns true if the member table of any volume is in memory.
    pub(super) fn has_cached_members(&self) -> bool {
        !self.tables.is_empty()
    }

    /// Returns true if volume `id` was decoded since the repository was opened.
    pub(super) fn was_decoded(&self, id: VolumeId) -> bool {
        self.blocks.was_verified(id)
    }

    /// Appends the bytes `range` of the plaintext of volume `id` to `out`.
    ///
    /// # Errors
    /// [`VolumeError`] if the volume cannot be read or ends before the range does, or for the end of the request or of `wait`;
    /// then `out` is as it was.
    pub(super) fn read(
        self: &Arc<Self>,
        id: VolumeId,
        range: ByteRange,
        out: &mut Vec<u8>,
        (wait, context): (PassWait<'_>, &RequestContext),
    ) -> Result<(), VolumeError> {
        let is_done = |blocks: Option<BlockSpan>, out: &mut Vec<u8>| blocks.is_some_and(|b| b.append_to(range, out));
        for _ in 0..MAX_JOINS {
            if is_done(self.cached_blocks(id, range, context), out) {
                return Ok(());
            }
            let decoded = self.decode_for_reader(id, range, wait, context)?;
            self.check_range(id, range, &decoded.table)?;
            if is_done(Some(decoded.wanted), out) {
                return Ok(());
            }
        }
        // The cache is too small for the present requests: the pass serves this range alone.
        let key = PassKey { id, only: Some(BlockIndex::range(range)) };
        let decoded = self.decode(key, range, None, (PassWait::ToItsEnd, context))?;
        if is_done(Some(decoded.wanted), out) { Ok(()) } else { Err(self.range_error(id, range, &decoded.table)) }
    }

    /// Marks `blocks` of volume `id` as first to be evicted.
    pub(super) fn demote(&self, id: VolumeId, blocks: Range<BlockIndex>) {
        self.blocks.demote(id, blocks);
    }

    /// Statistics of the block cache.
    pub(super) fn cache_stats(&self) -> CacheStats {
        self.blocks.stats()
    }

    /// The blocks of `range`, if they are available without a pass. A request that may not block is answered from
    /// memory: even the disk of the cache may be slow.
    fn cached_blocks(&self, id: VolumeId, range: ByteRange, context: &RequestContext) -> Option<BlockSpan> {
        if context.may_block() { self.blocks.get(id, range) } else { self.blocks.get_in_memory(id, range) }
    }

    /// Returns true if the beginning of volume `id` can be read without a pass.
    fn is_cached(&self, id: VolumeId) -> bool {
        self.blocks.contains(id, BlockIndex::FIRST)
    }

    fn check_range(&self, id: VolumeId, range: ByteRange, table: &MemberTable) -> Result<(), VolumeError> {
        if range.end <= table.plain_len() { Ok(()) } else { Err(self.range_error(id, range, table)) }
    }

    fn range_error(&self, id: VolumeId, range: ByteRange, table: &MemberTable) -> VolumeError {
        let object = self.sources.collection.volume_name(id);
        VolumeError::Range { object, start: range.start, end: range.end, len: table.plain_len() }
    }

    /// Decodes volume `id` for a request that waits. If it joined a prefetch that failed, it makes its own attempt.
    fn decode_for_reader(
        self: &Arc<Self>,
        id: VolumeId,
        wanted: ByteRange,
        wait: PassWait<'_>,
        context: &RequestContext,
    ) -> Result<DecodedVolume, VolumeError> {
        let decode = || self.decode(PassKey { id, only: None }, wanted, None, (wait, context));
        for _ in 0..MAX_JOINS {
            match decode() {
                Err(VolumeError::Prefetch(_)) => {}
                decoded => return decoded,
            }
        }
        decode()
    }

    /// Decodes a volume once for all requests with this key. `on_block` marks a prefetch.
    fn decode(
        self: &Arc<Self>,
        key: PassKey,
        wanted: ByteRange,
        on_block: Option<OnBlock>,
        (wait, context): (PassWait<'_>, &RequestContext),
    ) -> Result<DecodedVolume, VolumeError> {
        let (this, id) = (Arc::clone(self), key.id);
        let name = || self.sources.collection.volume_name(id);
        let _waiting = context.awaiting(name);
        let is_prefetch = on_block.is_some();
        let joined =
            self.passes.begin(key, "dupfs-volume", context, VolumeProgress::new(), move |context, progress| {
                let end = EndOnDrop(Arc::clone(progress));
                let decoded = this.run_pass(id, wanted, on_block, (progress, context));
                // In this order: an answer that is recorded now sees that the pass has ended, or is removed.
                drop(end);
                this.answered.remove(progress);
                decoded.map_err(|e| if is_prefetch { VolumeError::Prefetch(Arc::new(e)) } else { e })
            })?;
        let interest = joined.shared().enter();
        let decoded = match (wait, self.slow_after) {
            (PassWait::UntilSlow(slow), Some(slow_after)) => {
                match joined.wait_until(joined.shared().begun() + slow_after, context) {
                    Ok(Some(decoded)) => Ok(decoded),
                    Ok(None) => {
                        let running = self.running_volume(id, joined, interest);
                        let object = Arc::clone(&running.object);
                        slow.set(running);
                        return Err(VolumeError::Slow { object });
                    }
                    Err(error) => Err(error),
                }
            }
            (PassWait::UntilSlow(_) | PassWait::ToItsEnd, _) => joined.wait(context),
        };
        decoded.map_err(|error| error.while_waiting_for(&name()))
    }

    /// Volume `id` during the pass that is joined.
    fn running_volume(&self, id: VolumeId, joined: JoinedPass, interest: VolumeInterest) -> RunningVolume {
        let object = self.sources.collection.volume_name(id);
        let set = self.sources.collection.set(id.set).ok();
        let stored = set.as_ref().and_then(|set| set.volumes.get(&id.number));
        let stored_len = stored.map_or(0, |object| object.size);
        // Anyone who can write to the store chooses the name of the volume, but cannot make an encrypted manifest that opens.
        let is_encrypted =
            NameSuffix::of(&object).is_encrypted() || set.as_ref().is_some_and(|set| set.has_encrypted_manifest());
        RunningVolume {
            id,
            is_encrypted,
            object,
            stored_len,
            blocks: Arc::clone(&self.blocks),
            joined,
            _interest: interest,
        }
    }

    fn run_pass(
        self: &Arc<Self>,
        id: VolumeId,
        wanted: ByteRange,
        on_block: Option<OnBlock>,
        (progress, context): (&Arc<VolumeProgress>, &RequestContext),
    ) -> Result<DecodedVolume, VolumeError> {
        let VolumeSources { objects, manifests, index, .. } = &self.sources;
        let (object, expected) = manifests.volume_object(id, context)?;
        let why = if on_block.is_some() { "before a sequential reader needs it" } else { "to read or measure a file" };
        fetch_log::note(&object, why);
        // Several passes at once, or a pass beside a busy reader, use all cores. A single pass that a reader waits for gets
        // two threads.
        let running = RunningDecode::begin(&self.running_passes);
        let is_alone = on_block.is_none() && running.others <= self.answered.suspended();
        let threads = if is_alone { DecodeThreads::TwoIfLarge } else { DecodeThreads::One };
        let limits = (&self.table_limits, context);
        let (mut on_block, mut progress) = (on_block, Some(progress));
        let decoded = objects.each_copy(&object, &mut |copy| {
            // Requests see the progress of the first copy only: another one is served once it is verified.
            let progress = progress.take();
            let mut blocks = self.blocks.begin_pass(id, wanted, on_block.take(), progress.cloned());
            let gate = progress.map(|progress| -> Arc<dyn FetchGate> {
                progress.start(blocks.pass(), object.size);
                Arc::<VolumeProgress>::clone(progress)
            });
            let mode = DecodeMode { threads, gate: gate.filter(|_| self.serves_slow_passes()) };
            match decode_volume(objects, copy, expected.as_ref(), mode, limits, &mut blocks) {
                Ok(table) => Ok((Arc::new(table), blocks.publish())),
                Err(error) => {
                    blocks.discard();
                    Err(error)
                }
            }
        });
        drop(running);
        let (table, wanted) = decoded?;
        self.tables.insert(&id, &table, table.weight());
        // Another run of `verify --resume` reports a damaged copy again.
        if !objects.has_damaged_copy(&object) {
            index.store_members(id.set, &object, expected.as_ref(), &table);
        }
        Ok(DecodedVolume { table, wanted })
    }
}

impl PrefetchSource for VolumeStore {
    fn is_prefetchable(&self, id: VolumeId) -> bool {
        let listed = self.sources.manifests.cached(id.set).is_some_and(|manifest| manifest.volume(id.number).is_some());
        let set = self.sources.collection.set(id.set).ok();
        let readable =
            set.is_some_and(|set| set.volumes.get(&id.number).is_some_and(|object| object.archived.is_none()));
        listed && readable && !self.is_cached(id)
    }

    fn prefetch(self: Arc<Self>, id: VolumeId, on_block: OnBlock, context: &RequestContext) -> Result<(), VolumeError> {
        if self.is_cached(id) {
            return Ok(());
        }
        let key = PassKey { id, only: None };
        self.decode(key, NO_BYTES, Some(on_block), (PassWait::ToItsEnd, context)).map(drop)
    }
}

/// A pass that is counted while it runs.
struct RunningDecode<'a> {
    counter: &'a AtomicUsize,
    /// The number of passes that ran when it began.
    others: usize,
}

impl<'a> RunningDecode<'a> {
    fn begin(counter: &'a AtomicUsize) -> Self {
        Self { counter, others: counter.fetch_add(1, Ordering::Relaxed) }
    }
}

impl Drop for RunningDecode<'_> {
    fn drop(&mut self) {
        self.counter.fetch_sub(1, Ordering::Relaxed);
    }
}
