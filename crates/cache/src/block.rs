//! The unit of the cache: a block of plaintext, and its number within its stream.

use dupfs_base::ByteRange;

/// Bytes of a full block. The last block of a stream is shorter.
pub const BLOCK_BYTES: usize = 256 * 1024;

/// [`BLOCK_BYTES`] as the type of byte offsets.
const BLOCK_LEN: u64 = BLOCK_BYTES as u64;

/// The number of a block within a stream: block `n` begins at byte `n * BLOCK_BYTES`. That offset always fits `u64`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockIndex(u64);

impl BlockIndex {
    /// The first block.
    pub const FIRST: Self = Self(0);
    /// The last block that has an offset. As the end of a range it means: to the end of the stream.
    pub const LAST: Self = Self(u64::MAX / BLOCK_LEN);

    /// Block `number`; `None` if its offset does not fit `u64`.
    pub fn new(number: u64) -> Option<Self> {
        (number <= Self::LAST.0).then_some(Self(number))
    }

    /// The block that contains byte `offset`.
    pub fn containing(offset: u64) -> Self {
        Self(offset / BLOCK_LEN)
    }

    /// The first block that begins at byte `offset` or after it. For an offset within the last block: that block.
    pub fn starting_from(offset: u64) -> Self {
        Self(offset.div_ceil(BLOCK_LEN)).min(Self::LAST)
    }

    /// The blocks that contain the bytes of `range`; the end is exclusive.
    pub fn range(range: ByteRange) -> std::ops::Range<Self> {
        Self::containing(range.start)..Self::starting_from(range.end)
    }

    /// The number of the block.
    pub fn number(self) -> u64 {
        self.0
    }

    /// Offset of the first byte of the block.
    pub fn start(self) -> u64 {
        self.0.saturating_mul(BLOCK_LEN)
    }

    /// The next block; the last block is its own successor.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1)).min(Self::LAST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_map_to_blocks_and_back() {
        let block = BlockIndex::new(3).unwrap();
        assert_eq!((block.start(), block.number(), block.next()), (3 * BLOCK_LEN, 3, BlockIndex(4)));
        assert_eq!(BlockIndex::containing(3 * BLOCK_LEN - 1), BlockIndex(2));
        assert_eq!(BlockIndex::containing(3 * BLOCK_LEN), block);
        assert_eq!(BlockIndex::starting_from(3 * BLOCK_LEN), block);
        assert_eq!(BlockIndex::starting_from(3 * BLOCK_LEN + 1), BlockIndex(4));
        assert_eq!(BlockIndex::range(ByteRange { start: 1, end: 3 * BLOCK_LEN }), BlockIndex::FIRST..block);
        assert_eq!(BlockIndex::range(ByteRange { start: 1, end: 3 * BLOCK_LEN + 1 }), BlockIndex::FIRST..BlockIndex(4));
    }

    #[test]
    fn every_index_has_an_offset() {
        assert_eq!(BlockIndex::new(u64::MAX / BLOCK_LEN), Some(BlockIndex::LAST));
        assert_eq!(BlockIndex::new(u64::MAX / BLOCK_LEN + 1), None);
        assert_eq!(BlockIndex::containing(u64::MAX), BlockIndex::LAST);
        assert_eq!(BlockIndex::starting_from(u64::MAX), BlockIndex::LAST);
        assert_eq!(BlockIndex::LAST.next(), BlockIndex::LAST);
        assert_eq!(u64::MAX - BlockIndex::LAST.start(), BLOCK_LEN - 1);
    }
}
