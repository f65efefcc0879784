//! The memory of all live decoders: a decoder may have a window of 128 MiB, so all of them together count against
//! `--memory`.
//!
//! A cursor has a *lease* of its bytes before its decoder allocates them, and keeps it while it is idle. A request for
//! more memory than is free drops idle cursors, the least recently used one first. Two rules prevent that readers drop
//! each other's decoders at each read, and decode the same bytes again and again:
//!
//! - An idle cursor is kept for as long as it has decoded so far, within bounds: its reader may return.
//! - A cursor whose reader continues is kept for a time, and until it has decoded twice the bytes that its stream has lost
//!   with its last cursor. So at most as many bytes are decoded again as are decoded for the first time.
//!
//! After that a running cursor has to stop (its lease is *revoked*), which also ends its wait for its source.
//!
//! The source of a decoder may be a decoder that needs memory too. Nothing deadlocks, because a lease whose reader waits
//! for the memory of a decoder below it can be revoked at once by any other request, and its reader starts again. Requests
//! for a decoder that others wait for do not queue behind requests of other files.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::limits::UnpackLimits;
use dupfs_base::sync::{FairQueue, Monitor};
use dupfs_base::{CancelToken, RequestContext, Stopped};
use dupfs_cache::LentMemory;

/// Memory of a cursor apart from its decoder: its input, a step of its output, and its last blocks.
pub(super) const CURSOR_BYTES: u64 = 3 << 19;
/// The interval at which a request checks for leases whose time is over.
const CHECK: Duration = Duration::from_millis(50);

/// A cursor without the progress that is due has had its share after this time at least: it waits for a slow source.
const STUCK: Duration = Duration::from_secs(2);

/// The owner of cursors.
pub(super) trait CursorOwner: Send + Sync {
    /// Drops the idle cursor of `slot`. Returns false if it is not idle: a reader has taken it meanwhile.
    fn drop_cursor(&self, slot: u64) -> bool;
}

/// Identifies a cursor by its stream and its slot there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CursorKey {
    pub(super) stream: u64,
    pub(super) slot: u64,
}

/// A request for the memory of a cursor.
pub(super) struct LeaseRequest {
    pub(super) key: CursorKey,
    /// The stored file.
    pub(super) flow: u64,
    /// Number of decoders between the stored file and the input of this one.
    pub(super) level: u32,
    pub(super) bytes: u64,
    /// Bytes that the stream has to decode again because its last cursor was dropped.
    pub(super) lost: u64,
    pub(super) owner: Weak<dyn CursorOwner>,
    /// Cancelled when the lease is revoked while the cursor runs.
    pub(super) token: CancelToken,
}

struct Lease {
    request: LeaseRequest,
    granted: Instant,
    /// The time of the last change between running and idle.
    since: Instant,
    is_running: bool,
    /// Time that it was running.
    busy: Duration,
    decoded: u64,
    revoked: Arc<AtomicBool>,
    /// A thread drops it, if it is still idle.
    is_evicted: bool,
}

impl Lease {
    /// Returns true if its reader has had its share: see the [module](self).
    fn is_over(&self, now: Instant, hold: Duration) -> bool {
        let held = now.saturating_duration_since(self.granted);
        let has_progress = self.decoded >= self.request.lost.saturating_mul(2);
        held >= hold && (has_progress || held >= hold.saturating_mul(10).max(STUCK))
    }

    /// Returns true if its cursor is idle for so long that its reader is not expected to return.
    fn is_left(&self, now: Instant, bounds: (Duration, Duration)) -> bool {
        !self.is_running && now.saturating_duration_since(self.since) >= self.busy.clamp(bounds.0, bounds.1)
    }

    fn is_large(&self) -> bool {
        self.request.bytes > CURSOR_BYTES
    }
}

/// A request that waits.
struct WaitingLease {
    ticket: u64,
    flow: u64,
    level: u32,
    /// It does not queue behind other requests any more.
    has_turn: bool,
}

#[derive(Default)]
struct LeaseTable {
    leases: Vec<Lease>,
    waiting: Vec<WaitingLease>,
    next_ticket: u64,
    /// Incremented when memory may have become free.
    changes: u64,
}

/// The result of an attempt to get memory.
enum Attempt {
    Granted,
    /// These cursors are to be dropped, and then these tokens to be cancelled.
    Evict(Vec<(CursorKey, Weak<dyn CursorOwner>)>, Vec<CancelToken>),
    /// Nothing can be dropped now.
    Wait,
}

/// The leases of all cursors of an [`Unpacker`](super::Unpacker).
pub(super) struct DecoderMemory {
    /// Bytes of all leases together.
    budget: u64,
    /// Upper bound of what a single decoder and those below it may have if nothing else has more than [`CURSOR_BYTES`].
    max: u64,
    hold: Duration,
    /// Requests of different files take turns: the one that has the turn waits for memory.
    door: FairQueue,
    table: Arc<Monitor<LeaseTable>>,
    lent: LentMemory,
}

impl LeaseTable {
    fn position(&self, key: CursorKey) -> Option<usize> {
        self.leases.iter().position(|lease| lease.request.key == key)
    }

    fn get(&mut self, key: CursorKey) -> Option<&mut Lease> {
        self.leases.iter_mut().find(|lease| lease.request.key == key)
    }

    fn bytes(&self) -> u64 {
        self.leases.iter().map(|lease| lease.request.bytes).fold(0, u64::saturating_add)
    }

    /// Returns true if a running cursor above `level` of the stored file `flow` may wait for a request there.
    fn is_awaited(&self, flow: u64, level: u32) -> bool {
        let waits = |lease: &Lease| lease.is_running && lease.request.flow == flow && lease.request.level > level;
        self.leases.iter().any(waits)
    }

    /// Returns true if the request of `ticket` is the first of those that others wait for, or has the turn and there are
    /// none. Only one request at a time may revoke leases: two that revoke those of each other would never end.
    fn is_first(&self, ticket: u64) -> bool {
        let is_awaited = |waiting: &&WaitingLease| waiting.has_turn && self.is_awaited(waiting.flow, waiting.level);
        self.waiting.iter().find(is_awaited).is_none_or(|first| first.ticket == ticket)
    }

    /// Returns true if the reader of `lease` waits for the memory of a decoder below it.
    fn is_blocked(&self, lease: &Lease) -> bool {
        self.waiting.iter().any(|waiting| waiting.flow == lease.request.flow && waiting.level < lease.request.level)
    }
}

impl DecoderMemory {
    /// The memory of decoders within `limits`. What they take is recorded in `lent`.
    pub(super) fn new(limits: &UnpackLimits, lent: LentMemory) -> Self {
        Self {
            budget: limits.decoders,
            max: limits.max_decoders.max(limits.decoders),
            hold: limits.hold,
            door: FairQueue::new(1),
            table: Monitor::new(LeaseTable::default()),
            lent,
        }
    }

    /// Upper bound of the bytes of one decoder together with those below it.
    pub(super) fn max(&self) -> u64 {
        self.max
    }

    /// Bytes of all leases.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> u64 {
        self.table.lock().bytes()
    }

    /// Begins to run a cursor: with the lease that it has if that is large enough, else once there is memory for it. The
    /// caller has no lease for the same stored file at this level or below it.
    ///
    /// # Errors
    /// [`Stopped`] when the request ended first.
    pub(super) fn run(&self, request: LeaseRequest, context: &RequestContext) -> Result<RunningLease<'_>, Stopped> {
        let key = request.key;
        let mut request = Some(request);
        if let Some((bytes, revoked)) = self.grant(&mut request, None) {
            return Ok(RunningLease { memory: self, key, bytes, revoked, is_idle: false });
        }
        context.check_may_block()?;
        let _awaiting = context.awaiting(|| "memory for decoders".into());
        let waiting = self.enqueue(request.as_ref());
        let is_awaited = self.table.lock().is_awaited(waiting.flow, waiting.level);
        // Held until the lease is granted.
        let _turn = if is_awaited { None } else { Some(self.door.acquire(waiting.flow, context)?) };
        waiting.begin();
        loop {
            let changes = self.table.lock().changes;
            if let Some((bytes, revoked)) = self.grant(&mut request, Some(waiting.ticket)) {
                return Ok(RunningLease { memory: self, key, bytes, revoked, is_idle: false });
            }
            let changed = |table: &mut LeaseTable| (table.changes != changes).then_some(());
            if self.table.wait_until(&context.within(CHECK), changed).is_err() {
                context.check()?;
            }
        }
    }

    fn enqueue(&self, request: Option<&LeaseRequest>) -> WaitingGuard<'_> {
        let (flow, level) = request.map_or((0, 0), |request| (request.flow, request.level));
        let ticket = self.table.update(|table| {
            table.next_ticket += 1;
            table.waiting.push(WaitingLease { ticket: table.next_ticket, flow, level, has_turn: false });
            table.changes += 1;
            table.next_ticket
        });
        WaitingGuard { memory: self, ticket, flow, level }
    }

    /// Grants the lease, if there is memory or idle cursors can be dropped for it. A request that waits has a `ticket`.
    fn grant(&self, request: &mut Option<LeaseRequest>, ticket: Option<u64>) -> Option<(u64, Arc<AtomicBool>)> {
        loop {
            let mut table = self.table.lock();
            let wanted = request.as_ref()?;
            if let Some(lease) = table.get(wanted.key)
                && lease.request.bytes >= wanted.bytes
            {
                lease.is_running = true;
                lease.since = Instant::now();
                lease.request.token = wanted.token.clone();
                return Some((lease.request.bytes, Arc::clone(&lease.revoked)));
            }
            let is_small = wanted.bytes <= CURSOR_BYTES;
            let is_first = ticket.is_some_and(|ticket| table.is_first(ticket));
            let is_urgent = is_small || table.is_awaited(wanted.flow, wanted.level);
            if !is_first && !is_urgent && !table.waiting.is_empty() {
                return None;
            }
            match self.attempt(&mut table, wanted, is_first) {
                Attempt::Granted => return request.take().map(|request| self.insert(&mut table, request)),
                Attempt::Wait => return None,
                Attempt::Evict(cursors, tokens) => {
                    drop(table);
                    let is_freed = self.evict(cursors);
                    tokens.iter().for_each(CancelToken::cancel);
                    if !is_freed {
                        return None;
                    }
                }
            }
        }
    }

    fn insert(&self, table: &mut LeaseTable, request: LeaseRequest) -> (u64, Arc<AtomicBool>) {
        let (now, bytes, revoked) = (Instant::now(), request.bytes, Arc::new(AtomicBool::new(false)));
        if let Some(at) = table.position(request.key) {
            table.leases.swap_remove(at);
        }
        let lease = Lease {
            request,
            granted: now,
            since: now,
            is_running: true,
            busy: Duration::ZERO,
            decoded: 0,
            revoked: Arc::clone(&revoked),
            is_evicted: false,
        };
        table.leases.push(lease);
        self.lent.set(table.bytes());
        (bytes, revoked)
    }

    /// Returns true if the request fits once the leases `gone` have ended.
    fn fits(&self, table: &LeaseTable, request: &LeaseRequest, gone: &[CursorKey]) -> bool {
        let left = || {
            table.leases.iter().filter(|lease| lease.request.key != request.key && !gone.contains(&lease.request.key))
        };
        let sum = left().map(|lease| lease.request.bytes).fold(request.bytes, u64::saturating_add);
        // Decoders above and below this one are needed together with it.
        let is_of_stack = |lease: &Lease| lease.request.flow == request.flow && lease.request.level != request.level;
        let is_alone = || left().all(|lease| is_of_stack(lease) || !lease.is_large());
        sum <= self.budget || (sum <= self.max && (request.bytes <= CURSOR_BYTES || is_alone()))
    }

    fn attempt(&self, table: &mut LeaseTable, request: &LeaseRequest, may_revoke: bool) -> Attempt {
        let mut gone = Vec::new();
        if self.fits(table, request, &gone) {
            return Attempt::Granted;
        }
        let now = Instant::now();
        let hold = self.hold_of(table.waiting.len());
        let grace = (self.hold / 60, self.hold / 3);
        let is_other = |lease: &&Lease| lease.request.key != request.key && !lease.is_evicted;
        let is_idle = |lease: &&Lease| !lease.is_running && (lease.is_left(now, grace) || lease.is_over(now, hold));
        let mut idle: Vec<_> = table.leases.iter().filter(is_other).filter(is_idle).collect();
        idle.sort_by_key(|lease| lease.since);
        for lease in &idle {
            if self.fits(table, request, &gone) {
                break;
            }
            gone.push(lease.request.key);
        }
        let idle = gone.len();
        if may_revoke {
            let is_revocable =
                |lease: &&Lease| lease.is_running && (table.is_blocked(lease) || lease.is_over(now, hold));
            let mut running: Vec<_> = table.leases.iter().filter(is_other).filter(is_revocable).collect();
            // Those of other files first: those of this one may wait for this request.
            running.sort_by_key(|lease| (lease.request.flow == request.flow, lease.granted));
            for lease in running {
                if self.fits(table, request, &gone) {
                    break;
                }
                gone.push(lease.request.key);
            }
        }
        if !self.fits(table, request, &gone) {
            return Attempt::Wait;
        }
        let (mut cursors, mut tokens) = (Vec::new(), Vec::new());
        for (number, key) in gone.into_iter().enumerate() {
            let Some(lease) = table.get(key) else { continue };
            if number < idle {
                lease.is_evicted = true;
                cursors.push((key, Weak::clone(&lease.request.owner)));
            } else {
                lease.revoked.store(true, Ordering::SeqCst);
                tokens.push(lease.request.token.clone());
            }
        }
        Attempt::Evict(cursors, tokens)
    }

    /// The time for which a cursor is kept if so many requests wait: the shorter the more there are, so that each of them
    /// is served before its deadline.
    fn hold_of(&self, waiting: usize) -> Duration {
        let share = self.hold.saturating_mul(2) / u32::try_from(waiting.max(1)).unwrap_or(u32::MAX);
        share.clamp(self.hold / 10, self.hold)
    }

    /// Drops idle cursors. Returns true if one of them was dropped.
    fn evict(&self, cursors: Vec<(CursorKey, Weak<dyn CursorOwner>)>) -> bool {
        let mut is_freed = false;
        for (key, owner) in cursors {
            let is_gone = owner.upgrade().is_none_or(|owner| owner.drop_cursor(key.slot));
            is_freed |= is_gone;
            if is_gone {
                self.end(key);
            } else {
                self.table.update(|table| {
                    if let Some(lease) = table.get(key) {
                        lease.is_evicted = false;
                    }
                });
            }
        }
        is_freed
    }

    /// Ends the lease of a cursor that was dropped.
    pub(super) fn end(&self, key: CursorKey) {
        self.table.update(|table| {
            let ended = table.position(key).map(|at| table.leases.swap_remove(at));
            table.changes += 1;
            self.lent.set(table.bytes());
            ended
        });
    }

    /// Ends the leases of all cursors of a stream that was dropped.
    pub(super) fn end_all(&self, stream: u64) {
        self.table.update(|table| {
            table.leases.retain(|lease| lease.request.key.stream != stream);
            table.changes += 1;
            self.lent.set(table.bytes());
        });
    }
}

impl std::fmt::Debug for DecoderMemory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DecoderMemory").field("budget", &self.budget).field("max", &self.max).finish_non_exhaustive()
    }
}

/// The lease of a cursor that runs. It ends on drop.
#[derive(Debug)]
pub(super) struct RunningLease<'a> {
    memory: &'a DecoderMemory,
    key: CursorKey,
    bytes: u64,
    revoked: Arc<AtomicBool>,
    is_idle: bool,
}

impl RunningLease<'_> {
    /// Bytes that it had when the cursor began to run.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Returns true if the cursor is to be dropped.
    pub(super) fn is_revoked(&self) -> bool {
        self.revoked.load(Ordering::SeqCst)
    }

    /// Counts `bytes` that the cursor has decoded.
    pub(super) fn add_decoded(&self, bytes: u64) {
        if let Some(lease) = self.memory.table.lock().get(self.key) {
            lease.decoded = lease.decoded.saturating_add(bytes);
        }
    }

    /// Raises the lease to `bytes`, if they are free and no other request waits. Returns false if not: the cursor is to be
    /// dropped, since two cursors that wait for each other's memory would deadlock.
    pub(super) fn grow(&self, bytes: u64) -> bool {
        self.memory.table.update(|table| {
            let Some(at) = table.position(self.key) else { return false };
            let Some(lease) = table.leases.get_mut(at) else { return false };
            let before = lease.request.bytes;
            lease.request.bytes = bytes.max(before);
            if (table.waiting.is_empty() || bytes <= CURSOR_BYTES) && table.bytes() <= self.memory.budget {
                self.memory.lent.set(table.bytes());
                return true;
            }
            if let Some(lease) = table.leases.get_mut(at) {
                lease.request.bytes = before;
            }
            false
        })
    }

    /// Keeps the lease for the cursor, which is idle from now on.
    pub(super) fn into_idle(mut self) {
        self.is_idle = true;
        self.memory.table.update(|table| {
            table.changes += 1;
            let now = Instant::now();
            if let Some(lease) = table.get(self.key) {
                lease.is_running = false;
                lease.busy = lease.busy.saturating_add(now.saturating_duration_since(lease.since));
                lease.since = now;
            }
        });
    }
}

impl Drop for RunningLease<'_> {
    fn drop(&mut self) {
        if !self.is_idle {
            self.memory.end(self.key);
        }
    }
}

/// A request in the table. It is removed on drop.
struct WaitingGuard<'a> {
    memory: &'a DecoderMemory,
    ticket: u64,
    flow: u64,
    level: u32,
}

impl WaitingGuard<'_> {
    /// Records that it has its turn.
    fn begin(&self) {
        self.memory.table.update(|table| {
            let own = table.waiting.iter_mut().find(|waiting| waiting.ticket == self.ticket);
            own.into_iter().for_each(|waiting| waiting.has_turn = true);
            table.changes += 1;
        });
    }
}

impl Drop for WaitingGuard<'_> {
    fn drop(&mut self) {
        self.memory.table.update(|table| {
            table.waiting.retain(|waiting| waiting.ticket != self.ticket);
            table.changes += 1;
        });
    }
}

#[cfg(test)]
#[path = "decoder_memory/tests.rs"]
mod tests;
