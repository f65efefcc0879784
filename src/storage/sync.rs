//! The one way this layer takes a lock.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Takes `mutex` also after a holder panicked: what is guarded here is valid after every single statement.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
