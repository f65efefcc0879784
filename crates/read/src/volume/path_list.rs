//! Lists of paths with upper bounds, for reports.

use dupfs_format::ArchivePath;

/// Upper bound of the paths in one list.
pub(super) const MAX_LISTED: usize = 100_000;
/// Upper bound of the memory of all lists that share a [`ListRoom`].
const MAX_LISTED_BYTES: u64 = 16 << 20;
/// Bytes of memory of a path in a list, besides its own bytes.
const PATH_BYTES: u64 = 56;

/// The first paths of a list, and the number of the others: a small object can name millions of paths.
#[derive(Debug, Default)]
pub struct PathList {
    /// The first paths.
    pub paths: Vec<ArchivePath>,
    /// Number of paths behind them.
    pub more: u64,
}

/// The memory that several lists have in common.
#[derive(Debug, Default)]
pub(super) struct ListRoom {
    used: u64,
}

impl PathList {
    /// Appends `path` if there is room for it, and only counts it otherwise.
    pub(super) fn push(&mut self, path: &ArchivePath, room: &mut ListRoom) {
        let used = room.used.saturating_add(path_bytes(path));
        if self.more == 0 && self.paths.len() < MAX_LISTED && used <= MAX_LISTED_BYTES {
            room.used = used;
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

/// Bytes of memory of `path` in a list.
pub(super) fn path_bytes(path: &ArchivePath) -> u64 {
    PATH_BYTES + path.as_bytes().len() as u64
}
