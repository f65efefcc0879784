//! A live decoder that returns its stream in blocks.

use std::sync::Arc;

use super::byte_source::ByteSource;
use super::decode_context::DecodeContext;
use super::error::UnpackError;
use super::limits::UnpackLimits;
use super::stream_decoder::{SeekPoint, StreamDecoder};
use dupfs_base::clamp_len;
use dupfs_cache::BLOCK_BYTES;

/// The result of a step of a cursor.
pub(super) enum DecodeStep {
    /// The next block; full, and not the stream's last.
    Block(Arc<[u8]>),
    /// The last block, empty for an empty stream. The decoder has verified all checks.
    Last(Arc<[u8]>),
}

/// A decoder at some position in a stream.
pub(super) struct DecodeCursor {
    decoder: Box<dyn StreamDecoder>,
    name: Arc<str>,
    /// Bytes of the stored file from which everything is decoded.
    stored: u64,
    limits: UnpackLimits,
    pending: Vec<u8>,
    /// Bytes of `pending` that were returned or skipped.
    given: usize,
    /// Offset of the first byte after those.
    out: u64,
    /// Number of the block that is returned next.
    next: u64,
}

impl DecodeCursor {
    /// A cursor over `decoder`, which decodes `source`, and whose next byte is at `out` in the stream.
    pub(super) fn new(
        decoder: Box<dyn StreamDecoder>,
        source: &dyn ByteSource,
        limits: UnpackLimits,
        out: u64,
    ) -> Self {
        let (name, stored) = (source.name(), source.origin().len);
        let next = out.div_ceil(BLOCK_BYTES as u64);
        Self { decoder, name, stored, limits, pending: Vec::new(), given: 0, out, next }
    }

    /// Number of the block that is returned next.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// Length of the stream, once the last block was returned.
    pub(super) fn len(&self) -> u64 {
        self.out
    }

    /// The next block, in a `buffer` if it is full. A full block is returned only when more is known to follow. So the
    /// checks at the end are right when a reader gets the end. An error of the source does not change the cursor.
    ///
    /// # Errors
    /// [`UnpackError`]; `Stopped` between two calls of the decoder if the request ended.
    pub(super) fn advance(
        &mut self,
        buffer: impl FnOnce() -> Arc<[u8]>,
        mut on_seek_point: impl FnMut(SeekPoint),
        context: &DecodeContext<'_>,
    ) -> Result<DecodeStep, UnpackError> {
        let start = self.next.saturating_mul(BLOCK_BYTES as u64);
        loop {
            // A cursor that begins within a block skips the rest of it.
            if self.out < start {
                self.pass(clamp_len(start - self.out, self.rest().len()));
            }
            if self.out == start && self.rest().len() > BLOCK_BYTES {
                let block = filled(buffer(), self.rest().get(..BLOCK_BYTES).unwrap_or(&[]));
                self.pass(BLOCK_BYTES);
                self.next += 1;
                return Ok(DecodeStep::Block(block));
            }
            context.request().check().map_err(|reason| UnpackError::stopped(&self.name, reason))?;
            let Some(bytes) = self.decoder.next(context)? else { break };
            self.append(bytes);
            let end = self.out.saturating_add(self.rest().len() as u64);
            self.limits.check_expansion(&self.name, (self.decoder.taken(), self.stored), end)?;
            if let Some((input, state)) = self.decoder.resume() {
                on_seek_point(SeekPoint { out: end, input, state: state.into() });
            }
        }
        let last: Arc<[u8]> = self.rest().into();
        self.pass(last.len());
        self.next = self.next.saturating_add(1);
        Ok(DecodeStep::Last(last))
    }

    fn rest(&self) -> &[u8] {
        self.pending.get(self.given..).unwrap_or(&[])
    }

    fn pass(&mut self, len: usize) {
        self.given = self.given.saturating_add(len);
        self.out = self.out.saturating_add(len as u64);
    }

    fn append(&mut self, bytes: Vec<u8>) {
        if self.rest().is_empty() {
            self.pending = bytes;
        } else {
            self.pending.drain(..self.given);
            // Less than a block is left: the usual growth would allocate twice the needed size.
            self.pending.reserve_exact(bytes.len());
            self.pending.extend_from_slice(&bytes);
        }
        self.given = 0;
    }
}

/// `block` with `bytes` in it.
fn filled(mut block: Arc<[u8]>, bytes: &[u8]) -> Arc<[u8]> {
    match Arc::get_mut(&mut block) {
        Some(to) if to.len() == bytes.len() => {
            to.copy_from_slice(bytes);
            block
        }
        _ => bytes.into(),
    }
}

impl std::fmt::Debug for DecodeCursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DecodeCursor").field("next", &self.next).finish_non_exhaustive()
    }
}
