//! `at/<TIME>`: each time string that duplicity takes, as a symbolic link to the snapshot that it would restore.

use std::time::Duration;

use super::error::FsError;
use super::inode::Inode;
use super::ops::Attr;
use super::tree_fs::TreeFs;
use dupfs_base::{HasKind, RequestContext};
use dupfs_format::BackupTime;
use dupfs_format::collection::CollectionError;
use dupfs_format::timespec;

impl TreeFs {
    /// The link that `name` is in `at/`. The name may not be kept: `now` and `3D` move with the clock.
    ///
    /// # Errors
    /// NotFound for what is no time string and for times before the first backup, when nothing was there;
    /// [`CollectionError::TwoChains`] as `--time` has it.
    pub(super) fn look_up_time(&self, name: &[u8]) -> Result<Attr, FsError> {
        let text = std::str::from_utf8(name).map_err(|_| FsError::not_found())?;
        let parsed = timespec::parse_time(text, BackupTime::now(), timespec::local_standard_offset());
        let snapshot = self.snapshot_at(parsed.map_err(|_| FsError::not_found())?)?;
        let link = self.exact_attr(Inode::AtLink(snapshot), &RequestContext::cached_only())?;
        Ok(Attr { entry_ttl: Duration::ZERO, ..link })
    }

    fn snapshot_at(&self, time: BackupTime) -> Result<usize, FsError> {
        let collection = &self.view().collection;
        if collection.chains().chains.iter().all(|chain| time < chain.start) {
            return Err(FsError::not_found());
        }
        let wrap = |error: CollectionError| FsError::failed(error.kind(), format!("at/: {error}"));
        let chosen = collection.select(time).map_err(wrap)?;
        collection.snapshot_position(chosen.set).ok_or_else(FsError::not_found)
    }
}
