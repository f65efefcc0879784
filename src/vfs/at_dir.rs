//! `at/<TIME>`: each time string that duplicity accepts, as a symbolic link to the snapshot that it would restore.

use super::error::FsError;
use super::snapshot_view::SnapshotView;
use dupfs_base::HasKind;
use dupfs_format::collection::CollectionError;
use dupfs_format::timespec;

/// The index of the snapshot that `name` in `at/` leads to. The kernel may not cache the name: `now` and `3D` move with the
/// clock.
///
/// # Errors
/// NotFound if it is not a time string or a time before the first backup; [`CollectionError::TwoChains`] as for `--time`.
pub(super) fn snapshot_at(view: &SnapshotView, name: &[u8]) -> Result<usize, FsError> {
    let text = std::str::from_utf8(name).map_err(|_| FsError::not_found())?;
    let time = timespec::parse_by_local_clock(text).map_err(|_| FsError::not_found())?;
    let collection = &view.collection;
    if collection.chains().chains.iter().all(|chain| time < chain.start) {
        return Err(FsError::not_found());
    }
    let wrap = |error: CollectionError| FsError::failed(error.kind(), format!("at/: {error}"));
    let chosen = collection.select(time).map_err(wrap)?;
    collection.snapshot_position(chosen.set).ok_or_else(FsError::not_found)
}
