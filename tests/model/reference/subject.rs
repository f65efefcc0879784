//! The only place that composes dupfs over a store.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use dupfs::cli::RequestTimeout;
use dupfs::cli::open::{RepositoryOptions, ViewOptions, open_file_system};
use dupfs::vfs::{FileSystem, FsError, Ino, Opened, OwnerOptions, TreeFs};
use dupfs_base::RequestContext;
use dupfs_format::BackupTime;
use dupfs_format::collection::PrefixOptions;
use dupfs_read::storage::ObjectStore;

use super::encode::Repository;

/// The file system over `store`: numeric owners, the prefixes of `repository`, `memory` bytes to work with.
pub(crate) fn open(
    store: Arc<dyn ObjectStore>,
    repository: &Repository,
    memory: u64,
) -> Result<Arc<dyn FileSystem>, String> {
    open_as(store, repository, memory, true, None)
}

/// The same, with an index in `base`.
#[allow(dead_code)]
pub(crate) fn open_indexed(
    store: Arc<dyn ObjectStore>,
    repository: &Repository,
    memory: u64,
    base: &Path,
) -> Result<Arc<dyn FileSystem>, String> {
    let options = RepositoryOptions { index: Some(base.to_owned()), ..options(memory) };
    open_with(store, repository, options, numeric_owners(true))
}

/// The same, with owners by name if not `numeric`, and with the snapshot of `time` as its root if that is given.
pub(crate) fn open_as(
    store: Arc<dyn ObjectStore>,
    repository: &Repository,
    memory: u64,
    numeric: bool,
    time: Option<i64>,
) -> Result<Arc<dyn FileSystem>, String> {
    let options = options(memory);
    open_with(store, repository, options, ViewOptions { time: time.map(BackupTime), ..numeric_owners(numeric) })
}

/// The same, with sets that have lost their manifests.
pub(crate) fn open_rebuilding(
    store: Arc<dyn ObjectStore>,
    repository: &Repository,
    memory: u64,
) -> Result<Arc<dyn FileSystem>, String> {
    let options = RepositoryOptions { rebuild: true, ..options(memory) };
    open_with(store, repository, options, numeric_owners(true))
}

/// The same, for commands that need the trees of all snapshots.
#[allow(dead_code)]
pub(crate) fn open_trees(
    store: Arc<dyn ObjectStore>,
    repository: &Repository,
    memory: u64,
) -> Result<Arc<TreeFs>, String> {
    open_tree_fs(store, repository, options(memory), numeric_owners(true))
}

/// The same; content of volumes that are still being read is served after `prove_after`, if the signatures prove it.
pub(crate) fn open_streaming(
    store: Arc<dyn ObjectStore>,
    repository: &Repository,
    memory: u64,
    prove_after: Option<Duration>,
) -> Result<Arc<dyn FileSystem>, String> {
    let options = RepositoryOptions { prove_after, ..options(memory) };
    open_with(store, repository, options, numeric_owners(true))
}

/// Content is proved early only where a test asks for it: what is fetched for the proof must not depend on the load of the machine.
fn options(memory: u64) -> RepositoryOptions {
    RepositoryOptions { memory, prove_after: None, ..RepositoryOptions::default() }
}

fn numeric_owners(numeric: bool) -> ViewOptions {
    ViewOptions { owners: OwnerOptions { numeric, ..OwnerOptions::default() }, ..ViewOptions::default() }
}

fn open_with(
    store: Arc<dyn ObjectStore>,
    repository: &Repository,
    options: RepositoryOptions,
    view: ViewOptions,
) -> Result<Arc<dyn FileSystem>, String> {
    let fs = open_tree_fs(store, repository, options, view)?;
    Ok(fs)
}

/// Half of the random cases serve all content as early as it can be proved.
pub(crate) fn is_early(repository: &Repository) -> bool {
    repository.sets.first().is_some_and(|set| set.time % 2 == 1)
}

/// Opens a file, in half of the random cases with early content without its size, if that is possible.
pub(crate) fn open_file(
    fs: &dyn FileSystem,
    repository: &Repository,
    ino: Ino,
    context: &RequestContext,
) -> Result<Opened, FsError> {
    let is_unsized = repository.sets.first().is_some_and(|set| set.time % 4 == 3);
    if is_unsized { fs.open_unsized(ino, context) } else { fs.open(ino, context) }
}

fn open_tree_fs(
    store: Arc<dyn ObjectStore>,
    repository: &Repository,
    options: RepositoryOptions,
    view: ViewOptions,
) -> Result<Arc<TreeFs>, String> {
    let [all, archive, manifest, signature] =
        repository.prefixes.map(|prefix| (!prefix.is_empty()).then(|| prefix.to_owned()));
    let prefixes = PrefixOptions { file_prefix: all, archive, manifest, signature };
    let prove_after = if is_early(repository) { Some(Duration::ZERO) } else { options.prove_after };
    let options = RepositoryOptions { prefixes, prove_after, ..options };
    open_file_system(store, options, view, RequestTimeout::default()).map_err(|error| error.to_string())
}
