//! The time that a read waits for a store that does not answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bound of the time in which a read of an object makes no progress because the store does not answer. Clones share it:
/// a mount waits longer once it is up than a user waits for it to start.
#[derive(Clone, Debug)]
pub struct ReadTimeout(Arc<AtomicU64>);

impl ReadTimeout {
    /// A bound of `timeout`.
    pub fn new(timeout: Duration) -> Self {
        let bound = Self(Arc::default());
        bound.set(timeout);
        bound
    }

    /// The bound now.
    pub fn get(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Relaxed))
    }

    /// Changes the bound, also that of running reads.
    pub fn set(&self, timeout: Duration) {
        self.0.store(u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}
