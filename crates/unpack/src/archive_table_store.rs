//! Tables of archives that are not open any more, encoded, as blocks of the cache of decoded data.
//!
//! A table contains names, link targets and owners from inside a backup. They are written to the disk only as blocks of
//! the cache: sealed under a key that exists only in memory and is lost when the process ends.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::archive_table::ArchiveTable;
use super::limits::UnpackLimits;
use dupfs_base::sync::lock;
use dupfs_cache::index::Identity;
use dupfs_cache::{BLOCK_BYTES, BlockCache, ByteLru, CacheConfig};

/// Upper bound of the directory of stored tables, in bytes of memory.
const MAX_DIRECTORY: u64 = 1 << 20;

/// The directory of stored tables. A table of which any block was evicted counts as absent.
#[derive(Debug)]
pub(super) struct TableStore {
    tables: Mutex<ByteLru<Identity, EncodedTable>>,
    /// A table that takes more bytes is not stored, because it would evict too many other blocks.
    max_table: u64,
}

/// The location of the blocks of an encoded table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct EncodedTable {
    /// The first part of its blocks' keys, which no stream and no other table has.
    id: u64,
    /// Length in bytes.
    len: usize,
}

impl EncodedTable {
    fn keys(self) -> impl Iterator<Item = (u64, u64)> {
        (0..self.len.div_ceil(BLOCK_BYTES) as u64).map(move |number| (self.id, number))
    }
}

impl TableStore {
    /// Returns an empty store for a cache with the options `cache`. A table takes at most a quarter of it.
    pub(super) fn new(cache: &CacheConfig) -> Self {
        let spill = cache.spill.as_ref().map_or(0, |spill| spill.bytes);
        let max_table = cache.memory_bytes.saturating_add(spill) / 4;
        Self { tables: Mutex::new(ByteLru::new(MAX_DIRECTORY)), max_table }
    }

    /// Returns the table of `key` with the numbers it was stored with; `None` if any block of it was evicted. May read
    /// the disk.
    pub(super) fn load(
        &self,
        cache: &BlockCache<(u64, u64)>,
        key: Identity,
        limits: &UnpackLimits,
    ) -> Option<ArchiveTable> {
        let encoded = lock(&self.tables).get(&key).copied()?;
        let table =
            Self::read(cache, encoded).and_then(|bytes| ArchiveTable::decode(&bytes, limits.members, limits.names));
        if table.is_none() {
            let mut tables = lock(&self.tables);
            // Another thread may have stored it again.
            if tables.peek(&key) == Some(&encoded) {
                tables.remove(&key);
            }
            drop(tables);
            cache.demote(encoded.keys());
        }
        table
    }

    fn read(cache: &BlockCache<(u64, u64)>, encoded: EncodedTable) -> Option<Vec<u8>> {
        // Before anything is allocated: nothing is read of a table that is mostly evicted.
        if !encoded.keys().all(|key| cache.contains(&key)) {
            return None;
        }
        let mut bytes = Vec::with_capacity(encoded.len);
        for key in encoded.keys() {
            bytes.extend_from_slice(&cache.get(&key)?);
        }
        (bytes.len() == encoded.len).then_some(bytes)
    }

    /// Stores the encoded table `bytes` under `key`, unless it is too large. Takes a number from `next_id`, which gives each
    /// number once. May write the disk.
    pub(super) fn store(&self, cache: &BlockCache<(u64, u64)>, next_id: &AtomicU64, key: Identity, bytes: &[u8]) {
        if bytes.len() as u64 > self.max_table {
            return;
        }
        let encoded = EncodedTable { id: next_id.fetch_add(1, Ordering::Relaxed), len: bytes.len() };
        for (key, block) in encoded.keys().zip(bytes.chunks(BLOCK_BYTES)) {
            cache.insert(key, block.into());
        }
        let evicted = lock(&self.tables).insert(key, encoded, 0);
        for (_, old) in evicted {
            cache.demote(old.keys());
        }
    }
}

#[cfg(test)]
#[path = "archive_table_store/tests.rs"]
mod tests;
