//! `dupfs mount` without `-f`: the program starts itself once more, and that process becomes the daemon.
//!
//! No fork: a process with threads cannot fork safely. The child has its standard output connected to the parent and the
//! terminal as it was; it finds everything that can be wrong and tells it itself, mounts, and reports by one line. Until
//! then the parent waits; it ends with the child's exit code if the child ends first.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::{self, BufRead, BufReader, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use std::os::unix::process::{CommandExt, ExitStatusExt};

use rustix::process::{DumpableBehavior, Resource, Rlimit};

use dupfs_base::ErrorKind;

use super::errors::CliError;

/// What makes the process report, put in front of all other arguments.
pub(super) const REPORT_FLAG: &str = "--report-ready";

/// What bounds the arenas of the C library's allocator, which reads it when a program starts: as it is, every thread gets
/// one, up to eight for each processor, and each keeps what its thread has freed. Blocks and buffers are made by one thread
/// and freed by another, so that came to as much again as all that was in use. With two there were still 80 MB more than with
/// one, and no less time: what is made often is small and comes from each thread's own cache, or big and used again.
const ARENAS: (&str, &str) = ("MALLOC_ARENA_MAX", "1");

/// What the child prints once the mount answers.
const READY: &str = "dupfs: ready";

/// Keeps what is in memory out of core dumps and away from other processes of the user.
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

/// Makes `command` bound its memory, unless the user chose a bound.
fn bound_memory(command: &mut Command) -> bool {
    let unbound = std::env::var_os(ARENAS.0).is_none();
    if unbound {
        command.env(ARENAS.0, ARENAS.1);
    }
    unbound
}

/// Becomes `command`, this program once more with its memory bounded; returns if it is bounded, or cannot be.
pub(super) fn become_bounded(mut command: Command) {
    if bound_memory(&mut command) {
        let error = command.exec();
        log::info!("not started again with less memory: {error}");
    }
}

/// Starts `command` and waits until it reports that the mount answers.
///
/// # Errors
/// [`CliError::Told`] with its exit code when it ends first; it has said why.
pub(super) fn launch(mut command: Command) -> Result<(), CliError> {
    let failed = |what: &str, error: io::Error| {
        CliError::failed(ErrorKind::Io, format!("the daemon cannot be {what}: {error} (dupfs mount -f does without)"))
    };
    bound_memory(&mut command);
    let mut child = command.stdout(Stdio::piped()).spawn().map_err(|error| failed("started", error))?;
    let Some(output) = child.stdout.take() else { return Ok(()) };
    let (tell, told) = channel();
    let listen = move || {
        let mut lines = BufReader::new(output).lines();
        // The receiver has gone only if the child has ended.
        let _ = tell.send(lines.any(|line| line.is_ok_and(|line| line == READY)));
    };
    thread::Builder::new().spawn(listen).map_err(|error| failed("listened to", error))?;
    let status = loop {
        match told.recv_timeout(Duration::from_millis(100)) {
            Ok(true) => return Ok(()),
            Ok(false) | Err(RecvTimeoutError::Disconnected) => break wait(&mut child),
            // A child of the daemon's may hold the pipe open after the daemon has ended.
            Err(RecvTimeoutError::Timeout) => match child.try_wait() {
                Ok(Some(status)) => break Ok(status),
                Ok(None) => {}
                Err(error) => break Err(error),
            },
        }
    };
    let status = status.map_err(|error| failed("waited for", error))?;
    match (status.code(), status.signal()) {
        (Some(0), _) => Err(CliError::failed(ErrorKind::Io, "the mount ended before it answered")),
        (Some(code), _) => Err(CliError::Told(u8::try_from(code).unwrap_or(1))),
        (None, Some(libc::SIGINT)) => Err(CliError::Told(130)),
        (None, signal) => {
            let message = format!("the daemon was killed by signal {} before the mount answered", signal.unwrap_or(0));
            Err(CliError::failed(ErrorKind::Io, message))
        }
    }
}

fn wait(child: &mut Child) -> io::Result<ExitStatus> {
    child.wait()
}

/// The arguments of the process that becomes the daemon, from those of this one (without the program's name).
pub(super) fn arguments(own: &[OsString]) -> Vec<OsString> {
    std::iter::once(OsString::from(REPORT_FLAG)).chain(own.iter().cloned()).collect()
}

/// Reports that the mount answers, and leaves terminal, session and working directory behind.
///
/// # Errors
/// When the process that waits for the report has gone, so that nobody would know of the mount.
pub(super) fn detach() -> io::Result<()> {
    // Fails only for the leader of a process group, which has left its terminal's reach already.
    let _ = rustix::process::setsid();
    std::env::set_current_dir("/")?;
    let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
    let mut out = io::stdout().lock();
    writeln!(out, "{READY}")?;
    out.flush()?;
    drop(out);
    super::logging::leave_terminal();
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    Ok(())
}
