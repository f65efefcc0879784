//! Decoded blocks: in memory, and what no longer fits there sealed on disk.

use std::hash::Hash;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use super::lru::ByteLru;
use super::spill::Spill;
use dupfs_base::sync::lock;

/// Bytes of a full block. A longer one may be kept in memory, yet never spills.
pub const BLOCK_BYTES: usize = 256 * 1024;

/// Blocks kept for reuse at most.
const SPARE: usize = 32;

/// What new blocks are made of.
static ZEROS: [u8; BLOCK_BYTES] = [0; BLOCK_BYTES];

/// Bounds of a [`BlockCache`].
#[derive(Clone, Debug)]
pub struct CacheConfig {
    /// Bytes in memory, overhead included.
    pub memory_bytes: u64,
    /// The tier on disk; `None` for memory only.
    pub spill: Option<SpillConfig>,
}

/// The tier on disk.
#[derive(Clone, Debug)]
pub struct SpillConfig {
    /// Where its nameless file is; made if it is not there.
    pub dir: PathBuf,
    /// Bytes on disk; less than one block is off.
    pub bytes: u64,
}

/// What a [`BlockCache`] did and holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheStats {
    /// Blocks found in memory.
    pub memory_hits: u64,
    /// Blocks found on disk.
    pub spill_hits: u64,
    /// Blocks not found.
    pub misses: u64,
    /// Bytes held in memory, overhead included.
    pub memory_bytes: u64,
    /// Bytes held on disk.
    pub spill_bytes: u64,
}

/// A block in memory.
#[derive(Debug)]
struct Held {
    block: Arc<[u8]>,
    /// Nobody is expected to want it again.
    left_behind: bool,
}

#[derive(Debug)]
struct Memory<K: Hash + Eq> {
    lru: ByteLru<K, Held>,
    /// On their way to the disk, in neither tier: whoever wants one now must not have to decode its volume again.
    leaving: Vec<(K, Arc<[u8]>)>,
}

impl<K: Hash + Eq> Memory<K> {
    fn get(&mut self, key: &K) -> Option<Arc<[u8]>> {
        if let Some(held) = self.lru.get_mut(key) {
            held.left_behind = false;
            return Some(Arc::clone(&held.block));
        }
        self.leaving.iter().find(|(leaving, _)| leaving == key).map(|(_, block)| Arc::clone(block))
    }

    fn contains(&self, key: &K) -> bool {
        self.lru.peek(key).is_some() || self.leaving.iter().any(|(leaving, _)| leaving == key)
    }

    /// `key` has arrived on the disk.
    fn has_left(&mut self, key: &K) {
        if let Some(at) = self.leaving.iter().position(|(leaving, _)| leaving == key) {
            self.leaving.swap_remove(at);
        }
    }
}

/// Immutable blocks by key, least recently used first out of memory onto disk, and out of there. Shared by threads.
///
/// A key names one content for good: inserting another content under a key that is still held may give either.
#[derive(Debug)]
pub struct BlockCache<K: Hash + Eq> {
    memory: Mutex<Memory<K>>,
    spill: Option<Spill<K>>,
    /// Full blocks that nobody holds any more, for the next ones: else the allocator would take memory from the system and
    /// give it back for each, and keep holes between them.
    spare: Mutex<Vec<Arc<[u8]>>>,
    /// Counts beginnings and ends of removals, so that it is odd during one: a block on its way between the tiers while
    /// something is removed is dropped, not brought back.
    epoch: AtomicU64,
    /// Held during a removal.
    removing: Mutex<()>,
    memory_hits: AtomicU64,
    spill_hits: AtomicU64,
    misses: AtomicU64,
}

impl<K: Eq + Hash + Clone + Send + Sync> BlockCache<K> {
    /// An empty cache. A tier on disk that cannot be had is a line in the log.
    pub fn new(config: CacheConfig) -> Self {
        Self {
            memory: Mutex::new(Memory { lru: ByteLru::new(config.memory_bytes), leaving: Vec::new() }),
            spill: config.spill.and_then(|spill| Spill::open(&spill.dir, spill.bytes)),
            spare: Mutex::default(),
            epoch: AtomicU64::new(0),
            removing: Mutex::default(),
            memory_hits: AtomicU64::new(0),
            spill_hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
        }
    }

    /// The block of `key`, if it is at hand. May read the disk.
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
        self.keep(key.clone(), Arc::clone(&block), Some(epoch));
        Some(block)
    }

    /// The block of `key`, if it is in memory: never blocks. A block that is not there does not count as missed.
    pub fn get_in_memory(&self, key: &K) -> Option<Arc<[u8]>> {
        let block = lock(&self.memory).get(key)?;
        self.memory_hits.fetch_add(1, Ordering::Relaxed);
        Some(block)
    }

    /// Whether the block of `key` is at hand; does not count as used.
    pub fn contains(&self, key: &K) -> bool {
        let in_memory = lock(&self.memory).contains(key);
        in_memory || self.spill.as_ref().is_some_and(|spill| spill.contains(key))
    }

    /// A buffer of [`BLOCK_BYTES`] for a block to come, with any contents. Nobody else holds it: `Arc::get_mut` gives access.
    pub fn buffer(&self) -> Arc<[u8]> {
        let spare = lock(&self.spare).pop();
        spare.unwrap_or_else(|| Arc::from(ZEROS.as_slice()))
    }

    /// Takes a block back that is not needed any more; its memory is used again if nobody else holds it.
    pub fn recycle(&self, mut block: Arc<[u8]>) {
        if block.len() == BLOCK_BYTES && Arc::get_mut(&mut block).is_some() {
            let mut spare = lock(&self.spare);
            if spare.len() < SPARE {
                spare.push(block);
            }
        }
    }

    /// Keeps `block`. May write the disk, as other blocks have to go there.
    pub fn insert(&self, key: K, block: Arc<[u8]>) {
        self.keep(key, block, None);
    }

    /// Nobody is expected to want `keys` again: they go first when memory is short, and not onto the disk. They can be had as
    /// long as they are there, and count as any other once somebody did.
    pub fn leave_behind(&self, keys: impl Iterator<Item = K>) {
        for key in keys {
            if let Some(held) = lock(&self.memory).lru.demote(&key) {
                held.left_behind = true;
            }
            if let Some(spill) = &self.spill {
                spill.remove(&key);
            }
        }
    }

    /// Forgets `key`.
    pub fn remove(&self, key: &K) {
        let _removal = Removal::begin(self);
        let mut memory = lock(&self.memory);
        let removed = memory.lru.remove(key);
        memory.has_left(key);
        drop(memory);
        drop(removed);
        if let Some(spill) = &self.spill {
            spill.remove(key);
        }
    }

    /// Forgets every key that `goes`. Takes time in all blocks.
    pub fn remove_where(&self, mut goes: impl FnMut(&K) -> bool) {
        let _removal = Removal::begin(self);
        let mut memory = lock(&self.memory);
        let removed = memory.lru.remove_where(&mut goes);
        memory.leaving.retain(|(key, _)| !goes(key));
        drop(memory);
        drop(removed);
        if let Some(spill) = &self.spill {
            spill.remove_where(goes);
        }
    }

    /// What the cache did and holds.
    pub fn stats(&self) -> CacheStats {
        CacheStats {
            memory_hits: self.memory_hits.load(Ordering::Relaxed),
            spill_hits: self.spill_hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
            memory_bytes: lock(&self.memory).lru.used(),
            spill_bytes: self.spill.as_ref().map_or(0, Spill::used),
        }
    }

    /// Whether something may have been removed since `epoch` was read.
    fn is_stale(&self, epoch: u64) -> bool {
        epoch % 2 == 1 || self.epoch() != epoch
    }

    fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::SeqCst)
    }

    /// Puts the block into memory, unless something was removed since `read_at`, and what has to go from there on disk.
    fn keep(&self, key: K, block: Arc<[u8]>, read_at: Option<u64>) {
        let weight = u64::try_from(block.len()).unwrap_or(u64::MAX);
        let (evicted, epoch) = {
            let mut memory = lock(&self.memory);
            let epoch = self.epoch();
            if read_at.is_some_and(|read_at| self.is_stale(read_at)) {
                return;
            }
            let evicted = memory.lru.insert(key, Held { block, left_behind: false }, weight);
            if self.spill.is_some() {
                let spilling = evicted.iter().filter(|(_, held)| !held.left_behind);
                let spilling: Vec<_> = spilling.map(|(key, held)| (key.clone(), Arc::clone(&held.block))).collect();
                memory.leaving.extend(spilling);
            }
            (evicted, epoch)
        };
        for (key, Held { block, left_behind }) in evicted {
            if let Some(spill) = self.spill.as_ref().filter(|_| !left_behind) {
                spill.store(key.clone(), &block, || self.is_stale(epoch));
                lock(&self.memory).has_left(&key);
            }
            self.recycle(block);
        }
    }
}

/// While it lives, nothing moves between the tiers.
struct Removal<'a> {
    epoch: &'a AtomicU64,
    _one_at_a_time: MutexGuard<'a, ()>,
}

impl<'a> Removal<'a> {
    fn begin<K: Hash + Eq>(cache: &'a BlockCache<K>) -> Self {
        let one_at_a_time = lock(&cache.removing);
        cache.epoch.fetch_add(1, Ordering::SeqCst);
        Self { epoch: &cache.epoch, _one_at_a_time: one_at_a_time }
    }
}

impl Drop for Removal<'_> {
    fn drop(&mut self) {
        self.epoch.fetch_add(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
#[path = "block/tests.rs"]
mod tests;
