//! Who decodes a block that is not at hand: the cursors of a stream, and the places where new ones start.

use std::collections::VecDeque;
use std::sync::Arc;

use super::{CURSORS, RESTART, Slot, State, Stream};
use crate::cursor::Cursor;
use crate::decoder::Point;
use crate::error::UnpackError;
use crate::source::Source;
use dupfs_base::RequestContext;
use dupfs_cache::BLOCK_BYTES;

/// What to do for a block that is not in the cache.
pub(super) enum Claim {
    Found(Arc<[u8]>),
    BeyondTheEnd,
    Again,
    Run(u64, Start),
}

/// Where decoding starts.
pub(super) enum Start {
    Cursor(Box<Cursor>),
    Point(Option<Point>),
}

impl Stream {
    /// What to do for a block that is not in the cache: wait for a cursor that comes by, take one, or make one. With `through`,
    /// a place where decoding can start, whoever gives the block has to have decoded everything from there on.
    pub(super) fn claim(
        &self,
        index: u64,
        through: Option<u64>,
        context: &RequestContext,
    ) -> Result<Claim, UnpackError> {
        let mut state = self.locked();
        let offset = index.saturating_mul(BLOCK_BYTES as u64);
        if through.is_none() {
            if state.len.is_some_and(|len| offset >= len) {
                return Ok(Claim::BeyondTheEnd);
            }
            let recent = state.slots.iter().flat_map(|s| &s.recent).chain(&state.last).find(|(i, _)| *i == index);
            if let Some((_, block)) = recent {
                return Ok(Claim::Found(Arc::clone(block)));
            }
        }
        let stopped = |reason| UnpackError::stopped(&self.name(), reason);
        context.check_may_block().map_err(stopped)?;
        state.ticks += 1;
        let ticks = state.ticks;
        let point = self.point_before(&state, through.unwrap_or(offset));
        let from = point.as_ref().map_or(0, |p| p.out);
        let from_point = offset.saturating_sub(from);
        let usable = |s: &&mut Slot| s.next <= index && through.is_none_or(|through| s.from <= through);
        let nearest = state.slots.iter_mut().filter(usable).max_by_key(|s| s.next);
        if let Some(slot) = nearest
            && (index - slot.next).saturating_mul(BLOCK_BYTES as u64) <= from_point.saturating_add(RESTART)
        {
            if let Some(cursor) = slot.cursor.take() {
                slot.used = ticks;
                return Ok(Claim::Run(slot.id, Start::Cursor(cursor)));
            }
            let changes = state.changes;
            drop(state);
            return self.wait(changes, context);
        }
        if state.slots.len() >= CURSORS {
            let idle = state.slots.iter().enumerate().filter(|(_, s)| s.cursor.is_some());
            let Some((oldest, _)) = idle.min_by_key(|(_, s)| s.used) else {
                let changes = state.changes;
                drop(state);
                return self.wait(changes, context);
            };
            let old = state.slots.swap_remove(oldest);
            drop(state);
            self.unpacker.idle.take(self.id, old.id);
            return Ok(Claim::Again);
        }
        let next = point.as_ref().map_or(0, |p| p.out.div_ceil(BLOCK_BYTES as u64));
        state.slots.push(Slot { id: ticks, from, next, cursor: None, recent: VecDeque::new(), used: ticks });
        Ok(Claim::Run(ticks, Start::Point(point)))
    }

    fn point_before(&self, state: &State, offset: u64) -> Option<Point> {
        match self.blocks.get() {
            Some(Some(blocks)) => {
                let block = blocks.partition_point(|b| b.out <= offset).checked_sub(1)?;
                let out = blocks.get(block)?.out;
                Some(Point { out, input: block as u64, state: Arc::from([]) })
            }
            _ => state.points.before(offset).cloned(),
        }
    }

    /// Waits until a cursor has moved on since `changes`.
    fn wait(&self, changes: u64, context: &RequestContext) -> Result<Claim, UnpackError> {
        let moved = self.state.wait_until(context, |state| (state.changes != changes).then_some(()));
        moved.map_err(|reason| UnpackError::stopped(&self.name(), reason))?;
        Ok(Claim::Again)
    }
}
