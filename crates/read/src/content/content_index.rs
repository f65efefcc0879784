//! Extent maps and exact sizes in the index. An extent map is found again only for the same sets and versions, and only
//! where nothing of the tree is uncertain.

use super::extent_map::ExtentMap;
use super::extent_map_codec::{decode, encode};
use super::file_ref::FileRef;
use crate::tree::FileVersion;
use crate::volume::Volumes;

/// Upper bound of the bytes of an extent map that is stored.
const MAX_RECORD_BYTES: usize = 4 << 20;

/// Records the exact size of a version of `file`, in the tree and in the index.
pub(super) fn set_exact_size(volumes: &dyn Volumes, file: &FileRef, version: FileVersion, size: u64) {
    let (fresh, location) = {
        let table = file.branch.table();
        (table.set_exact_size(version.id, size), table.index_in_set(version.id))
    };
    if fresh
        && let Some((position, at)) = location
        && let Some(set) = file.branch.set_at(position)
    {
        volumes.index().store_size(set, at, size);
    }
}

/// The extent map of `file`, which has deltas, if the index has it.
pub(super) fn load_extent_map(volumes: &dyn Volumes, file: &FileRef) -> Option<ExtentMap> {
    if file.history.len() < 2 || !volumes.index().may_load() {
        return None;
    }
    let record = volumes.index().load(file.versions_identity(volumes)?)?;
    decode(file, &record)
}

/// Stores the extent map of `file` in the index.
pub(super) fn store_extent_map(volumes: &dyn Volumes, file: &FileRef, extent_map: &ExtentMap) {
    if !volumes.index().is_enabled() {
        return;
    }
    let Some((key, set)) =
        file.versions_identity(volumes).zip(file.version().and_then(|v| file.branch.set_at(v.position)))
    else {
        return;
    };
    let record = encode(extent_map);
    if record.len() <= MAX_RECORD_BYTES {
        volumes.index().store(key, set, record);
    }
}
