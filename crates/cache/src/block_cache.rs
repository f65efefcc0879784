//! The block cache: decoded blocks in memory, and evicted ones in the spill file.

use std::hash::Hash;
use std::path::PathBuf;
use std::sync::Arc;

use super::block::BLOCK_BYTES;
use super::byte_lru::ByteLru;
use super::lent_memory::LentMemory;
use super::spill_file::SpillFile;
use dupfs_base::sync::prim::atomic::{AtomicU64, Ordering};
use dupfs_base::sync::prim::{Mutex, MutexGuard};

/// Upper bound of the buffers that wait to be used again.
const MAX_SPARE: usize = 32;

/// The content of new buffers.
static ZEROS: [u8; BLOCK_BYTES] = [0; BLOCK_BYTES];

/// Bounds of a [`BlockCache`].
#[derive(Clone, Debug)]
pub struct CacheConfig {
    /// Bytes in memory, overhead included.
    pub memory_bytes: u64,
    /// The spill file; `None` for a cache in memory only.
    pub spill: Option<SpillConfig>,
}

/// Place and size of the spill file.
#[derive(Clone, Debug)]
pub struct SpillConfig {
    /// Directory of the unnamed file; created if it does not exist.
    pub dir: PathBuf,
    /// Maximum size in bytes; less than one block disables the file.
    pub bytes: u64,
}

/// Counters of a [`BlockCache`], and its current size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheStats {
    /// Blocks found in memory.
    pub memory_hits: u64,
    /// Blocks found on disk.
    pub spill_hits: u64,
    /// Blocks not found.
    pub misses: u64,
    /// Bytes in memory, overhead included.
    pub memory_bytes: u64,
    /// Bytes on disk.
    pub spill_bytes: u64,
    /// Upper bound of the bytes in memory.
    pub max_memory_bytes: u64,
    /// Upper bound of the bytes on disk; 0 without a spill file.
    pub max_spill_bytes: u64,
}

/// A block in memory.
#[derive(Debug)]
struct MemoryBlock {
    block: Arc<[u8]>,
    /// No reader is expected to need it again: it is evicted first and not spilled.
    is_demoted: bool,
}

/// The blocks in memory.
#[derive(Debug)]
struct MemoryTier<K: Hash + Eq> {
    lru: ByteLru<K, MemoryBlock>,
    /// Evicted blocks that are not on disk yet. They are found here meanwhile; a miss would decode their volume again.
    spilling: Vec<(K, Arc<[u8]>)>,
}

impl<K: Hash + Eq> MemoryTier<K> {
    fn get(&mut self, key: &K) -> Option<Arc<[u8]>> {
        if let Some(cached) = self.lru.get_mut(key) {
            cached.is_demoted = false;
            return Some(Arc::clone(&cached.block));
        }
        self.spilling.iter().find(|(spilling, _)| spilling == key).map(|(_, block)| Arc::clone(block))
    }

    fn contains(&self, key: &K) -> bool {
        self.lru.peek(key).is_some() || self.spilling.iter().any(|(spilling, _)| spilling == key)
    }

    /// Removes `key` from the blocks that are being spilled.
    fn finish_spilling(&mut self, key: &K) {
        if let Some(at) = self.spilling.iter().position(|(spilling, _)| spilling == key) {
            self.spilling.swap_remove(at);
        }
    }
}

/// Immutable blocks by key. The least recently used blocks are evicted from memory to disk, and from disk. Shared by
/// threads.
///
/// A key identifies one content forever: if another content is inserted under a key of a cached block, either may be
/// returned.
#[derive(Debug)]
pub struct BlockCache<K: Hash + Eq> {
    memory: Mutex<MemoryTier<K>>,
    /// Bytes in memory if nothing is lent.
    memory_bytes: u64,
    lent: LentMemory,
    spill: Option<SpillFile<K>>,
    /// Buffers of full blocks for reuse. Otherwise the allocator requests memory from the system and returns it for each
    /// block, and keeps holes between the blocks.
    spare: Mutex<Vec<Arc<[u8]>>>,
    /// Number of begun and ended removals: odd during a removal. A block that moves between memory and disk meanwhile is
    /// dropped, so that a removed block does not return.
    epoch: AtomicU64,
    /// Held during a removal: one at a time.
    removing: Mutex<()>,
    memory_hits: AtomicU64,
    spill_hits: AtomicU64,
    misses: AtomicU64,
}

impl<K: Eq + Hash + Clone + Send + Sync> BlockCache<K> {
    /// An empty cache. If the spill file cannot be created, a warning is logged and the cache works in memory only.
    pub fn new(config: CacheConfig) -> Self {
        Self::lending(config, LentMemory::default())
    }

    /// As [`Self::new`]. The cache leaves the memory `lent` to another user, up to half of its own. Blocks are evicted for
    /// it when the next one is inserted.
    pub fn lending(config: CacheConfig, lent: LentMemory) -> Self {
        Self {
            memory_bytes: config.memory_bytes,
            lent,
            memory: Mutex::new(MemoryTier { lru: ByteLru::new(config.memory_bytes), spilling: Vec::new() }),
            spill: config.spill.and_then(|spill| SpillFile::open(&spill.dir, spill.bytes)),
            spare: Mutex::default(),
            epoch: AtomicU64::new(0),
            removing: Mutex::default(),
            memory_hits: AtomicU64::new(0),
            spill_hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
        }
    }

    /// The block of `key`, if it is cached. May read the disk.
    pub fn get(&self, key: &K) -> Option<Arc<[u8]>> {
        if let Some(block) = self.get_in_memory(key) {
            return Some(block);
        }
        let epoch = self.epoch();
        let Some(block) = self.spill.as_ref().and_then(|spill| spill.load(key)) else {
            self.misses.fetch_add(1, Ordering::Relaxed);
            return None;
        };
        self.spill_hits.fetch_add(1, Ordering::Relaxed);
        self.insert_unless_stale(key.clone(), Arc::clone(&block), Some(epoch));
        Some(block)
    }

    /// The block of `key`, if it is in memory. Does not read the disk; a block that is not found does not count as a miss.
    pub fn get_in_memory(&self, key: &K) -> Option<Arc<[u8]>> {
        let block = self.memory.lock().get(key)?;
        self.memory_hits.fetch_add(1, Ordering::Relaxed);
        Some(block)
    }

    /// Counts a block that was wanted and has no key: it was never inserted.
    pub fn record_miss(&self) {
        self.misses.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns true if the block of `key` is cached. The order of eviction does not change.
    pub fn contains(&self, key: &K) -> bool {
        let in_memory = self.memory.lock().contains(key);
        in_memory || self.spill.as_ref().is_some_and(|spill| spill.contains(key))
    }

    /// A buffer of [`BLOCK_BYTES`] with arbitrary content. It has no other owner: `Arc::get_mut` gives access.
    pub fn buffer(&self) -> Arc<[u8]> {
        let spare = self.spare.lock().pop();
        spare.unwrap_or_else(|| Arc::from(ZEROS.as_slice()))
    }

    /// Takes back a block that is no longer needed. Its memory is reused if it has no other owner.
    pub fn recycle(&self, mut block: Arc<[u8]>) {
        if block.len() == BLOCK_BYTES && Arc::get_mut(&mut block).is_some() {
            let mut spare = self.spare.lock();
            if spare.len() < MAX_SPARE {
                spare.push(block);
            }
        }
    }

    /// Inserts `block`. May write the disk, where other blocks are evicted to. A block longer than [`BLOCK_BYTES`] is not
    /// written to disk.
    pub fn insert(&self, key: K, block: Arc<[u8]>) {
        self.insert_unless_stale(key, block, None);
    }

    /// Marks the blocks of `keys` as not needed again: they are evicted first, and not spilled. Until then they are found,
    /// and a block that is found counts as any other.
    pub fn demote(&self, keys: impl Iterator<Item = K>) {
        for key in keys {
            if let Some(cached) = self.memory.lock().lru.demote(&key) {
                cached.is_demoted = true;
            }
            if let Some(spill) = &self.spill {
                spill.remove(&key);
            }
        }
    }

    /// Removes `key`.
    pub fn remove(&self, key: &K) {
        let _removal = RemovalGuard::begin(self);
        let mut memory = self.memory.lock();
        let removed = memory.lru.remove(key);
        memory.finish_spilling(key);
        drop(memory);
        drop(removed);
        if let Some(spill) = &self.spill {
            spill.remove(key);
        }
    }

    /// Removes every key that `is_removed`. Takes time linear in the number of blocks.
    pub fn remove_where(&self, mut is_removed: impl FnMut(&K) -> bool) {
        let _removal = RemovalGuard::begin(self);
        let mut memory = self.memory.lock();
        let removed = memory.lru.remove_where(&mut is_removed);
        memory.spilling.retain(|(key, _)| !is_removed(key));
        drop(memory);
        drop(removed);
        if let Some(spill) = &self.spill {
            spill.remove_where(is_removed);
        }
    }

    /// The counters and the current size.
    pub fn stats(&self) -> CacheStats {
        let (memory_bytes, max_memory_bytes) = {
            let memory = self.memory.lock();
            (memory.lru.used(), memory.lru.max_weight())
        };
        CacheStats {
            memory_hits: self.memory_hits.load(Ordering::Relaxed),
            spill_hits: self.spill_hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
            memory_bytes,
            spill_bytes: self.spill.as_ref().map_or(0, SpillFile::used),
            max_memory_bytes,
            max_spill_bytes: self.spill.as_ref().map_or(0, SpillFile::max_bytes),
        }
    }

    /// Returns true if a removal may have begun or ended since `epoch` was read.
    fn is_stale(&self, epoch: u64) -> bool {
        epoch % 2 == 1 || self.epoch() != epoch
    }

    fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::SeqCst)
    }

    /// Inserts the block into memory, unless a removal may have begun since `read_at`, and spills the evicted blocks.
    fn insert_unless_stale(&self, key: K, block: Arc<[u8]>, read_at: Option<u64>) {
        let weight = block.len() as u64;
        let (evicted, epoch) = {
            let mut memory = self.memory.lock();
            let epoch = self.epoch();
            if read_at.is_some_and(|read_at| self.is_stale(read_at)) {
                return;
            }
            memory.lru.set_max_weight(self.memory_bytes.saturating_sub(self.lent.taken_from(self.memory_bytes)));
            let evicted = memory.lru.insert(key, MemoryBlock { block, is_demoted: false }, weight);
            if self.spill.is_some() {
                let spilled = evicted.iter().filter(|(_, cached)| !cached.is_demoted);
                let spilled: Vec<_> = spilled.map(|(key, cached)| (key.clone(), Arc::clone(&cached.block))).collect();
                memory.spilling.extend(spilled);
            }
            (evicted, epoch)
        };
        for (key, MemoryBlock { block, is_demoted }) in evicted {
            if let Some(spill) = self.spill.as_ref().filter(|_| !is_demoted) {
                spill.store(key.clone(), &block, || self.is_stale(epoch));
                self.memory.lock().finish_spilling(&key);
            }
            self.recycle(block);
        }
    }
}

/// A removal in progress. While it exists, no block moves between memory and disk.
struct RemovalGuard<'a> {
    epoch: &'a AtomicU64,
    _one_at_a_time: MutexGuard<'a, ()>,
}

impl<'a> RemovalGuard<'a> {
    fn begin<K: Hash + Eq>(cache: &'a BlockCache<K>) -> Self {
        let one_at_a_time = cache.removing.lock();
        cache.epoch.fetch_add(1, Ordering::SeqCst);
        Self { epoch: &cache.epoch, _one_at_a_time: one_at_a_time }
    }
}

impl Drop for RemovalGuard<'_> {
    fn drop(&mut self) {
        self.epoch.fetch_add(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests;
