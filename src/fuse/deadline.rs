//! Deadlines of requests that wait: a reply is answered by whoever claims it first, the worker or the reaper.
//!
//! The FUSE crate does not pass on interrupts, so a process that waits for an answer cannot be killed: every deferred
//! request must be answered within bounded time whatever the store does.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::lock;
use dupfs_base::{CancelToken, RequestContext};

/// A reply that is still owed to the kernel.
pub(super) trait Answer: Send + 'static {
    /// Answers with an errno.
    fn fail(self, errno: i32);
}

/// Answers `ETIMEDOUT` to every request that is not claimed in time.
#[derive(Debug)]
pub(super) struct Deadlines {
    limit: Duration,
    shared: Arc<Shared>,
}

/// A deferred request's reply, until somebody claims it. Dropped unclaimed, it answers `EIO`: nobody would come any more.
pub(super) struct Ticket<R: Answer> {
    id: u64,
    slot: Arc<Slot<R>>,
    shared: Arc<Shared>,
    context: RequestContext,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    wake: Condvar,
}

/// Ids are given in the order of the due times, as the limit is the same for all: the first entry is due first.
#[derive(Default)]
struct State {
    pending: BTreeMap<u64, (Instant, Arc<dyn Expire>)>,
    next: u64,
    closed: bool,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("pending", &self.pending.len()).field("closed", &self.closed).finish()
    }
}

trait Expire: Send + Sync {
    fn expire(&self, limit: Duration);
}

struct Slot<R> {
    reply: Mutex<Option<R>>,
    op: &'static str,
    ino: u64,
    /// Triggered when the request is given up: its work stops.
    cancel: CancelToken,
}

impl<R: Answer> Expire for Slot<R> {
    fn expire(&self, limit: Duration) {
        let reply = lock(&self.reply).take();
        if let Some(reply) = reply {
            log::error!(
                "{} of inode {}: no answer within {} s, given up (ETIMEDOUT)",
                self.op,
                self.ino,
                limit.as_secs()
            );
            reply.fail(libc::ETIMEDOUT);
        }
        self.cancel.cancel();
    }
}

impl Deadlines {
    /// Starts the reaper for requests that may wait up to `limit`.
    ///
    /// # Errors
    /// When no thread can be started.
    pub(super) fn start(limit: Duration) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        thread::Builder::new().name("dupfs-deadline".into()).spawn(move || reap(&theirs, limit))?;
        Ok(Self { limit, shared })
    }

    /// Puts `reply` under the deadline.
    pub(super) fn register<R: Answer>(&self, op: &'static str, ino: u64, reply: R) -> Ticket<R> {
        let cancel = CancelToken::new();
        let slot = Arc::new(Slot { reply: Mutex::new(Some(reply)), op, ino, cancel: cancel.clone() });
        let expire: Arc<dyn Expire> = Arc::clone(&slot) as _;
        let mut state = lock(&self.shared.state);
        let id = state.next;
        state.next = id.wrapping_add(1);
        let due = Instant::now().checked_add(self.limit).unwrap_or_else(far_away);
        let was_empty = state.pending.is_empty();
        state.pending.insert(id, (due, expire));
        drop(state);
        if was_empty {
            self.shared.wake.notify_all();
        }
        let context = RequestContext::new(Some(due), cancel);
        Ticket { id, slot, shared: Arc::clone(&self.shared), context }
    }
}

impl Drop for Deadlines {
    fn drop(&mut self) {
        lock(&self.shared.state).closed = true;
        self.shared.wake.notify_all();
    }
}

impl<R: Answer> Ticket<R> {
    /// The reply, unless the deadline has passed and it was answered.
    pub(super) fn claim(mut self) -> Option<R> {
        self.take()
    }

    fn take(&mut self) -> Option<R> {
        let expire = lock(&self.shared.state).pending.remove(&self.id);
        drop(expire);
        lock(&self.slot.reply).take()
    }

    /// The limits of the work for this request.
    pub(super) fn context(&self) -> &RequestContext {
        &self.context
    }

    /// Whether the deadline has passed: nobody waits for the answer any more.
    pub(super) fn expired(&self) -> bool {
        lock(&self.slot.reply).is_none()
    }
}

impl<R: Answer> Drop for Ticket<R> {
    fn drop(&mut self) {
        if let Some(reply) = self.take() {
            reply.fail(libc::EIO);
        }
    }
}

fn reap(shared: &Shared, limit: Duration) {
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
                let late = state.pending.pop_first();
                drop(state);
                if let Some((_, (_, slot))) = late {
                    slot.expire(limit);
                }
                lock(&shared.state)
            }
        };
    }
}

/// A time so late that it is never reached while the program runs, for a limit too large to add.
fn far_away() -> Instant {
    let now = Instant::now();
    now.checked_add(Duration::from_secs(10 * 365 * 86_400)).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};

    use super::*;

    struct Told(Sender<i32>);

    impl Answer for Told {
        fn fail(self, errno: i32) {
            self.0.send(errno).unwrap();
        }
    }

    #[test]
    fn a_request_nobody_answers_times_out() {
        let deadlines = Deadlines::start(Duration::from_millis(50)).unwrap();
        let (tell, told) = channel();
        let started = Instant::now();
        let ticket = deadlines.register("read", 7, Told(tell));
        assert_eq!(told.recv_timeout(Duration::from_secs(5)).unwrap(), libc::ETIMEDOUT);
        assert!(started.elapsed() >= Duration::from_millis(50));
        assert!(ticket.expired());
        assert!(ticket.claim().is_none(), "the late result has no reply to go to");
    }

    #[test]
    fn a_claimed_request_never_times_out() {
        let deadlines = Deadlines::start(Duration::from_millis(30)).unwrap();
        let (tell, told) = channel();
        let reply = deadlines.register("read", 7, Told(tell)).claim().unwrap();
        thread::sleep(Duration::from_millis(90));
        assert!(told.try_recv().is_err());
        reply.fail(0);
        assert_eq!(told.recv().unwrap(), 0);
        assert!(lock(&deadlines.shared.state).pending.is_empty());
    }

    #[test]
    fn an_abandoned_ticket_is_answered_at_once() {
        let deadlines = Deadlines::start(Duration::from_secs(3600)).unwrap();
        let (tell, told) = channel();
        drop(deadlines.register("lookup", 1, Told(tell)));
        assert_eq!(told.try_recv().unwrap(), libc::EIO);
    }
}
