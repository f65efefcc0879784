//! `dupfs cat`: file contents to standard output.

use dupfs_base::RequestContext;
use std::ffi::{OsStr, OsString};

use super::failure::{Exit, Failure};
use super::printer::Printer;
use super::resolve::{self, LastLink};
use crate::vfs::{Attr, FileSystem, NodeKind};
use dupfs_format::ArchivePath;

/// Bytes asked for at a time.
const CHUNK: usize = 1 << 20;

/// Writes the files one after the other, as `cat` does; a file that fails does not keep the next from being written. `fs`
/// has the snapshot's tree at its root.
///
/// # Errors
/// [`Failure`] when the output takes no more.
pub fn run(fs: &dyn FileSystem, paths: &[OsString], printer: &mut Printer<'_>) -> Result<Exit, Failure> {
    for typed in paths {
        if let Err(failure) = one(fs, typed, printer)? {
            printer.report(&failure);
        }
    }
    printer.finish()
}

/// The outer result is the output's, the inner one the file's.
fn one(fs: &dyn FileSystem, typed: &OsStr, printer: &mut Printer<'_>) -> Result<Result<(), Failure>, Failure> {
    let found = resolve::parse(typed).and_then(|path| Ok((resolve::resolve(fs, &path, LastLink::Follow)?, path)));
    let (attr, path) = match found {
        Ok(found) => found,
        Err(failure) => return Ok(Err(failure)),
    };
    let no_file = |what: &str| Ok(Err(Failure::new(Exit::Failed, format!("{path}: {what}, not a regular file"))));
    match attr.kind {
        NodeKind::File => copy(fs, &path, attr, printer),
        NodeKind::Dir => no_file("a directory"),
        NodeKind::Symlink => no_file("a symbolic link"),
        NodeKind::Fifo => no_file("a named pipe"),
        NodeKind::CharDevice | NodeKind::BlockDevice => no_file("a device"),
    }
}

fn copy(
    fs: &dyn FileSystem,
    path: &ArchivePath,
    attr: Attr,
    printer: &mut Printer<'_>,
) -> Result<Result<(), Failure>, Failure> {
    let opened = match fs.open(attr.ino, &RequestContext::unlimited()) {
        Ok(opened) => opened,
        Err(error) => return Ok(Err(resolve::read_failed(path, &error))),
    };
    let mut offset = 0u64;
    let ended = loop {
        match fs.read(attr.ino, opened.handle, offset, CHUNK, &RequestContext::unlimited()) {
            Ok(bytes) => {
                if let Err(failure) = printer.bytes(&bytes) {
                    break Err(failure);
                }
                offset = offset.saturating_add(bytes.len() as u64);
                // Fewer bytes than asked for come only at the end of the file.
                if bytes.len() < CHUNK {
                    break Ok(Ok(()));
                }
            }
            Err(error) => {
                let mut failure = resolve::read_failed(path, &error);
                failure.line = failure.line.map(|line| format!("{line} (after {offset} bytes)"));
                break Ok(Err(failure));
            }
        }
    };
    fs.release(attr.ino, opened.handle);
    ended
}

#[cfg(test)]
mod tests;
