//! Memory with bounds, and what lasts from mount to mount: the block cache with its sealed spill file, and the index on disk.
//!
//! What is kept here is immutable: a key names one content for good. No lock is held across disk I/O, sealing or a
//! caller's work, and no failure of the cache is anybody's error: it is a miss.

mod block;
pub mod index;
mod lru;
mod spill;

pub use block::{BLOCK_BYTES, BlockCache, CacheConfig, CacheStats, SpillConfig};
pub use lru::ByteLru;
