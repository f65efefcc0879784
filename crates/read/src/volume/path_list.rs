//! A list of paths with an upper bound, for reports.

use dupfs_format::ArchivePath;

/// The first paths of a list, and the number of the others: a small object can name millions of paths.
#[derive(Debug, Default)]
pub struct PathList {
    /// The first paths.
    pub paths: Vec<ArchivePath>,
    /// Number of paths behind them.
    pub more: u64,
}

impl PathList {
    /// Appends `path` if `has_room`, and only counts it otherwise.
    pub fn push(&mut self, path: &ArchivePath, has_room: bool) {
        if has_room && self.more == 0 {
            self.paths.push(path.clone());
        } else {
            self.more = self.more.saturating_add(1);
        }
    }

    /// Number of all paths.
    pub fn total(&self) -> u64 {
        self.more.saturating_add(self.paths.len() as u64)
    }
}
