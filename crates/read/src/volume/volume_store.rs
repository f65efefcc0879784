//! Volumes as verified plaintext and member tables: from the caches, or else by one pass that all requests share.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::block_span::BlockSpan;
use super::block_store::{BlockStore, OnBlock};
use super::decode_volume::{TableLimits, decode_volume};
use super::error::VolumeError;
use super::fetch_log;
use super::live_collection::LiveCollection;
use super::manifest_store::ManifestStore;
use super::member_table::MemberTable;
use super::object_reader::{DecodeThreads, ObjectReader};
use super::prefetcher::PrefetchSource;
use super::repository_index::RepositoryIndex;
use dupfs_base::sync::SingleFlight;
use dupfs_base::{ByteRange, RequestContext};
use dupfs_cache::{BlockIndex, CacheConfig, CacheStats, LentMemory, SharedLru};
use dupfs_format::VolumeId;

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
    blocks: BlockStore,
    tables: SharedLru<VolumeId, Arc<MemberTable>>,
    table_limits: TableLimits,
    passes: SingleFlight<PassKey, DecodedVolume, VolumeError>,
    running_passes: AtomicUsize,
}

/// Requests for the same key share a pass.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct PassKey {
    id: VolumeId,
    /// The only blocks that are of use, or `None` if requests for any blocks may share the pass.
    only: Option<Range<BlockIndex>>,
}

/// The outcome of a pass.
#[derive(Clone, Debug)]
struct DecodedVolume {
    table: Arc<MemberTable>,
    /// The blocks for the request that started the pass.
    wanted: BlockSpan,
}

impl VolumeStore {
    /// The volumes of `sources`, with empty caches. That of blocks lends memory.
    pub(super) fn new(
        sources: VolumeSources,
        (cache, lent): (CacheConfig, LentMemory),
        member_table_bytes: u64,
    ) -> Self {
        let table_limits = sources.table_limits.clone();
        Self {
            table_limits,
            sources,
            blocks: BlockStore::new(cache, lent),
            tables: SharedLru::new(member_table_bytes),
            passes: SingleFlight::new(),
            running_passes: AtomicUsize::new(0),
        }
    }

    /// The member table of volume `id`. The volume is decoded if neither memory nor the index has it.
    ///
    /// # Errors
    /// [`VolumeError`] if the volume is missing, damaged or cannot be decrypted, or for the end of the request.
    pub(super) fn members(
        self: &Arc<Self>,
        id: VolumeId,
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
        self.decode_for_reader(id, NO_BYTES, context).map(|decoded| decoded.table)
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
    /// [`VolumeError`] if the volume cannot be read or ends before the range does, or for the end of the request; then `out`
    /// is as it was.
    pub(super) fn read(
        self: &Arc<Self>,
        id: VolumeId,
        range: ByteRange,
        out: &mut Vec<u8>,
        context: &RequestContext,
    ) -> Result<(), VolumeError> {
        let is_done = |blocks: Option<BlockSpan>, out: &mut Vec<u8>| blocks.is_some_and(|b| b.append_to(range, out));
        for _ in 0..MAX_JOINS {
            if is_done(self.cached_blocks(id, range, context), out) {
                return Ok(());
            }
            let decoded = self.decode_for_reader(id, range, context)?;
            self.check_range(id, range, &decoded.table)?;
            if is_done(Some(decoded.wanted), out) {
                return Ok(());
            }
        }
        // The cache is too small for the present requests: the pass serves this range alone.
        let key = PassKey { id, only: Some(BlockIndex::range(range)) };
        let decoded = self.decode(key, range, None, context)?;
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
        context: &RequestContext,
    ) -> Result<DecodedVolume, VolumeError> {
        let decode = || self.decode(PassKey { id, only: None }, wanted, None, context);
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
        context: &RequestContext,
    ) -> Result<DecodedVolume, VolumeError> {
        let (this, id) = (Arc::clone(self), key.id);
        let _waiting = context.awaiting(|| self.sources.collection.volume_name(id));
        let is_prefetch = on_block.is_some();
        let decoded = self.passes.run(key, "dupfs-volume", context, move |context| {
            let decoded = this.run_pass(id, wanted, on_block, context);
            decoded.map_err(|e| if is_prefetch { VolumeError::Prefetch(Arc::new(e)) } else { e })
        });
        decoded.map_err(|error| error.while_waiting_for(&self.sources.collection.volume_name(id)))
    }

    fn run_pass(
        self: &Arc<Self>,
        id: VolumeId,
        wanted: ByteRange,
        on_block: Option<OnBlock>,
        context: &RequestContext,
    ) -> Result<DecodedVolume, VolumeError> {
        let VolumeSources { objects, manifests, index, .. } = &self.sources;
        let (object, expected) = manifests.volume_object(id, context)?;
        let why = if on_block.is_some() { "before a sequential reader needs it" } else { "to read or measure a file" };
        fetch_log::note(&object, why);
        // Several passes at once, or a pass beside a busy reader, use all cores. A single pass that a reader waits for gets
        // two threads.
        let running = RunningDecode::begin(&self.running_passes);
        let is_alone = on_block.is_none() && running.others == 0;
        let threads = if is_alone { DecodeThreads::TwoIfLarge } else { DecodeThreads::One };
        let mut blocks = self.blocks.begin_pass(id, wanted, on_block);
        let decoded =
            decode_volume(objects, &object, expected.as_ref(), threads, (&self.table_limits, context), &mut blocks);
        drop(running);
        match decoded {
            Ok(table) => {
                let table = Arc::new(table);
                let wanted = blocks.publish();
                self.tables.insert(&id, &table, table.weight());
                index.store_members(id.set, &object, expected.as_ref(), &table);
                Ok(DecodedVolume { table, wanted })
            }
            Err(error) => {
                blocks.discard();
                Err(error)
            }
        }
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
        self.decode(key, NO_BYTES, Some(on_block), context).map(drop)
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
