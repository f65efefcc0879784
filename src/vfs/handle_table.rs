//! Open files by handle.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use dupfs_base::sync::lock;

/// A table of open files. A handle is never reused.
#[derive(Debug)]
pub(super) struct HandleTable<F> {
    files: Mutex<HashMap<u64, Arc<F>>>,
    next: AtomicU64,
}

impl<F> Default for HandleTable<F> {
    fn default() -> Self {
        Self { files: Mutex::default(), next: AtomicU64::new(1) }
    }
}

impl<F> HandleTable<F> {
    /// Adds an open file and returns its handle.
    pub(super) fn insert(&self, file: F) -> u64 {
        let handle = self.next.fetch_add(1, Ordering::Relaxed);
        lock(&self.files).insert(handle, Arc::new(file));
        handle
    }

    /// The open file of `handle`.
    pub(super) fn get(&self, handle: u64) -> Option<Arc<F>> {
        lock(&self.files).get(&handle).cloned()
    }

    /// The first answer that `question` gives for an open file.
    pub(super) fn find_map<T>(&self, question: impl Fn(&F) -> Option<T>) -> Option<T> {
        lock(&self.files).values().find_map(|file| question(file))
    }

    /// Removes `handle`.
    pub(super) fn remove(&self, handle: u64) {
        let file = lock(&self.files).remove(&handle);
        drop(file);
    }
}
