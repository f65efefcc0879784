//! The objects to restore: the wanted part of a snapshot, listed completely before anything is written.
//!
//! A listed object takes the memory of a [`WantedEntry`]. Its name and attributes are read again from the file system, whose tree
//! is in memory, when it is restored.

use dupfs_base::{ErrorKind, HasKind};
use dupfs_format::ArchivePath;
use dupfs_read::content::MAX_FILE_BYTES;

use super::entry_list::{EntryList, WantedEntry};
use crate::cli::call_limits::CallLimits;
use crate::cli::error::CliError;
use crate::cli::exit::CommandExit;
use crate::cli::resolve;
use crate::vfs::{Attr, FileSystem, FsError, Ino, NodeKind};

/// The beginning of the names that a restore uses itself in the destination: of its marker and of temporary objects.
pub(super) const RESERVED_PREFIX: &str = ".dupfs-restore";

/// The number of the directory of the objects that the user names: none of the tree. The offset of such an object is its place in
/// [`WantedTree::tops`].
const NO_DIR: u32 = u32::MAX;

/// Entries of a directory that are listed at a time.
const PAGE: usize = 1024;

/// The number of the destination itself among the directories.
pub(super) const DESTINATION: u32 = 0;

/// An object that the user names.
#[derive(Debug)]
struct WantedTop {
    /// Its name in the destination; empty if it is the destination itself.
    name: Vec<u8>,
    /// Its path in the backup.
    path: ArchivePath,
    attr: Attr,
}

/// The numbers of what is to be restored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct WantedCounts {
    pub(super) files: u64,
    /// The bytes of the files, as far as they are known; sizes that are not exact count as their upper bound.
    pub(super) bytes: u64,
    pub(super) directories: u64,
    /// Links, pipes and devices.
    pub(super) others: u64,
}

/// An object to restore with what is needed to restore it.
#[derive(Debug)]
pub(super) struct ListedObject {
    /// Its name in the destination.
    pub(super) name: Vec<u8>,
    pub(super) attr: Attr,
}

/// Everything to restore.
pub(super) struct WantedTree<'a> {
    fs: &'a dyn FileSystem,
    limits: &'a CallLimits,
    tops: Vec<WantedTop>,
    /// The first one is the destination itself. Each parent precedes its children.
    dirs: EntryList,
    objects: EntryList,
    counts: WantedCounts,
}

impl<'a> WantedTree<'a> {
    /// The directory `attr` at `path`, as the destination itself, with everything below it that is yet to be listed.
    pub(super) fn of_directory(fs: &'a dyn FileSystem, limits: &'a CallLimits, attr: Attr, path: ArchivePath) -> Self {
        let mut tree = Self::empty(fs, limits);
        tree.add_top(Vec::new(), path, attr);
        tree
    }

    /// The objects `wanted`, in a destination that is no directory of the backup.
    pub(super) fn of_several(
        fs: &'a dyn FileSystem,
        limits: &'a CallLimits,
        wanted: impl IntoIterator<Item = (Vec<u8>, ArchivePath, Attr)>,
    ) -> Self {
        let mut tree = Self::empty(fs, limits);
        tree.dirs.push(WantedEntry { ino: 0, offset: u64::MAX, dir: NO_DIR });
        for (name, path, attr) in wanted {
            tree.add_top(name, path, attr);
        }
        tree
    }

    fn empty(fs: &'a dyn FileSystem, limits: &'a CallLimits) -> Self {
        let (tops, dirs, objects, counts) = Default::default();
        Self { fs, limits, tops, dirs, objects, counts }
    }

    fn add_top(&mut self, name: Vec<u8>, path: ArchivePath, attr: Attr) {
        let entry = WantedEntry { ino: attr.ino, offset: self.tops.len() as u64, dir: NO_DIR };
        self.tops.push(WantedTop { name, path, attr });
        self.add(entry, &attr);
    }

    fn add(&mut self, entry: WantedEntry, attr: &Attr) {
        let counts = &mut self.counts;
        if attr.kind == NodeKind::Dir {
            counts.directories = counts.directories.saturating_add(1);
            self.dirs.push(entry);
            return;
        }
        match attr.kind {
            NodeKind::File => counts.files = counts.files.saturating_add(1),
            _ => counts.others = counts.others.saturating_add(1),
        }
        counts.bytes = counts.bytes.saturating_add(planned_bytes(attr));
        self.objects.push(entry);
    }

    /// Lists everything below the wanted directories, and passes the failures to `report`. `advanced` is called with the numbers
    /// so far.
    pub(super) fn list(&mut self, report: &mut dyn FnMut(CliError), advanced: &mut dyn FnMut(WantedCounts)) {
        let mut next = 0;
        while let Some(dir) = self.dirs.get(next) {
            if self.limits.is_over() {
                return;
            }
            if dir.ino != 0 {
                self.list_directory(next, dir.ino, report, advanced);
            }
            let Some(after) = next.checked_add(1) else { return };
            next = after;
        }
        self.objects.sort_chunks();
    }

    /// Adds the entries of one directory.
    fn list_directory(
        &mut self,
        dir: u32,
        ino: Ino,
        report: &mut dyn FnMut(CliError),
        advanced: &mut dyn FnMut(WantedCounts),
    ) {
        let mut offset = 0;
        let mut page: Vec<(Vec<u8>, u64)> = Vec::new();
        loop {
            if self.limits.is_over() {
                return;
            }
            page.clear();
            let listed = self.fs.readdir(ino, offset, &self.limits.start(), &mut |entry| {
                page.push((entry.name.to_vec(), offset));
                offset = entry.next_offset;
                page.len() < PAGE
            });
            let is_last = page.len() < PAGE;
            for (name, offset) in page.drain(..) {
                self.list_entry((dir, ino), &name, offset, report);
            }
            advanced(self.counts);
            if let Err(error) = listed {
                self.fail(&self.directory_path(dir), &error, report);
                return;
            }
            if is_last {
                return;
            }
        }
    }

    fn list_entry(&mut self, (dir, ino): (u32, Ino), name: &[u8], offset: u64, report: &mut dyn FnMut(CliError)) {
        let path = || self.directory_path(dir);
        let Some(child) = ArchivePath::root().join(name) else {
            let line = format!("{}: contains a name that is no name of a file: {}", path(), name.escape_ascii());
            return report(CliError::failed(ErrorKind::Corrupt, line));
        };
        if is_reserved(&child) {
            return report(reserved(&path().join(name).unwrap_or(child)));
        }
        match self.fs.lookup(ino, name, &self.limits.start()) {
            Ok(attr) => self.add(WantedEntry { ino: attr.ino, offset, dir }, &attr),
            Err(error) => self.fail(&path().join(name).unwrap_or(child), &error, report),
        }
    }

    fn fail(&self, path: &ArchivePath, error: &FsError, report: &mut dyn FnMut(CliError)) {
        if error.kind() != ErrorKind::Cancelled {
            report(resolve::read_failed(path, error));
        }
    }

    /// The numbers of what was listed.
    pub(super) fn counts(&self) -> WantedCounts {
        self.counts
    }

    /// The directories.
    pub(super) fn dirs(&self) -> &EntryList {
        &self.dirs
    }

    /// The objects that are no directories.
    pub(super) fn objects(&self) -> &EntryList {
        &self.objects
    }

    /// The name of `entry` in its directory in the destination.
    ///
    /// # Errors
    /// [`FsError`] if its directory cannot be listed again.
    pub(super) fn name(&self, entry: WantedEntry) -> Result<Vec<u8>, FsError> {
        if entry.dir == NO_DIR {
            return Ok(self.top(entry).map(|top| top.name.clone()).unwrap_or_default());
        }
        let dir = self.dirs.get(entry.dir).ok_or_else(FsError::not_found)?;
        let mut name = None;
        let listed = self.fs.readdir(dir.ino, entry.offset, &self.limits.start(), &mut |entry| {
            name = Some(entry.name.to_vec());
            false
        });
        match name {
            Some(name) => Ok(name),
            None => Err(listed.err().unwrap_or_else(FsError::not_found)),
        }
    }

    /// The object of `entry`; `None` for a destination that is no directory of the backup.
    ///
    /// # Errors
    /// [`FsError`] if it cannot be found again.
    pub(super) fn object(&self, entry: WantedEntry) -> Result<Option<ListedObject>, FsError> {
        if entry.dir == NO_DIR {
            return Ok(self.top(entry).map(|top| ListedObject { name: top.name.clone(), attr: top.attr }));
        }
        let name = self.name(entry)?;
        let dir = self.dirs.get(entry.dir).ok_or_else(FsError::not_found)?;
        let attr = self.fs.lookup(dir.ino, &name, &self.limits.start())?;
        if attr.ino != entry.ino {
            return Err(FsError::failed(ErrorKind::Io, "another object has this name since it was listed"));
        }
        Ok(Some(ListedObject { name, attr }))
    }

    fn top(&self, entry: WantedEntry) -> Option<&WantedTop> {
        self.tops.get(usize::try_from(entry.offset).ok()?)
    }

    /// The path of directory `dir` in the backup, for messages.
    pub(super) fn directory_path(&self, dir: u32) -> ArchivePath {
        self.dirs.get(dir).map(|entry| self.path(entry)).unwrap_or_default()
    }

    /// The path of `entry` in the backup, for messages: as far as its names can be read.
    pub(super) fn path(&self, entry: WantedEntry) -> ArchivePath {
        let (mut names, mut at) = (Vec::new(), Some(entry));
        let top = loop {
            match at {
                Some(entry) if entry.dir != NO_DIR => {
                    names.push(self.name(entry).unwrap_or_default());
                    at = self.dirs.get(entry.dir);
                }
                top => break top.and_then(|top| self.top(top)).map(|top| top.path.clone()),
            }
        };
        names.into_iter().rev().fold(top.unwrap_or_default(), |path, name| path.join(&name).unwrap_or(path))
    }
}

/// The bytes that an object is expected to have; 0 if that is unknown.
pub(super) fn planned_bytes(attr: &Attr) -> u64 {
    // A size without a bound is unknown.
    if attr.kind == NodeKind::File && attr.size < MAX_FILE_BYTES { attr.size } else { 0 }
}

/// Returns true if the name at the end of `path` is one that a restore uses itself: the object would be removed again.
pub(super) fn is_reserved(path: &ArchivePath) -> bool {
    path.name().starts_with(RESERVED_PREFIX.as_bytes())
}

/// The failure to restore the object at `path`, whose name is one that a restore uses itself.
pub(super) fn reserved(path: &ArchivePath) -> CliError {
    let line = format!(
        "{path}: left out: dupfs restore uses names that begin with {RESERVED_PREFIX} itself; it may be a remnant of an \
         earlier restore; copy it from a mount, or restore it alone under another name"
    );
    CliError::new(CommandExit::Failed, line)
}

#[cfg(test)]
mod tests {
    use dupfs_base::CancelToken;

    use super::*;
    use crate::cli::request_timeout::RequestTimeout;
    use crate::vfs::ROOT_INO;
    use crate::vfs::memory_fs::{MemoryFs, MemoryNodeKind};

    fn limits() -> CallLimits {
        CallLimits { timeout: RequestTimeout::default(), cancel: CancelToken::never() }
    }

    #[test]
    fn names_that_a_restore_uses_itself_are_reported_and_left_out() {
        let mut fs = MemoryFs::new();
        let dir = fs.add(ROOT_INO, b"dir", MemoryNodeKind::Dir);
        fs.file(ROOT_INO, b".dupfs-restore", b"x".as_slice());
        fs.file(dir, b".dupfs-restore-9dd4e461268c8034f5c8564e155c67a6", b"x".as_slice());
        fs.file(dir, b"x", b"x".as_slice());
        let limits = limits();
        let root = fs.getattr(ROOT_INO, &limits.start()).unwrap();
        let mut tree = WantedTree::of_directory(&fs, &limits, root, ArchivePath::root());
        let mut failures = Vec::new();
        tree.list(&mut |failure| failures.push(failure.to_string()), &mut |_| {});
        let objects: Vec<_> = tree.objects().by_inode().map(|entry| tree.path(entry).to_string()).collect();
        assert_eq!(objects, ["dir/x"]);
        assert_eq!(failures.len(), 2);
        assert!(failures.iter().all(|failure| failure.contains("left out")), "{failures:?}");
    }

    #[test]
    fn names_and_attributes_are_found_again_in_directories_of_several_pages() {
        let mut fs = MemoryFs::new();
        let dir = fs.add(ROOT_INO, b"dir", MemoryNodeKind::Dir);
        let wide = fs.add(dir, b"wide", MemoryNodeKind::Dir);
        let count = 2 * PAGE + 3;
        for n in 0..count {
            fs.file(wide, format!("f{n}").as_bytes(), vec![b'x'; n]);
        }
        fs.add(dir, b"link", MemoryNodeKind::Link(b"target".to_vec()));
        let limits = limits();
        let attr = fs.getattr(dir, &limits.start()).unwrap();
        let wanted = [(b"renamed".to_vec(), ArchivePath::parse(b"dir").unwrap(), attr)];
        let mut tree = WantedTree::of_several(&fs, &limits, wanted);
        tree.list(&mut |failure| panic!("{failure}"), &mut |_| {});
        let WantedCounts { files, directories, others, .. } = tree.counts();
        assert_eq!((files, directories, others), (count as u64, 2, 1));
        let (mut names, mut last) = (0, 0);
        for entry in tree.objects().by_inode() {
            assert!(entry.ino > last);
            last = entry.ino;
            let found = tree.object(entry).unwrap().unwrap();
            assert_eq!(
                found.attr,
                fs.lookup(if found.name == b"link" { dir } else { wide }, &found.name, &limits.start()).unwrap()
            );
            let path = tree.path(entry).to_string();
            let is_file = path == format!("dir/wide/f{names}") && found.name == format!("f{names}").as_bytes();
            assert!(is_file || path == "dir/link", "{path}");
            names += 1;
        }
        assert_eq!(names, count + 1);
        assert_eq!(tree.name(tree.dirs().get(1).unwrap()).unwrap(), b"renamed");
        assert!(tree.object(tree.dirs().get(DESTINATION).unwrap()).unwrap().is_none());
    }
}
