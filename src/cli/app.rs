//! The program: from its arguments to an exit code.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;

use clap::Parser;
use dupfs_base::ErrorKind;

use super::args::{Cli, Command};
use super::backend::Backend;
use super::environment_secrets;
use super::error::CliError;
use super::mount::Respawn;
use super::{argv, daemon, logging, mount, umount};

/// The program with its dependencies.
pub struct App<'a> {
    /// Opens backups.
    pub backend: &'a dyn Backend,
    /// Makes the command that starts this program again with the given arguments.
    pub respawn: &'a Respawn<'a>,
}

impl std::fmt::Debug for App<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("App").finish_non_exhaustive()
    }
}

impl<'a> App<'a> {
    /// The program on `backend`, which starts its own file again.
    pub fn new(backend: &'a dyn Backend) -> Self {
        Self { backend, respawn: &own_program }
    }

    /// Runs the command `typed` (with the program's name first), reports a failure to the user, and returns the exit code.
    pub fn run(&self, typed: Vec<OsString>) -> u8 {
        let inherited = daemon::InheritedFiles::record();
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
        match self.dispatch(&cli, own, &arguments.dropped, inherited) {
            Ok(()) => 0,
            Err(error) => error.report(),
        }
    }

    fn dispatch(
        &self,
        cli: &Cli,
        own: &[OsString],
        dropped: &[String],
        mut inherited: daemon::InheritedFiles,
    ) -> Result<(), CliError> {
        if let Some(fd) = cli.secrets_fd {
            let failed = |error| CliError::failed(ErrorKind::Io, format!("the secrets cannot be taken over: {error}"));
            environment_secrets::take_over(fd).map_err(failed)?;
            inherited.forget(fd);
        }
        if let Err(error) = logging::start(cli.verbose, cli.log_file.as_deref()) {
            let file = cli.log_file.clone().unwrap_or_default();
            return Err(CliError::Usage(format!("--log-file {}: {error}", file.display())));
        }
        daemon::protect_memory();
        if !dropped.is_empty() {
            log::warn!("without effect on reading, ignored: {}", dropped.join(" "));
        }
        // A mount in the background hands its secrets over to the daemon.
        let reads = match &cli.command {
            Command::Mount(args) => args.foreground || cli.report_ready,
            Command::Umount(_) => false,
            Command::Sets(_) | Command::Ls(_) | Command::Cat(_) => true,
        };
        if reads && cli.secrets_fd.is_none() {
            daemon::leave_secrets(|more| (self.respawn)(&[more, own.to_vec()].concat()));
        }
        match &cli.command {
            Command::Mount(args) => mount::run(self.backend, self.respawn, cli, args, own, inherited),
            Command::Umount(args) => umount::run(args),
            Command::Sets(args) => self.backend.sets(args),
            Command::Ls(args) => self.backend.ls(args),
            Command::Cat(args) => self.backend.cat(args),
        }
    }
}

/// This program's own file under its usual name; the arguments are already normalized.
fn own_program(args: &[OsString]) -> std::process::Command {
    let mut command = std::process::Command::new("/proc/self/exe");
    command.arg0("dupfs").args(args);
    command
}
