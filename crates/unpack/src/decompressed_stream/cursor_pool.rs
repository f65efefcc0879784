//! The cursors of a stream: which of them decodes a block that is not cached, and where a new one starts.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use super::decoded_runs::DecodedRuns;
use crate::byte_source::StoredOrigin;
use crate::decode_cursor::DecodeCursor;
use crate::decoder_memory::{CURSOR_BYTES, CursorKey, CursorOwner, LeaseRequest, RunningLease};
use crate::error::UnpackError;
use crate::seek_points::SeekPoints;
use crate::stream_decoder::SeekPoint;
use crate::unpacker::Unpacker;
use crate::xz::XzBlock;
use dupfs_base::sync::Monitor;
use dupfs_base::{CancelToken, ErrorKind, RequestContext, Stopped};
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
    /// Memory that a decoder has needed, in bytes, apart from that of any cursor.
    needed: u64,
    /// Bytes that have to be decoded again because the last cursor was dropped to make room.
    lost: u64,
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
            let slot = old.id;
            drop(old);
            self.unpacker.decoders.end(CursorKey { stream: self.id, slot });
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

    /// The caller runs the cursor of `slot`. Without a lease yet.
    pub(super) fn run(&self, slot: u64) -> RunningCursor<'_> {
        RunningCursor { pool: self, slot, cursor: None, lease: None }
    }

    /// Memory that a decoder has needed so far, in bytes, apart from that of any cursor.
    pub(super) fn needed(&self) -> u64 {
        self.state.lock().needed
    }

    /// Records that decoders need `bytes` apart from those of any cursor.
    pub(super) fn set_needed(&self, bytes: u64) {
        let mut state = self.state.lock();
        state.needed = state.needed.max(bytes);
    }

    /// Counts the loss of a cursor that is dropped to make room.
    fn add_lost(state: &mut CursorPoolState, slot: u64) {
        let Some(slot) = state.slots.iter().find(|s| s.id == slot) else { return };
        let reached = slot.next.saturating_mul(BLOCK_BYTES as u64);
        let point = state.points.before(reached).map_or(0, |point| point.out).max(slot.from);
        state.lost = reached.saturating_sub(point);
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
    lease: Option<RunningLease<'a>>,
}

impl RunningCursor<'_> {
    /// Gets memory for a new cursor, or that which the cursor has already. `token` is cancelled when others need it more.
    /// Returns the bytes for its decoder, apart from those of any cursor.
    ///
    /// # Errors
    /// [`UnpackError`] if the request ends first, or if that much can never be had.
    pub(super) fn get_memory(
        &mut self,
        (source, new): (StoredOrigin, Option<u64>),
        token: &CancelToken,
        context: &RequestContext,
    ) -> Result<u64, UnpackError> {
        let pool = self.pool;
        let (needed, lost) = {
            let state = pool.state.lock();
            // A cursor that waited for more memory while it has some could deadlock with another one.
            (new.map_or(0, |codec_bytes| state.needed.max(codec_bytes)), state.lost)
        };
        let bytes = needed.saturating_add(CURSOR_BYTES);
        let all = bytes.saturating_add(source.decoder_bytes);
        if new.is_some() && all > pool.unpacker.decoders.max() {
            let mib = all.div_ceil(1 << 20);
            let limit = format!("decoding needs {mib} MiB of memory: mount with --memory {mib}M or more");
            return Err(UnpackError::limit(&pool.name, limit));
        }
        let request = LeaseRequest {
            key: CursorKey { stream: pool.id, slot: self.slot },
            flow: source.flow,
            level: source.decoders,
            bytes,
            lost,
            owner: Weak::clone(&pool.this) as Weak<dyn CursorOwner>,
            token: token.clone(),
        };
        let lease = pool.unpacker.decoders.run(request, context).map_err(|reason| match reason {
            Stopped::Deadline => UnpackError::Source {
                kind: ErrorKind::Timeout,
                reason: format!(
                    "{}: other files that are unpacked at the same time used the memory for decoders until the deadline; \
                     try again, or mount with a larger --memory",
                    pool.name
                )
                .into(),
            },
            Stopped::WouldBlock | Stopped::Cancelled => UnpackError::stopped(&pool.name, reason),
        })?;
        let bytes = lease.bytes();
        self.lease = Some(lease);
        Ok(bytes.saturating_sub(CURSOR_BYTES))
    }

    /// Gets `bytes` for the decoder, if they are free now. The next cursor of the stream gets them before it starts.
    pub(super) fn grow(&self, bytes: u64) -> bool {
        self.pool.set_needed(bytes);
        self.lease.as_ref().is_some_and(|lease| lease.grow(bytes.saturating_add(CURSOR_BYTES)))
    }

    /// Returns true if the cursor is to be dropped because others need its memory.
    pub(super) fn is_revoked(&self) -> bool {
        self.lease.as_ref().is_some_and(RunningLease::is_revoked)
    }

    /// Counts a block that the cursor has decoded.
    pub(super) fn add_block(&self) {
        if let Some(lease) = &self.lease {
            lease.add_decoded(BLOCK_BYTES as u64);
        }
    }
}

impl Drop for RunningCursor<'_> {
    fn drop(&mut self) {
        // A reader that wants it can get it from here on: its lease has to be idle before.
        if self.is_revoked() {
            self.cursor = None;
            self.pool.state.update(|state| CursorPool::add_lost(state, self.slot));
        }
        let cursor = self.cursor.take();
        let ended = match (&cursor, self.lease.take()) {
            (Some(_), Some(lease)) => {
                lease.into_idle();
                None
            }
            (_, lease) => lease,
        };
        let (pool, slot) = (self.pool, self.slot);
        let removed = pool.state.update(|state| {
            state.changes += 1;
            let at = state.slots.iter().position(|s| s.id == slot)?;
            match (cursor, state.slots.get_mut(at)) {
                (Some(cursor), Some(slot)) => {
                    slot.cursor = Some(cursor);
                    None
                }
                _ => Some(state.slots.swap_remove(at)),
            }
        });
        // The memory is free before the lease ends.
        drop(removed);
        drop(ended);
    }
}

impl CursorOwner for CursorPool {
    fn drop_cursor(&self, slot: u64) -> bool {
        let mut state = self.state.lock();
        let idle = state.slots.iter().position(|s| s.id == slot && s.cursor.is_some());
        if idle.is_some() {
            Self::add_lost(&mut state, slot);
        }
        let evicted = idle.map(|at| state.slots.swap_remove(at));
        drop(state);
        evicted.is_some()
    }
}

impl Drop for CursorPool {
    fn drop(&mut self) {
        self.unpacker.decoders.end_all(self.id);
    }
}
