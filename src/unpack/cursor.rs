//! A live decoder that gives its stream in blocks.

use std::sync::Arc;

use super::decoder::{Decoder, Point};
use super::error::UnpackError;
use super::limits::Limits;
use crate::cache::BLOCK_BYTES;

/// What a cursor gives.
pub(super) enum Step {
    /// The next block; full, and not the stream's last.
    Block(Arc<[u8]>),
    /// The last block, empty if the stream is; the decoder has found all checks right.
    Last(Arc<[u8]>),
}

/// A decoder at some place in a stream.
pub(super) struct Cursor {
    decoder: Box<dyn Decoder>,
    name: Arc<str>,
    limits: Limits,
    pending: Vec<u8>,
    /// Offset of the first byte in `pending`.
    out: u64,
    /// Number of the block that is given next.
    next: u64,
}

impl Cursor {
    /// A cursor over `decoder`, whose next byte is at `out` in the stream.
    pub(super) fn new(decoder: Box<dyn Decoder>, name: Arc<str>, limits: Limits, out: u64) -> Self {
        let next = out.div_ceil(BLOCK_BYTES as u64);
        Self { decoder, name, limits, pending: Vec::new(), out, next }
    }

    /// Number of the block that is given next.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// Length of the stream, once the last block was given.
    pub(super) fn len(&self) -> u64 {
        self.out
    }

    /// The next block. A full block is given only when more is known to follow, so that who reads to the end has met the
    /// checks there.
    pub(super) fn advance(&mut self, mut learn: impl FnMut(Point)) -> Result<Step, UnpackError> {
        let start = self.next.saturating_mul(BLOCK_BYTES as u64);
        loop {
            // A cursor that begins within a block passes over the rest of it.
            if self.out < start {
                let skip = usize::try_from(start - self.out).unwrap_or(usize::MAX).min(self.pending.len());
                self.pending.drain(..skip);
                self.out += skip as u64;
            }
            if self.out == start && self.pending.len() > BLOCK_BYTES {
                let block: Arc<[u8]> = self.pending.get(..BLOCK_BYTES).unwrap_or(&[]).into();
                self.pending.drain(..BLOCK_BYTES);
                self.out += BLOCK_BYTES as u64;
                self.next += 1;
                return Ok(Step::Block(block));
            }
            let Some(bytes) = self.decoder.next()? else { break };
            if self.pending.is_empty() {
                self.pending = bytes;
            } else {
                self.pending.extend_from_slice(&bytes);
            }
            let end = self.out.saturating_add(self.pending.len() as u64);
            self.limits.check_expansion(&self.name, self.decoder.taken(), end)?;
            if let Some((input, state)) = self.decoder.resume() {
                learn(Point { out: end, input, state: state.into() });
            }
        }
        self.out = self.out.saturating_add(self.pending.len() as u64);
        self.next = self.next.saturating_add(1);
        Ok(Step::Last(std::mem::take(&mut self.pending).into()))
    }
}

impl std::fmt::Debug for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cursor").field("next", &self.next).finish_non_exhaustive()
    }
}
