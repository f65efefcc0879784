//! The primitives that concurrent code of the family is built of: locks without poisoning, condition variables, atomics
//! and threads.
//!
//! They are those of the standard library. With the feature `shuttle` they are those of the crate `shuttle`, which runs a test
//! under many schedules that it chooses itself; see `sync::schedules`. Code under test uses this module instead of `std`.
//!
//! A panic does not poison a lock: every critical section of the family leaves its data consistent.

#[cfg(feature = "shuttle")]
use shuttle::{sync as imp, thread as imp_thread};
#[cfg(not(feature = "shuttle"))]
use std::{sync as imp, thread as imp_thread};

use std::sync::PoisonError;
use std::time::Duration;

/// Atomic numbers.
pub mod atomic {
    pub use super::imp::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
}

/// Threads.
pub mod thread {
    pub use super::imp_thread::{Builder, JoinHandle, ThreadId, current};
}

/// Access to the value of a locked [`Mutex`].
pub use imp::MutexGuard;
/// Access to the value of an [`RwLock`].
pub use imp::{RwLockReadGuard, RwLockWriteGuard};

/// A lock that is held by one thread at a time.
#[derive(Debug, Default)]
pub struct Mutex<T: ?Sized>(imp::Mutex<T>);

impl<T> Mutex<T> {
    /// An unlocked mutex of `value`.
    pub const fn new(value: T) -> Self {
        Self(imp::Mutex::new(value))
    }
}

impl<T: ?Sized> Mutex<T> {
    /// Waits until the lock is free, and takes it.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A lock that is held by any number of readers or one writer.
#[derive(Debug, Default)]
pub struct RwLock<T: ?Sized>(imp::RwLock<T>);

impl<T> RwLock<T> {
    /// An unlocked lock of `value`.
    pub const fn new(value: T) -> Self {
        Self(imp::RwLock::new(value))
    }
}

impl<T: ?Sized> RwLock<T> {
    /// Waits until no writer holds the lock, and takes it for reading.
    pub fn read(&self) -> RwLockReadGuard<'_, T> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the lock is free, and takes it for writing.
    pub fn write(&self) -> RwLockWriteGuard<'_, T> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A condition that threads wait for with a [`Mutex`].
#[derive(Debug, Default)]
pub struct Condvar(imp::Condvar);

impl Condvar {
    /// A condition that no thread waits for.
    pub const fn new() -> Self {
        Self(imp::Condvar::new())
    }

    /// Releases the lock, waits for a notification, and takes the lock again. May return without a notification.
    pub fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        self.0.wait(guard).unwrap_or_else(PoisonError::into_inner)
    }

    /// As [`Self::wait`], for at most `timeout`. With `shuttle` it never times out.
    pub fn wait_timeout<'a, T>(&self, guard: MutexGuard<'a, T>, timeout: Duration) -> MutexGuard<'a, T> {
        self.0.wait_timeout(guard, timeout).unwrap_or_else(PoisonError::into_inner).0
    }

    /// Wakes one thread that waits.
    pub fn notify_one(&self) {
        self.0.notify_one();
    }

    /// Wakes all threads that wait.
    pub fn notify_all(&self) {
        self.0.notify_all();
    }
}

/// Lets `shuttle` switch threads here, as it does at locks and atomics. For I/O whose effect other threads can observe. Does
/// nothing without the feature `shuttle`.
#[inline]
pub fn switch_point() {
    #[cfg(feature = "shuttle")]
    imp::atomic::AtomicBool::new(false).load(atomic::Ordering::SeqCst);
}
