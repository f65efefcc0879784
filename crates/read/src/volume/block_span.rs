//! Consecutive blocks of plaintext.

use std::ops::Range;
use std::sync::Arc;

use dupfs_base::ByteRange;
use dupfs_cache::BlockIndex;

/// The numbers of `blocks`, in order.
pub(super) fn block_numbers(blocks: Range<BlockIndex>) -> impl Iterator<Item = BlockIndex> {
    (blocks.start.number()..blocks.end.number()).map_while(BlockIndex::new)
}

/// Consecutive verified blocks of a volume.
#[derive(Clone, Debug)]
pub(super) struct BlockSpan {
    first: BlockIndex,
    blocks: Arc<[Arc<[u8]>]>,
}

impl BlockSpan {
    /// The blocks from number `first` on.
    pub(super) fn new(first: BlockIndex, blocks: Vec<Arc<[u8]>>) -> Self {
        Self { first, blocks: blocks.into() }
    }

    /// The blocks that contain `range`, if `get` returns all of them.
    pub(super) fn collect(range: ByteRange, get: impl Fn(BlockIndex) -> Option<Arc<[u8]>>) -> Option<Self> {
        let blocks = BlockIndex::range(range);
        let first = blocks.start;
        let blocks: Option<Arc<[_]>> = block_numbers(blocks).map(get).collect();
        Some(Self { first, blocks: blocks? })
    }

    /// Appends the bytes `range` to `out`. Returns false, with `out` as it was, if they are not all there.
    pub(super) fn append_to(&self, range: ByteRange, out: &mut Vec<u8>) -> bool {
        let before = out.len();
        let mut at = range.start;
        let mut block_start = self.first.start();
        for block in self.blocks.iter() {
            let block_end = block_start.saturating_add(block.len() as u64);
            if at < block_end && at < range.end {
                let within = |offset: u64| usize::try_from(offset.checked_sub(block_start)?).ok();
                let bytes = within(at).zip(within(range.end.min(block_end))).and_then(|(from, to)| block.get(from..to));
                let Some(bytes) = bytes else { break };
                out.extend_from_slice(bytes);
                at = at.saturating_add(bytes.len() as u64);
            }
            block_start = block_end;
        }
        if at == range.end {
            return true;
        }
        out.truncate(before);
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dupfs_cache::BLOCK_BYTES;

    fn span() -> BlockSpan {
        let block = |byte, len| Arc::from(vec![byte; len]);
        BlockSpan::new(BlockIndex::new(2).unwrap(), vec![block(1, BLOCK_BYTES), block(2, BLOCK_BYTES), block(3, 10)])
    }

    #[test]
    fn bytes_are_copied_across_blocks() {
        let (block, mut out) = (BLOCK_BYTES as u64, vec![9]);
        assert!(span().append_to(ByteRange { start: 3 * block - 2, end: 4 * block + 1 }, &mut out));
        assert_eq!((out.len(), &out[..4], out.last()), (BLOCK_BYTES + 4, &[9, 1, 1, 2][..], Some(&3)));
    }

    #[test]
    fn a_range_that_is_not_covered_leaves_the_output_unchanged() {
        let block = BLOCK_BYTES as u64;
        for (start, end) in [(block, 3 * block), (3 * block, 4 * block + 11), (9 * block, 9 * block + 1)] {
            let mut out = vec![9];
            assert!(!span().append_to(ByteRange { start, end }, &mut out), "{start} {end}");
            assert_eq!(out, [9]);
        }
        let found = BlockSpan::collect(ByteRange { start: 0, end: 2 * block }, |index| {
            (index == BlockIndex::FIRST).then(|| Arc::from([0].as_slice()))
        });
        assert!(found.is_none());
    }
}
