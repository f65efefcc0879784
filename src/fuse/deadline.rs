//! Deadlines of deferred requests: the worker and the deadline thread race for the reply, and the first one answers.
//!
//! The FUSE crate does not pass on interrupts, so a process that waits for an answer cannot be killed: every deferred
//! request must be answered within bounded time, whatever the store does. When a request expires its context is cancelled,
//! so that its work stops.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use dupfs_base::sync::lock;
use dupfs_base::{CancelToken, RequestContext};

/// A pending reply to the kernel that can be an errno.
pub(super) trait ErrorReply: Send + 'static {
    /// Answers with an errno.
    fn fail(self, errno: i32);
}

/// The deferred requests in the order of their deadlines. Answers `ETIMEDOUT` to those that are not claimed in time.
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
    pending: BTreeMap<u64, (Instant, Arc<dyn Expire>)>,
    next_id: u64,
    closed: bool,
}

impl std::fmt::Debug for DeadlineState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeadlineState").field("pending", &self.pending.len()).field("closed", &self.closed).finish()
    }
}

trait Expire: Send + Sync {
    fn expire(&self, timeout: Duration);
}

struct ReplySlot<R> {
    reply: Mutex<Option<R>>,
    op: &'static str,
    ino: u64,
    /// Cancelled when the request expires: its work stops.
    cancel: CancelToken,
}

impl<R: ErrorReply> Expire for ReplySlot<R> {
    fn expire(&self, timeout: Duration) {
        let reply = lock(&self.reply).take();
        if let Some(reply) = reply {
            log::error!("{} of inode {}: no answer within {} s (ETIMEDOUT)", self.op, self.ino, timeout.as_secs());
            reply.fail(libc::ETIMEDOUT);
        }
        self.cancel.cancel();
    }
}

impl DeadlineQueue {
    /// Starts the thread that expires requests after `timeout`.
    ///
    /// # Errors
    /// When no thread can be started.
    pub(super) fn start(timeout: Duration) -> std::io::Result<Self> {
        let shared = Arc::new(DeadlineShared::default());
        let queue = Arc::clone(&shared);
        thread::Builder::new().name("dupfs-deadline".into()).spawn(move || expire_overdue(&queue, timeout))?;
        Ok(Self { timeout, shared })
    }

    /// Puts `reply` under a deadline that starts now.
    pub(super) fn register<R: ErrorReply>(&self, op: &'static str, ino: u64, reply: R) -> DeferredReply<R> {
        let cancel = CancelToken::new();
        let slot = Arc::new(ReplySlot { reply: Mutex::new(Some(reply)), op, ino, cancel: cancel.clone() });
        let expire: Arc<dyn Expire> = Arc::clone(&slot) as _;
        let mut state = lock(&self.shared.state);
        let id = state.next_id;
        state.next_id = id.wrapping_add(1);
        let due = Instant::now().checked_add(self.timeout).unwrap_or_else(far_away);
        let was_empty = state.pending.is_empty();
        state.pending.insert(id, (due, expire));
        drop(state);
        if was_empty {
            self.shared.wake.notify_all();
        }
        let context = RequestContext::new(Some(due), cancel);
        DeferredReply { id, slot, queue: Arc::clone(&self.shared), context }
    }
}

impl Drop for DeadlineQueue {
    fn drop(&mut self) {
        lock(&self.shared.state).closed = true;
        self.shared.wake.notify_all();
    }
}

impl<R: ErrorReply> DeferredReply<R> {
    /// The reply, unless the deadline has passed and it was answered.
    pub(super) fn claim(mut self) -> Option<R> {
        self.take()
    }

    fn take(&mut self) -> Option<R> {
        let expire = lock(&self.queue.state).pending.remove(&self.id);
        drop(expire);
        lock(&self.slot.reply).take()
    }

    /// The limits of the work for this request.
    pub(super) fn context(&self) -> &RequestContext {
        &self.context
    }

    /// Returns true if the deadline has passed and the request was answered.
    pub(super) fn expired(&self) -> bool {
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

fn expire_overdue(shared: &DeadlineShared, timeout: Duration) {
    let mut state = lock(&shared.state);
    loop {
        if state.closed {
            return;
        }
        let now = Instant::now();
        let first = state.pending.first_key_value().map(|(_, (due, _))| *due);
        state = match first {
            None => shared.wake.wait(state).unwrap_or_else(PoisonError::into_inner),
            Some(due) if due > now => {
                shared.wake.wait_timeout(state, due.duration_since(now)).unwrap_or_else(PoisonError::into_inner).0
            }
            Some(_) => {
                let overdue = state.pending.pop_first();
                drop(state);
                if let Some((_, (_, slot))) = overdue {
                    slot.expire(timeout);
                }
                lock(&shared.state)
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
        let deferred = deadlines.register("read", 7, SentErrno(tx));
        assert_eq!(rx.recv_timeout(Duration::from_secs(5)).unwrap(), libc::ETIMEDOUT);
        assert!(started.elapsed() >= Duration::from_millis(50));
        assert!(deferred.expired());
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
        let reply = deadlines.register("read", 7, SentErrno(tx)).claim().unwrap();
        thread::sleep(Duration::from_millis(90));
        assert!(rx.try_recv().is_err());
        reply.fail(0);
        assert_eq!(rx.recv().unwrap(), 0);
        assert!(lock(&deadlines.shared.state).pending.is_empty());
    }

    #[test]
    fn a_dropped_reply_is_answered_at_once() {
        let deadlines = DeadlineQueue::start(Duration::from_secs(3600)).unwrap();
        let (tx, rx) = channel();
        drop(deadlines.register("lookup", 1, SentErrno(tx)));
        assert_eq!(rx.try_recv().unwrap(), libc::EIO);
    }
}
