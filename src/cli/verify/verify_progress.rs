//! The line of progress on a terminal.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use dupfs_format::ObjectInfo;

/// Interval of the lines.
const INTERVAL: Duration = Duration::from_millis(500);
const MIB: u64 = 1 << 20;

/// The progress of a verification. It shows nothing unless standard error is a terminal.
#[derive(Debug)]
pub(super) struct VerifyProgress {
    terminal: bool,
    begun: Instant,
    shown: Instant,
    volumes: (u64, u64),
    bytes: (u64, u64),
}

impl VerifyProgress {
    /// The progress of reading `volumes`.
    pub(super) fn new<'a>(volumes: impl Iterator<Item = &'a ObjectInfo>) -> Self {
        let (mut count, mut bytes) = (0u64, 0u64);
        for object in volumes {
            count = count.saturating_add(1);
            bytes = bytes.saturating_add(object.size);
        }
        let now = Instant::now();
        Self { terminal: io::stderr().is_terminal(), begun: now, shown: now, volumes: (0, count), bytes: (0, bytes) }
    }

    /// Counts a volume of `bytes` bytes.
    pub(super) fn step(&mut self, bytes: u64) {
        self.volumes.0 = self.volumes.0.saturating_add(1);
        self.bytes.0 = self.bytes.0.saturating_add(bytes);
        if self.terminal && self.shown.elapsed() >= INTERVAL {
            self.shown = Instant::now();
            // A line that cannot be shown is no reason to end.
            let _ = write!(io::stderr(), "\r{}\x1b[K", self.line());
        }
    }

    /// Shows that `left` files of a set are to be read.
    pub(super) fn file(&mut self, left: usize) {
        if self.terminal && self.shown.elapsed() >= INTERVAL {
            self.shown = Instant::now();
            let _ = write!(
                io::stderr(),
                "\rvolume {} of {}, {left} files of this set to compare\x1b[K",
                self.volumes.0,
                self.volumes.1
            );
        }
    }

    /// Leaves out volumes that are not read.
    pub(super) fn skip<'a>(&mut self, volumes: impl Iterator<Item = &'a ObjectInfo>) {
        for object in volumes {
            self.volumes.1 = self.volumes.1.saturating_sub(1);
            self.bytes.1 = self.bytes.1.saturating_sub(object.size);
        }
    }

    /// Removes the line, before other output.
    pub(super) fn clear(&self) {
        if self.terminal {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }

    fn line(&self) -> String {
        let ((volumes, all), (bytes, total)) = (self.volumes, self.bytes);
        let seconds = self.begun.elapsed().as_secs().max(1);
        let rate = (bytes / seconds).max(1);
        let left = total.saturating_sub(bytes) / rate;
        format!(
            "volume {volumes} of {all}, {} of {} MiB, {} MiB/s, {}:{:02} min left",
            bytes / MIB,
            total / MIB,
            rate / MIB,
            left / 60,
            left % 60
        )
    }
}
