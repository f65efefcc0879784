//! The one place that knows how dupfs is put together from a store.

use std::sync::Arc;
use std::time::Duration;

use dupfs::cli::repo::{RepositoryOptions, open_file_system};
use dupfs::collection::PrefixOptions;
use dupfs::storage::ObjectStore;
use dupfs::types::BackupTime;
use dupfs::vfs::{FileSystem, OwnerOptions};

use super::encode::Repository;

/// The file system over `store`: numeric owners, the prefixes of `repository`, `memory` bytes to work with.
pub(crate) fn open(
    store: Arc<dyn ObjectStore>,
    repository: &Repository,
    memory: u64,
) -> Result<Arc<dyn FileSystem>, String> {
    open_as(store, repository, memory, true, None)
}

/// The same, with owners by name if not `numeric`, and with the snapshot of `time` as its root if that is given.
pub(crate) fn open_as(
    store: Arc<dyn ObjectStore>,
    repository: &Repository,
    memory: u64,
    numeric: bool,
    time: Option<i64>,
) -> Result<Arc<dyn FileSystem>, String> {
    let [all, archive, manifest, signature] =
        repository.prefixes.map(|prefix| (!prefix.is_empty()).then(|| prefix.to_owned()));
    let options = RepositoryOptions {
        prefixes: PrefixOptions { file_prefix: all, archive, manifest, signature },
        owners: OwnerOptions { numeric, ..OwnerOptions::default() },
        memory,
        time: time.map(BackupTime),
        patience: Duration::from_secs(20),
        ..RepositoryOptions::default()
    };
    match open_file_system(store, options) {
        Ok(fs) => Ok(fs),
        Err(e) => Err(e.to_string()),
    }
}
