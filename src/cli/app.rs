//! The program: from what was typed to an exit code. What opens a backup is given to it, so that it runs as well on a
//! file system of the tests.

use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Parser;

use crate::vfs::FileSystem;

use super::args::{CatArgs, Cli, Command, LsArgs, SetsArgs};
use super::errors::CliError;
use super::options::{CacheArgs, KeyArgs, OwnerArgs, RepoArgs, TimeArgs};
use super::secrets::Passphrases;
use super::{argv, daemon, logging, mount, umount};

/// Where a backup is, as far as its URL tells.
#[derive(Clone, Debug)]
pub struct Place {
    /// The URL without secrets.
    pub url: String,
    /// Directories of this machine that serving reads or writes, with what they are ("the backup", "the cache"): a mount
    /// point may not overlap them.
    pub local: Vec<(&'static str, PathBuf)>,
}

/// Which view of which backup to open, and with what.
#[derive(Clone, Debug)]
pub struct OpenRequest<'a> {
    /// The backup.
    pub repo: &'a RepoArgs,
    /// Keys and files of passphrases.
    pub keys: &'a KeyArgs,
    /// Caches.
    pub cache: &'a CacheArgs,
    /// Which snapshot is the root; none: the overview of all.
    pub time: &'a TimeArgs,
    /// Owners.
    pub owners: &'a OwnerArgs,
    /// Which path of the snapshot is the root.
    pub path: Option<&'a OsStr>,
    /// Whether `stat` shows a bound of sizes that cost a volume.
    pub size_bounds: bool,
    /// Passphrases, and the user who may be asked until the mount is up.
    pub passphrases: Arc<Passphrases>,
}

/// What opens backups for the commands.
pub trait Backend {
    /// Reads the URL and nothing else: no network, no secret. Relative paths become absolute, as a daemon leaves the
    /// working directory.
    ///
    /// # Errors
    /// [`CliError`] for a URL that makes no sense.
    fn locate(&self, repo: &RepoArgs, cache: &CacheArgs) -> Result<Place, CliError>;

    /// Lists the backup, finds what is wrong with it and with the keys, and gives the view as a file system.
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

    /// `dupfs cat`.
    ///
    /// # Errors
    /// [`CliError`].
    fn cat(&self, args: &CatArgs) -> Result<(), CliError>;
}

/// The program with what it needs from outside.
pub struct App<'a> {
    /// What opens backups.
    pub backend: &'a dyn Backend,
    /// Makes the command that runs this program once more with the given arguments.
    pub respawn: &'a dyn Fn(&[OsString]) -> std::process::Command,
}

impl std::fmt::Debug for App<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("App").finish_non_exhaustive()
    }
}

impl<'a> App<'a> {
    /// The program on `backend`, started again from its own file.
    pub fn new(backend: &'a dyn Backend) -> Self {
        Self { backend, respawn: &own_program }
    }

    /// Does what `typed` (with the program's name first) says, tells the user what went wrong, and gives the exit code.
    pub fn run(&self, typed: Vec<OsString>) -> u8 {
        let arguments = match argv::normalise(typed) {
            Ok(arguments) => arguments,
            Err(error) => return error.report(),
        };
        let cli = match Cli::try_parse_from(&arguments.args) {
            Ok(cli) => cli,
            Err(error) => {
                // Help goes to standard output and is no error; the rest goes to standard error.
                let _ = error.print();
                return if error.use_stderr() { 2 } else { 0 };
            }
        };
        if arguments.fake {
            return 0;
        }
        let own = arguments.args.get(1..).unwrap_or_default();
        match self.dispatch(&cli, own, &arguments.dropped) {
            Ok(()) => 0,
            Err(error) => error.report(),
        }
    }

    fn dispatch(&self, cli: &Cli, own: &[OsString], dropped: &[String]) -> Result<(), CliError> {
        if let Err(error) = logging::start(cli.verbose, cli.log_file.as_deref()) {
            let file = cli.log_file.clone().unwrap_or_default();
            return Err(CliError::Usage(format!("--log-file {}: {error}", file.display())));
        }
        daemon::protect_memory();
        if !dropped.is_empty() {
            log::warn!("without effect on reading, ignored: {}", dropped.join(" "));
        }
        match &cli.command {
            Command::Mount(args) => mount::run(self, cli, args, own),
            Command::Umount(args) => umount::run(args),
            Command::Sets(args) => self.backend.sets(args),
            Command::Ls(args) => self.backend.ls(args),
            Command::Cat(args) => self.backend.cat(args),
        }
    }
}

/// This program's own file under its usual name; what it was called by has been brought into the usual form.
fn own_program(args: &[OsString]) -> std::process::Command {
    let mut command = std::process::Command::new("/proc/self/exe");
    command.arg0("dupfs").args(args);
    command
}
