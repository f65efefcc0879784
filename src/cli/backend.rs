//! The interface between the commands and the backups, so that the commands also run on a file system of the tests.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::sync::Arc;

use crate::vfs::{FileSystem, ShownSizes};
use dupfs_read::storage::{FetchLimit, ReadTimeout};
use dupfs_unpack::NameEncoding;

use super::args::{CatArgs, DiffArgs, FindArgs, HistoryArgs, LsArgs, RestoreArgs, SetsArgs, VerifyArgs};
use super::build_index::IndexArgs;
use super::error::CliError;
use super::options::{CacheArgs, KeyArgs, OwnerArgs, RepoArgs, TimeArgs};
use super::request_timeout::RequestTimeout;
use super::secrets::Passphrases;
use super::volumes::VolumesArgs;

/// The location of a backup, from its URL alone.
#[derive(Clone, Debug)]
pub struct BackupLocation {
    /// The URL without secrets.
    pub url: String,
    /// Directories of this machine that serving reads or writes, each with a description ("the backup", "the cache"): a mount
    /// point may not overlap them.
    pub local: Vec<(&'static str, PathBuf)>,
}

/// A request to open a view of a backup.
#[derive(Clone, Debug)]
pub struct OpenRequest<'a> {
    /// The backup.
    pub repo: &'a RepoArgs,
    /// Keys and files of passphrases.
    pub keys: &'a KeyArgs,
    /// Caches.
    pub cache: &'a CacheArgs,
    /// The snapshot at the root; without one, the overview of all.
    pub time: &'a TimeArgs,
    /// Owners.
    pub owners: &'a OwnerArgs,
    /// The path of the snapshot at the root.
    pub path: Option<&'a OsStr>,
    /// The sizes of files whose exact size needs a volume.
    pub sizes: ShownSizes,
    /// The encoding of names in zip archives that do not state it.
    pub zip_names: Option<NameEncoding>,
    /// Passphrases, and the prompt until the mount is up.
    pub passphrases: Arc<Passphrases>,
    /// Upper bound of the time that opening it takes.
    pub start: RequestTimeout,
    /// Upper bound of the time that each request later takes.
    pub timeout: RequestTimeout,
    /// The bounds of the store.
    pub bounds: StoreBounds,
}

/// The bounds of a store that can change while it is read.
#[derive(Clone, Debug, Default)]
pub struct StoreBounds {
    /// The time in which a read makes no progress because the store does not answer; `None` for that of other requests.
    pub read_timeout: Option<ReadTimeout>,
    /// The bytes that are fetched in all.
    pub fetch_limit: Option<Arc<FetchLimit>>,
}

impl StoreBounds {
    /// The bounds of a command.
    pub fn of_command(repo: &RepoArgs) -> Self {
        Self::limited(repo, "give a larger limit, or name fewer files".to_owned())
    }

    /// The bounds that `repo` states, with the words that end the error of a read over the limit.
    pub(super) fn limited(repo: &RepoArgs, remedy: String) -> Self {
        let fetch_limit = repo.fetch_limit.map(|bytes| FetchLimit::new(bytes.0, remedy));
        Self { read_timeout: None, fetch_limit }
    }
}

/// Opens backups for the commands.
pub trait Backend {
    /// Parses the URL and nothing else: no network, no secret. Relative paths become absolute, as a daemon changes its working
    /// directory.
    ///
    /// # Errors
    /// [`CliError`] for an invalid URL.
    fn locate(&self, repo: &RepoArgs, cache: &CacheArgs) -> Result<BackupLocation, CliError>;

    /// Lists the backup, checks it and the keys, and returns the view as a file system.
    ///
    /// # Errors
    /// [`CliError`], one line with the remedy.
    fn open(&self, request: OpenRequest<'_>) -> Result<Arc<dyn FileSystem>, CliError>;

    /// `dupfs sets`.
    ///
    /// # Errors
    /// [`CliError`].
    fn sets(&self, args: &SetsArgs) -> Result<(), CliError>;

    /// `dupfs ls`.
    ///
    /// # Errors
    /// [`CliError`].
    fn ls(&self, args: &LsArgs) -> Result<(), CliError>;

    /// `dupfs find`.
    ///
    /// # Errors
    /// [`CliError`].
    fn find(&self, args: &FindArgs) -> Result<(), CliError>;

    /// `dupfs history`.
    ///
    /// # Errors
    /// [`CliError`].
    fn history(&self, args: &HistoryArgs) -> Result<(), CliError>;

    /// `dupfs diff`.
    ///
    /// # Errors
    /// [`CliError`].
    fn diff(&self, args: &DiffArgs) -> Result<(), CliError>;

    /// `dupfs cat`.
    ///
    /// # Errors
    /// [`CliError`].
    fn cat(&self, args: &CatArgs) -> Result<(), CliError>;

    /// `dupfs restore`.
    ///
    /// # Errors
    /// [`CliError`].
    fn restore(&self, args: &RestoreArgs) -> Result<(), CliError>;

    /// `dupfs verify`.
    ///
    /// # Errors
    /// [`CliError`].
    fn verify(&self, args: &VerifyArgs) -> Result<(), CliError>;

    /// `dupfs volumes`.
    ///
    /// # Errors
    /// [`CliError`].
    fn volumes(&self, args: &VolumesArgs) -> Result<(), CliError>;

    /// `dupfs index`.
    ///
    /// # Errors
    /// [`CliError`].
    fn index(&self, args: &IndexArgs) -> Result<(), CliError>;
}
