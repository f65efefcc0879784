//! The layout of the parts of a stored stream.

use dupfs_format::VolumeNumber;

/// Length of every part but the last since duplicity 0.6.21 (FORMAT.md 4).
pub(super) const PART_BYTES: u64 = 65_536;

/// The location of one part of a stream in a volume.
#[derive(Clone, Copy, Debug)]
pub(super) struct PartLocation {
    pub(super) volume: VolumeNumber,
    /// Offset in the stream.
    pub(super) start: u64,
    /// Offset in the volume's plaintext.
    pub(super) offset: u64,
    pub(super) len: u64,
}

/// The layout of the parts of a stream.
#[derive(Debug)]
pub(super) enum PartLayout {
    /// Parts `1..=last` of 65536 bytes each but the last; a part's volume follows from the manifest alone.
    Uniform { last: u64 },
    /// Every part was looked up.
    Parts(Box<[PartLocation]>),
    /// The base of deltas or the beginning of a file, whose last volume was not read: its first `sure` parts are assumed to have 65536 bytes,
    /// which each volume that is read confirms or refutes.
    Assumed { sure: u64 },
}
