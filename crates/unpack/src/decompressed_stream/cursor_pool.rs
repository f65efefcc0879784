//! The cursors of a stream: which of them decodes a block that is not cached, and where a new one starts.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use super::decoded_runs::DecodedRuns;
use crate::decode_cursor::DecodeCursor;
use crate::error::UnpackError;
use crate::idle_cursors::CursorOwner;
use crate::seek_points::SeekPoints;
use crate::stream_decoder::SeekPoint;
use crate::unpacker::Unpacker;
use crate::xz::XzBlock;
use dupfs_base::RequestContext;
use dupfs_base::sync::Monitor;
use dupfs_cache::BLOCK_BYTES;

/// Upper bound of the live decoders of one stream.
const MAX_CURSORS: usize = 4;
/// The last blocks of a cursor, for readers whose reads arrive out of order.
const RECENT_BLOCKS: usize = 4;
/// A cursor that has this many bytes to decode is still preferred to a new one at a seek point.
const RESTART_BYTES: u64 = 4 << 20;

/// The next step for a block that is not in the cache.
pub(super) enum BlockClaim {
    /// It is this one.
    Found(Arc<[u8]>),
    /// The stream ends before it.
    BeyondTheEnd,
    /// The state has changed: check again.
    Again,
    /// The caller runs the cursor of this slot until it has returned the block.
    Run(u64, DecodeStart),
}

/// The start of decoding.
pub(super) enum DecodeStart {
    /// At this cursor.
    Cursor(Box<DecodeCursor>),
    /// At this seek point, or at the start of the stream.
    Point(Option<SeekPoint>),
}

/// The cursors and seek points of one stream. At most one thread runs a cursor; others wait until it reaches their block.
#[derive(Debug)]
pub(super) struct CursorPool {
    this: Weak<Self>,
    id: u64,
    name: Arc<str>,
    unpacker: Arc<Unpacker>,
    state: Arc<Monitor<CursorPoolState>>,
}

#[derive(Debug, Default)]
struct CursorPoolState {
    slots: Vec<CursorSlot>,
    points: SeekPoints,
    len: Option<u64>,
    /// The last block, for readers whose reads arrive out of order: its cursor was dropped.
    last: Option<(u64, Arc<[u8]>)>,
    /// Upper bound of the bytes that were decoded.
    furthest: u64,
    runs: DecodedRuns,
    ticks: u64,
    /// Incremented when there is progress for waiting requests.
    changes: u64,
}

#[derive(Debug)]
struct CursorSlot {
    id: u64,
    /// The start of its cursor.
    from: u64,
    /// The block that its cursor returns next.
    next: u64,
    /// `None` while a thread runs it.
    cursor: Option<Box<DecodeCursor>>,
    recent: VecDeque<(u64, Arc<[u8]>)>,
    used: u64,
}

impl CursorPool {
    /// A pool without cursors for a stream called `name`.
    pub(super) fn new(unpacker: &Arc<Unpacker>, name: Arc<str>) -> Arc<Self> {
        let (id, unpacker) = (unpacker.new_id(), Arc::clone(unpacker));
        let state = Monitor::new(CursorPoolState::default());
        Arc::new_cyclic(|this| Self { this: Weak::clone(this), id, name, unpacker, state })
    }

    /// The first part of the keys of the stream's blocks in the cache.
    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// Takes the length and seek points that an earlier reader has found.
    pub(super) fn restore(&self, len: u64, points: SeekPoints) {
        let mut state = self.state.lock();
        state.len = Some(len);
        state.points = points;
    }

    /// The length of the stream, once it was found.
    pub(super) fn len(&self) -> Option<u64> {
        self.state.lock().len
    }

    /// Number of cursors.
    #[cfg(test)]
    pub(super) fn cursor_count(&self) -> usize {
        self.state.lock().slots.len()
    }

    /// Returns true if a cursor reaches block `index` soon.
    pub(super) fn is_near(&self, index: u64) -> bool {
        let near = |slot: &CursorSlot| slot.next <= index && index - slot.next < 64;
        index < 64 || self.state.lock().slots.iter().any(near)
    }

    /// Returns true if one decoder after the other has gone through the part from `start` to before `end`, and over its end.
    pub(super) fn has_decoded(&self, start: u64, end: u64) -> bool {
        self.state.lock().runs.contains(start, end)
    }

    /// Chooses the next step for a block that is not in the cache: wait for a cursor that will reach it, take one, or
    /// make one. With `through`, a position where decoding can start, everything from there on is decoded. `blocks` are
    /// those of an xz file, if they are known.
    ///
    /// # Errors
    /// [`UnpackError::Stopped`] if the request may not block or ends.
    pub(super) fn claim(
        &self,
        index: u64,
        through: Option<u64>,
        blocks: Option<&[XzBlock]>,
        context: &RequestContext,
    ) -> Result<BlockClaim, UnpackError> {
        let mut state = self.state.lock();
        let offset = index.saturating_mul(BLOCK_BYTES as u64);
        if through.is_none() {
            if state.len.is_some_and(|len| offset >= len) {
                return Ok(BlockClaim::BeyondTheEnd);
            }
            let recent = state.slots.iter().flat_map(|s| &s.recent).chain(&state.last).find(|(i, _)| *i == index);
            if let Some((_, block)) = recent {
                return Ok(BlockClaim::Found(Arc::clone(block)));
            }
        }
        context.check_may_block().map_err(|reason| UnpackError::stopped(&self.name, reason))?;
        state.ticks += 1;
        let ticks = state.ticks;
        let target = through.unwrap_or(offset);
        let point = blocks.map_or_else(|| state.points.before(target).cloned(), |blocks| block_before(blocks, target));
        let from = point.as_ref().map_or(0, |p| p.out);
        let from_point = offset.saturating_sub(from);
        let usable = |s: &&mut CursorSlot| s.next <= index && through.is_none_or(|through| s.from <= through);
        let nearest = state.slots.iter_mut().filter(usable).max_by_key(|s| s.next);
        if let Some(slot) = nearest
            && (index - slot.next).saturating_mul(BLOCK_BYTES as u64) <= from_point.saturating_add(RESTART_BYTES)
        {
            if let Some(cursor) = slot.cursor.take() {
                slot.used = ticks;
                return Ok(BlockClaim::Run(slot.id, DecodeStart::Cursor(cursor)));
            }
            let changes = state.changes;
            drop(state);
            return self.wait(changes, context);
        }
        if state.slots.len() >= MAX_CURSORS {
            let idle = state.slots.iter().enumerate().filter(|(_, s)| s.cursor.is_some());
            let Some((oldest, _)) = idle.min_by_key(|(_, s)| s.used) else {
                let changes = state.changes;
                drop(state);
                return self.wait(changes, context);
            };
            let old = state.slots.swap_remove(oldest);
            drop(state);
            self.unpacker.idle.take(self.id, old.id);
            return Ok(BlockClaim::Again);
        }
        let next = point.as_ref().map_or(0, |p| p.out.div_ceil(BLOCK_BYTES as u64));
        state.slots.push(CursorSlot { id: ticks, from, next, cursor: None, recent: VecDeque::new(), used: ticks });
        Ok(BlockClaim::Run(ticks, DecodeStart::Point(point)))
    }

    /// Waits until a cursor has moved on since `changes`.
    fn wait(&self, changes: u64, context: &RequestContext) -> Result<BlockClaim, UnpackError> {
        let moved = self.state.wait_until(context, |state| (state.changes != changes).then_some(()));
        moved.map_err(|reason| UnpackError::stopped(&self.name, reason))?;
        Ok(BlockClaim::Again)
    }

    /// Records that the caller runs the cursor of `slot`.
    pub(super) fn run(&self, slot: u64) -> RunningCursor<'_> {
        self.unpacker.idle.take(self.id, slot);
        RunningCursor { pool: self, slot, cursor: None }
    }

    /// Adds a position where decoding can start.
    pub(super) fn add_point(&self, point: SeekPoint) {
        self.state.lock().points.add(point);
    }

    /// Records that the cursor of `slot` has returned block `number`.
    pub(super) fn passed(&self, slot: u64, number: u64, block: &Arc<[u8]>) {
        let old = self.state.update(|state| {
            state.changes += 1;
            let slot = state.slots.iter_mut().find(|s| s.id == slot)?;
            slot.next = number.saturating_add(1);
            let old = if slot.recent.len() >= RECENT_BLOCKS { slot.recent.pop_front() } else { None };
            slot.recent.push_back((number, Arc::clone(block)));
            old
        });
        drop(old);
    }

    /// Records that `slot` has decoded everything before `decoded`, and whether the stream ends there. Runs are
    /// recorded where parts of the stream have separate checks.
    pub(super) fn record_decoded(&self, slot: u64, decoded: u64, has_ended: bool, with_runs: bool) {
        let mut state = self.state.lock();
        state.furthest = state.furthest.max(decoded);
        if with_runs && let Some(from) = state.slots.iter().find(|s| s.id == slot).map(|s| s.from) {
            state.runs.add(from, decoded.saturating_add(u64::from(has_ended)));
        }
    }

    /// Stores the last block, for readers whose reads arrive out of order.
    pub(super) fn set_last(&self, number: u64, block: &Arc<[u8]>) {
        self.state.lock().last = Some((number, Arc::clone(block))).filter(|(_, block)| !block.is_empty());
    }

    /// Sets the length. Returns true if it was not known; `None` if more was decoded already.
    pub(super) fn set_len(&self, len: u64) -> Option<bool> {
        let mut state = self.state.lock();
        (len >= state.furthest).then(|| state.len.replace(len).is_none())
    }

    /// Encodes the length `len` and the seek points; see [`SeekPoints::encode`].
    pub(super) fn encode_points(&self, len: u64) -> Option<Vec<u8>> {
        self.state.lock().points.encode(len)
    }
}

/// The start of the last of `blocks` that begins at or before `offset`.
fn block_before(blocks: &[XzBlock], offset: u64) -> Option<SeekPoint> {
    let number = blocks.partition_point(|b| b.out <= offset).checked_sub(1)?;
    let out = blocks.get(number)?.out;
    Some(SeekPoint { out, input: number as u64, state: Arc::from([]) })
}

/// A slot whose cursor a thread runs. Dropped, it puts the cursor back, or removes the slot if there is no cursor: the decoder
/// has failed, panicked or reached the end.
pub(super) struct RunningCursor<'a> {
    pool: &'a CursorPool,
    slot: u64,
    /// The cursor to put back.
    pub(super) cursor: Option<Box<DecodeCursor>>,
}

impl Drop for RunningCursor<'_> {
    fn drop(&mut self) {
        let cursor = self.cursor.take().map(|mut cursor| (cursor.memory_bytes(), cursor));
        let (pool, slot) = (self.pool, self.slot);
        let (removed, memory) = pool.state.update(|state| {
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
        drop(removed);
        match memory {
            Some(bytes) => {
                pool.unpacker.idle.put(pool.id, slot, bytes, Weak::clone(&pool.this) as Weak<dyn CursorOwner>);
            }
            None => pool.unpacker.idle.take(pool.id, slot),
        }
    }
}

impl CursorOwner for CursorPool {
    fn drop_cursor(&self, slot: u64) {
        let mut state = self.state.lock();
        let idle = state.slots.iter().position(|s| s.id == slot && s.cursor.is_some());
        let evicted = idle.map(|at| state.slots.swap_remove(at));
        drop(state);
        drop(evicted);
    }
}

impl Drop for CursorPool {
    fn drop(&mut self) {
        self.unpacker.idle.forget(self.id);
    }
}
