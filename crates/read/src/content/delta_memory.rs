//! The memory of deltas and extent maps while they are made.

use super::extent::Extent;
use dupfs_base::clamp_len;
use dupfs_base::sync::Semaphore;

/// Upper bound of the ops and extents with any amount of memory: a file of a terabyte of which every hundredth page has
/// changed has a tenth of them.
const MAX_EXTENTS: usize = 1 << 24;

/// Bytes for deltas and extent maps however small `--memory` is: ordinary backups stay readable with the smallest
/// cache.
const MIN_BYTES: u64 = 4 << 20;

/// Bytes of an op of a delta.
pub(super) const OP_BYTES: usize = 24;

/// The limits of deltas and extent maps, and the permits of those that are large.
#[derive(Debug)]
pub(super) struct DeltaMemory {
    /// Upper bound of the ops of a delta.
    pub(super) max_ops: usize,
    /// Upper bound of the extents of a version.
    pub(super) max_extents: usize,
    /// Ops of a delta, and extents of a version, that need no permit.
    pub(super) max_small: usize,
    /// One permit, for the request that parses a larger delta or composes a larger version. It waits for no other
    /// request of this layer while it has the permit.
    pub(super) large: Semaphore,
    /// Bytes of parsed deltas that requests may keep in memory until they are composed. Others are parsed again.
    pub(super) pending: Semaphore,
}

impl DeltaMemory {
    /// The limits where caches of deltas and extent maps have `bytes` together, at least [`MIN_BYTES`].
    pub(super) fn new(bytes: u64) -> Self {
        let bytes = bytes.max(MIN_BYTES);
        let items = |bytes: u64, size: usize| clamp_len(bytes / size as u64, MAX_EXTENTS);
        let doubled = bytes.saturating_mul(2);
        Self {
            max_ops: items(doubled, OP_BYTES),
            max_extents: items(doubled, size_of::<Extent>()),
            max_small: items(bytes / 16, size_of::<Extent>()),
            large: Semaphore::new(1),
            pending: Semaphore::new(bytes),
        }
    }
}
