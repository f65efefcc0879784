//! The objects to restore: the wanted part of a snapshot, listed completely before anything is written.

use dupfs_base::{ErrorKind, HasKind};
use dupfs_format::ArchivePath;

use crate::cli::call_limits::CallLimits;
use crate::cli::error::CliError;
use crate::cli::exit::CommandExit;
use crate::cli::resolve;
use crate::vfs::{Attr, FileSystem, Ino, NodeKind};

/// The beginning of the names that a restore uses itself in the destination: of its marker and of temporary objects.
pub(super) const RESERVED_PREFIX: &str = ".dupfs-restore";

/// A directory to restore. The first one is the destination itself, with attributes only if it is a directory of the backup.
#[derive(Debug)]
pub(super) struct WantedDir {
    /// The index of its parent; its own index for the destination.
    pub(super) parent: usize,
    pub(super) name: Vec<u8>,
    pub(super) path: ArchivePath,
    pub(super) attr: Option<Attr>,
}

/// An object to restore that is no directory.
#[derive(Debug)]
pub(super) struct WantedObject {
    /// The index of its directory.
    pub(super) dir: usize,
    pub(super) name: Vec<u8>,
    /// Its path in the backup.
    pub(super) path: ArchivePath,
    pub(super) attr: Attr,
}

/// Everything to restore, and the failures to list it.
#[derive(Debug, Default)]
pub(super) struct WantedTree {
    /// Each parent precedes its children.
    pub(super) dirs: Vec<WantedDir>,
    pub(super) objects: Vec<WantedObject>,
    pub(super) failures: Vec<CliError>,
}

impl WantedTree {
    /// Adds the directory `attr` at `path` and everything below it.
    pub(super) fn add_tree(
        &mut self,
        fs: &dyn FileSystem,
        (parent, name): (usize, &[u8]),
        (attr, path): (Attr, ArchivePath),
        limits: &CallLimits,
    ) {
        let first = self.dirs.len();
        self.dirs.push(WantedDir { parent, name: name.to_vec(), path, attr: Some(attr) });
        let mut next = first;
        while let Some((ino, path)) =
            self.dirs.get(next).and_then(|dir| Some((dir.attr.as_ref()?.ino, dir.path.clone())))
        {
            if limits.is_over() {
                return;
            }
            self.list(fs, next, (ino, &path), limits);
            next = next.saturating_add(1);
        }
    }

    /// Adds the entries of one directory.
    fn list(&mut self, fs: &dyn FileSystem, dir: usize, (ino, path): (Ino, &ArchivePath), limits: &CallLimits) {
        let mut names = Vec::new();
        let listed = fs.readdir(ino, 0, &limits.start(), &mut |entry| {
            names.push(entry.name.to_vec());
            true
        });
        if let Err(error) = listed {
            self.fail(path, &error);
        }
        for name in names {
            let Some(child) = path.join(&name) else {
                let line = format!("{path}: contains a name that is no name of a file: {}", name.escape_ascii());
                self.failures.push(CliError::failed(ErrorKind::Corrupt, line));
                continue;
            };
            if let Some(failure) = reserved(&child) {
                self.failures.push(failure);
                continue;
            }
            match fs.lookup(ino, &name, &limits.start()) {
                Ok(attr) if attr.kind == NodeKind::Dir => {
                    self.dirs.push(WantedDir { parent: dir, name, path: child, attr: Some(attr) });
                }
                Ok(attr) => self.objects.push(WantedObject { dir, name, path: child, attr }),
                Err(error) => self.fail(&child, &error),
            }
        }
    }

    fn fail(&mut self, path: &ArchivePath, error: &crate::vfs::FsError) {
        if error.kind() != ErrorKind::Cancelled {
            self.failures.push(resolve::read_failed(path, error));
        }
    }
}

/// The failure to restore the object at `path` if its name is one that a restore uses itself: it would be removed again.
pub(super) fn reserved(path: &ArchivePath) -> Option<CliError> {
    let is_reserved = path.name().starts_with(RESERVED_PREFIX.as_bytes());
    is_reserved.then(|| {
        let line = format!(
            "{path}: left out: dupfs restore uses names that begin with {RESERVED_PREFIX} itself; it may be a remnant of an \
             earlier restore; copy it from a mount, or restore it alone under another name"
        );
        CliError::new(CommandExit::Failed, line)
    })
}

#[cfg(test)]
mod tests {
    use dupfs_base::CancelToken;

    use super::*;
    use crate::cli::request_timeout::RequestTimeout;
    use crate::vfs::ROOT_INO;
    use crate::vfs::memory_fs::{MemoryFs, MemoryNodeKind};

    #[test]
    fn names_that_a_restore_uses_itself_are_reported_and_left_out() {
        let mut fs = MemoryFs::new();
        let dir = fs.add(ROOT_INO, b"dir", MemoryNodeKind::Dir);
        fs.file(ROOT_INO, b".dupfs-restore", b"x".as_slice());
        fs.file(dir, b".dupfs-restore-9dd4e461268c8034f5c8564e155c67a6", b"x".as_slice());
        fs.file(dir, b"x", b"x".as_slice());
        let limits = CallLimits { timeout: RequestTimeout::default(), cancel: CancelToken::never() };
        let root = fs.getattr(ROOT_INO, &limits.start()).unwrap();
        let mut tree = WantedTree::default();
        tree.add_tree(&fs, (0, b""), (root, ArchivePath::root()), &limits);
        let objects: Vec<_> = tree.objects.iter().map(|object| object.path.to_string()).collect();
        assert_eq!(objects, ["dir/x"]);
        assert_eq!(tree.failures.len(), 2);
        assert!(tree.failures.iter().all(|failure| failure.to_string().contains("left out")), "{:?}", tree.failures);
    }
}
