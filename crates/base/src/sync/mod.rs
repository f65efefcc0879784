//! How threads wait for each other. No lock of this module is held across I/O, decoding or a caller's work.

mod monitor;
mod semaphore;
mod single_flight;

use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

pub use monitor::Monitor;
pub use semaphore::{Permit, Semaphore};
pub use single_flight::{SingleFlight, SingleFlightError};

/// Locks `mutex`. A panic elsewhere does not poison what it guards: every critical section leaves its data consistent.
pub fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Locks `lock` for reading; see [`lock`] for poisoning.
pub fn read<T: ?Sized>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

/// Locks `lock` for writing; see [`lock`] for poisoning.
pub fn write<T: ?Sized>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}
