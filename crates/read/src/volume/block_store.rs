//! The decoded blocks of volumes and signature archives in the block cache. Blocks become visible to readers once their pass has
//! verified them; blocks of a running pass are given out only for a proof.

use std::ops::Range;
use std::sync::{Arc, Mutex};

use super::block_span::{BlockSpan, block_numbers};
use super::decode_volume::{BlockSink, MemberTableSink};
use super::verified_blocks::{DecodedObject, PassId, VerifiedBlocks};
use super::volume_progress::VolumeProgress;
use dupfs_base::ByteRange;
use dupfs_cache::{BlockCache, BlockIndex, CacheConfig, CacheStats, LentMemory};

/// Key of a block in the cache. The pass hides blocks that are not verified yet from all readers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct DecodedBlockKey {
    object: DecodedObject,
    pass: PassId,
    index: BlockIndex,
}

/// Called with the number of each block that a pass has decoded.
pub(super) type OnBlock = Box<dyn FnMut(BlockIndex) + Send>;

/// The verified blocks of objects, as far as the block cache has them.
#[derive(Debug)]
pub(super) struct BlockStore {
    cache: BlockCache<DecodedBlockKey>,
    verified: VerifiedBlocks,
    /// Bytes of the cache in memory and on disk.
    cache_bytes: u64,
    /// Bytes of it in memory, of which some may be lent.
    memory_bytes: u64,
    lent: LentMemory,
}

impl BlockStore {
    /// An empty store that leaves memory `lent` to others. One pass may fill half of the cache.
    pub(super) fn new(config: CacheConfig, lent: LentMemory) -> Self {
        let (cache_bytes, memory_bytes) = (cache_bytes(&config), config.memory_bytes);
        let cache = BlockCache::lending(config, lent.clone());
        Self { cache, verified: VerifiedBlocks::default(), cache_bytes, memory_bytes, lent }
    }

    /// Bytes that one pass may add to the cache from the wanted range on; before it half as many.
    fn max_pass_bytes(&self) -> u64 {
        self.cache_bytes.saturating_sub(self.lent.taken_from(self.memory_bytes)) / 2
    }

    /// The blocks of `range` of volume `id` if they are all cached. May read the disk.
    pub(super) fn get(&self, id: impl Into<DecodedObject>, range: ByteRange) -> Option<BlockSpan> {
        let id = id.into();
        BlockSpan::collect(range, |index| match self.key(id, index) {
            Some(key) => self.cache.get(&key),
            None => {
                self.cache.record_miss();
                None
            }
        })
    }

    /// The blocks of `range` of volume `id` if they are all in memory. Never blocks.
    pub(super) fn get_in_memory(&self, id: impl Into<DecodedObject>, range: ByteRange) -> Option<BlockSpan> {
        let id = id.into();
        BlockSpan::collect(range, |index| self.cache.get_in_memory(&self.key(id, index)?))
    }

    /// Returns true if block `index` of volume `id` is verified and cached.
    pub(super) fn contains(&self, id: impl Into<DecodedObject>, index: BlockIndex) -> bool {
        self.key(id.into(), index).is_some_and(|key| self.cache.contains(&key))
    }

    /// Returns true if a pass over volume `id` has succeeded, whether or not its blocks are still cached.
    pub(super) fn was_verified(&self, id: impl Into<DecodedObject>) -> bool {
        self.verified.pass_of(id.into(), BlockIndex::FIRST).is_some()
    }

    /// Marks `blocks` of volume `id`, up to its end at most, as first to be evicted.
    pub(super) fn demote(&self, id: impl Into<DecodedObject>, blocks: Range<BlockIndex>) {
        let id = id.into();
        self.cache.demote(block_numbers(blocks).map_while(|index| self.key(id, index)));
    }

    /// Statistics of the cache.
    pub(super) fn stats(&self) -> CacheStats {
        self.cache.stats()
    }

    /// Begins a pass over volume `id` for a request that wants the bytes `wanted`.
    pub(super) fn begin_pass(
        &self,
        id: impl Into<DecodedObject>,
        wanted: ByteRange,
        on_block: Option<OnBlock>,
        progress: Option<Arc<VolumeProgress>>,
    ) -> PassBlocks<'_> {
        PassBlocks {
            store: self,
            id: id.into(),
            pass: self.verified.begin_pass(),
            wanted: BlockIndex::range(wanted),
            wanted_blocks: Vec::new(),
            stored: Vec::new(),
            count: 0,
            budget_before: self.max_pass_bytes() / 2,
            budget_after: self.max_pass_bytes(),
            on_block,
            progress,
        }
    }

    /// The blocks of `range` of an object as the running pass `pass` has decoded them, if they are all cached. They are not
    /// verified.
    pub(super) fn get_unverified(
        &self,
        id: impl Into<DecodedObject>,
        pass: PassId,
        range: ByteRange,
    ) -> Option<BlockSpan> {
        let object = id.into();
        BlockSpan::collect(range, |index| {
            // The pass stores no second copy of a verified block.
            let verified = self.key(object, index).and_then(|key| self.cache.get(&key));
            verified.or_else(|| self.cache.get(&DecodedBlockKey { object, pass, index }))
        })
    }

    fn key(&self, object: DecodedObject, index: BlockIndex) -> Option<DecodedBlockKey> {
        Some(DecodedBlockKey { object, pass: self.verified.pass_of(object, index)?, index })
    }
}

/// The capacity of a cache of this configuration in bytes, in memory and on disk.
pub(super) fn cache_bytes(config: &CacheConfig) -> u64 {
    let spill = config.spill.as_ref().map_or(0, |spill| spill.bytes);
    config.memory_bytes.saturating_add(spill)
}

/// The blocks of one pass. It adds them to the cache under the number of the pass. It also has the wanted blocks
/// itself, so that a pass serves its request with a cache of any size. Exactly one of [`Self::publish`] and
/// [`Self::discard`] ends it.
pub(super) struct PassBlocks<'a> {
    store: &'a BlockStore,
    id: DecodedObject,
    pass: PassId,
    wanted: Range<BlockIndex>,
    wanted_blocks: Vec<Arc<[u8]>>,
    stored: Vec<BlockIndex>,
    count: usize,
    /// Bytes that may still be added to the cache before the wanted range, and from there on.
    budget_before: u64,
    budget_after: u64,
    on_block: Option<OnBlock>,
    progress: Option<Arc<VolumeProgress>>,
}

impl PassBlocks<'_> {
    /// The number of the pass.
    pub(super) fn pass(&self) -> PassId {
        self.pass
    }

    /// Limits the bytes that the pass adds to the cache.
    pub(super) fn limit(&mut self, max_bytes: u64) {
        self.budget_after = self.budget_after.min(max_bytes);
    }

    /// Returns true if every block was added to the cache.
    pub(super) fn is_whole(&self) -> bool {
        self.stored.len() == self.count
    }

    /// Makes the blocks visible to readers, as the pass has verified them, and returns the wanted ones.
    pub(super) fn publish(self) -> BlockSpan {
        self.store.verified.publish(self.id, self.pass, self.count, &self.stored);
        BlockSpan::new(self.wanted.start, self.wanted_blocks)
    }

    /// Removes the blocks from the cache: the pass has failed.
    pub(super) fn discard(self) {
        if !self.stored.is_empty() {
            self.store.cache.remove_where(|key| (key.object, key.pass) == (self.id, self.pass));
        }
    }
}

impl BlockSink for PassBlocks<'_> {
    fn buffer(&mut self) -> Arc<[u8]> {
        self.store.cache.buffer()
    }

    fn members(&self) -> Arc<Mutex<MemberTableSink>> {
        self.progress.as_ref().map_or_else(Arc::default, |progress| progress.members())
    }

    fn forbid_suspension(&self) {
        if let Some(progress) = &self.progress {
            progress.forbid_suspension();
        }
    }

    fn block(&mut self, index: BlockIndex, block: Arc<[u8]>) {
        let len = block.len() as u64;
        self.store_block(index, block);
        if let Some(progress) = &self.progress {
            progress.advance(len);
        }
    }
}

impl PassBlocks<'_> {
    fn store_block(&mut self, index: BlockIndex, block: Arc<[u8]>) {
        self.count = self.count.saturating_add(1);
        if let Some(on_block) = &mut self.on_block {
            on_block(index);
        }
        if self.wanted.contains(&index) {
            self.wanted_blocks.push(Arc::clone(&block));
        }
        let budget = if index < self.wanted.start { &mut self.budget_before } else { &mut self.budget_after };
        let left = budget.checked_sub(block.len() as u64);
        *budget = left.unwrap_or(*budget);
        if left.is_none() || self.store.contains(self.id, index) {
            return self.store.cache.recycle(block);
        }
        self.stored.push(index);
        self.store.cache.insert(DecodedBlockKey { object: self.id, pass: self.pass, index }, block);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dupfs_format::{SetIndex, VolumeId, VolumeNumber};

    #[test]
    fn a_read_of_a_volume_that_was_never_decoded_is_a_miss() {
        let store = BlockStore::new(CacheConfig { memory_bytes: 1 << 20, spill: None }, LentMemory::default());
        let id = VolumeId { set: SetIndex(0), number: VolumeNumber(1) };
        assert!(store.get(id, ByteRange { start: 0, end: 10 }).is_none());
        assert_eq!(store.stats().misses, 1);
        // A later attempt that waits counts it.
        assert!(store.get_in_memory(id, ByteRange { start: 0, end: 10 }).is_none());
        assert_eq!(store.stats().misses, 1);
    }
}
