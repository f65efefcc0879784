//! The progress of a verification on a terminal.

use dupfs_format::ObjectInfo;

use crate::cli::progress_line::ProgressLine;

/// The volumes that are read, and the files of a set that are compared.
#[derive(Debug)]
pub(super) struct VerifyProgress {
    line: ProgressLine,
    /// The volumes that were read, and all to read.
    volumes: (u64, u64),
}

impl VerifyProgress {
    /// The progress of reading `volumes`.
    pub(super) fn new<'a>(volumes: impl Iterator<Item = &'a ObjectInfo>) -> Self {
        let (mut count, mut bytes) = (0u64, 0u64);
        for object in volumes {
            count = count.saturating_add(1);
            bytes = bytes.saturating_add(object.size);
        }
        Self { line: ProgressLine::new(bytes), volumes: (0, count) }
    }

    /// Counts a volume of `bytes` bytes.
    pub(super) fn step(&mut self, bytes: u64) {
        self.volumes.0 = self.volumes.0.saturating_add(1);
        self.line.describe(format!("volume {} of {}, ", self.volumes.0, self.volumes.1));
        self.line.advance(bytes);
    }

    /// Shows that `left` files of a set are to be read.
    pub(super) fn file(&mut self, left: usize) {
        let (volumes, all) = self.volumes;
        self.line.describe(format!("volume {volumes} of {all}, {left} files of this set to compare, "));
        self.line.advance(0);
    }

    /// Leaves out volumes that are not read.
    pub(super) fn skip<'a>(&mut self, volumes: impl Iterator<Item = &'a ObjectInfo>) {
        for object in volumes {
            self.volumes.1 = self.volumes.1.saturating_sub(1);
            self.line.correct(object.size, 0);
        }
    }
}
