//! Synchronisation of threads. No lock of this module is held across I/O, decoding or the work of a caller.
//!
//! `tests/schedules.rs` checks these modules under random schedules: `cargo test -p dupfs-base --features shuttle --test
//! schedules`. With that feature nothing here works outside of such a test.

mod fair_queue;
mod monitor;
pub mod prim;
#[cfg(feature = "shuttle")]
pub mod schedules;
mod semaphore;
mod single_flight;
mod thread_pool;

use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

pub use fair_queue::{FairQueue, Turn};
pub use monitor::{Monitor, pause_until};
pub use semaphore::{Permit, Semaphore};
pub use single_flight::{JoinedExecution, SingleFlight, SingleFlightError};
pub use thread_pool::{Job, ThreadPool};

/// Locks `mutex`. A panic elsewhere does not poison the value: every critical section leaves its data consistent.
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
