//! `dupfs verify --compare`: compares a snapshot, or a path of it, with a directory of this machine.
//!
//! One directory is compared after the other, the names of both sides in the order of their bytes. Nothing is changed, and no
//! symbolic link below the directory is followed. Contents are compared with the block sums of signatures, for which no volume
//! is fetched, and with the backup itself where there is no signature.

mod compare_output;
mod local_tree;
mod object_difference;

use std::cmp::Ordering;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use self::compare_output::CompareOutput;
use self::local_tree::{LocalKind, LocalObject, LocalTree};
use self::object_difference::{Difference, OwnerRule, differences};
use super::call_limits::CallLimits;
use super::error::CliError;
use super::exit::CommandExit;
use super::file_chunks::FileChunks;
use super::local_content::{is_signed, read_full};
use super::printer::Printer;
use super::progress_line;
use super::request_timeout::RequestTimeout;
use super::resolve::{self, LastLink};
use super::typed_path;
use crate::vfs::{Attr, FileSystem, FsError, NodeKind};
use dupfs_base::{ErrorKind, HasKind, escape_bytes, io_reason};
use dupfs_format::ArchivePath;

/// The comparison of contents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ContentRule {
    /// Contents are not compared.
    #[default]
    None,
    /// By the sums of the signature, and by the content of the backup if there is no signature.
    Signed,
    /// By the content of the backup.
    Stored,
}

/// The options of a comparison.
#[derive(Clone, Debug, Default)]
pub struct CompareOptions {
    /// The path of the snapshot; all of it without one.
    pub path: Option<OsString>,
    /// The directory, or the other object for a path that is no directory.
    pub directory: PathBuf,
    /// The comparison of contents.
    pub contents: ContentRule,
    /// Do not compare owners.
    pub no_owner: bool,
    /// Print the report as JSON (docs/CLI.md).
    pub json: bool,
}

/// Compares what `fs` shows with a directory. `url` is for the report. Each call of the file system may take `timeout`.
///
/// # Errors
/// [`CliError`] when there is no such path or directory, or the report cannot be printed.
pub fn run(
    fs: &dyn FileSystem,
    url: &str,
    options: &CompareOptions,
    timeout: RequestTimeout,
    printer: &mut Printer<'_>,
) -> Result<CommandExit, CliError> {
    let typed = options.path.as_deref().unwrap_or(OsStr::new(""));
    let (attr, path) = typed_path::find(fs, typed, LastLink::Keep, timeout)?;
    let (limits, _watch) = CallLimits::until_signal(timeout)?;
    let snapshot = fs.path(attr.ino).unwrap_or_default();
    let directory = options.directory.as_path();
    let root = open_root(directory, attr.kind)?;
    let owners = if options.no_owner { OwnerRule::Ignored } else { OwnerRule::Compared };
    // Only for the line of progress.
    let objects = if progress_line::is_wanted() { fs.count_objects(attr.ino) } else { None };
    let output = CompareOutput::begin(printer, options.json, (url, &snapshot, directory), objects)?;
    let mut run = CompareRun { fs, limits: &limits, contents: options.contents, owners, output };
    match &root {
        OpenRoot::Directory(tree, own) => run.tree(tree, own, (attr, &path))?,
        OpenRoot::Object(parent, name) => run.object(parent, name, (&attr, &path))?,
    }
    let CompareRun { output, .. } = run;
    output.finish(limits.is_over())
}

/// The other side of a comparison.
enum OpenRoot {
    /// A directory, and its own attributes.
    Directory(LocalTree, LocalObject),
    /// A directory, and the name of an object in it.
    Object(OwnedFd, Vec<u8>),
}

fn open_root(path: &Path, kind: NodeKind) -> Result<OpenRoot, CliError> {
    let failed = |error: io::Error| {
        let exit = match error.kind() {
            io::ErrorKind::NotFound => CommandExit::NotFound,
            io::ErrorKind::PermissionDenied => CommandExit::Denied,
            _ => CommandExit::Failed,
        };
        let remedy = match error.kind() {
            io::ErrorKind::NotFound => "; give the directory to compare with",
            io::ErrorKind::NotADirectory => "; compare a file with: dupfs verify --path PATH URL FILE",
            io::ErrorKind::PermissionDenied => "; run this as a user who may read it",
            _ => "",
        };
        let shown = escape_bytes(path.as_os_str().as_bytes());
        CliError::new(exit, format!("{shown}: cannot be compared: {}{remedy}", io_reason(&error)))
    };
    if kind == NodeKind::Dir {
        let (tree, own) = LocalTree::open(path).map_err(failed)?;
        return Ok(OpenRoot::Directory(tree, own));
    }
    let name = path.file_name().ok_or_else(|| failed(io::ErrorKind::IsADirectory.into()))?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok(OpenRoot::Object(local_tree::open_directory(parent).map_err(failed)?, name.as_bytes().to_vec()))
}

/// A directory that is to be compared.
struct PendingDir {
    path: ArchivePath,
    /// Its inode in the snapshot; `None` if it is only in the directory of this machine.
    ino: Option<u64>,
    /// Its names from the compared directory on; `None` if it is only in the snapshot.
    local: Option<Vec<Vec<u8>>>,
}

/// The state of a run.
struct CompareRun<'a, 'p, 'o> {
    fs: &'a dyn FileSystem,
    limits: &'a CallLimits,
    contents: ContentRule,
    owners: OwnerRule,
    output: CompareOutput<'p, 'o>,
}

impl CompareRun<'_, '_, '_> {
    /// Compares a directory and everything below it.
    fn tree(
        &mut self,
        tree: &LocalTree,
        own: &LocalObject,
        (attr, path): (Attr, &ArchivePath),
    ) -> Result<(), CliError> {
        self.output.compared(path, &differences(&attr, own, None, self.owners))?;
        let mut pending = vec![PendingDir { path: path.clone(), ino: Some(attr.ino), local: Some(Vec::new()) }];
        while let Some(dir) = pending.pop() {
            if self.limits.is_over() {
                break;
            }
            let first = pending.len();
            self.directory(tree, &dir, &mut pending)?;
            // The first subdirectory is next.
            if let Some(below) = pending.get_mut(first..) {
                below.reverse();
            }
        }
        Ok(())
    }

    /// Compares the entries of one directory, and adds its subdirectories to `pending`.
    fn directory(&mut self, tree: &LocalTree, dir: &PendingDir, pending: &mut Vec<PendingDir>) -> Result<(), CliError> {
        let (archived, is_complete) = match dir.ino {
            Some(ino) => self.list_archived(ino, &dir.path),
            None => (Vec::new(), true),
        };
        let opened = dir.local.as_ref().map(|names| {
            tree.open_dir(names).and_then(|fd| {
                let names = local_tree::names(fd.as_fd())?;
                Ok((fd, names))
            })
        });
        let (fd, local) = match opened {
            Some(Ok((fd, names))) => (Some(fd), names),
            Some(Err(error)) => {
                self.output.fail(&local_failed(&dir.path, &error));
                return Ok(());
            }
            None => (None, Vec::new()),
        };
        let (mut archived, mut local) = (archived.into_iter().peekable(), local.into_iter().peekable());
        loop {
            if self.limits.is_over() {
                return Ok(());
            }
            let order = match (archived.peek(), local.peek()) {
                (Some(one), Some(other)) => one.cmp(other),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (None, None) => return Ok(()),
            };
            let in_archive = (order != Ordering::Greater).then(|| archived.next()).flatten();
            let in_local = (order != Ordering::Less).then(|| local.next()).flatten();
            let Some(name) = in_archive.clone().or_else(|| in_local.clone()) else { return Ok(()) };
            let Some(path) = dir.path.join(&name) else {
                let line = format!("{}: contains a name that is no name of a file: {}", dir.path, name.escape_ascii());
                self.output.fail(&CliError::failed(ErrorKind::Corrupt, line));
                continue;
            };
            let attr = match (in_archive, dir.ino) {
                (Some(name), Some(ino)) => match self.fs.lookup(ino, &name, &self.limits.start()) {
                    Ok(attr) => Some(attr),
                    Err(error) => {
                        self.archive_failed(&path, &error);
                        continue;
                    }
                },
                _ => None,
            };
            let found = match (&in_local, &fd) {
                (Some(name), Some(fd)) => match local_tree::stat(fd.as_fd(), name) {
                    Ok(found) => found,
                    Err(error) => {
                        self.output.fail(&local_failed(&path, &error));
                        continue;
                    }
                },
                _ => None,
            };
            // duplicity backs up no sockets. A name that a damaged listing leaves out may be in the backup.
            let found = found.filter(|found| attr.is_some() || (found.kind != LocalKind::Other && is_complete));
            self.entry(fd.as_ref(), &name, (attr.as_ref(), found.as_ref()), &path)?;
            let ino = attr.filter(|attr| attr.kind == NodeKind::Dir).map(|attr| attr.ino);
            let is_dir = found.is_some_and(|found| found.kind == LocalKind::Of(NodeKind::Dir));
            if ino.is_some() || is_dir {
                let local = dir.local.as_ref().filter(|_| is_dir).map(|names| [names.as_slice(), &[name]].concat());
                pending.push(PendingDir { path, ino, local });
            }
        }
    }

    /// Compares one object with that of the same name.
    fn object(&mut self, parent: &OwnedFd, name: &[u8], (attr, path): (&Attr, &ArchivePath)) -> Result<(), CliError> {
        match local_tree::stat(parent.as_fd(), name) {
            Ok(found) => self.entry(Some(parent), name, (Some(attr), found.as_ref()), path),
            Err(error) => {
                self.output.fail(&local_failed(path, &error));
                Ok(())
            }
        }
    }

    fn entry(
        &mut self,
        dir: Option<&OwnedFd>,
        name: &[u8],
        (attr, found): (Option<&Attr>, Option<&LocalObject>),
        path: &ArchivePath,
    ) -> Result<(), CliError> {
        let (attr, found) = match (attr, found) {
            (Some(attr), Some(found)) => (attr, found),
            (Some(_), None) => return self.output.compared(path, &[Difference::missing()]),
            (None, Some(_)) => return self.output.compared(path, &[Difference::extra()]),
            // Gone since it was listed.
            (None, None) => return Ok(()),
        };
        let target = match attr.kind {
            NodeKind::Symlink => match self.fs.readlink(attr.ino, &self.limits.start()) {
                Ok(target) => Some(target),
                Err(error) => {
                    self.archive_failed(path, &error);
                    return Ok(());
                }
            },
            _ => None,
        };
        let mut list = differences(attr, found, target.as_deref(), self.owners);
        let is_file = attr.kind == NodeKind::File && found.kind == LocalKind::Of(NodeKind::File);
        if let Some(dir) = dir.filter(|_| is_file && !list.iter().any(Difference::is_of_size)) {
            match self.file(dir, name, (attr, found), path) {
                Ok(difference) => list.extend(difference),
                Err(ComparisonFailure::Archive(error)) => self.archive_failed(path, &error),
                Err(ComparisonFailure::Local(error)) => self.output.fail(&local_failed(path, &error)),
                Err(ComparisonFailure::Interrupted) => return Ok(()),
            }
        }
        self.output.compared(path, &list)
    }

    /// Compares the sizes and contents of two files as far as the attributes do not decide it.
    fn file(
        &mut self,
        dir: &OwnedFd,
        name: &[u8],
        (attr, found): (&Attr, &LocalObject),
        path: &ArchivePath,
    ) -> Result<Option<Difference>, ComparisonFailure> {
        if attr.exact && self.contents == ContentRule::None {
            return Ok(None);
        }
        let signed = match self.contents {
            ContentRule::Stored => None,
            ContentRule::None | ContentRule::Signed => {
                self.fs.signed_content(attr.ino, &self.limits.start()).unwrap_or_else(|error| {
                    log::info!("{path}: its signature cannot be read: {error}");
                    None
                })
            }
        };
        if self.contents == ContentRule::None {
            // The bound exceeds the size by less than a block.
            let least = signed.map_or(0, |signed| attr.size.saturating_sub(signed.block_len().saturating_sub(1)));
            return Ok((found.size < least).then(|| Difference::size_below(found.size, least)));
        }
        let file = local_tree::open_file(dir.as_fd(), name).map_err(ComparisonFailure::Local)?;
        let Some(file) = file else { return Ok(Some(Difference::missing())) };
        let is_same = match signed {
            Some(signed) => {
                let is_same = is_signed(&file, signed, self.limits).map_err(ComparisonFailure::Local)?;
                self.output.proved = self.output.proved.saturating_add(1);
                is_same.ok_or(ComparisonFailure::Interrupted)?
            }
            None => {
                let is_same = self.is_stored(&file, attr.ino)?;
                self.output.read = self.output.read.saturating_add(1);
                is_same
            }
        };
        Ok((!is_same).then(Difference::content))
    }

    /// Returns true if `file` has the content of `ino`, which is read from the backup.
    fn is_stored(&self, file: &File, ino: u64) -> Result<bool, ComparisonFailure> {
        let limits = self.limits;
        let mut chunks = FileChunks::open(self.fs, ino, || limits.start()).map_err(ComparisonFailure::Archive)?;
        let mut buffer = Vec::new();
        loop {
            let at = chunks.offset();
            let Some(bytes) = chunks.next().map_err(ComparisonFailure::Archive)? else { break };
            buffer.resize(bytes.len(), 0);
            let len = read_full(file, &mut buffer, at).map_err(ComparisonFailure::Local)?;
            if buffer.get(..len) != Some(bytes.as_slice()) {
                return Ok(false);
            }
        }
        let rest = read_full(file, &mut [0], chunks.offset()).map_err(ComparisonFailure::Local)?;
        Ok(rest == 0)
    }

    /// The names in a directory of the snapshot, sorted; false with them if some of them cannot be known.
    fn list_archived(&mut self, ino: u64, path: &ArchivePath) -> (Vec<Vec<u8>>, bool) {
        let mut names = Vec::new();
        let listed = self.fs.readdir(ino, 0, &self.limits.start(), &mut |entry| {
            names.push(entry.name.to_vec());
            true
        });
        if let Err(error) = &listed {
            self.archive_failed(path, error);
        }
        names.sort_unstable();
        (names, listed.is_ok())
    }

    fn archive_failed(&mut self, path: &ArchivePath, error: &FsError) {
        if error.kind() != ErrorKind::Cancelled {
            self.output.fail(&resolve::read_failed(path, error));
        }
    }
}

/// A failure to compare contents.
enum ComparisonFailure {
    /// The backup cannot be read.
    Archive(FsError),
    /// The file of this machine cannot be read.
    Local(io::Error),
    /// The user has interrupted the command.
    Interrupted,
}

/// The failure to read the object of this machine that corresponds to `path`.
fn local_failed(path: &ArchivePath, error: &io::Error) -> CliError {
    let exit = match error.kind() {
        io::ErrorKind::PermissionDenied => CommandExit::Denied,
        _ => CommandExit::Failed,
    };
    CliError::new(exit, format!("{path}: cannot be read in the directory: {}", io_reason(error)))
}

#[cfg(test)]
mod tests;
