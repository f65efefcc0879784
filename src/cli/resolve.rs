//! From a path that a user typed to an inode, following links as far as they stay in the tree.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use super::failure::{Exit, Failure};
use crate::vfs::{Attr, FileSystem, FsError, NodeKind, ROOT_INO};
use dupfs_base::{ErrorKind, HasKind, RequestContext, escape_bytes};
use dupfs_format::ArchivePath;

/// As many links as the kernel follows in one path.
const MAX_LINKS: usize = 40;

/// Whether a link at the end of the path is followed. Those before it always are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LastLink {
    /// Followed.
    Follow,
    /// Taken itself.
    Keep,
}

/// The path inside the backup that `typed` means.
pub(super) fn parse(typed: &OsStr) -> Result<ArchivePath, Failure> {
    ArchivePath::parse(typed.as_bytes())
        .map_err(|error| Failure::new(Exit::Usage, format!("{}: {error}", escape_bytes(typed.as_bytes()))))
}

/// The attributes of `path`, whose size may not be exact.
pub(super) fn resolve(fs: &dyn FileSystem, path: &ArchivePath, last: LastLink) -> Result<Attr, Failure> {
    let root = fs.getattr(ROOT_INO, &RequestContext::unlimited()).map_err(|e| failed(path, &e))?;
    let mut trail = vec![root];
    let mut pending: VecDeque<Vec<u8>> = path.components().map(<[u8]>::to_vec).collect();
    let mut links = 0;
    while let Some(name) = pending.pop_front() {
        let Some(&dir) = trail.last() else { break };
        match name.as_slice() {
            b"" | b"." => continue,
            b".." => {
                if trail.len() == 1 {
                    return Err(outside(path, &name));
                }
                trail.pop();
                continue;
            }
            _ if dir.kind != NodeKind::Dir => return Err(not_found(path)),
            _ => {}
        }
        let attr = fs.lookup(dir.ino, &name, &RequestContext::unlimited()).map_err(|e| failed(path, &e))?;
        if attr.kind != NodeKind::Symlink || (pending.is_empty() && last == LastLink::Keep) {
            trail.push(attr);
            continue;
        }
        let target = fs.readlink(attr.ino, &RequestContext::unlimited()).map_err(|e| failed(path, &e))?;
        links += 1;
        if target.starts_with(b"/") {
            return Err(outside(path, &target));
        }
        if links > MAX_LINKS {
            return Err(Failure::new(Exit::NotFound, format!("{path}: too many symbolic links, one after the other")));
        }
        for component in target.split(|&b| b == b'/').rev() {
            pending.push_front(component.to_vec());
        }
    }
    Ok(trail.last().copied().unwrap_or(root))
}

fn not_found(path: &ArchivePath) -> Failure {
    Failure::new(Exit::NotFound, format!("{path}: no such path in this snapshot; 'dupfs ls' shows what there is"))
}

fn outside(path: &ArchivePath, target: &[u8]) -> Failure {
    let target = escape_bytes(target);
    let line = format!("{path}: leads out of the backup through a symbolic link to {target}; give the path itself");
    Failure::new(Exit::NotFound, line)
}

/// A failure to find `path`.
pub(super) fn failed(path: &ArchivePath, error: &FsError) -> Failure {
    match error {
        FsError::NotDir => not_found(path),
        FsError::IsDir => Failure::new(Exit::Failed, format!("{path}: is a directory")),
        FsError::Failed { .. } | FsError::WouldBlock => match error.kind() {
            ErrorKind::NotFound => not_found(path),
            _ => read_failed(path, error),
        },
    }
}

/// A failure to read what is known to be there.
pub(super) fn read_failed(path: &ArchivePath, error: &FsError) -> Failure {
    Failure::new(Exit::of_read(error.kind()), with_path(path, error))
}

fn with_path(path: &ArchivePath, error: &FsError) -> String {
    let (path, line) = (path.to_string(), error.to_string());
    if line.starts_with(&path) { line } else { format!("{path}: {line}") }
}
