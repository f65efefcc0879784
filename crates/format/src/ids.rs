//! Identifiers of sets and volumes.

use std::fmt;

/// The index of a backup set in [`crate::collection::Collection::sets`]. It is stable for the life of the collection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SetIndex(pub u32);

impl SetIndex {
    /// Returns the index of the set at `position` of the list of sets. Returns `None` beyond 2^32 sets.
    pub fn from_position(position: usize) -> Option<Self> {
        u32::try_from(position).ok().map(Self)
    }

    /// Returns the position in the list of sets.
    pub fn position(self) -> usize {
        // Lossless: the supported platforms have at least 32-bit addresses.
        self.0 as usize
    }
}

/// The number of a volume in its set, counted from 1 as duplicity does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VolumeNumber(pub u32);

impl fmt::Display for VolumeNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One volume of one set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VolumeId {
    /// The set that the volume belongs to.
    pub set: SetIndex,
    /// The number of the volume in that set.
    pub number: VolumeNumber,
}
