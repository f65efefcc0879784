//! A mutex together with the condition its users wait for.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};

use super::lock;
use crate::request::{RequestContext, Stopped, Wake};

/// A value behind a mutex whose changes can be waited for, within the limits of a [`RequestContext`].
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

    /// Locks the value to look at it. Whoever changes what others wait for calls [`Self::update`] instead.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        lock(&self.value)
    }

    /// Changes the value and wakes everybody who waits for it.
    pub fn update<R>(&self, change: impl FnOnce(&mut T) -> R) -> R {
        let result = change(&mut lock(&self.value));
        self.changed.notify_all();
        result
    }

    /// Waits until `ready` returns a value, and returns that. `ready` is called under the lock, at first at once, and may
    /// change the value; it has precedence over the end of the request.
    ///
    /// # Errors
    /// [`Stopped`] when the context does not allow to wait (any longer).
    pub fn wait_until<R>(
        self: &Arc<Self>,
        context: &RequestContext,
        mut ready: impl FnMut(&mut T) -> Option<R>,
    ) -> Result<R, Stopped> {
        if let Some(result) = ready(&mut lock(&self.value)) {
            return Ok(result);
        }
        context.check_may_block()?;
        let own: Weak<Self> = Arc::downgrade(self);
        let _subscription = context.cancel_token().subscribe(own);
        let mut value = lock(&self.value);
        loop {
            if let Some(result) = ready(&mut value) {
                return Ok(result);
            }
            context.check()?;
            value = match context.time_left() {
                None => self.changed.wait(value).unwrap_or_else(PoisonError::into_inner),
                Some(left) => self.changed.wait_timeout(value, left).unwrap_or_else(PoisonError::into_inner).0,
            };
        }
    }
}

impl<T: Send> Wake for Monitor<T> {
    fn wake(&self) {
        // With the lock held for a moment: a waiter that has looked at its token and does not wait yet holds it.
        drop(lock(&self.value));
        self.changed.notify_all();
    }
}
