//! Half-open ranges of bytes.

/// A half-open range of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ByteRange {
    /// First byte.
    pub start: u64,
    /// End, exclusive.
    pub end: u64,
}

impl ByteRange {
    /// The range of `len` bytes from `start`; it ends at `u64::MAX` at the latest.
    pub fn at(start: u64, len: u64) -> Self {
        Self { start, end: start.saturating_add(len) }
    }

    /// Number of bytes.
    pub fn len(&self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    /// Returns true if the range contains no byte.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
