//! Memory of a cache that is lent to another user of memory.

use std::sync::Arc;

use dupfs_base::sync::prim::atomic::{AtomicU64, Ordering};

/// A number of bytes that a cache leaves to another user, who sets it. Clones share the number.
#[derive(Clone, Debug, Default)]
pub struct LentMemory(Arc<AtomicU64>);

impl LentMemory {
    /// Sets the number of bytes that the other user needs.
    pub fn set(&self, bytes: u64) {
        self.0.store(bytes, Ordering::SeqCst);
    }

    /// The bytes that a cache of `memory_bytes` leaves to the other user: half of its own at most, because a cache that is
    /// much smaller than what it is read for makes its users do the same work again and again.
    pub fn taken_from(&self, memory_bytes: u64) -> u64 {
        self.0.load(Ordering::SeqCst).min(memory_bytes / 2)
    }
}
