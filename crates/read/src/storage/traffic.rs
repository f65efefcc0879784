//! Counts of requests and bytes.

use std::sync::atomic::{AtomicU64, Ordering};

/// Requests and bytes since the store was opened. A service bills by them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Requests that list, one for each page, with retries.
    pub list_requests: u64,
    /// Requests that fetch an object or a part of one, with retries.
    pub get_requests: u64,
    /// Retries.
    pub retries: u64,
    /// Received bytes of objects.
    pub bytes: u64,
}

/// Counters of [`Traffic`].
#[derive(Debug, Default)]
pub(super) struct TrafficCounters {
    pub(super) lists: AtomicU64,
    pub(super) gets: AtomicU64,
    pub(super) retries: AtomicU64,
    pub(super) bytes: AtomicU64,
}

impl TrafficCounters {
    pub(super) fn get(&self) -> Traffic {
        Traffic {
            list_requests: self.lists.load(Ordering::Relaxed),
            get_requests: self.gets.load(Ordering::Relaxed),
            retries: self.retries.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
        }
    }
}
