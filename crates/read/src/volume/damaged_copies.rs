//! The damaged copies of objects of which a store has several, as readers meet them.

use std::sync::{Arc, Mutex};

use super::error::VolumeError;
use crate::storage::RejectedCopy;
use dupfs_base::sync::lock;
use dupfs_base::{ErrorKind, HasKind};

/// Upper bound of the copies that are remembered.
const MAX_LISTED: usize = 10_000;

/// A copy of an object that is damaged, while the object may be read from another one.
#[derive(Clone, Debug)]
pub struct DamagedCopy {
    /// The name of the object.
    pub object: Arc<str>,
    /// The URL of its store, without secrets.
    pub store: String,
    /// The damage and the store, in one line.
    pub message: String,
}

/// The damaged copies so far, each once.
#[derive(Debug, Default)]
pub(super) struct DamagedCopies {
    list: Mutex<Vec<DamagedCopy>>,
}

/// The copies of `object` that one reader has rejected.
#[derive(Debug)]
pub(super) struct RejectedCopies {
    pub(super) object: Arc<str>,
    pub(super) list: Vec<(RejectedCopy, VolumeError)>,
}

impl DamagedCopies {
    /// The copies so far, as many as are remembered.
    pub(super) fn list(&self) -> Vec<DamagedCopy> {
        lock(&self.list).clone()
    }

    /// Returns true if a copy of `object` is among them.
    pub(super) fn contains(&self, object: &str) -> bool {
        lock(&self.list).iter().any(|copy| &*copy.object == object)
    }

    /// Records and logs the copies that a reader has rejected. If the object `is_read` from another one, all of them are damaged.
    /// Otherwise the lack of a key is none: another key may open them.
    pub(super) fn record(&self, rejected: RejectedCopies, is_read: bool) {
        for (copy, error) in rejected.list {
            if !is_read && error.kind() != ErrorKind::Corrupt {
                continue;
            }
            let mut list = lock(&self.list);
            if list.iter().any(|known| known.object == rejected.object && known.store == copy.store) {
                continue;
            }
            let message = format!("{error}; this is the copy in {}, and that of another store is read", copy.store);
            log::warn!("{message}");
            if list.len() < MAX_LISTED {
                list.push(DamagedCopy { object: Arc::clone(&rejected.object), store: copy.store, message });
            }
        }
    }
}

impl RejectedCopies {
    /// The error for an object whose copies are all damaged: the first one, with the stores.
    pub(super) fn into_error(self) -> Option<VolumeError> {
        let stores: Vec<_> = self.list.iter().map(|(copy, _)| copy.store.clone()).collect();
        Some(self.list.into_iter().next()?.1.of_copies(&stores))
    }
}
