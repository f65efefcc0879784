//! Archives and streams that were used last, which stay open.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use super::open_archive::OpenArchive;
use dupfs_base::sync::lock;
use dupfs_unpack::DecompressedStream;

/// Archives, and streams, that stay open for readers that return to them.
const MAX_EACH: usize = 32;

/// Keeps the archives and streams that were used last.
#[derive(Debug, Default)]
pub(super) struct RecentlyUsed {
    archives: Mutex<VecDeque<Arc<OpenArchive>>>,
    streams: Mutex<VecDeque<Arc<DecompressedStream>>>,
}

impl RecentlyUsed {
    /// Records that `archive` is used.
    pub(super) fn use_archive(&self, archive: &Arc<OpenArchive>) {
        let dropped = move_to_front(&mut lock(&self.archives), archive);
        drop(dropped);
    }

    /// Records that `stream` is used.
    pub(super) fn use_stream(&self, stream: &Arc<DecompressedStream>) {
        let dropped = move_to_front(&mut lock(&self.streams), stream);
        drop(dropped);
    }

    /// Drops all of them.
    #[cfg(test)]
    pub(super) fn clear(&self) {
        let archives = std::mem::take(&mut *lock(&self.archives));
        let streams = std::mem::take(&mut *lock(&self.streams));
        drop((archives, streams));
    }
}

/// Puts `item` in front; returns the one that was used longest ago if there are too many.
fn move_to_front<T>(used: &mut VecDeque<Arc<T>>, item: &Arc<T>) -> Option<Arc<T>> {
    let known = used.iter().position(|other| Arc::ptr_eq(other, item));
    if let Some(at) = known {
        used.remove(at);
    }
    used.push_front(Arc::clone(item));
    if used.len() > MAX_EACH { used.pop_back() } else { None }
}
