//! Numbers of paths and versions in a table, and conversions between them and positions in a list.

use super::error::TreeError;

/// A path's number in a [`VersionTable`]. The root is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub u32);

impl NodeId {
    /// The backup's root.
    pub const ROOT: Self = Self(0);
}

/// A version's number in a [`VersionTable`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct VersionId(pub u32);

pub(super) const NONE: u32 = u32::MAX;

pub(super) fn index(of: u32) -> usize {
    of as usize
}

pub(super) fn number(len: usize) -> Result<u32, TreeError> {
    u32::try_from(len).ok().filter(|&n| n < NONE).ok_or(TreeError::TooLarge)
}
