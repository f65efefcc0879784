//! `dupfs mount` without `-f`: the program starts itself again, and that process becomes the daemon.
//!
//! No fork: a process with threads cannot fork safely. The child inherits the terminal, and its standard
//! output is connected to the parent. It checks everything, reports failures itself, mounts, and reports success by one
//! line. Until then the parent waits; if the child exits first, the parent exits with the same code.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::RawFd;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use std::os::unix::process::{CommandExt, ExitStatusExt};

use signal_hook::consts::SIGINT;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{DumpableBehavior, Resource, Rlimit, Signal};

use dupfs_base::{ErrorKind, io_reason};

use super::environment_secrets::{self, SecretsFile};
use super::error::CliError;
use super::exit::CommandExit;
use super::home_dir::{HOME, home_dir};
use super::service_manager;
use super::standard_output;

/// The option that makes the process report success, in front of all other arguments.
pub(super) const REPORT_FLAG: &str = "--report-ready";

/// The variable that bounds the arenas of the C library's allocator, which reads it at program start. By default each thread
/// gets an arena, up to eight for each processor, and an arena retains the memory that was freed in it. Blocks and buffers are
/// allocated by one thread and freed by another, which doubled the memory in use. Two arenas still took 80 MB more than one
/// and saved no time: frequent allocations are small and come from the cache of each thread, or large and reused.
const ARENAS: (&str, &str) = ("MALLOC_ARENA_MAX", "1");

/// The line that the child prints once the mount answers.
const READY: &str = "dupfs: ready";

/// Excludes the memory from core dumps and from access by other processes of the user.
pub(super) fn protect_memory() {
    // Started from /proc/self/exe, the process would show as "exe". Only cosmetic if it fails.
    let _ = rustix::thread::set_name(c"dupfs");
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    if let Err(error) = rustix::process::setrlimit(Resource::Core, none) {
        log::warn!("core dumps cannot be turned off: {error}");
    }
    if let Err(error) = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        log::warn!("the memory cannot be hidden from other processes: {error}");
    }
}

/// Makes the end of the parent process end this one too, until [`detach`]: no user would notice a daemon whose start
/// was interrupted, and which waits for a store that does not answer.
pub(super) fn end_with_parent() {
    if let Err(error) = rustix::process::set_parent_process_death_signal(Some(Signal::TERM)) {
        log::debug!("the parent process cannot be watched: {error}");
    }
    // The parent may have ended before: then no process reads the report.
    let output = io::stdout();
    let mut end = PollFd::new(&output, PollFlags::empty());
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    if matches!(poll(std::slice::from_mut(&mut end), Some(&at_once)), Ok(1)) && end.revents().contains(PollFlags::ERR) {
        std::process::exit(i32::from(CommandExit::Failed.code()));
    }
}

/// Completes the environment of `command`: bounds its memory, unless the user set a bound, and names the home directory, in which
/// gpg and the libraries of the stores find their files. Returns true if it was changed.
fn complete_environment(command: &mut Command) -> bool {
    let unbound = std::env::var_os(ARENAS.0).is_none();
    if unbound {
        command.env(ARENAS.0, ARENAS.1);
    }
    let home = if std::env::var_os(HOME).is_none() { home_dir() } else { None };
    if let Some(home) = &home {
        command.env(HOME, home);
    }
    unbound || home.is_some()
}

/// Replaces this process by `command`, the same program with its environment completed; returns if it is complete, or that fails.
pub(super) fn restart_with_complete_environment(mut command: Command) {
    if complete_environment(&mut command) {
        standard_output::close_again();
        let error = command.exec();
        log::info!("cannot start again with bounded memory: {error}");
    }
}

/// Replaces this process by one without secrets in its environment, if there are any: the program that `respawn` starts with
/// additional arguments. Returns if there are none, or if that fails.
pub(super) fn drop_environment_secrets(respawn: impl FnOnce(Vec<OsString>) -> Command) {
    if !environment_secrets::in_environment() {
        return;
    }
    let error = match SecretsFile::from_environment() {
        Ok(secrets) => {
            let mut command = respawn(vec![secrets.argument()]);
            environment_secrets::remove_from(&mut command);
            complete_environment(&mut command);
            standard_output::close_again();
            command.exec()
        }
        Err(error) => error,
    };
    log::info!("the secrets stay in the environment of this process: {error}");
}

/// Starts the command that `respawn` makes of the given arguments, and waits until it reports that the mount answers. The
/// secrets of the environment are handed over to it.
///
/// # Errors
/// [`CliError::Reported`] with its exit code when it ends first; it has reported why.
pub(super) fn launch(own: &[OsString], respawn: &dyn Fn(&[OsString]) -> Command) -> Result<(), CliError> {
    let failed = |what: &str, error: io::Error| {
        CliError::failed(
            ErrorKind::Io,
            format!("the daemon cannot be {what}: {} (dupfs mount -f needs none)", io_reason(&error)),
        )
    };
    let secrets = environment_secrets::in_environment().then(SecretsFile::from_environment).transpose();
    let secrets = secrets.map_err(|error| failed("given its secrets", error))?;
    let more: Vec<OsString> = secrets.iter().map(SecretsFile::argument).collect();
    let mut command = respawn(&[more, arguments(own)].concat());
    environment_secrets::remove_from(&mut command);
    complete_environment(&mut command);
    service_manager::hand_over(&mut command);
    // Ctrl-C reaches both processes. This one waits until the other has ended, which may have to restore the terminal.
    let interrupted = Arc::new(AtomicBool::new(false));
    if let Err(error) = signal_hook::flag::register(SIGINT, Arc::clone(&interrupted)) {
        log::debug!("SIGINT cannot be handled: {error}");
    }
    let mut child = command.stdout(Stdio::piped()).spawn().map_err(|error| failed("started", error))?;
    drop(secrets);
    let Some(output) = child.stdout.take() else { return Ok(()) };
    let (tx, rx) = channel();
    let listen = move || {
        let mut lines = BufReader::new(output).lines();
        // The receiver is dropped only after the child has exited.
        let _ = tx.send(lines.any(|line| line.is_ok_and(|line| line == READY)));
    };
    thread::Builder::new().spawn(listen).map_err(|error| failed("listened to", error))?;
    let status = loop {
        match rx.recv_timeout(Duration::from_millis(100)) {
            Ok(true) => return Ok(()),
            Ok(false) | Err(RecvTimeoutError::Disconnected) => break wait(&mut child),
            // A child process of the daemon may keep the pipe open after the daemon has exited.
            Err(RecvTimeoutError::Timeout) => match child.try_wait() {
                Ok(Some(status)) => break Ok(status),
                Ok(None) => {}
                Err(error) => break Err(error),
            },
        }
    };
    let status = status.map_err(|error| failed("waited for", error))?;
    match (status.code(), status.signal()) {
        _ if interrupted.load(Ordering::Relaxed) => Err(CliError::Reported(CommandExit::Interrupted.code())),
        (Some(0), _) => Err(CliError::failed(ErrorKind::Io, "the daemon exited before the mount answered")),
        (Some(code), _) => Err(CliError::Reported(u8::try_from(code).unwrap_or(1))),
        (None, Some(SIGINT)) => Err(CliError::Reported(CommandExit::Interrupted.code())),
        (None, signal) => {
            let by = signal.map_or_else(|| "a signal".to_owned(), |signal| format!("signal {signal}"));
            Err(CliError::failed(ErrorKind::Io, format!("the daemon was killed by {by} before the mount answered")))
        }
    }
}

fn wait(child: &mut Child) -> io::Result<ExitStatus> {
    child.wait()
}

/// The arguments of the process that becomes the daemon, from those of this one (without the program's name).
fn arguments(own: &[OsString]) -> Vec<OsString> {
    std::iter::once(OsString::from(REPORT_FLAG)).chain(own.iter().cloned()).collect()
}

/// The descriptors above 2 that were open when the program started: those of its parent.
#[derive(Debug, Default)]
pub(super) struct InheritedFiles(Vec<RawFd>);

impl InheritedFiles {
    /// Records them; to be called before the program opens anything itself.
    pub(super) fn record() -> Self {
        let Ok(listing) = std::fs::read_dir("/proc/self/fd") else { return Self::default() };
        let own = format!("/proc/{}/fd", std::process::id());
        let inherited = listing.filter_map(|entry| {
            let entry = entry.ok()?;
            let number = entry.file_name().to_str()?.parse().ok()?;
            // Not the listing itself.
            (number > 2 && std::fs::read_link(entry.path()).ok()?.as_os_str() != own.as_str()).then_some(number)
        });
        Self(inherited.collect())
    }

    /// Removes the file `number`, which was closed: another file may have its number now.
    pub(super) fn forget(&mut self, number: RawFd) {
        self.0.retain(|own| *own != number);
    }

    /// Closes them. A lock or a pipe of the parent in one of them would last as long as the mount.
    fn close(self) {
        for number in self.0 {
            if let Err(error) = nix::unistd::close(number) {
                log::debug!("descriptor {number} of the parent: {error}");
            }
        }
    }
}

/// Opens the replacement of the terminal in a daemon.
///
/// # Errors
/// [`CliError`] naming `/dev/null` and the remedy.
pub(super) fn open_null() -> Result<File, CliError> {
    OpenOptions::new().read(true).write(true).open("/dev/null").map_err(|error| {
        let exit = match error.kind() {
            io::ErrorKind::PermissionDenied => CommandExit::Denied,
            _ => CommandExit::Failed,
        };
        let reason = io_reason(&error);
        CliError::new(
            exit,
            format!(
                "/dev/null cannot be opened for reading and writing: {reason}; have root give it its usual mode \
                 (chmod 666 /dev/null), or mount with -f"
            ),
        )
    })
}

/// Reports that the mount answers, and detaches from terminal, session, working directory and the files of the parent, to `null`
/// instead of the terminal.
///
/// # Errors
/// When the process that waits for the report has exited.
pub(super) fn detach(null: &File, inherited: InheritedFiles) -> io::Result<()> {
    // Not before: secrets may come from one of them, as from `--passphrase-file <(...)`.
    inherited.close();
    // Fails only for the leader of a process group, which is detached already.
    let _ = rustix::process::setsid();
    rustix::process::set_parent_process_death_signal(None)?;
    std::env::set_current_dir("/")?;
    let mut out = io::stdout().lock();
    writeln!(out, "{READY}")?;
    out.flush()?;
    drop(out);
    super::logging::detach_from_terminal();
    rustix::stdio::dup2_stdin(null)?;
    rustix::stdio::dup2_stdout(null)?;
    rustix::stdio::dup2_stderr(null)?;
    Ok(())
}
