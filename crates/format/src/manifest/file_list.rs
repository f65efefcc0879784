//! The list of changed files of a manifest, while it is read.

use super::ChangedFiles;
use crate::ArchivePath;

/// The list of changed files. Its lines are counted and digested, and not stored.
#[derive(Debug, Default)]
pub(super) struct FileList {
    announced: Option<AnnouncedFiles>,
    /// Number of lines.
    count: u64,
    /// The new and changed files.
    files: ChangedFiles,
    /// True once the path of one of them could not be read.
    has_unreadable: bool,
}

/// The line that announces the list.
#[derive(Clone, Copy, Debug)]
struct AnnouncedFiles {
    /// The length of the list; `None` if the line does not state it.
    count: Option<u64>,
    /// Start of the line.
    offset: u64,
}

impl FileList {
    /// Begins the list, which is announced at `offset` with `count` lines.
    pub(super) fn announce(&mut self, count: Option<u64>, offset: u64) {
        self.announced = Some(AnnouncedFiles { count, offset });
    }

    /// Returns true if a list was announced.
    pub(super) fn is_announced(&self) -> bool {
        self.announced.is_some()
    }

    /// Adds a deleted file.
    pub(super) fn add_deleted(&mut self) {
        self.count += 1;
    }

    /// Adds a new or changed file. `path` is `None` if it could not be read.
    pub(super) fn add_changed(&mut self, path: Option<&ArchivePath>) {
        self.count += 1;
        match path {
            Some(path) => self.files.add(path),
            None => self.has_unreadable = true,
        }
    }

    /// Returns the number of files in the list. `None` without a list.
    pub(super) fn count(&self) -> Option<u64> {
        self.announced.map(|_| self.count)
    }

    /// Returns the offset and the description of the damage if the list is not as long as announced.
    pub(super) fn damage(&self) -> Option<(u64, String)> {
        let AnnouncedFiles { count, offset } = self.announced?;
        let (announced, listed) = (count?, self.count);
        (announced != listed)
            .then(|| (offset, format!("{announced} changed files are announced but {listed} are listed")))
    }

    /// Returns the new and changed files if the list has any file, is whole and has no unreadable path.
    pub(super) fn whole(&self) -> Option<ChangedFiles> {
        let is_whole = self.announced.is_some_and(|announced| announced.count == Some(self.count));
        (is_whole && !self.has_unreadable && self.count > 0).then_some(self.files)
    }
}
