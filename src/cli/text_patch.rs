//! A patch between two versions of a file, by the system's `diff`. The contents go through pipes, and nothing is written to the
//! disk.

use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::AsRawFd;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Mutex;
use std::thread;

use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{Pid, Signal, kill_process};

use super::environment_secrets;
use super::error::CliError;
use super::exit::CommandExit;
use super::file_chunks::FileChunks;
use super::printer::Printer;
use super::request_timeout::RequestTimeout;
use super::resolve::read_failed;
use crate::vfs::{FileSystem, Ino};
use dupfs_base::sync::lock;
use dupfs_base::{escape_bytes, io_reason};
use dupfs_format::ArchivePath;

/// The program that compares.
const PROGRAM: &str = "diff";

/// The exit code of `diff` for trouble; smaller ones mean that it has compared.
const TROUBLE: i32 = 2;

/// One of the two versions.
#[derive(Clone, Copy, Debug)]
pub(super) struct PatchSide<'a> {
    /// The file; `None` if the snapshot has none, which counts as an empty one.
    pub(super) ino: Option<Ino>,
    /// The name of the snapshot.
    pub(super) snapshot: &'a str,
}

/// Prints the patch from `old` to `new`, the versions of the file at `path`. The outer result is the output's, the inner one
/// the patch's.
///
/// # Errors
/// [`CliError`] when the output cannot be written.
pub(super) fn print(
    fs: &dyn FileSystem,
    path: &ArchivePath,
    [old, new]: [PatchSide<'_>; 2],
    timeout: RequestTimeout,
    printer: &mut Printer<'_>,
) -> Result<Result<(), CliError>, CliError> {
    let (mut child, [old_pipe, new_pipe]) = match start(path, [old, new]) {
        Ok(started) => started,
        Err(failure) => return Ok(Err(failure)),
    };
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    // The program is not waited for before both versions are written, so the number is still its own.
    let kill = || pid.map(|pid| kill_process(pid, Signal::KILL));
    let failure = Mutex::new(None);
    let feed = |ino: Option<Ino>, pipe: Option<PipeWriter>| {
        let Some((ino, pipe)) = ino.zip(pipe) else { return };
        if let Err(error) = copy(fs, path, ino, &pipe, timeout) {
            // Before the pipe is closed: the end of what could be read must not count as the end of the file.
            kill();
            lock(&failure).get_or_insert(error);
        }
    };
    let output = child.stdout.take();
    let printed = thread::scope(|scope| {
        scope.spawn(|| feed(old.ino, old_pipe));
        scope.spawn(|| feed(new.ino, new_pipe));
        let printed = output.map_or(Ok(()), |output| print_all(output, printer));
        if printed.is_err() {
            kill();
        }
        printed
    });
    let status = child.wait();
    printed?;
    let failure = lock(&failure).take();
    let compared = match (failure, status) {
        (Some(failure), _) => Err(failure),
        (None, Ok(status)) if status.code().is_some_and(|code| code < TROUBLE) => Ok(()),
        (None, Ok(status)) => Err(failed(path, &format!("diff failed ({status})"))),
        (None, Err(error)) => Err(failed(path, &format!("diff: {}", io_reason(&error)))),
    };
    Ok(compared)
}

/// Prints what the program prints until it ends.
fn print_all(mut output: ChildStdout, printer: &mut Printer<'_>) -> Result<(), CliError> {
    let mut bytes = vec![0; 64 << 10];
    loop {
        match output.read(&mut bytes) {
            Ok(0) => return Ok(()),
            Ok(len) => printer.bytes(bytes.get(..len).unwrap_or_default())?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Then its exit status is a failure.
            Err(_) => return Ok(()),
        }
    }
}

fn failed(path: &ArchivePath, reason: &str) -> CliError {
    CliError::new(CommandExit::Failed, format!("{path}: no patch: {reason}"))
}

/// Starts the program, and returns the pipes of the two versions.
fn start(path: &ArchivePath, sides: [PatchSide<'_>; 2]) -> Result<(Child, [Option<PipeWriter>; 2]), CliError> {
    let no_pipe = |error: &io::Error| failed(path, &format!("a pipe cannot be made: {}", io_reason(error)));
    let mut command = Command::new(PROGRAM);
    environment_secrets::remove_from(&mut command);
    command.arg("-u").stdin(Stdio::null()).stdout(Stdio::piped());
    let mut readers: Vec<PipeReader> = Vec::new();
    let mut files = Vec::new();
    let mut writers = [None, None];
    for (side, slot) in sides.iter().zip(&mut writers) {
        let label = match side.ino {
            Some(_) => format!("{}\t{}", escape_bytes(path.as_bytes()), side.snapshot),
            None => "/dev/null".to_owned(),
        };
        command.arg("--label").arg(label);
        if side.ino.is_none() {
            files.push("/dev/null".to_owned());
            continue;
        }
        let (reader, writer) = io::pipe().map_err(|error| no_pipe(&error))?;
        // The program inherits the end that it reads, and not the other one, which would keep the pipe open.
        fcntl_setfd(&reader, FdFlags::empty()).map_err(|error| no_pipe(&error.into()))?;
        files.push(format!("/dev/fd/{}", reader.as_raw_fd()));
        readers.push(reader);
        *slot = Some(writer);
    }
    let child = command.args(files).spawn().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => failed(path, "there is no program diff; install the package diffutils"),
        _ => failed(path, &format!("diff cannot be started: {}", io_reason(&error))),
    })?;
    Ok((child, writers))
}

/// Writes the content of `ino` into `pipe`, as far as the program reads it.
///
/// # Errors
/// [`CliError`] when the file cannot be read.
fn copy(
    fs: &dyn FileSystem,
    path: &ArchivePath,
    ino: Ino,
    mut pipe: &PipeWriter,
    timeout: RequestTimeout,
) -> Result<(), CliError> {
    let wrap = |error| read_failed(path, &error);
    let mut chunks = FileChunks::open(fs, ino, || timeout.start()).map_err(wrap)?;
    while let Some(bytes) = chunks.next().map_err(wrap)? {
        // The program knows enough: the files are binary.
        if pipe.write_all(&bytes).is_err() {
            return Ok(());
        }
    }
    Ok(())
}
