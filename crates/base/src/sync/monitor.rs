//! A mutex together with the condition that its users wait for.

use std::sync::{Arc, Weak};
use std::time::Instant;

use super::prim::{Condvar, Mutex, MutexGuard};
use crate::request::{RequestContext, Stopped, Wake};

/// A value behind a mutex. Threads can wait for its changes within the limits of a [`RequestContext`].
///
/// It lives in an [`Arc`], so that a cancelled request can wake the threads that wait here.
#[derive(Debug, Default)]
pub struct Monitor<T> {
    value: Mutex<T>,
    changed: Condvar,
}

impl<T: Send + 'static> Monitor<T> {
    /// A monitor of `value`.
    pub fn new(value: T) -> Arc<Self> {
        Arc::new(Self { value: Mutex::new(value), changed: Condvar::new() })
    }

    /// Locks the value for reading it. A caller that changes what other threads wait for uses [`Self::update`].
    pub fn lock(&self) -> MutexGuard<'_, T> {
        self.value.lock()
    }

    /// Changes the value and wakes all threads that wait for it, also if `change` panics.
    pub fn update<R>(&self, change: impl FnOnce(&mut T) -> R) -> R {
        let _notify = NotifyOnDrop(&self.changed);
        let mut value = self.value.lock();
        // Locals are dropped in reverse order: the lock is released before the threads are woken.
        change(&mut value)
    }

    /// Waits until `ready` returns a value, and returns that. `ready` is called under the lock, first without waiting, and
    /// may change the value. It has precedence over the end of the request.
    ///
    /// # Errors
    /// [`Stopped`] when the context does not allow waiting, or not any longer.
    pub fn wait_until<R>(
        self: &Arc<Self>,
        context: &RequestContext,
        mut ready: impl FnMut(&mut T) -> Option<R>,
    ) -> Result<R, Stopped> {
        let at_once = ready(&mut self.value.lock());
        if let Some(result) = at_once {
            return Ok(result);
        }
        context.check_may_block()?;
        let own: Weak<Self> = Arc::downgrade(self);
        let _subscription = context.cancel_token().subscribe(own);
        let mut value = self.value.lock();
        loop {
            if let Some(result) = ready(&mut value) {
                return Ok(result);
            }
            context.check()?;
            value = match context.time_left() {
                None => self.changed.wait(value),
                Some(left) => self.changed.wait_timeout(value, left),
            };
        }
    }
}

/// Waits until `time`.
///
/// # Errors
/// [`Stopped`] if the request ends before.
pub fn pause_until(time: Instant, context: &RequestContext) -> Result<(), Stopped> {
    match Monitor::new(()).wait_until(&context.until(time), |()| None::<()>) {
        Err(Stopped::Deadline) => context.check(),
        stopped => stopped,
    }
}

impl<T: Send> Wake for Monitor<T> {
    fn wake(&self) {
        // The lock is held for a moment: a waiter that has checked its token and does not wait yet holds it.
        drop(self.value.lock());
        self.changed.notify_all();
    }
}

struct NotifyOnDrop<'a>(&'a Condvar);

impl Drop for NotifyOnDrop<'_> {
    fn drop(&mut self) {
        self.0.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::thread;
    use std::time::Duration;

    use super::*;
    use crate::CancelToken;

    #[test]
    fn a_waiter_sees_the_change_it_waits_for() {
        let monitor = Monitor::new(0);
        thread::scope(|scope| {
            let waiter = scope.spawn(|| {
                monitor.wait_until(&RequestContext::unlimited(), |value| (*value == 3).then(|| std::mem::take(value)))
            });
            for _ in 0..3 {
                monitor.update(|value| *value += 1);
            }
            assert_eq!(waiter.join().unwrap(), Ok(3));
        });
        assert_eq!(*monitor.lock(), 0);
    }

    #[test]
    fn a_change_that_panics_wakes_the_waiters() {
        let monitor = Monitor::new(false);
        thread::scope(|scope| {
            let waiter = scope.spawn(|| monitor.wait_until(&RequestContext::unlimited(), |done| done.then_some(())));
            let changed = catch_unwind(AssertUnwindSafe(|| {
                monitor.update(|done| {
                    *done = true;
                    panic!("planned");
                })
            }));
            assert!(changed.is_err());
            assert_eq!(waiter.join().unwrap(), Ok(()));
        });
    }

    #[test]
    fn a_pause_ends_at_its_time_or_with_its_request() {
        let soon = || Instant::now() + Duration::from_millis(10);
        let late = || Instant::now() + Duration::from_secs(3600);
        assert_eq!(pause_until(soon(), &RequestContext::unlimited()), Ok(()));
        assert_eq!(pause_until(soon(), &RequestContext::unlimited().within(Duration::from_secs(3600))), Ok(()));
        let short = RequestContext::unlimited().within(Duration::from_millis(10));
        assert_eq!(pause_until(late(), &short), Err(Stopped::Deadline));
        assert!(RequestContext::unlimited().within(Duration::MAX).deadline().is_none());
        let token = CancelToken::new();
        token.cancel();
        assert_eq!(pause_until(late(), &RequestContext::new(None, token)), Err(Stopped::Cancelled));
    }

    #[test]
    fn a_request_ends_at_its_deadline_and_when_it_is_cancelled() {
        let monitor = Monitor::new(());
        let never = |(): &mut ()| None::<()>;
        let soon = RequestContext::with_timeout(Duration::from_millis(10));
        assert_eq!(monitor.wait_until(&soon, never), Err(Stopped::Deadline));
        assert_eq!(monitor.wait_until(&RequestContext::cached_only(), never), Err(Stopped::WouldBlock));
        let token = CancelToken::new();
        let context = RequestContext::new(None, token.clone());
        thread::scope(|scope| {
            let waiter = scope.spawn(|| monitor.wait_until(&context, never));
            token.cancel();
            assert_eq!(waiter.join().unwrap(), Err(Stopped::Cancelled));
        });
        assert_eq!(monitor.wait_until(&context, never), Err(Stopped::Cancelled));
        assert_eq!(monitor.wait_until(&context, |()| Some(7)), Ok(7), "a result has precedence");
    }
}
