//! A common bound on the memory of idle cursors of all streams: a cursor may have a window of 128 MiB for a reader that
//! never returns.

use std::collections::VecDeque;
use std::sync::{Mutex, Weak};

use dupfs_base::sync::lock;

/// The owner of idle cursors.
pub(super) trait CursorOwner: Send + Sync {
    /// Drops the cursor of `slot`, unless a reader took it meanwhile.
    fn drop_cursor(&self, slot: u64);
}

struct IdleCursor {
    stream: u64,
    slot: u64,
    bytes: u64,
    owner: Weak<dyn CursorOwner>,
}

/// The idle cursors of all streams of an [`Unpacker`](super::Unpacker), the one that was used longest ago first. They are few:
/// each stream has up to four.
pub(super) struct IdleCursors {
    max_bytes: u64,
    cursors: Mutex<VecDeque<IdleCursor>>,
}

impl IdleCursors {
    /// Room for cursors that take `max_bytes`.
    pub(super) fn new(max_bytes: u64) -> Self {
        Self { max_bytes, cursors: Mutex::default() }
    }

    /// Records that the cursor of `slot` takes `bytes` and is idle from now on. Drops the oldest until all fit, but
    /// never this one, because its reader would have to start again. The caller must not hold a lock on cursors.
    pub(super) fn put(&self, stream: u64, slot: u64, bytes: u64, owner: Weak<dyn CursorOwner>) {
        let mut cursors = lock(&self.cursors);
        cursors.retain(|cursor| (cursor.stream, cursor.slot) != (stream, slot));
        cursors.push_back(IdleCursor { stream, slot, bytes, owner });
        let mut sum = sum(&cursors);
        let mut dropped = Vec::new();
        while sum > self.max_bytes && cursors.len() > 1 {
            let Some(oldest) = cursors.pop_front() else { break };
            sum = sum.saturating_sub(oldest.bytes);
            dropped.push(oldest);
        }
        drop(cursors);
        for IdleCursor { slot, owner, .. } in dropped {
            if let Some(owner) = owner.upgrade() {
                owner.drop_cursor(slot);
            }
        }
    }

    /// Removes the cursor of `slot`: a thread runs it, or it was dropped.
    pub(super) fn take(&self, stream: u64, slot: u64) {
        lock(&self.cursors).retain(|cursor| (cursor.stream, cursor.slot) != (stream, slot));
    }

    /// Removes all cursors of a stream that was dropped.
    pub(super) fn forget(&self, stream: u64) {
        lock(&self.cursors).retain(|cursor| cursor.stream != stream);
    }

    /// Bytes that idle cursors take; for tests and logs.
    pub(super) fn bytes(&self) -> u64 {
        sum(&lock(&self.cursors))
    }
}

fn sum(cursors: &VecDeque<IdleCursor>) -> u64 {
    cursors.iter().map(|cursor| cursor.bytes).fold(0, u64::saturating_add)
}

impl std::fmt::Debug for IdleCursors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IdleCursors")
            .field("bytes", &self.bytes())
            .field("max_bytes", &self.max_bytes)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "idle_cursors/tests.rs"]
mod tests;
