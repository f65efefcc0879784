//! The hint that a caller gives with a read of a volume.

use dupfs_format::VolumeNumber;

/// The use that a caller makes of the bytes it reads or looks up. It decides what is prefetched and what is evicted first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadHint {
    /// A number that identifies the file that the bytes belong to.
    pub file: u64,
    /// The last volume of the set with parts of the file; `None` if it is unknown.
    pub last_volume: Option<VolumeNumber>,
    /// True if a reader of the whole file needs these bytes once. Deltas may copy the same bytes several times.
    pub read_once: bool,
}
