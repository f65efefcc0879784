//! Checks that stand behind the data where nobody reads on: at the ends of xz blocks, and of zip members.

use super::DecompressedStream;
use super::cursor_pool::BlockClaim;
use crate::byte_source::ByteSource;
use crate::error::UnpackError;
use crate::stream_codec::StreamCodec;
use crate::xz;
use dupfs_base::RequestContext;
use dupfs_cache::BLOCK_BYTES;

impl DecompressedStream {
    /// See [`ByteSource::check_range`]. Only xz has checks that can be reached one by one; a reader that jumps from block to
    /// block leaves them behind.
    pub(super) fn check_parts(
        &self,
        from: u64,
        to: u64,
        next: Option<u64>,
        context: &RequestContext,
    ) -> Result<(), UnpackError> {
        if self.codec != StreamCodec::Xz || from >= to {
            return Ok(());
        }
        let blocks = match (self.blocks.get(), next, self.source.known_len()) {
            (Some(known), ..) => known.clone(),
            (None, None, Some(len)) => self.load_blocks(len, context)?,
            // Nobody has jumped yet, so all up to here was decoded in order.
            (None, ..) => None,
        };
        // A file whose blocks cannot be told is decoded from its start always: its end tells.
        let Some(blocks) = blocks else { return Ok(()) };
        let goes_on_in = |block: &xz::XzBlock| next.is_some_and(|next| block.out <= next && next < block.end());
        let first = blocks.partition_point(|block| block.end() <= from);
        let touched = blocks.iter().skip(first).take_while(|block| block.out < to);
        for block in touched.filter(|block| block.out < block.end() && !goes_on_in(block)) {
            self.check_part(block, context)?;
            // One without a check of its own has that of what it is in.
            self.source.check_range(block.at, block.packed_end(), None, context)?;
        }
        Ok(())
    }

    /// Decodes over the end of `block`, unless that was done.
    fn check_part(&self, block: &xz::XzBlock, context: &RequestContext) -> Result<(), UnpackError> {
        let index = block.end() / BLOCK_BYTES as u64;
        let mut decoded = false;
        while !self.pool.has_decoded(block.out, block.end()) {
            if let BlockClaim::Run(slot, start) = self.claim(index, Some(block.out), context)? {
                if decoded {
                    return Err(UnpackError::damaged(&self.name(), block.at, "its index is not that of its blocks"));
                }
                self.run(slot, start, index, context)?;
                decoded = true;
            }
        }
        Ok(())
    }

    /// See [`ByteSource::check_end`].
    pub(super) fn check_whole(&self, context: &RequestContext) -> Result<(), UnpackError> {
        match self.codec {
            // Their lengths are stated, and cost no decoding.
            StreamCodec::Zip(..) if self.pool.len().is_none() => self.block(u64::MAX, context).map(drop),
            StreamCodec::Zip(..) => Ok(()),
            StreamCodec::Gzip | StreamCodec::Bzip2 | StreamCodec::Xz | StreamCodec::Zstd => self.len(context).map(drop),
        }
    }
}
