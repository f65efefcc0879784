//! The sizes that are shown for files whose exact size needs a volume.

use std::collections::HashMap;
use std::sync::Mutex;

use super::ops::Ino;
use dupfs_base::sync::lock;

/// The size that is shown for a file whose exact size needs a volume.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ShownSizes {
    /// The exact size, found when it is requested.
    #[default]
    Exact,
    /// The upper bound of the signature, until the file is opened.
    Bound,
    /// The exact size when it is requested, but a large file is opened without it: its reader gets the first bytes before the volume
    /// with the end of the file is fetched.
    Late,
}

/// The handles of files that were opened without their sizes.
#[derive(Debug, Default)]
pub(super) struct UnsizedFiles {
    /// For each inode that is open, the handles with and without its size.
    open: Mutex<HashMap<Ino, OpenCounts>>,
}

#[derive(Debug, Default)]
struct OpenCounts {
    sized: u64,
    unsized_: u64,
}

impl OpenCounts {
    fn of(&mut self, is_sized: bool) -> &mut u64 {
        if is_sized { &mut self.sized } else { &mut self.unsized_ }
    }
}

impl UnsizedFiles {
    /// Records that a handle of `ino` was opened.
    pub(super) fn record_open(&self, ino: Ino, is_sized: bool) {
        let mut open = lock(&self.open);
        let count = open.entry(ino).or_default().of(is_sized);
        *count = count.saturating_add(1);
    }

    /// Records that a handle of `ino` was closed that was opened with its size if `is_sized`.
    pub(super) fn record_close(&self, ino: Ino, is_sized: bool) {
        let mut open = lock(&self.open);
        let Some(counts) = open.get_mut(&ino) else { return };
        let count = counts.of(is_sized);
        *count = count.saturating_sub(1);
        if counts.sized == 0 && counts.unsized_ == 0 {
            open.remove(&ino);
        }
    }

    /// Returns true if the size of `ino` may be shown as 0: all its handles were opened without it. The kernel has one size for
    /// all handles, and cuts the reads of those that it caches at that.
    pub(super) fn hides_size(&self, ino: Ino) -> bool {
        lock(&self.open).get(&ino).is_some_and(|counts| counts.sized == 0 && counts.unsized_ > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_hidden_only_while_every_handle_was_opened_without_it() {
        let files = UnsizedFiles::default();
        assert!(!files.hides_size(7));
        files.record_open(7, false);
        files.record_open(7, false);
        files.record_open(8, true);
        assert!(files.hides_size(7) && !files.hides_size(8));
        files.record_open(7, true);
        assert!(!files.hides_size(7));
        files.record_close(7, true);
        files.record_close(7, false);
        assert!(files.hides_size(7));
        files.record_close(7, false);
        files.record_close(8, true);
        files.record_close(8, true);
        assert!(!files.hides_size(7) && lock(&files.open).is_empty());
    }
}
