//! A cursor while somebody runs it, and what becomes of it then.

use std::sync::Weak;

use super::Stream;
use crate::cursor::Cursor;
use crate::idle::Keeper;
use dupfs_cache::BLOCK_BYTES;

/// A slot whose cursor somebody runs.
pub(super) struct Running<'a> {
    pub(super) stream: &'a Stream,
    pub(super) slot: u64,
    /// The cursor to put back.
    pub(super) cursor: Option<Box<Cursor>>,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let cursor = self.cursor.take().map(|mut cursor| (cursor.held(), cursor));
        let (stream, slot) = (self.stream, self.slot);
        let (gone, held) = stream.state.update(|state| {
            state.changes += 1;
            let Some(at) = state.slots.iter().position(|s| s.id == slot) else { return (None, None) };
            match (cursor, state.slots.get_mut(at)) {
                (Some((bytes, cursor)), Some(slot)) => {
                    slot.cursor = Some(cursor);
                    (None, Some(bytes.saturating_add((slot.recent.len() * BLOCK_BYTES) as u64)))
                }
                _ => (Some(state.slots.swap_remove(at)), None),
            }
        });
        drop(gone);
        match held {
            Some(held) => {
                stream.unpacker.idle.put(stream.id, slot, held, Weak::clone(&stream.this) as Weak<dyn Keeper>)
            }
            None => stream.unpacker.idle.take(stream.id, slot),
        }
    }
}

impl Keeper for Stream {
    fn let_go(&self, slot: u64) {
        let mut state = self.locked();
        let idle = state.slots.iter().position(|s| s.id == slot && s.cursor.is_some());
        let gone = idle.map(|at| state.slots.swap_remove(at));
        drop(state);
        drop(gone);
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.unpacker.idle.forget(self.id);
    }
}
