//! One version of a path in compact form: a table has one for each change of each path.

use std::sync::atomic::{AtomicU64, Ordering};

use super::attributes::VersionKind;
use super::ids::NONE;
use dupfs_format::sigtar::SizeBounds;

/// A size as one number: [`EXACT`] and the size, or the upper bound of it, or [`UNKNOWN`].
const EXACT: u64 = 1 << 63;
pub(super) const UNKNOWN: u64 = EXACT - 1;
/// `aux` of a file without bounds; others have the difference of theirs.
const UNBOUNDED: u32 = u32::MAX;

/// A version. Its number determines its set.
#[derive(Debug)]
pub(super) struct VersionRecord {
    pub(super) size: AtomicU64,
    pub(super) mtime: i64,
    /// The version of the same path before it.
    pub(super) older: u32,
    pub(super) node: u32,
    pub(super) owner: u32,
    pub(super) aux: u32,
    pub(super) mode: u16,
    pub(super) kind: VersionKind,
}

impl VersionRecord {
    /// Returns true if the path exists in this version.
    pub(super) fn is_present(&self) -> bool {
        self.kind != VersionKind::Deleted
    }

    /// The bounds of the size. A signature of n blocks of length b bounds it by (n-1)*b+1 and n*b, so that the bounds follow
    /// from the exact size.
    pub(super) fn bounds(&self) -> Option<SizeBounds> {
        if self.kind != VersionKind::File || self.aux == UNBOUNDED {
            return None;
        }
        let (size, span) = (self.size.load(Ordering::Acquire), u64::from(self.aux));
        let max = if size & EXACT == 0 { size } else { (size & !EXACT).next_multiple_of(span.saturating_add(1)) };
        Some(SizeBounds { blocks: 0, min: max.saturating_sub(span), max })
    }

    /// The exact size in bytes, once it is known.
    pub(super) fn exact_size(&self) -> Option<u64> {
        let size = self.size.load(Ordering::Acquire);
        (size & EXACT != 0).then_some(size & !EXACT)
    }

    /// Records the exact size of a file, which its bounds allow; false if it was known or cannot be recorded.
    pub(super) fn set_exact_size(&self, size: u64) -> bool {
        let fits = self.kind == VersionKind::File && size < UNKNOWN;
        fits && self.size.swap(size | EXACT, Ordering::AcqRel) != size | EXACT
    }

    /// Returns true if the fields that do not refer to other items are as the program writes them.
    pub(super) fn is_sound(&self) -> bool {
        let size = self.size.load(Ordering::Relaxed);
        let sized = match (self.kind, self.aux) {
            (VersionKind::File, UNBOUNDED) => size == UNKNOWN || size & EXACT != 0,
            (VersionKind::File, span) => size & EXACT != 0 || (size < UNKNOWN && size >= span.into()),
            _ => size == UNKNOWN,
        };
        let owned = self.is_present() || self.owner == NONE;
        sized && owned && self.mode <= 0o7777 && size != u64::MAX
    }
}

/// The fields `size` and `aux` of a file with these bounds.
pub(super) fn pack_bounds(bounds: Option<SizeBounds>) -> (u64, u32) {
    let Some(SizeBounds { min, max, .. }) = bounds else { return (UNKNOWN, UNBOUNDED) };
    match u32::try_from(max.saturating_sub(min)) {
        Ok(0) if max < UNKNOWN => (max | EXACT, 0),
        Ok(span) if span != UNBOUNDED && max < UNKNOWN => (max, span),
        // No signature has such blocks; the size is found without bounds too.
        _ => (UNKNOWN, UNBOUNDED),
    }
}
