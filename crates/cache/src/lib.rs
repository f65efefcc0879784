//! The block cache in memory with its sealed spill file on disk, and the index on disk that lasts from mount to mount.
//!
//! Everything stored here is immutable: a key identifies one content forever. No lock is held across disk I/O, encryption
//! or a caller's work. A failure of the cache is a miss, not an error of the request.

mod block;
mod block_cache;
mod byte_lru;
pub mod index;
mod lent_memory;
mod shared_lru;
mod spill_file;

pub use block::{BLOCK_BYTES, BlockIndex};
pub use block_cache::{BlockCache, CacheConfig, CacheStats, SpillConfig};
pub use byte_lru::ByteLru;
pub use lent_memory::LentMemory;
pub use shared_lru::SharedLru;
