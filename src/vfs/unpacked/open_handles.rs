//! Open files whose content is not the unchanged content of a stored file.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::super::ops::Opened;
use super::open_archive::MemberRef;
use dupfs_base::sync::lock;
use dupfs_unpack::{ByteSource, PassInterest};

/// Bit of the handles of this layer; others are those of the file system below.
const OWN_HANDLES: u64 = 1 << 62;

/// An open file.
#[derive(Debug)]
pub(super) struct UnpackedHandle {
    /// Its content.
    pub(super) source: Arc<dyn ByteSource>,
    /// The member that it is or is in, where the archives around it were not known to their ends.
    pub(super) member: Option<MemberRef>,
    /// The end of the file waits for these passes.
    _passes: Vec<PassInterest>,
}

/// The open files by their handles.
#[derive(Debug)]
pub(super) struct OpenHandles {
    handles: Mutex<HashMap<u64, Arc<UnpackedHandle>>>,
    next: AtomicU64,
}

impl OpenHandles {
    /// No open file.
    pub(super) fn new() -> Self {
        Self { handles: Mutex::default(), next: AtomicU64::new(1) }
    }

    /// Returns true if `handle` is of this layer, and not of the file system below.
    pub(super) fn is_own(handle: u64) -> bool {
        handle & OWN_HANDLES != 0
    }

    /// Opens a file, of `size` bytes if that is known; `member` is given as long as its archives are not known to their
    /// ends.
    pub(super) fn open(&self, source: Arc<dyn ByteSource>, member: Option<MemberRef>, size: Option<u64>) -> Opened {
        let is_streaming = size.is_none() || member.is_some();
        let handle = OWN_HANDLES | self.next.fetch_add(1, Ordering::Relaxed);
        let passes = member.as_ref().map(MemberRef::join_passes).unwrap_or_default();
        let open = UnpackedHandle { source, member, _passes: passes };
        lock(&self.handles).insert(handle, Arc::new(open));
        Opened { handle, keep_cache: !is_streaming, direct_io: is_streaming }
    }

    /// The open file of `handle`.
    pub(super) fn get(&self, handle: u64) -> Option<Arc<UnpackedHandle>> {
        lock(&self.handles).get(&handle).map(Arc::clone)
    }

    /// Closes `handle`; returns the open file.
    pub(super) fn close(&self, handle: u64) -> Option<Arc<UnpackedHandle>> {
        lock(&self.handles).remove(&handle)
    }
}
