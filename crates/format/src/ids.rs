//! Identities of sets and volumes.

use std::fmt;

/// Index of a backup set in the collection's list of sets; stable for the life of the collection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SetIndex(pub u32);

/// A volume's number within its set, counted from 1 as duplicity does.
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
    /// The set the volume belongs to.
    pub set: SetIndex,
    /// Its number in that set.
    pub number: VolumeNumber,
}
