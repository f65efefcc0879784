//! Rank 7: serving a [`crate::vfs::FileSystem`] through the kernel.
//!
//! `adapter`, `attributes` and `session` are the only files that know the FUSE crate. A request is answered on the FUSE thread if the
//! answer is in memory; otherwise its reply moves into a pool of workers (`pool`), under a deadline (`deadline`), so that
//! a volume being decoded never delays an answer that is at hand.
//!
//! Lock order: none. Each lock here is a leaf: no other lock, no file system call and no reply happens under it.

mod adapter;
mod attributes;
mod batch;
mod deadline;
mod error;
mod failures;
mod mountinfo;
mod mountpoint;
mod pool;
mod session;
mod unmount;

pub use adapter::{PID_ATTRIBUTE, pid_namespace};
pub use error::MountError;
pub use mountinfo::{MountEntry, mount_at};
pub use mountpoint::{MountPoint, check_device};
pub use session::{DEFAULT_DEADLINE, End, MountSettings, Mounted};
pub use unmount::{UnmountError, unmount};

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks `mutex`; a panic elsewhere does not make what it guards unusable, as every critical section here leaves it
/// whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
