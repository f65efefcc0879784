//! Ends of deferred requests: the worker, the deadline and an interrupt race for the reply, and the first one answers.
//!
//! The kernel does not let a process go before its request is answered. So each deferred request is answered within bounded
//! time, whatever the store does: with `ETIMEDOUT` at its deadline, and with `EINTR` once a signal ends the wait of its
//! process. Its context is cancelled then, so that its work stops.
//!
//! The kernel reports signals by interrupts, but not for reads in its own readahead, and not a second time for a request
//! whose first signal did not end the wait. So the thread that watches the deadlines also checks the waiting processes.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use dupfs_base::sync::lock;
use dupfs_base::{AwaitedObject, CancelToken, RequestContext};

use super::waiter::{WaiterId, WaiterState};

/// Reports that a request had no answer within this timeout.
pub(super) type ReportExpiry = Box<dyn Fn(Duration) + Send + Sync>;

/// The age at which a request is first checked, and the interval of later checks.
const WATCH_INTERVAL: Duration = Duration::from_millis(200);

/// A pending reply to the kernel that can be an errno.
pub(super) trait ErrorReply: Send + 'static {
    /// Answers with an errno.
    fn fail(self, errno: i32);
}

/// The origin of a request in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RequestOrigin {
    /// The number by which an interrupt names the request.
    pub(super) id: u64,
    /// The thread that caused it; `None` if it has no number in the namespace of this process.
    pub(super) waiter: Option<WaiterId>,
    /// Inode and handle of the file that is read, if the thread is not visible: closing the file then ends the request.
    pub(super) file: Option<(u64, u64)>,
}

/// A request that was deferred and has no answer yet.
#[derive(Clone, Debug)]
pub(super) struct WaitingRequest {
    pub(super) op: &'static str,
    pub(super) ino: u64,
    pub(super) waiter: Option<WaiterId>,
    /// The time since it came.
    pub(super) elapsed: Duration,
    /// The object that it waits for.
    pub(super) object: Option<Arc<str>>,
}

/// The deferred requests in the order of their deadlines. Answers `ETIMEDOUT` to those that are not claimed in time, and
/// `EINTR` to those whose process is to end.
#[derive(Debug)]
pub(super) struct DeadlineQueue {
    timeout: Duration,
    shared: Arc<DeadlineShared>,
}

/// The reply of a deferred request until it is claimed. Dropped unclaimed, it answers `EIO`.
pub(super) struct DeferredReply<R: ErrorReply> {
    id: u64,
    slot: Arc<ReplySlot<R>>,
    queue: Arc<DeadlineShared>,
    context: RequestContext,
}

#[derive(Debug, Default)]
struct DeadlineShared {
    state: Mutex<DeadlineState>,
    wake: Condvar,
}

/// Ids ascend with the deadlines, as the timeout is the same for all: the first entry is due first.
#[derive(Default)]
struct DeadlineState {
    pending: BTreeMap<u64, PendingRequest>,
    /// The ids in `pending` by the kernel's number.
    by_origin: HashMap<u64, u64>,
    next_id: u64,
    closed: bool,
}

struct PendingRequest {
    op: &'static str,
    ino: u64,
    since: Instant,
    due: Instant,
    origin: RequestOrigin,
    slot: Arc<dyn EndEarly>,
    awaited: Arc<AwaitedObject>,
}

impl DeadlineState {
    fn remove(&mut self, id: u64) -> Option<PendingRequest> {
        let request = self.pending.remove(&id)?;
        // A number that the kernel has used again belongs to the later request.
        if self.by_origin.get(&request.origin.id) == Some(&id) {
            self.by_origin.remove(&request.origin.id);
        }
        Some(request)
    }

    /// The requests that have waited long enough to be checked.
    fn watched(&self, now: Instant) -> Vec<(u64, WaiterId)> {
        let old = |request: &PendingRequest| now.saturating_duration_since(request.since) >= WATCH_INTERVAL;
        let pending = self.pending.iter().filter(|(_, request)| old(request));
        pending.filter_map(|(id, request)| Some((*id, request.origin.waiter?))).collect()
    }
}

impl std::fmt::Debug for DeadlineState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeadlineState").field("pending", &self.pending.len()).field("closed", &self.closed).finish()
    }
}

/// A request that can be answered before its work is done.
trait EndEarly: Send + Sync {
    fn expire(&self, timeout: Duration);

    fn interrupt(&self);
}

struct ReplySlot<R> {
    reply: Mutex<Option<R>>,
    report: ReportExpiry,
    /// Cancelled when the request ends early: its work stops.
    cancel: CancelToken,
}

impl<R: ErrorReply> EndEarly for ReplySlot<R> {
    fn expire(&self, timeout: Duration) {
        let reply = lock(&self.reply).take();
        if let Some(reply) = reply {
            (self.report)(timeout);
            reply.fail(libc::ETIMEDOUT);
        }
        self.cancel.cancel();
    }

    fn interrupt(&self) {
        let reply = lock(&self.reply).take();
        if let Some(reply) = reply {
            reply.fail(libc::EINTR);
        }
        self.cancel.cancel();
    }
}

impl DeadlineQueue {
    /// Starts the thread that ends requests: after `timeout`, or when their process is to end.
    ///
    /// # Errors
    /// When no thread can be started.
    pub(super) fn start(timeout: Duration) -> std::io::Result<Self> {
        let shared = Arc::new(DeadlineShared::default());
        let queue = Arc::clone(&shared);
        thread::Builder::new().name("dupfs-deadline".into()).spawn(move || end_early(&queue, timeout))?;
        Ok(Self { timeout, shared })
    }

    /// Puts `reply` to the operation `op` on inode `ino` under a deadline that starts now. `report` is called if it passes.
    pub(super) fn register<R: ErrorReply>(
        &self,
        origin: RequestOrigin,
        (op, ino): (&'static str, u64),
        report: ReportExpiry,
        reply: R,
    ) -> DeferredReply<R> {
        let cancel = CancelToken::new();
        let slot = Arc::new(ReplySlot { reply: Mutex::new(Some(reply)), report, cancel: cancel.clone() });
        let end_early: Arc<dyn EndEarly> = Arc::clone(&slot) as _;
        let since = Instant::now();
        let due = since.checked_add(self.timeout).unwrap_or_else(far_away);
        let mut state = lock(&self.shared.state);
        let id = state.next_id;
        state.next_id = id.wrapping_add(1);
        let was_empty = state.pending.is_empty();
        let awaited = Arc::<AwaitedObject>::default();
        let recorded = Arc::clone(&awaited);
        state.pending.insert(id, PendingRequest { op, ino, since, due, origin, slot: end_early, awaited });
        state.by_origin.insert(origin.id, id);
        drop(state);
        if was_empty {
            self.shared.wake.notify_all();
        }
        let context = RequestContext::new(Some(due), cancel).recording(recorded);
        DeferredReply { id, slot, queue: Arc::clone(&self.shared), context }
    }

    /// Handles the kernel's interrupt of the request with its number `origin`: ends the request, unless its process
    /// continues to wait after the signal. Returns false if no such request is pending.
    pub(super) fn interrupt(&self, origin: u64) -> bool {
        let state = lock(&self.shared.state);
        let Some(&id) = state.by_origin.get(&origin) else { return false };
        let waiter = state.pending.get(&id).and_then(|request| request.origin.waiter);
        drop(state);
        if waiter.is_some_and(|waiter| waiter.state() == WaiterState::Waits) {
            // The kernel sends one interrupt only. The process is watched for a later signal.
            return true;
        }
        self.shared.interrupt(id);
        true
    }

    /// Ends the reads of the handle `handle` of `ino` by processes that are not visible: one of them has closed it.
    pub(super) fn interrupt_file(&self, ino: u64, handle: u64) {
        let of_file = |request: &PendingRequest| request.origin.file == Some((ino, handle));
        let state = lock(&self.shared.state);
        let ids: Vec<u64> = state.pending.iter().filter(|(_, request)| of_file(request)).map(|(id, _)| *id).collect();
        drop(state);
        ids.into_iter().for_each(|id| self.shared.interrupt(id));
    }

    /// Ends all pending requests with `EINTR`, as those of a mount that has ended.
    pub(super) fn interrupt_all(&self) {
        let ids: Vec<u64> = lock(&self.shared.state).pending.keys().copied().collect();
        ids.into_iter().for_each(|id| self.shared.interrupt(id));
    }

    /// The requests without an answer, the oldest first, and the number of those that were answered so far.
    pub(super) fn waiting(&self) -> (Vec<WaitingRequest>, u64) {
        let now = Instant::now();
        let state = lock(&self.shared.state);
        let shown = |request: &PendingRequest| WaitingRequest {
            op: request.op,
            ino: request.ino,
            waiter: request.origin.waiter,
            elapsed: now.saturating_duration_since(request.since),
            object: request.awaited.get(),
        };
        (state.pending.values().map(shown).collect(), state.next_id.saturating_sub(state.pending.len() as u64))
    }

    /// The number of requests that were answered so far; `None` if none is pending.
    pub(super) fn answered_while_pending(&self) -> Option<u64> {
        let state = lock(&self.shared.state);
        let pending = state.pending.len() as u64;
        (pending > 0).then(|| state.next_id.saturating_sub(pending))
    }
}

impl DeadlineShared {
    fn interrupt(&self, id: u64) {
        let request = lock(&self.state).remove(id);
        if let Some(request) = request {
            request.slot.interrupt();
        }
    }
}

impl Drop for DeadlineQueue {
    fn drop(&mut self) {
        lock(&self.shared.state).closed = true;
        self.shared.wake.notify_all();
    }
}

impl<R: ErrorReply> DeferredReply<R> {
    /// The reply, unless the request has expired or was interrupted, and so was answered.
    pub(super) fn claim(mut self) -> Option<R> {
        self.take()
    }

    fn take(&mut self) -> Option<R> {
        let request = lock(&self.queue.state).remove(self.id);
        drop(request);
        lock(&self.slot.reply).take()
    }

    /// The limits of the work for this request.
    pub(super) fn context(&self) -> &RequestContext {
        &self.context
    }

    /// Returns true if the request has expired or was interrupted, and so was answered.
    pub(super) fn ended(&self) -> bool {
        lock(&self.slot.reply).is_none()
    }
}

impl<R: ErrorReply> Drop for DeferredReply<R> {
    fn drop(&mut self) {
        if let Some(reply) = self.take() {
            reply.fail(libc::EIO);
        }
    }
}

fn end_early(shared: &DeadlineShared, timeout: Duration) {
    let mut state = lock(&shared.state);
    let mut next_look = Instant::now();
    loop {
        if state.closed {
            return;
        }
        let now = Instant::now();
        let first = state.pending.first_key_value().map(|(id, request)| (*id, request.due));
        state = match first {
            None => shared.wake.wait(state).unwrap_or_else(PoisonError::into_inner),
            Some((id, due)) if due <= now => {
                let overdue = state.remove(id);
                drop(state);
                if let Some(request) = overdue {
                    request.slot.expire(timeout);
                }
                lock(&shared.state)
            }
            Some(_) if next_look <= now => {
                let watched = state.watched(now);
                drop(state);
                for (id, waiter) in watched {
                    if waiter.state() == WaiterState::Ends {
                        shared.interrupt(id);
                    }
                }
                next_look = now.checked_add(WATCH_INTERVAL).unwrap_or_else(far_away);
                lock(&shared.state)
            }
            Some((_, due)) => {
                let pause = due.min(next_look).saturating_duration_since(now);
                shared.wake.wait_timeout(state, pause).unwrap_or_else(PoisonError::into_inner).0
            }
        };
    }
}

/// A time that is never reached while the program runs, for a timeout too large to add.
fn far_away() -> Instant {
    let now = Instant::now();
    now.checked_add(Duration::from_secs(10 * 365 * 86_400)).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};

    use super::*;

    const ORIGIN: RequestOrigin = RequestOrigin { id: 6, waiter: None, file: None };

    const OP: (&str, u64) = ("read", 12);

    struct SentErrno(Sender<i32>);

    impl ErrorReply for SentErrno {
        fn fail(self, errno: i32) {
            self.0.send(errno).unwrap();
        }
    }

    #[test]
    fn a_request_without_an_answer_times_out_and_is_cancelled() {
        let deadlines = DeadlineQueue::start(Duration::from_millis(50)).unwrap();
        let (tx, rx) = channel();
        let started = Instant::now();
        let deferred = deadlines.register(ORIGIN, OP, Box::new(|_| {}), SentErrno(tx));
        assert_eq!(rx.recv_timeout(Duration::from_secs(5)).unwrap(), libc::ETIMEDOUT);
        assert!(started.elapsed() >= Duration::from_millis(50));
        assert!(deferred.ended());
        // The answer is sent first, then the work is cancelled.
        let cancelled = || deferred.context().cancel_token().is_cancelled();
        while !cancelled() && started.elapsed() < Duration::from_secs(5) {
            thread::yield_now();
        }
        assert!(cancelled());
        assert!(deferred.claim().is_none(), "the late result has no reply to go to");
    }

    #[test]
    fn a_claimed_request_never_times_out() {
        let deadlines = DeadlineQueue::start(Duration::from_millis(30)).unwrap();
        let (tx, rx) = channel();
        let reply = deadlines.register(ORIGIN, OP, Box::new(|_| {}), SentErrno(tx)).claim().unwrap();
        thread::sleep(Duration::from_millis(90));
        assert!(rx.try_recv().is_err());
        reply.fail(0);
        assert_eq!(rx.recv().unwrap(), 0);
        assert!(lock(&deadlines.shared.state).pending.is_empty());
    }

    #[test]
    fn a_waiting_request_is_listed_with_the_object_that_it_waits_for() {
        let deadlines = DeadlineQueue::start(Duration::from_secs(3600)).unwrap();
        let (tx, rx) = channel();
        let deferred = deadlines.register(ORIGIN, OP, Box::new(|_| {}), SentErrno(tx));
        let waiting = deferred.context().awaiting(|| "volume".into());
        let (listed, answered) = deadlines.waiting();
        let [request] = &listed[..] else { panic!("{listed:?}") };
        assert_eq!(((request.op, request.ino), request.object.as_deref(), answered), (OP, Some("volume"), 0));
        drop(waiting);
        assert_eq!(deadlines.waiting().0[0].object, None);
        deferred.claim().unwrap().fail(0);
        assert_eq!(rx.recv().unwrap(), 0);
        assert!(matches!(deadlines.waiting(), (listed, 1) if listed.is_empty()));
    }

    #[test]
    fn a_dropped_reply_is_answered_at_once() {
        let deadlines = DeadlineQueue::start(Duration::from_secs(3600)).unwrap();
        let (tx, rx) = channel();
        drop(deadlines.register(ORIGIN, OP, Box::new(|_| {}), SentErrno(tx)));
        assert_eq!(rx.try_recv().unwrap(), libc::EIO);
    }

    #[test]
    fn an_interrupted_request_is_answered_and_cancelled() {
        let deadlines = DeadlineQueue::start(Duration::from_secs(3600)).unwrap();
        let (tx, rx) = channel();
        let deferred = deadlines.register(ORIGIN, OP, Box::new(|_| {}), SentErrno(tx));
        assert!(!deadlines.interrupt(8), "another request");
        assert!(rx.try_recv().is_err());
        assert!(deadlines.interrupt(ORIGIN.id));
        assert_eq!(rx.try_recv().unwrap(), libc::EINTR);
        assert!(deferred.ended() && deferred.context().cancel_token().is_cancelled());
        assert!(deferred.claim().is_none(), "the late result has no reply to go to");
        assert!(!deadlines.interrupt(ORIGIN.id), "answered");
        assert!(lock(&deadlines.shared.state).by_origin.is_empty());
    }

    #[test]
    fn a_process_that_still_waits_is_not_interrupted_and_an_exited_one_is_detected() {
        let deadlines = DeadlineQueue::start(Duration::from_secs(3600)).unwrap();
        let mut child = std::process::Command::new("sleep").arg("600").spawn().unwrap();
        let origin = RequestOrigin { waiter: WaiterId::new(child.id()), ..ORIGIN };
        let (tx, rx) = channel();
        let deferred = deadlines.register(origin, OP, Box::new(|_| {}), SentErrno(tx));
        assert!(deadlines.interrupt(ORIGIN.id), "known");
        assert!(rx.recv_timeout(2 * WATCH_INTERVAL).is_err(), "no signal is pending");
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(rx.recv_timeout(Duration::from_secs(20)).unwrap(), libc::EINTR);
        drop(deferred);
    }
}
