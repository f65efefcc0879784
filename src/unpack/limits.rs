//! Bounds on what is unpacked, against archives that are made to exhaust their reader.

use std::sync::Arc;
use std::time::Duration;

use super::error::UnpackError;

/// Bounds on what is unpacked. Each gives an error that names it.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Archives within archives.
    pub depth: u32,
    /// Members of one archive.
    pub members: usize,
    /// Bytes of all names in one archive.
    pub names: usize,
    /// A stream of more than `free` bytes may not be more than this many times as long as what it was unpacked from.
    pub ratio: u64,
    /// Bytes that any stream may have.
    pub free: u64,
    /// Bytes of memory that one decoder may ask for.
    pub memory: u64,
    /// How long one request waits for another's decoding.
    pub patience: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            depth: 4,
            members: 1 << 20,
            names: 64 << 20,
            // No deflate stream reaches more than 1032.
            ratio: 2000,
            free: 1 << 30,
            memory: 256 << 20,
            patience: Duration::from_secs(600),
        }
    }
}

impl Limits {
    /// Checks a stream that gave `out` bytes from `input`.
    pub(super) fn check_expansion(&self, object: &Arc<str>, input: u64, out: u64) -> Result<(), UnpackError> {
        if out <= self.free || out / self.ratio <= input {
            return Ok(());
        }
        let (ratio, free) = (self.ratio, self.free);
        let limit = format!("expansion beyond {ratio} times its size (and {free} bytes), as bombs have");
        Err(UnpackError::limit(object, limit))
    }
}
