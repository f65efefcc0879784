//! The layout of inode numbers below `unpacked/`.

use super::super::ops::Ino;

/// The upper half of the first space's numbers. No snapshot and no branch has a tag from here to [`END`].
pub(super) const BASE: u32 = 1 << 22;
pub(super) const END: u32 = 1 << 24;
/// The bit of node numbers that marks the stored bytes of a node. No archive has this many nodes.
pub(super) const STORED: u32 = 1 << 31;

/// `unpacked/` itself.
pub(super) const TOP_INO: Ino = (BASE as u64) << 32;

/// The number of node `low` in space `id`.
pub(super) fn number(id: u32, low: u64) -> Ino {
    (u64::from(BASE + id) << 32) | low
}
