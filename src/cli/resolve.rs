//! Resolves a path that the user typed to an inode, following symbolic links within the tree.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use super::error::CliError;
use super::exit::CommandExit;
use super::request_timeout::RequestTimeout;
use crate::vfs::{Attr, FileSystem, FsError, NodeKind, ROOT_INO};
use dupfs_base::{ErrorKind, HasKind, escape_bytes};
use dupfs_format::ArchivePath;

/// Upper bound of the symbolic links in one path, as in the kernel.
const MAX_LINKS: usize = 40;

/// The treatment of a symbolic link at the end of the path. Those before it are always followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LastLink {
    /// Followed.
    Follow,
    /// Returned itself.
    Keep,
}

/// Parses `typed` as a path inside the backup.
pub(super) fn parse(typed: &OsStr) -> Result<ArchivePath, CliError> {
    ArchivePath::parse(typed.as_bytes()).map_err(|error| {
        let shown = escape_bytes(typed.as_bytes());
        CliError::Usage(format!("{shown}: {error}; give the path from the root of the snapshot"))
    })
}

/// The attributes of `path`, whose size may not be exact.
pub(super) fn resolve(
    fs: &dyn FileSystem,
    path: &ArchivePath,
    last: LastLink,
    timeout: RequestTimeout,
) -> Result<Attr, CliError> {
    let root = fs.getattr(ROOT_INO, &timeout.start()).map_err(|e| failed(path, &e))?;
    let mut parents = vec![root];
    let mut pending: VecDeque<Vec<u8>> = path.components().map(<[u8]>::to_vec).collect();
    let mut links = 0;
    while let Some(name) = pending.pop_front() {
        let Some(&dir) = parents.last() else { break };
        match name.as_slice() {
            b"" | b"." => continue,
            b".." => {
                if parents.len() == 1 {
                    return Err(outside(path, &name));
                }
                parents.pop();
                continue;
            }
            _ if dir.kind != NodeKind::Dir => return Err(not_found(path)),
            _ => {}
        }
        let attr = fs.lookup(dir.ino, &name, &timeout.start()).map_err(|e| failed(path, &e))?;
        if attr.kind != NodeKind::Symlink || (pending.is_empty() && last == LastLink::Keep) {
            parents.push(attr);
            continue;
        }
        let target = fs.readlink(attr.ino, &timeout.start()).map_err(|e| failed(path, &e))?;
        links += 1;
        if target.starts_with(b"/") {
            return Err(outside(path, &target));
        }
        if links > MAX_LINKS {
            return Err(CliError::new(CommandExit::NotFound, format!("{path}: too many symbolic links")));
        }
        for component in target.split(|&b| b == b'/').rev() {
            pending.push_front(component.to_vec());
        }
    }
    Ok(parents.last().copied().unwrap_or(root))
}

fn not_found(path: &ArchivePath) -> CliError {
    CliError::new(
        CommandExit::NotFound,
        format!(
            "{path}: no such path in this snapshot; list it with dupfs ls, or all snapshots that have it with dupfs history"
        ),
    )
}

fn outside(path: &ArchivePath, target: &[u8]) -> CliError {
    let target = escape_bytes(target);
    let line = format!("{path}: leaves the backup through a symbolic link to {target}; name the target's own path");
    CliError::new(CommandExit::NotFound, line)
}

/// A failure to find `path`.
pub(super) fn failed(path: &ArchivePath, error: &FsError) -> CliError {
    match error {
        FsError::NotDir => not_found(path),
        FsError::IsDir => CliError::new(CommandExit::Failed, format!("{path}: is a directory")),
        FsError::Failed { .. } | FsError::WouldBlock | FsError::BeyondEnd => match error.kind() {
            ErrorKind::NotFound => not_found(path),
            _ => read_failed(path, error),
        },
    }
}

/// A failure to read an object that exists.
pub(super) fn read_failed(path: &ArchivePath, error: &FsError) -> CliError {
    CliError::new(CommandExit::of_read(error.kind()), with_path(path, error))
}

fn with_path(path: &ArchivePath, error: &FsError) -> String {
    let (path, line) = (path.to_string(), error.to_string());
    if line.starts_with(&path) { line } else { format!("{path}: {line}") }
}
