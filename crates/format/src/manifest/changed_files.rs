//! A list of changed files as a digest: two lists are compared without storing either.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::LazyLock;

use crate::ArchivePath;

/// The key of the digests. It is random for each process, so no file names can be chosen that collide.
static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// The paths of the files that a set stored, new or changed, in any order.
///
/// Of paths with bytes outside of ASCII only the number counts: one set may have them in two encodings (docs/FORMAT.md
/// section 4.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChangedFiles {
    count: u64,
    sum: u64,
}

impl ChangedFiles {
    /// Adds a path.
    pub fn add(&mut self, path: &ArchivePath) {
        self.count = self.count.saturating_add(1);
        if path.as_bytes().is_ascii() {
            self.sum = self.sum.wrapping_add(KEY.hash_one(path.as_bytes()));
        }
    }

    /// Returns the number of paths.
    pub fn count(&self) -> u64 {
        self.count
    }
}
