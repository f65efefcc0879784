//! The state that all streams and archives share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::archive_table::ArchiveTable;
use super::archive_table_store::TableStore;
use super::decode_workers::DecodeWorkers;
use super::decoder_memory::DecoderMemory;
use super::limits::UnpackLimits;
use super::point_store::PointStore;
use super::zip_names::NameEncoding;
use dupfs_cache::index::Identity;
use dupfs_cache::{BlockCache, CacheConfig, LentMemory};

/// The cache, threads, bounds and stores that all streams and archives share.
#[derive(Debug)]
pub struct Unpacker {
    pub(super) cache: BlockCache<(u64, u64)>,
    pub(super) workers: Arc<DecodeWorkers>,
    pub(super) limits: UnpackLimits,
    pub(super) point_store: Arc<dyn PointStore>,
    table_store: TableStore,
    next_id: AtomicU64,
    pub(super) decoders: DecoderMemory,
    pub(super) zip_names: Option<NameEncoding>,
}

impl Unpacker {
    /// An unpacker that caches decoded blocks and archive tables within `cache`, and stores seek points in `point_store`.
    pub fn new(cache: CacheConfig, limits: UnpackLimits, point_store: Arc<dyn PointStore>) -> Arc<Self> {
        Self::with_zip_names(cache, limits, point_store, (None, LentMemory::default()))
    }

    /// As [`Self::new`]; names in zip archives that do not state their encoding are in `zip_names`. The memory of decoders
    /// is recorded in `lent`.
    pub fn with_zip_names(
        cache: CacheConfig,
        limits: UnpackLimits,
        point_store: Arc<dyn PointStore>,
        (zip_names, lent): (Option<NameEncoding>, LentMemory),
    ) -> Arc<Self> {
        let table_store = TableStore::new(&cache);
        let (cache, workers) = (BlockCache::new(cache), Arc::new(DecodeWorkers::new()));
        let (next_id, decoders) = (AtomicU64::new(0), DecoderMemory::new(&limits, lent));
        Arc::new(Self { cache, workers, limits, point_store, table_store, next_id, decoders, zip_names })
    }

    /// Returns the table that was stored under `key`, if all of it is still cached. May read the disk.
    pub(super) fn load_table(&self, key: Identity) -> Option<ArchiveTable> {
        self.table_store.load(&self.cache, key, &self.limits)
    }

    /// Stores the encoded table `bytes` under `key` as long as the cache has room. May write the disk, sealed.
    pub(super) fn store_table(&self, key: Identity, bytes: &[u8]) {
        self.table_store.store(&self.cache, &self.next_id, key, bytes);
    }

    /// The bounds it keeps to.
    pub fn limits(&self) -> &UnpackLimits {
        &self.limits
    }

    /// A number that no stream and no table has.
    pub(super) fn new_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }
}
