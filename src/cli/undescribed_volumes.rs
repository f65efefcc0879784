//! The volumes that a damaged manifest does not describe, in words.

use dupfs_format::VolumeNumber;
use dupfs_format::collection::describe_volumes;
use dupfs_format::manifest::Manifest;

/// Upper bound of the volume numbers examined where a damaged manifest may name any number of them.
const MANY: usize = 10_000;

/// Returns the first volumes that `manifest` has lost, in ascending order.
pub(super) fn first_undescribed(manifest: &Manifest) -> Vec<VolumeNumber> {
    manifest.missing_volumes().take(MANY).collect()
}

/// Returns `volumes 2-4 are not described`, or `None` if no volume is lost.
pub(super) fn undescribed(manifest: &Manifest) -> Option<String> {
    let mut missing = manifest.missing_volumes();
    let first: Vec<VolumeNumber> = missing.by_ref().take(MANY).collect();
    if first.is_empty() {
        return None;
    }
    let shown = describe_volumes(first);
    Some(match missing.next() {
        None => format!("{shown} not described"),
        Some(_) => format!("{} and more are not described", shown.trim_end_matches(" are")),
    })
}
