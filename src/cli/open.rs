//! Composes the layers: from a store and options to a repository, and on to a file system.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::vfs::{FileSystem, FsError, MountRoot, OwnerOptions, ShownSizes, TreeFs, TreeOptions, UnpackedFs};
use dupfs_base::{ErrorKind, HasKind, escape_bytes};
use dupfs_cache::SpillConfig;
use dupfs_format::collection::{
    Collection, CollectionError, CollectionOptions, PrefixOptions, Problem, ProblemKind, Snapshot,
};
use dupfs_format::{ArchivePath, BackupTime};
use dupfs_read::codec::{DecodeOptions, Decoder, KeyOptions, Keys};
use dupfs_read::storage::{ObjectStore, StorageError};
use dupfs_read::volume::{ArchiveDir, IndexLocation, Repository, RepositoryConfig, SignedSets};
use dupfs_unpack::{IndexPointStore, MemoryPointStore, NameEncoding, PointStore, Unpacker};

use super::error::CliError;
use super::fetch_progress::FetchProgress;
use super::key_trial::{self, ManifestDamage, ShownSnapshots};
use super::memory_shares::MemoryShares;
use super::nearby::{self, LikelyArchiveDir};
use super::request_timeout::RequestTimeout;
use super::start_up::StartUp;

/// Default of `--memory`: bytes of memory for decoded data and what belongs to it.
pub const DEFAULT_MEMORY: u64 = 256 << 20;

/// The time after which content of a volume that is still being read is served if its signature proves it. Most volumes of a local
/// store are verified sooner.
const PROVE_AFTER: Duration = Duration::from_millis(200);

/// A repository, one of its snapshots, and the tree of that, or the reason why it cannot be loaded.
pub type OpenSnapshot = (Arc<Repository>, Snapshot, Result<Arc<TreeFs>, FsError>);

/// The options by which a repository is opened.
#[derive(Debug)]
pub struct RepositoryOptions {
    /// Prefixes of the names.
    pub prefixes: PrefixOptions,
    /// Keys and passphrases.
    pub keys: KeyOptions,
    /// Requirements on encrypted objects.
    pub decode: DecodeOptions,
    /// Bytes of memory for decoded data and what belongs to it.
    pub memory: u64,
    /// The spill file of sealed blocks; `None` for none.
    pub spill: Option<SpillConfig>,
    /// duplicity's archive directory of this backup: its manifests and signature archives are read instead of the stored ones.
    pub archive_dir: Option<PathBuf>,
    /// The directory of the index on disk; `None` for an index in memory only.
    pub index: Option<PathBuf>,
    /// The index is that of an interrupted verification with these options, and of the states of objects that it has read.
    pub verification: Option<Vec<String>>,
    /// The directory of the backup, if it is one of this machine.
    pub local: Option<PathBuf>,
    /// Show sets that have lost their manifests, as far as their signature archives prove their content.
    pub rebuild: bool,
    /// The caller has lists of all files of a set in memory, for which blocks leave room.
    pub lists_files: bool,
    /// The caller reports the volumes that are not in the store, so that nothing is logged of them.
    pub reports_volumes: bool,
    /// The time after which content of a volume that is still being read is served if its signature proves it. `None` if every
    /// volume is verified as a whole first; so it is with a required signer.
    pub prove_after: Option<Duration>,
    /// Upper bound of the time in which it is opened; `None` for that of a request.
    pub start_timeout: Option<Duration>,
}

/// The options by which a repository is shown as a file system.
#[derive(Clone, Debug, Default)]
pub struct ViewOptions {
    /// Show only the snapshot that duplicity would restore for this time.
    pub time: Option<BackupTime>,
    /// Show only this path of it.
    pub path: Option<ArchivePath>,
    /// Owners and modes.
    pub owners: OwnerOptions,
    /// The sizes of files whose exact size needs a volume.
    pub sizes: ShownSizes,
    /// The encoding of names in zip archives that do not state it.
    pub zip_names: Option<NameEncoding>,
}

impl ViewOptions {
    /// Returns true if all snapshots are shown.
    fn is_overview(&self) -> bool {
        self.time.is_none() && self.path.is_none()
    }
}

impl Default for RepositoryOptions {
    fn default() -> Self {
        Self {
            prefixes: PrefixOptions::default(),
            keys: KeyOptions::default(),
            decode: DecodeOptions::default(),
            memory: DEFAULT_MEMORY,
            spill: None,
            archive_dir: None,
            index: None,
            verification: None,
            local: None,
            rebuild: false,
            lists_files: false,
            reports_volumes: false,
            prove_after: Some(PROVE_AFTER),
            start_timeout: None,
        }
    }
}

impl RepositoryOptions {
    /// The start of the opening, by requests that may take `timeout`.
    fn begin(&mut self, timeout: RequestTimeout) -> StartUp {
        StartUp::begin(self.start_timeout.map_or(timeout, RequestTimeout), &mut self.keys)
    }

    fn shares(&self) -> MemoryShares {
        match self.lists_files {
            true => MemoryShares::of_verification(self.memory, self.spill.as_ref()),
            false => MemoryShares::of(self.memory, self.spill.as_ref()),
        }
    }

    /// The options that give the repository an index of its own, as the user gives them, for `dupfs cache`.
    fn distinguishing_options(&self) -> Vec<String> {
        let DecodeOptions { allow_unauthenticated, require_signer, ignore_volume_hash, require_encryption } =
            &self.decode;
        let flags = [
            (*allow_unauthenticated, "--allow-unauthenticated"),
            (require_signer.is_some(), "--sign-key"),
            (*ignore_volume_hash, "--ignore-volume-hash"),
            (*require_encryption, "--require-encryption"),
        ];
        let flags = flags.into_iter().filter(|(is_given, _)| *is_given).map(|(_, option)| option.to_owned());
        let copies = self
            .archive_dir
            .iter()
            .map(|dir| format!("--archive-dir ({})", escape_bytes(dir.as_os_str().as_encoded_bytes())));
        flags.chain(copies).chain(self.verification.iter().flatten().cloned()).collect()
    }

    fn repository_config(&self, timeout: RequestTimeout) -> RepositoryConfig {
        let shares = self.shares();
        // The index of copies from an archive directory, which nothing verifies, is separate.
        let copies = self.archive_dir.as_ref().map(|dir| dir.as_os_str().as_encoded_bytes().to_vec());
        let verification =
            self.verification.iter().flatten().flat_map(|option| [b"\0verify\0", option.as_bytes()].concat());
        let verification: Vec<u8> = verification.collect();
        let requirements = [self.decode.identity_bytes(), copies.unwrap_or_default(), verification].concat();
        let local = self.local.as_ref().map(|dir| std::path::absolute(dir).unwrap_or_else(|_| dir.clone()));
        let options = self.distinguishing_options();
        let index = self.index.clone().map(|base| IndexLocation {
            base,
            requirements,
            options,
            local,
            is_of_states: self.verification.is_some(),
        });
        RepositoryConfig {
            cache: shares.blocks,
            member_table_bytes: shares.member_table_bytes,
            manifest_bytes: shares.manifest_bytes,
            table_bytes: shares.table_bytes,
            index,
            archive_dir: None,
            signed: None,
            deadline: timeout.0,
            prove_after: self.prove_after.filter(|_| self.decode.require_signer.is_none()),
        }
    }
}

/// Opens the repository in `store`: lists it, parses the names, reads duplicity's archive directory if one is given, and loads
/// the keys. All of it may take `timeout`, and so may each later request.
///
/// # Errors
/// [`CliError`].
pub fn open_repository(
    store: Arc<dyn ObjectStore>,
    mut options: RepositoryOptions,
    timeout: RequestTimeout,
) -> Result<Arc<Repository>, CliError> {
    let mut start = options.begin(timeout);
    open_within(store, options, timeout, &mut start)
}

fn open_within(
    store: Arc<dyn ObjectStore>,
    options: RepositoryOptions,
    timeout: RequestTimeout,
    start: &mut StartUp,
) -> Result<Arc<Repository>, CliError> {
    let require_encryption = options.decode.require_encryption;
    let prefixes = options.prefixes.clone();
    let counted =
        CollectionOptions { prefixes, require_encryption, rebuild: options.rebuild, ..CollectionOptions::default() };
    let list = |start: &StartUp| {
        let objects = store.list(start.context()).map_err(listing_error)?;
        let collection =
            Collection::from_listing_with(&objects, &counted).map_err(|error| not_here(&*store, &error))?;
        Ok::<_, CliError>((objects, collection))
    };
    let (mut objects, mut collection) = list(start)?;
    let likely = options.local.as_deref().and_then(|dir| nearby::as_archive_dir(dir, &collection, &objects));
    if let Some(LikelyArchiveDir { options: given, is_marked }) = likely {
        let url = store.url();
        if is_marked {
            let line = format!(
                "{url}: this looks like duplicity's archive directory, not the backup; give the backup's URL with {given}"
            );
            return Err(CliError::failed(ErrorKind::NotFound, line));
        }
        log::warn!(
            "{url}: no set has a volume here, so no file can be read; it looks like duplicity's archive directory, not the \
             backup: give the backup's URL with {given}, or bring the volumes back from wherever they were moved"
        );
    }
    // A listing is not atomic: it may contain a manifest that was just written, and not the signature archive that was written
    // before it. Without that archive the tree would be built from all the set's volumes.
    if collection.sets().iter().any(|set| set.is_complete() && set.signatures.is_none()) {
        (objects, collection) = list(start)?;
    }
    let mut config = options.repository_config(timeout);
    let archive_dir = options.archive_dir.as_deref();
    config.archive_dir = archive_dir.and_then(|dir| ArchiveDir::open(dir, &collection, start.context()));
    let decoder = Arc::new(Decoder::new(Keys::load(options.keys)?, options.decode));
    if decoder.requires_signer() {
        let prefixes = collection.prefixes().clone();
        let signed = SignedSets::new(Arc::clone(&store), Arc::clone(&decoder), prefixes, timeout.0);
        collection = start.run(|context| {
            signed.check_latest(store.url(), context, |refused| {
                let counted = CollectionOptions { refused: refused.clone(), ..counted.clone() };
                Collection::from_listing_with(&objects, &counted)
            })
        })?;
        config.signed = Some(signed);
    }
    Ok(Repository::new(store, decoder, collection, config))
}

/// Opens the repository in `store` as a file system without `unpacked/`. Every error that can be found before the first
/// request is found here: in the listing, the names, the key or passphrase (tried on the newest manifest), the time and the
/// path. All of it may take `timeout`, apart from the time at a passphrase prompt, and so may each later request.
///
/// # Errors
/// [`CliError`].
pub fn open_file_system(
    store: Arc<dyn ObjectStore>,
    mut options: RepositoryOptions,
    view: ViewOptions,
    timeout: RequestTimeout,
) -> Result<Arc<TreeFs>, CliError> {
    let extent_map_bytes = options.shares().extent_map_bytes;
    let mut start = options.begin(timeout);
    let shown = if view.is_overview() { ShownSnapshots::All } else { ShownSnapshots::One };
    let (repository, chosen) = open_checked(store, options, (view.time, shown), timeout, &mut start)?;
    let root = match view.path {
        None if view.time.is_none() => MountRoot::Overview,
        path => MountRoot::Path(position_of(&repository, &chosen)?, path.unwrap_or_default()),
    };
    let ViewOptions { owners, sizes, .. } = view;
    let _progress = FetchProgress::of_repository(&repository);
    let options = TreeOptions { root, owners, sizes, extent_map_bytes };
    Ok(Arc::new(start.run(|context| TreeFs::new(Arc::clone(&repository), options.clone(), context))?))
}

/// Opens the repository in `store` and the tree of the snapshot of `time`, or of the newest one. The tree is an error apart from
/// the others, so that the repository can be used without it.
///
/// # Errors
/// [`CliError`].
pub fn open_snapshot(
    store: Arc<dyn ObjectStore>,
    mut options: RepositoryOptions,
    time: Option<BackupTime>,
    timeout: RequestTimeout,
) -> Result<OpenSnapshot, CliError> {
    let extent_map_bytes = options.shares().extent_map_bytes;
    let mut start = options.begin(timeout);
    let (repository, chosen) = open_checked(store, options, (time, ShownSnapshots::One), timeout, &mut start)?;
    let root = MountRoot::Path(position_of(&repository, &chosen)?, ArchivePath::root());
    let options = TreeOptions { root, extent_map_bytes, ..TreeOptions::default() };
    let _progress = FetchProgress::of_repository(&repository);
    let tree = start.run(|context| TreeFs::new(Arc::clone(&repository), options.clone(), context)).map(Arc::new);
    Ok((repository, chosen, tree))
}

/// Opens the repository in `store`, and tries the keys on the manifest of the snapshot of the time.
fn open_checked(
    store: Arc<dyn ObjectStore>,
    options: RepositoryOptions,
    (time, shown): (Option<BackupTime>, ShownSnapshots),
    timeout: RequestTimeout,
    start: &mut StartUp,
) -> Result<(Arc<Repository>, Snapshot), CliError> {
    let url = store.url().to_owned();
    let damage = match options.decode.require_signer {
        Some(_) => ManifestDamage::Refused,
        None => ManifestDamage::Logged,
    };
    let (is_local, reports_volumes) = (options.local.is_some(), options.reports_volumes);
    let repository = open_within(store, options, timeout, start)?;
    let collection = repository.collection();
    // One line for all sets was logged while the backup was opened.
    let is_known = is_local && nearby::has_names_of_archive_dir(&collection);
    let is_logged = |problem: &&Problem| match problem.kind {
        ProblemKind::NoVolumes => !is_known && !reports_volumes,
        ProblemKind::MissingVolumes => !reports_volumes,
        _ => true,
    };
    collection.problems().iter().filter(is_logged).for_each(Problem::log);
    let chosen = match (time, collection.latest()) {
        (None, Some(latest)) => latest,
        (time, _) => collection.select(time.unwrap_or(BackupTime(i64::MAX))).map_err(|error| with_url(&url, &error))?,
    };
    if let Some(time) = time.filter(|time| *time < chosen.time) {
        log::warn!("there is no backup before {time}: showing the oldest one, of {}", chosen.time);
    }
    key_trial::try_keys(&repository, chosen.set, (shown, damage), start)?;
    Ok((Arc::clone(&repository), chosen.clone()))
}

/// The index of `snapshot` in the list of snapshots.
fn position_of(repository: &Repository, snapshot: &Snapshot) -> Result<usize, CliError> {
    let unlisted = || {
        let line = format!(
            "{}: the snapshot of {} is not among those listed: internal error (bug in dupfs)",
            repository.url(),
            snapshot.time
        );
        CliError::failed(ErrorKind::Io, line)
    };
    repository.collection().snapshot_position(snapshot.set).ok_or_else(unlisted)
}

/// Opens the repository in `store` as [`open_file_system`] does, with `unpacked/` beside the snapshots if the root is the
/// overview.
///
/// # Errors
/// [`CliError`].
pub fn open_mount(
    store: Arc<dyn ObjectStore>,
    options: RepositoryOptions,
    view: ViewOptions,
    timeout: RequestTimeout,
) -> Result<Arc<dyn FileSystem>, CliError> {
    let (shares, owners, zip_names, is_overview) = (options.shares(), view.owners, view.zip_names, view.is_overview());
    let tree = open_file_system(store, options, view, timeout)?;
    if !is_overview {
        return Ok(tree);
    }
    let point_store: Arc<dyn PointStore> = match tree.repository().index().on_disk() {
        Some(index) => Arc::new(IndexPointStore(Arc::clone(index))),
        None => Arc::new(MemoryPointStore::new(shares.seek_point_bytes)),
    };
    let lent = tree.repository().lent_memory().clone();
    let unpacker = Unpacker::with_zip_names(shares.unpacked, shares.unpack_limits, point_store, (zip_names, lent));
    Ok(Arc::new(UnpackedFs::new(tree, unpacker, owners)))
}

/// The failure to find a backup in `store`, with the backups below it.
fn not_here(store: &dyn ObjectStore, error: &CollectionError) -> CliError {
    let below = match error {
        CollectionError::NoBackup { .. } => nearby::backups_below(store),
        _ => None,
    };
    match below {
        Some(below) => CliError::failed(
            error.kind(),
            format!("{}: no duplicity backup directly here; below it: {below}", store.url()),
        ),
        None => with_url(store.url(), error),
    }
}

fn with_url(url: &str, error: &CollectionError) -> CliError {
    CliError::failed(error.kind(), format!("{url}: {error}"))
}

/// A location that does not exist is a backup that does not exist.
fn listing_error(error: StorageError) -> CliError {
    let kind = if error.kind == ErrorKind::Missing { ErrorKind::NotFound } else { error.kind };
    StorageError { kind, ..error }.into()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use dupfs_read::codec::Signer;

    #[test]
    fn with_a_required_signer_every_volume_is_verified_first() {
        let key = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/keys/rsa.public.asc");
        let mut options = RepositoryOptions::default();
        assert!(options.repository_config(RequestTimeout::default()).prove_after.is_some());
        options.decode.require_signer = Some(Signer::load(&"AD1F72F3".parse().unwrap(), &key).unwrap());
        assert_eq!(options.repository_config(RequestTimeout::default()).prove_after, None);
    }
}
