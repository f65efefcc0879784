//! What idle cursors of all streams hold, bounded together: a cursor may hold a window of 128 MiB for a reader who never comes
//! back.

use std::collections::VecDeque;
use std::sync::{Mutex, Weak};

use dupfs_base::sync::lock;

/// Who has idle cursors.
pub(super) trait Keeper: Send + Sync {
    /// Drops the cursor of `slot`, unless somebody took it meanwhile.
    fn let_go(&self, slot: u64);
}

struct Held {
    stream: u64,
    slot: u64,
    bytes: u64,
    keeper: Weak<dyn Keeper>,
}

/// The idle cursors of all streams of an [`Unpacker`](super::Unpacker), the one that was used longest ago first. They are few:
/// each stream has a handful.
pub(super) struct Idle {
    most: u64,
    held: Mutex<VecDeque<Held>>,
}

impl Idle {
    /// Room for cursors that hold `most` bytes.
    pub(super) fn new(most: u64) -> Self {
        Self { most, held: Mutex::default() }
    }

    /// The cursor of `slot` holds `bytes` and is idle from now on. Lets the oldest go until all fit; this one stays in any case,
    /// as its reader is the last who would want to begin anew. Call it with no lock held.
    pub(super) fn put(&self, stream: u64, slot: u64, bytes: u64, keeper: Weak<dyn Keeper>) {
        let mut held = lock(&self.held);
        held.retain(|h| (h.stream, h.slot) != (stream, slot));
        held.push_back(Held { stream, slot, bytes, keeper });
        let mut sum = sum(&held);
        let mut gone = Vec::new();
        while sum > self.most && held.len() > 1 {
            let Some(oldest) = held.pop_front() else { break };
            sum = sum.saturating_sub(oldest.bytes);
            gone.push(oldest);
        }
        drop(held);
        for Held { slot, keeper, .. } in gone {
            if let Some(keeper) = keeper.upgrade() {
                keeper.let_go(slot);
            }
        }
    }

    /// The cursor of `slot` is idle no more: somebody runs it, or it is gone.
    pub(super) fn take(&self, stream: u64, slot: u64) {
        lock(&self.held).retain(|h| (h.stream, h.slot) != (stream, slot));
    }

    /// The stream is gone, and its cursors with it.
    pub(super) fn forget(&self, stream: u64) {
        lock(&self.held).retain(|h| h.stream != stream);
    }

    /// Bytes that idle cursors hold; for tests and people.
    pub(super) fn bytes(&self) -> u64 {
        sum(&lock(&self.held))
    }
}

fn sum(held: &VecDeque<Held>) -> u64 {
    held.iter().map(|h| h.bytes).fold(0, u64::saturating_add)
}

impl std::fmt::Debug for Idle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Idle").field("bytes", &self.bytes()).field("most", &self.most).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "idle/tests.rs"]
mod tests;
