//! Bounds on unpacking, against archives that are crafted to exhaust resources.

use std::sync::Arc;
use std::time::Duration;

use super::error::UnpackError;

/// Upper bound of the zeros after a compressed file. Tapes and sectors pad with less than a few MiB; files that were
/// preallocated, and holes of sparse members, may have terabytes of them.
pub(super) const PADDING: u64 = 64 << 20;

/// Bounds on what is unpacked. Each gives an error that names it.
#[derive(Clone, Copy, Debug)]
pub struct UnpackLimits {
    /// Archives within archives.
    pub depth: u32,
    /// Members of one archive.
    pub members: usize,
    /// Bytes of all strings in one archive: names, targets of links, owners, reasons why something cannot be read.
    pub names: usize,
    /// A stream of more than `free` bytes may not be more than this many times as long as its compressed form, nor as
    /// the stored file that it comes from through all levels.
    pub ratio: u64,
    /// Bytes that any stream may have.
    pub free: u64,
    /// Bytes of memory that one decoder may allocate.
    pub memory: u64,
    /// Bytes of memory that all decoders take together, running and idle.
    pub decoders: u64,
    /// Bytes of memory that one decoder may take together with those below it, while no other large one is live.
    pub max_decoders: u64,
    /// The time for which a decoder is kept although others wait for memory.
    pub hold: Duration,
}

impl Default for UnpackLimits {
    fn default() -> Self {
        Self {
            depth: 4,
            members: 1 << 20,
            names: 64 << 20,
            // No deflate stream reaches more than 1032.
            ratio: 2000,
            free: 1 << 30,
            memory: 256 << 20,
            decoders: 160 << 20,
            max_decoders: 256 << 20,
            hold: Duration::from_secs(30),
        }
    }
}

impl UnpackLimits {
    /// Checks a stream that gave `out` bytes from `input`, which comes from a file of `stored` bytes.
    pub(super) fn check_expansion(
        &self,
        object: &Arc<str>,
        (input, stored): (u64, u64),
        out: u64,
    ) -> Result<(), UnpackError> {
        let bound = |len: u64| len.saturating_add(1).saturating_mul(self.ratio);
        if out <= self.free || out < bound(input.min(stored)) {
            return Ok(());
        }
        let (ratio, free) = (self.ratio, self.free);
        let limit = if out >= bound(input) {
            format!(
                "expands to more than {ratio} times its size (and to more than {free} bytes), like a decompression bomb"
            )
        } else {
            format!(
                "expands to more than {ratio} times the {stored} bytes of the stored file around it (and to more than \
                 {free} bytes), like a nested decompression bomb"
            )
        };
        Err(UnpackError::limit(object, limit))
    }
}

/// Input of one decoder that gives no output: zeros after and between streams, skippable frames.
#[derive(Debug, Default)]
pub(super) struct ZeroPadding(u64);

impl ZeroPadding {
    /// Counts `bytes` more of it, the last of the `taken` bytes that were read so far. Besides [`PADDING`] there may be as much
    /// of it as of everything else, so that no file is refused for having many short streams, and no hole is read to its end.
    ///
    /// # Errors
    /// [`UnpackError::Limit`] if that is too much.
    pub(super) fn add(&mut self, object: &Arc<str>, bytes: u64, taken: u64) -> Result<(), UnpackError> {
        self.0 = self.0.saturating_add(bytes);
        if self.0 <= PADDING.saturating_add(taken.saturating_sub(self.0)) {
            return Ok(());
        }
        let limit = format!("more than {} MiB of zeros or skippable frames after the compressed data", self.0 >> 20);
        Err(UnpackError::limit(object, limit))
    }
}
