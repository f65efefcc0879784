//! A source read in order, as decoders read it.

use std::sync::Arc;

use super::byte_source::ByteSource;
use super::decode_context::DecodeContext;
use super::error::UnpackError;
use dupfs_base::clamp_len;

/// Bytes requested at a time.
const STEP: usize = 256 << 10;

/// A source from some offset on. An error does not move it: the next call continues.
#[derive(Debug)]
pub(super) struct DecoderInput {
    source: Arc<dyn ByteSource>,
    /// Offset of the buffer's first byte.
    base: u64,
    buffer: Vec<u8>,
    /// Bytes of the buffer that were consumed.
    taken: usize,
    ended: bool,
}

impl DecoderInput {
    pub(super) fn new(source: Arc<dyn ByteSource>, offset: u64) -> Self {
        Self { source, base: offset, buffer: Vec::new(), taken: 0, ended: false }
    }

    /// Offset of the next byte.
    pub(super) fn offset(&self) -> u64 {
        self.base.saturating_add(self.taken as u64)
    }

    pub(super) fn name(&self) -> Arc<str> {
        self.source.name()
    }

    /// The buffered bytes; empty only at the end.
    pub(super) fn peek(&mut self, context: &DecodeContext<'_>) -> Result<&[u8], UnpackError> {
        self.fill(1, context)
    }

    /// At least `want` bytes; fewer only at the end. Waits for the source without a processor.
    pub(super) fn fill(&mut self, want: usize, context: &DecodeContext<'_>) -> Result<&[u8], UnpackError> {
        while self.buffer.len().saturating_sub(self.taken) < want && !self.ended {
            let next = self.base.saturating_add(self.buffer.len() as u64);
            // Up to a multiple of the step, so that blocks of the source below are requested once.
            let step = STEP.saturating_sub(clamp_len(next % STEP as u64, STEP));
            let request = context.wait();
            request.check().map_err(|reason| UnpackError::stopped(&self.source.name(), reason))?;
            let bytes = self.source.read_at(next, step, request)?;
            self.ended = bytes.len() < step;
            if self.taken == self.buffer.len() {
                self.base = next;
                self.taken = 0;
                self.buffer = bytes;
            } else {
                self.base = self.offset();
                self.buffer.drain(..self.taken);
                self.taken = 0;
                self.buffer.extend_from_slice(&bytes);
            }
        }
        Ok(self.buffered())
    }

    /// The bytes that [`Self::peek`] gave, without waiting for more.
    pub(super) fn buffered(&self) -> &[u8] {
        self.buffer.get(self.taken..).unwrap_or(&[])
    }

    pub(super) fn consume(&mut self, len: usize) {
        self.taken = self.taken.saturating_add(len).min(self.buffer.len());
    }

    /// The next `N` bytes; `None` if there are fewer.
    pub(super) fn array<const N: usize>(
        &mut self,
        context: &DecodeContext<'_>,
    ) -> Result<Option<[u8; N]>, UnpackError> {
        let found = self.fill(N, context)?.first_chunk::<N>().copied();
        if found.is_some() {
            self.consume(N);
        }
        Ok(found)
    }

    /// Returns true if there is no byte left.
    pub(super) fn at_end(&mut self, context: &DecodeContext<'_>) -> Result<bool, UnpackError> {
        Ok(self.peek(context)?.is_empty())
    }

    /// Waits for a processor to decode the bytes that were read.
    pub(super) fn work(&self, context: &DecodeContext<'_>) -> Result<(), UnpackError> {
        context.work(&self.source.name())
    }

    pub(super) fn damaged(&self, what: impl AsRef<str>) -> UnpackError {
        UnpackError::damaged(&self.name(), self.offset(), what)
    }
}
