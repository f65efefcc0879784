//! The program: from its arguments to an exit code.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::sync::Arc;

use clap::FromArgMatches;
use signal_hook::consts::SIGXFSZ;

use dupfs_base::{ErrorKind, io_reason};

use super::args::{Cli, Command};
use super::argv::Arguments;
use super::backend::Backend;
use super::environment_secrets;
use super::error::CliError;
use super::exit::{self, CommandExit};
use super::mount::Respawn;
use super::option_levels::LeveledArguments;
use super::{
    argv, cache, completions, daemon, logging, man_pages, mount, printer, standard_output, status, umount, usage_hints,
};

/// The option of a process that this program starts again, in front of all other arguments.
const RESTARTED: &str = "--restarted";

/// The option of such a process if mount(8) has called the first one.
const CALLED_BY_MOUNT: &str = "--called-by-mount";

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
        let is_called_by_mount = argv::is_called_by_mount(&typed);
        let hint = argv::network_hint(&typed);
        let code = self.run_command(typed, is_called_by_mount);
        if let Some(hint) = hint.filter(|_| code == CommandExit::Failed.code()) {
            logging::report(hint);
        }
        if is_called_by_mount { exit::code_for_mount(code) } else { code }
    }

    fn run_command(&self, typed: Vec<OsString>, is_called_by_mount: bool) -> u8 {
        match completions::answer(&typed) {
            Ok(false) => {}
            Ok(true) => return 0,
            Err(error) => return error.report(),
        }
        let inherited = daemon::InheritedFiles::record();
        survive_file_size_limit();
        let arguments = match argv::normalise(typed) {
            Ok(arguments) => arguments,
            Err(error) => return error.report(),
        };
        let variables: Vec<(OsString, OsString)> = std::env::vars_os().collect();
        let levels = match LeveledArguments::gather(&arguments.args, &variables) {
            Ok(levels) => levels,
            Err(error) => return error.report(),
        };
        let matches = levels.parser().try_get_matches_from(&levels.args);
        let cli = match matches.and_then(|matches| Cli::from_arg_matches(&matches)) {
            Ok(cli) => cli,
            Err(error) => return explain(&error, &arguments.args, &levels, is_called_by_mount),
        };
        // The parser compares only options that stand on the same side of the command.
        if cli.quiet && cli.verbose > 0 {
            let line = "--quiet cannot be used with --verbose: leave out one of them";
            return refuse(line, None, is_called_by_mount);
        }
        if arguments.fake {
            return 0;
        }
        // A process that takes the place of this one gathers the options again: the arguments of a process are public.
        let typed = arguments.args.get(1..).unwrap_or_default().iter().cloned();
        let marks = [(RESTARTED, !cli.restarted), (CALLED_BY_MOUNT, is_called_by_mount)];
        let marks = marks.into_iter().filter(|(_, is_new)| *is_new).map(|(mark, _)| OsString::from(mark));
        let own: Vec<OsString> = marks.chain(typed).collect();
        let is_called_by_mount = is_called_by_mount || cli.called_by_mount;
        let notes = [arguments.notes.as_slice(), &levels.notes].concat();
        match self.dispatch(&cli, &own, &arguments, &notes, inherited) {
            Ok(()) => 0,
            Err(CliError::Usage(line)) => refuse(&line, levels.origin_in(&line), is_called_by_mount),
            Err(CliError::Failed { exit, message }) => {
                let origin = levels.origin_in(&message);
                CliError::new(exit, in_words_of_user(&message, origin, is_called_by_mount)).report()
            }
            Err(error) => error.report(),
        }
    }

    fn dispatch(
        &self,
        cli: &Cli,
        own: &[OsString],
        arguments: &Arguments,
        notes: &[String],
        mut inherited: daemon::InheritedFiles,
    ) -> Result<(), CliError> {
        if let Some(fd) = cli.secrets_fd {
            let failed = |error: std::io::Error| {
                CliError::failed(ErrorKind::Io, format!("the secrets cannot be taken over: {}", io_reason(&error)))
            };
            environment_secrets::take_over(fd).map_err(failed)?;
            inherited.forget(fd);
        }
        if let Err(error) = logging::start(logging::level(cli.verbose, cli.quiet), cli.log_file.as_deref()) {
            let file = cli.log_file.clone().unwrap_or_default();
            let reason = io_reason(&error);
            return Err(CliError::Usage(format!(
                "the log file {} cannot be opened: {reason}; give a file in an existing directory that this user may write",
                file.display()
            )));
        }
        daemon::protect_memory();
        if !arguments.dropped.is_empty() {
            log::warn!("without effect on reading, ignored: {}", arguments.dropped.join(" "));
        }
        for note in notes.iter().filter(|_| !cli.restarted) {
            log::warn!("{note}");
        }
        if let Some(right) = swapped(&cli.command).or_else(|| usage_hints::option_of_find(&arguments.args)) {
            return Err(CliError::Usage(right));
        }
        if let Command::Restore(args) = &cli.command
            && let Some(right) = usage_hints::unfit_destination(&args.split().1)
        {
            return Err(CliError::Usage(right));
        }
        // A mount in the background hands its secrets over to the daemon.
        let reads = match &cli.command {
            Command::Mount(args) => args.foreground || cli.report_ready,
            Command::Umount(_) | Command::Status(_) | Command::Cache(_) | Command::Completions(_) | Command::Man(_) => {
                false
            }
            Command::Sets(_)
            | Command::Ls(_)
            | Command::Find(_)
            | Command::History(_)
            | Command::Diff(_)
            | Command::Cat(_)
            | Command::Restore(_)
            | Command::Verify(_)
            | Command::Volumes(_)
            | Command::Index(_) => true,
        };
        if reads && cli.secrets_fd.is_none() {
            daemon::drop_environment_secrets(|more| (self.respawn)(&[more, own.to_vec()].concat()));
        }
        match &cli.command {
            Command::Mount(args) => mount::run(self.backend, self.respawn, cli, args, own, inherited),
            Command::Umount(args) => umount::run(args),
            Command::Status(args) => {
                check_output().and_then(|()| printer::print(|printer| status::run(args, self.respawn, printer)))
            }
            Command::Sets(args) => check_output().and_then(|()| self.backend.sets(args)),
            Command::Ls(args) => check_output().and_then(|()| self.backend.ls(args)),
            Command::Find(args) => check_output().and_then(|()| self.backend.find(args)),
            Command::History(args) => check_output().and_then(|()| self.backend.history(args)),
            Command::Diff(args) => check_output().and_then(|()| self.backend.diff(args)),
            Command::Cat(args) => check_output().and_then(|()| self.backend.cat(args)),
            Command::Restore(args) => check_output().and_then(|()| self.backend.restore(args)),
            Command::Verify(args) => check_output().and_then(|()| self.backend.verify(args)),
            Command::Index(args) => check_output().and_then(|()| self.backend.index(args)),
            Command::Cache(args) => check_output().and_then(|()| cache::run(args)),
            Command::Volumes(args) => check_output().and_then(|()| self.backend.volumes(args)),
            Command::Completions(args) => check_output().and_then(|()| completions::print(args)),
            Command::Man(args) => man_pages::write(args),
        }
    }
}

/// Fails before anything is fetched if nothing can be printed.
fn check_output() -> Result<(), CliError> {
    standard_output::check().map_err(|error| CliError::output(&error))
}

/// Makes a write beyond the limit on the size of files (`ulimit -f`) fail, where the signal would end the program: a file of the
/// cache is not worth that. The signal is handled and not ignored, so that the programs that dupfs runs do not inherit this.
fn survive_file_size_limit() {
    if let Err(error) = signal_hook::flag::register(SIGXFSZ, Arc::default()) {
        log::debug!("SIGXFSZ cannot be handled: {error}");
    }
}

/// Reports that the arguments are refused; returns the exit code.
fn refuse(line: &str, origin: Option<String>, is_called_by_mount: bool) -> u8 {
    CliError::Usage(in_words_of_user(line, origin, is_called_by_mount)).report()
}

/// An error for the user, to one of mount(8) in the words of its options, with the places of the options that are its reason.
/// Those are variables and keys of the configuration file, which set options and not mount options.
fn in_words_of_user(line: &str, origin: Option<String>, is_called_by_mount: bool) -> String {
    let line = if is_called_by_mount { argv::in_words_of_mount(line) } else { line.to_owned() };
    match origin {
        Some(origin) => format!("{line}; {origin}"),
        None => line,
    }
}

/// Reports that the arguments cannot be parsed, or prints the help that they ask for; returns the exit code.
fn explain(error: &clap::Error, typed: &[OsString], levels: &LeveledArguments, is_called_by_mount: bool) -> u8 {
    if let Some(answer) = usage_hints::answer(error, typed) {
        return refuse(&answer, levels.origins(error), is_called_by_mount);
    }
    // Help goes to standard output and is no error; that of `dupfs` alone goes to standard error.
    let is_failure = error.use_stderr();
    let printed = if is_failure { Ok(()) } else { standard_output::check() };
    match (printed.and_then(|()| error.print()), is_failure) {
        (_, true) => CommandExit::Usage.code(),
        (Ok(()), false) => CommandExit::Done.code(),
        (Err(failure), false) => CliError::output(&failure).report(),
    }
}

/// The right order of the arguments, if the backup and the operand after it are the wrong way round.
fn swapped(command: &Command) -> Option<String> {
    match command {
        Command::Mount(args) => usage_hints::swapped("mount", &args.repo, args.mountpoint.as_os_str()),
        Command::Ls(args) => usage_hints::swapped("ls", &args.repo, args.path.as_deref()?),
        Command::Find(args) => usage_hints::swapped("find", &args.repo, &args.pattern),
        Command::History(args) => usage_hints::swapped("history", &args.repo, &args.path),
        Command::Diff(args) => args.operands().find_map(|operand| usage_hints::swapped("diff", &args.repo, operand)),
        Command::Cat(args) => usage_hints::swapped("cat", &args.repo, args.paths.first()?),
        Command::Restore(args) => usage_hints::swapped("restore", &args.repo, args.operands.first()?),
        Command::Volumes(args) => usage_hints::swapped("volumes", &args.repo, args.paths.first()?),
        Command::Verify(args) => usage_hints::swapped("verify", &args.repo, args.directory.as_deref()?.as_os_str()),
        Command::Umount(_)
        | Command::Status(_)
        | Command::Sets(_)
        | Command::Index(_)
        | Command::Cache(_)
        | Command::Completions(_)
        | Command::Man(_) => None,
    }
}

/// This program's own file under its usual name; the arguments are already normalized.
fn own_program(args: &[OsString]) -> std::process::Command {
    let mut command = std::process::Command::new("/proc/self/exe");
    command.arg0("dupfs").args(args);
    command
}
