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
    /// The range from `start` of `len` bytes, cut at `u64::MAX`.
    pub fn at(start: u64, len: u64) -> Self {
        Self { start, end: start.saturating_add(len) }
    }

    /// Number of bytes.
    pub fn len(&self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    /// Returns true if it holds no byte.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
