//! Numbers of paths and versions in a table.
//!
//! Tables store them as `u32` with [`NONE`] for "no such"; [`list_index`] and [`checked_number`] convert between such a
//! number and an index into a list.

use super::error::TreeError;

/// The number of a path in a [`VersionTable`](super::VersionTable). The root is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub u32);

impl NodeId {
    /// The backup's root.
    pub const ROOT: Self = Self(0);

    /// The index of the node in lists by node.
    pub(super) fn index(self) -> usize {
        list_index(self.0)
    }
}

/// The number of a version in a [`VersionTable`](super::VersionTable).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct VersionId(pub u32);

impl VersionId {
    /// The index of the version in lists by version.
    pub(super) fn index(self) -> usize {
        list_index(self.0)
    }
}

/// The number that no path, version or other item has.
pub(super) const NONE: u32 = u32::MAX;

/// The index in a list of the item with this number; that of no item for [`NONE`].
pub(super) fn list_index(number: u32) -> usize {
    number as usize
}

/// The number of the item at `index`.
///
/// # Errors
/// [`TreeError::TooLarge`] if it would be [`NONE`] or more.
pub(super) fn checked_number(index: usize) -> Result<u32, TreeError> {
    u32::try_from(index).ok().filter(|&number| number < NONE).ok_or(TreeError::TooLarge)
}
