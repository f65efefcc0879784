//! From a store and options to a file system: lists the store, reads the names, tries the key, picks the snapshot.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::vfs::{FileSystem, FsError, MountRoot, OwnerOptions, TreeFs, TreeOptions, UnpackedFs};
use dupfs_base::{ErrorKind, HasKind, RequestContext};
use dupfs_cache::{CacheConfig, SpillConfig};
use dupfs_format::collection::{Collection, CollectionError, PrefixOptions, Problem};
use dupfs_format::{ArchivePath, BackupTime, SetIndex};
use dupfs_read::codec::{CodecError, DecodeOptions, Decoder, KeyOptions, Keys};
use dupfs_read::storage::{ObjectStore, StorageError};
use dupfs_read::volume::{ArchiveDir, IndexLocation, Repository, RepositoryConfig, VolumeError};
use dupfs_unpack::{IndexPointStore, Limits, MemoryPointStore, PointStore, Unpacker};

/// Default of `--memory`: decoded blocks kept in memory, in bytes.
pub const DEFAULT_MEMORY: u64 = 256 << 20;

/// How a repository is opened and shown.
#[derive(Debug)]
pub struct RepositoryOptions {
    /// Prefixes of the names.
    pub prefixes: PrefixOptions,
    /// Keys and passphrases.
    pub keys: KeyOptions,
    /// What is demanded of encrypted objects.
    pub decode: DecodeOptions,
    /// Show only the snapshot that duplicity would restore for this time.
    pub time: Option<BackupTime>,
    /// Show only this path of it.
    pub path: Option<ArchivePath>,
    /// Owners and modes.
    pub owners: OwnerOptions,
    /// Show upper bounds as sizes of files that were not opened.
    pub size_bounds: bool,
    /// Bytes of decoded blocks and what belongs to them in memory.
    pub memory: u64,
    /// Where and how many sealed blocks may be kept on disk.
    pub spill: Option<SpillConfig>,
    /// duplicity's archive directory of this backup: its manifests and signature archives are read instead of the stored ones.
    pub archive_dir: Option<PathBuf>,
    /// The directory of the index on disk; `None` keeps what is learnt in memory only.
    pub index: Option<PathBuf>,
}

impl Default for RepositoryOptions {
    fn default() -> Self {
        Self {
            prefixes: PrefixOptions::default(),
            keys: KeyOptions::default(),
            decode: DecodeOptions::default(),
            time: None,
            path: None,
            owners: OwnerOptions::default(),
            size_bounds: false,
            memory: DEFAULT_MEMORY,
            spill: None,
            archive_dir: None,
            index: None,
        }
    }
}

/// Why a repository could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The store could not be listed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The names tell of no backup that can be used.
    #[error("{url}: {error}")]
    Collection {
        /// The store's URL without secrets.
        url: String,
        /// What is wrong.
        error: CollectionError,
    },
    /// A key or passphrase could not be used.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// The key was tried on an object of the backup, and failed.
    #[error(transparent)]
    Volume(#[from] VolumeError),
    /// The path at the root could not be found.
    #[error(transparent)]
    Fs(#[from] FsError),
}

impl HasKind for OpenError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Storage(error) => error.kind(),
            Self::Collection { error, .. } => error.kind(),
            Self::Codec(error) => error.kind(),
            Self::Volume(error) => error.kind(),
            Self::Fs(error) => error.kind(),
        }
    }
}

/// How `memory` bytes are divided: most for decoded blocks, an eighth each for member tables, for plans, and for what is
/// unpacked, tables of archives included.
pub fn limits(memory: u64, spill: Option<SpillConfig>) -> RepositoryConfig {
    let spill = spill.map(|spill| SpillConfig { bytes: spill.bytes / 4 * 3, ..spill });
    let cache = CacheConfig { memory_bytes: memory / 8 * 5, spill };
    RepositoryConfig { cache, member_table_bytes: memory / 8, index: None, archive_dir: None }
}

/// The file system with `unpacked/` beside the snapshots. Of `memory` and of the space on disk it gets what [`limits`] leaves.
pub fn with_unpacked(below: Arc<TreeFs>, options: &UnpackedOptions) -> Arc<dyn FileSystem> {
    let spill = options.spill.clone().map(|spill| SpillConfig { bytes: spill.bytes / 4, ..spill });
    let cache = CacheConfig { memory_bytes: options.memory / 8, spill };
    let point_store: Arc<dyn PointStore> = match below.repository().index().on_disk() {
        Some(index) => Arc::new(IndexPointStore(Arc::clone(index))),
        // Room for all points of the longest stream at the default of `--memory`.
        None => Arc::new(MemoryPointStore::new(options.memory / 32)),
    };
    Arc::new(UnpackedFs::new(below, Unpacker::new(cache, Limits::default(), point_store), options.owners))
}

/// How archives and compressed files are unpacked.
#[derive(Clone, Debug)]
pub struct UnpackedOptions {
    /// The memory that the whole file system was given.
    pub memory: u64,
    /// Where sealed blocks may be kept, as the whole file system was given it.
    pub spill: Option<SpillConfig>,
    /// Whom members appear to belong to.
    pub owners: OwnerOptions,
}

/// Opens the repository in `store`: lists it, reads the names, looks into duplicity's archive directory if one is given, and
/// makes the decoder.
///
/// # Errors
/// [`OpenError`].
pub fn open_repository(
    store: Arc<dyn ObjectStore>,
    prefixes: &PrefixOptions,
    keys: KeyOptions,
    decode: DecodeOptions,
    mut config: RepositoryConfig,
    archive_dir: Option<&Path>,
    context: &RequestContext,
) -> Result<Arc<Repository>, OpenError> {
    let url = store.url().to_owned();
    let look = || {
        let objects = store.list(context).map_err(listing_error)?;
        let wrap = |error| OpenError::Collection { url: url.clone(), error };
        Collection::from_listing(&objects, prefixes).map_err(wrap)
    };
    let mut collection = look()?;
    // A listing is no moment's picture: it may show a manifest that was written meanwhile, and not the signature archive that was
    // written before it. Without that the tree would be made of all the set's volumes.
    if collection.sets().iter().any(|set| set.is_complete() && set.signatures.is_none()) {
        collection = look()?;
    }
    config.archive_dir = archive_dir.and_then(|dir| ArchiveDir::open(dir, &collection, context));
    let decoder = Decoder::new(Keys::load(keys)?, decode);
    Ok(Repository::new(store, decoder, collection, config))
}

/// Opens the repository in `store` as a file system. Everything that can be found wrong before the first request is
/// found here: the listing, the names, the key or passphrase (tried on the newest manifest), the time and the path.
///
/// # Errors
/// [`OpenError`].
pub fn open_file_system(
    store: Arc<dyn ObjectStore>,
    options: RepositoryOptions,
    context: &RequestContext,
) -> Result<Arc<TreeFs>, OpenError> {
    let url = store.url().to_owned();
    let mut config = limits(options.memory, options.spill);
    // What was learnt of copies that nothing vouches for is kept apart.
    let copies = options.archive_dir.as_ref().map(|dir| dir.as_os_str().as_encoded_bytes().to_vec());
    let demands = [options.decode.identity_bytes(), copies.unwrap_or_default()].concat();
    config.index = options.index.map(|base| IndexLocation { base, requirements: demands });
    let archive_dir = options.archive_dir.as_deref();
    let repository =
        open_repository(store, &options.prefixes, options.keys, options.decode, config, archive_dir, context)?;
    repository.collection().problems().iter().for_each(Problem::log);
    let wrap = |error| OpenError::Collection { url: url.clone(), error };
    let at = options.time.unwrap_or(BackupTime(i64::MAX));
    let collection = repository.collection();
    let chosen = collection.select(at).map_err(wrap)?;
    try_keys(&repository, chosen.set, context)?;
    let root = match (options.time, options.path) {
        (None, None) => MountRoot::Overview,
        (_, path) => {
            let index = collection.snapshot_position(chosen.set);
            MountRoot::Path(index.unwrap_or(0), path.unwrap_or_default())
        }
    };
    let tree =
        TreeOptions { root, owners: options.owners, size_bounds: options.size_bounds, plan_bytes: options.memory / 8 };
    Ok(Arc::new(TreeFs::new(repository, tree, context)?))
}

/// Decrypts the manifest of the set to be shown, so that a wrong key or passphrase is found now. If no key fits, the key
/// may still be that of other chains: one set of each is tried.
fn try_keys(repository: &Arc<Repository>, chosen: SetIndex, context: &RequestContext) -> Result<(), OpenError> {
    let refused = match try_key(repository, chosen, context) {
        Err(error) if error.kind() == ErrorKind::KeyMissing => error,
        tried => return tried,
    };
    let collection = repository.collection();
    let others = collection.branches().iter().rev().filter_map(|line| line.last().copied());
    for set in others.filter(|&set| set != chosen) {
        if repository.manifest(set, context).is_ok() {
            log::warn!("{refused}; the key at hand opens other sets, which can be read");
            return Ok(());
        }
    }
    Err(refused)
}

/// Damage in a manifest is no reason to refuse the other snapshots.
fn try_key(repository: &Arc<Repository>, set: SetIndex, context: &RequestContext) -> Result<(), OpenError> {
    match repository.manifest(set, context) {
        Ok(_) => Ok(()),
        Err(error) => match error.kind() {
            ErrorKind::Corrupt | ErrorKind::Missing | ErrorKind::NotFound | ErrorKind::Archived => {
                log::error!("{error}");
                Ok(())
            }
            ErrorKind::Denied
            | ErrorKind::KeyMissing
            | ErrorKind::Timeout
            | ErrorKind::Unsupported
            | ErrorKind::Invalid
            | ErrorKind::Io
            | ErrorKind::Cancelled
            | ErrorKind::WouldBlock => Err(error.into()),
        },
    }
}

/// A place that is not there at all is a backup that is not there.
fn listing_error(error: StorageError) -> OpenError {
    let kind = if error.kind == ErrorKind::Missing { ErrorKind::NotFound } else { error.kind };
    OpenError::Storage(StorageError { kind, ..error })
}
