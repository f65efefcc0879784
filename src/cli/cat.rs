//! `dupfs cat`: file contents to standard output.

use std::ffi::{OsStr, OsString};

use super::error::CliError;
use super::exit::CommandExit;
use super::file_chunks::FileChunks;
use super::printer::Printer;
use super::quantities::human_bytes;
use super::request_timeout::RequestTimeout;
use super::resolve::{self, LastLink};
use super::typed_path;
use crate::vfs::{Attr, FileSystem, NodeKind};
use dupfs_format::ArchivePath;

/// Writes the files one after the other, as `cat` does; after a file that fails it continues with the next. `fs` has the
/// snapshot's tree at its root; each of its calls may take `timeout`.
///
/// # Errors
/// [`CliError`] when the output cannot be written.
pub fn run(
    fs: &dyn FileSystem,
    paths: &[OsString],
    timeout: RequestTimeout,
    printer: &mut Printer<'_>,
) -> Result<CommandExit, CliError> {
    for typed in paths {
        if let Err(failure) = write_file(fs, typed, timeout, printer)? {
            printer.report(&failure);
        }
    }
    printer.finish()
}

/// Writes one file. The outer result is the output's, the inner one the file's.
fn write_file(
    fs: &dyn FileSystem,
    typed: &OsStr,
    timeout: RequestTimeout,
    printer: &mut Printer<'_>,
) -> Result<Result<(), CliError>, CliError> {
    let (attr, path) = match typed_path::find(fs, typed, LastLink::Follow, timeout) {
        Ok(found) => found,
        Err(failure) => return Ok(Err(failure)),
    };
    let no_file = |what: &str| {
        Ok(Err(CliError::new(
            CommandExit::Failed,
            format!("{path}: {what}, not a regular file; write it with dupfs restore"),
        )))
    };
    match attr.kind {
        NodeKind::File => copy(fs, &path, attr, timeout, printer),
        NodeKind::Dir => Ok(Err(CliError::new(
            CommandExit::Failed,
            format!("{path}: a directory, not a regular file; list it with dupfs ls, or write it with dupfs restore"),
        ))),
        NodeKind::Symlink => no_file("a symbolic link"),
        NodeKind::Fifo => no_file("a named pipe"),
        NodeKind::CharDevice | NodeKind::BlockDevice => no_file("a device"),
    }
}

fn copy(
    fs: &dyn FileSystem,
    path: &ArchivePath,
    attr: Attr,
    timeout: RequestTimeout,
    printer: &mut Printer<'_>,
) -> Result<Result<(), CliError>, CliError> {
    let mut chunks = match FileChunks::open_unsized(fs, attr.ino, || timeout.start()) {
        Ok(chunks) => chunks,
        Err(error) => return Ok(Err(resolve::read_failed(path, &error))),
    };
    loop {
        let (offset, size) = (chunks.offset(), attr.size);
        printer.waiting(|| match attr.exact {
            true => format!("{path}: {} of {}", human_bytes(offset), human_bytes(size)),
            false => format!("{path}: {}", human_bytes(offset)),
        });
        match chunks.next() {
            Ok(Some(bytes)) => {
                printer.bytes(&bytes)?;
                // The next chunk may take long.
                printer.flush()?;
            }
            Ok(None) => return Ok(Ok(())),
            Err(error) => {
                let failure = resolve::read_failed(path, &error);
                let line = format!("{failure} (after {} bytes)", chunks.offset());
                return Ok(Err(CliError::new(failure.exit(), line)));
            }
        }
    }
}

#[cfg(test)]
mod tests;
