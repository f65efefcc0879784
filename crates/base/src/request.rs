//! The context of a request: how long it may wait, and whether its answer is still wanted.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crate::sync::prim::Mutex;
use crate::sync::prim::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::{ErrorKind, HasKind};

/// The reason why a request ended before its answer was complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Stopped {
    /// The answer is not in memory, and the request may not block.
    #[error("the answer is not cached")]
    WouldBlock,
    /// The deadline of the request has passed.
    #[error("no result before the deadline; the store is slow or unreachable, or decoding takes long (see --deadline)")]
    Deadline,
    /// The request was cancelled: no caller waits for the answer any more.
    #[error("the request was interrupted")]
    Cancelled,
}

impl HasKind for Stopped {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::WouldBlock => ErrorKind::WouldBlock,
            Self::Deadline => ErrorKind::Timeout,
            Self::Cancelled => ErrorKind::Cancelled,
        }
    }
}

/// The limits of one request. It is passed down the whole read path: the request has one deadline instead of one for
/// each step, and its work stops once no caller waits for the answer.
#[derive(Clone, Debug)]
pub struct RequestContext {
    may_block: bool,
    deadline: Option<Instant>,
    cancel: CancelToken,
    awaited: Option<Arc<AwaitedObject>>,
}

impl RequestContext {
    /// A request that is answered from memory. It never waits for the store, the disk or another thread.
    pub fn cached_only() -> Self {
        Self { may_block: false, deadline: None, cancel: CancelToken::never(), awaited: None }
    }

    /// A request without a deadline that is never cancelled.
    pub fn unlimited() -> Self {
        Self { may_block: true, deadline: None, cancel: CancelToken::never(), awaited: None }
    }

    /// A request that may block until `deadline` or until `cancel` is cancelled.
    pub fn new(deadline: Option<Instant>, cancel: CancelToken) -> Self {
        Self { may_block: true, deadline, cancel, awaited: None }
    }

    /// A request that may block for `timeout` from now; without a deadline if the clock cannot express it.
    pub fn with_timeout(timeout: Duration) -> Self {
        Self::new(Instant::now().checked_add(timeout), CancelToken::never())
    }

    /// The same request, which records in `awaited` what it waits for.
    pub fn recording(self, awaited: Arc<AwaitedObject>) -> Self {
        Self { awaited: Some(awaited), ..self }
    }

    /// The same request with `time` as its deadline, if it has no earlier one.
    #[must_use]
    pub fn until(&self, time: Instant) -> Self {
        let deadline = self.deadline.map_or(time, |deadline| deadline.min(time));
        Self { deadline: Some(deadline), ..self.clone() }
    }

    /// The same request, which may take `time` from now on, if it has no earlier deadline.
    #[must_use]
    pub fn within(&self, time: Duration) -> Self {
        // A time beyond the clock is no bound.
        Instant::now().checked_add(time).map_or_else(|| self.clone(), |end| self.until(end))
    }

    /// Records that the request waits for `object` as long as the returned guard lives. It costs nothing if nothing records
    /// this.
    pub fn awaiting(&self, object: impl FnOnce() -> Arc<str>) -> AwaitGuard {
        AwaitGuard(self.awaited.as_ref().map(|awaited| {
            let object = object();
            let outer = awaited.0.lock().replace(object);
            (Arc::clone(awaited), outer)
        }))
    }

    /// Returns true if the request may wait for the store, the disk or another thread.
    pub fn may_block(&self) -> bool {
        self.may_block
    }

    /// The same request, which `cancel` ends too. That token is a child of its own token ([`CancelToken::child`]).
    pub fn ended_by(&self, cancel: &ChildToken) -> Self {
        Self { cancel: cancel.token.clone(), ..self.clone() }
    }

    /// The time at which the request gives up; `None` if it has no deadline.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// The token that is cancelled once no caller waits for the answer any more.
    pub fn cancel_token(&self) -> &CancelToken {
        &self.cancel
    }

    /// The time that is left; `None` without a deadline, zero once it has passed.
    pub fn time_left(&self) -> Option<Duration> {
        self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }

    /// Checks that the request has not ended. Long loops call it between their steps.
    ///
    /// # Errors
    /// [`Stopped::Cancelled`] or [`Stopped::Deadline`].
    pub fn check(&self) -> Result<(), Stopped> {
        if self.cancel.is_cancelled() {
            return Err(Stopped::Cancelled);
        }
        match self.time_left() {
            Some(left) if left.is_zero() => Err(Stopped::Deadline),
            _ => Ok(()),
        }
    }

    /// Checks that the request may block and has not ended.
    ///
    /// # Errors
    /// [`Stopped`].
    pub fn check_may_block(&self) -> Result<(), Stopped> {
        if self.may_block { self.check() } else { Err(Stopped::WouldBlock) }
    }
}

/// The object that a request waits for now, for reports about it.
#[derive(Debug, Default)]
pub struct AwaitedObject(Mutex<Option<Arc<str>>>);

impl AwaitedObject {
    /// The name of the object; `None` if the request computes, or waits for something without a name.
    pub fn get(&self) -> Option<Arc<str>> {
        self.0.lock().clone()
    }
}

/// A wait for an object, from [`RequestContext::awaiting`]. Dropping it ends the wait; one that it interrupted continues.
#[derive(Debug)]
pub struct AwaitGuard(Option<(Arc<AwaitedObject>, Option<Arc<str>>)>);

impl Drop for AwaitGuard {
    fn drop(&mut self) {
        if let Some((awaited, outer)) = self.0.take() {
            let ended = std::mem::replace(&mut *awaited.0.lock(), outer);
            drop(ended);
        }
    }
}

/// A place where threads wait. It is woken when a token is cancelled.
pub trait Wake: Send + Sync {
    /// Wakes all threads that wait, so that they check their tokens again.
    fn wake(&self);
}

/// The signal to the work of a request that no caller waits for the answer any more. Clones share one state.
#[derive(Clone)]
pub struct CancelToken {
    /// `None` for a token that cannot be cancelled.
    state: Option<Arc<TokenState>>,
}

#[derive(Default)]
struct TokenState {
    cancelled: AtomicBool,
    next_id: AtomicU64,
    /// Subscribers by number. Locked for work in memory only; `wake` is called after it is released.
    waiting: Mutex<BTreeMap<u64, Weak<dyn Wake>>>,
}

impl CancelToken {
    /// A token that can be cancelled.
    pub fn new() -> Self {
        Self { state: Some(Arc::default()) }
    }

    /// A token that is never cancelled.
    pub fn never() -> Self {
        Self { state: None }
    }

    /// Cancels the token permanently and wakes all subscribers. The caller holds no lock that a subscriber needs to
    /// wake up.
    pub fn cancel(&self) {
        let Some(state) = &self.state else { return };
        state.cancelled.store(true, Ordering::SeqCst);
        let waiting = std::mem::take(&mut *state.waiting.lock());
        for waiter in waiting.into_values().filter_map(|waiter| waiter.upgrade()) {
            waiter.wake();
        }
    }

    /// Returns true once the token is cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.state.as_ref().is_some_and(|state| state.cancelled.load(Ordering::SeqCst))
    }

    /// Wakes `waiter` when the token is cancelled, as long as the returned subscription lives. The caller checks
    /// [`Self::is_cancelled`] after it has subscribed: a token that was cancelled before wakes no new subscriber.
    pub fn subscribe(&self, waiter: Weak<dyn Wake>) -> Subscription {
        let Some(state) = &self.state else { return Subscription { state: None, id: 0 } };
        let id = state.next_id.fetch_add(1, Ordering::Relaxed);
        state.waiting.lock().insert(id, waiter);
        Subscription { state: Some(Arc::clone(state)), id }
    }
}

impl CancelToken {
    /// A token that is cancelled together with this one, and that can be cancelled alone.
    pub fn child(&self) -> ChildToken {
        let token = Self::new();
        let link = Arc::new(ChildLink(token.clone()));
        let parent: Weak<ChildLink> = Arc::downgrade(&link);
        let subscription = self.subscribe(parent);
        if self.is_cancelled() {
            token.cancel();
        }
        ChildToken { token, _link: link, _subscription: subscription }
    }
}

struct ChildLink(CancelToken);

impl Wake for ChildLink {
    fn wake(&self) {
        self.0.cancel();
    }
}

/// A token that another one cancels too, as long as this value lives.
pub struct ChildToken {
    token: CancelToken,
    _link: Arc<ChildLink>,
    _subscription: Subscription,
}

impl ChildToken {
    /// The token.
    pub fn token(&self) -> &CancelToken {
        &self.token
    }
}

impl fmt::Debug for ChildToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ChildToken").field(&self.token).finish()
    }
}

impl Default for CancelToken {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for CancelToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CancelToken").field("cancelled", &self.is_cancelled()).finish()
    }
}

/// The registration of a waiter with a [`CancelToken`]. It ends on drop.
pub struct Subscription {
    state: Option<Arc<TokenState>>,
    id: u64,
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if let Some(state) = &self.state {
            let waiter = state.waiting.lock().remove(&self.id);
            drop(waiter);
        }
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").field("id", &self.id).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_wait_is_recorded_and_the_outer_one_continues() {
        let awaited = Arc::new(AwaitedObject::default());
        let context = RequestContext::unlimited().recording(Arc::clone(&awaited));
        assert_eq!(awaited.get(), None);
        let outer = context.awaiting(|| "volume".into());
        let inner = context.clone().awaiting(|| "manifest".into());
        assert_eq!(awaited.get().as_deref(), Some("manifest"));
        drop(inner);
        assert_eq!(awaited.get().as_deref(), Some("volume"));
        drop(outer);
        assert_eq!(awaited.get(), None);
    }

    #[test]
    fn a_child_token_is_cancelled_with_its_parent_or_alone() {
        let parent = CancelToken::new();
        let (alone, together) = (parent.child(), parent.child());
        alone.token().cancel();
        assert!(alone.token().is_cancelled() && !parent.is_cancelled() && !together.token().is_cancelled());
        parent.cancel();
        assert!(together.token().is_cancelled() && parent.child().token().is_cancelled());
        let request = RequestContext::unlimited();
        let child = request.cancel_token().child();
        assert_eq!(request.ended_by(&child).check(), Ok(()));
        child.token().cancel();
        assert_eq!((request.ended_by(&child).check(), request.check()), (Err(Stopped::Cancelled), Ok(())));
    }

    #[test]
    fn a_request_that_nothing_records_makes_no_name() {
        drop(RequestContext::unlimited().awaiting(|| panic!("no name is needed")));
    }
}
