//! The decompression that gzip and OpenPGP share.

use std::io::{self, BufRead};

use super::object_context::ObjectContext;
use dupfs_base::clamp_len;

/// The result of one step of decompression.
struct DecompressStep {
    consumed: usize,
    produced: usize,
    ended: bool,
}

/// A running decompression of one stream.
pub(super) enum StreamDecompressor {
    /// Raw deflate, or deflate in the zlib format with its checksum.
    Deflate(Box<flate2::Decompress>),
    /// bzip2 with its checksums.
    Bzip2(Box<bzip2::Decompress>),
}

impl StreamDecompressor {
    /// Starts raw deflate (RFC 1951).
    pub(super) fn raw() -> Self {
        Self::Deflate(Box::new(flate2::Decompress::new(false)))
    }

    /// Starts deflate in the zlib format (RFC 1950).
    pub(super) fn zlib() -> Self {
        Self::Deflate(Box::new(flate2::Decompress::new(true)))
    }

    /// Starts one bzip2 stream.
    pub(super) fn bzip2() -> Self {
        Self::Bzip2(Box::new(bzip2::Decompress::new(false)))
    }

    fn step(&mut self, input: &[u8], out: &mut [u8]) -> Result<DecompressStep, &'static str> {
        match self {
            Self::Deflate(state) => {
                let (before_in, before_out) = (state.total_in(), state.total_out());
                let status = state
                    .decompress(input, out, flate2::FlushDecompress::None)
                    .map_err(|_| "the deflate stream is wrong")?;
                Ok(DecompressStep {
                    consumed: distance(before_in, state.total_in(), input),
                    produced: distance(before_out, state.total_out(), out),
                    ended: status == flate2::Status::StreamEnd,
                })
            }
            Self::Bzip2(state) => {
                let (before_in, before_out) = (state.total_in(), state.total_out());
                let status = state.decompress(input, out).map_err(|_| "the bzip2 stream is wrong")?;
                Ok(DecompressStep {
                    consumed: distance(before_in, state.total_in(), input),
                    produced: distance(before_out, state.total_out(), out),
                    ended: status == bzip2::Status::StreamEnd,
                })
            }
        }
    }

    /// Decompresses from `source` into `out` until something was produced or the stream ended. Returns the number of bytes,
    /// and true if the stream has ended. Nothing after the last byte of the stream is consumed.
    ///
    /// # Errors
    /// Damage when the stream is wrong or `source` ends before it, the errors of `source`, and those of the limits of the
    /// decoding: they are checked at each step.
    pub(super) fn read(
        &mut self,
        ctx: &ObjectContext,
        source: &mut dyn BufRead,
        out: &mut [u8],
    ) -> io::Result<(usize, bool)> {
        loop {
            let input = ctx.limits.wait_for_input(|| source.fill_buf())?;
            let (len, starved) = (input.len(), input.is_empty());
            let step = self.step(input, out).map_err(|what| ctx.damaged(what))?;
            source.consume(step.consumed.min(len));
            ctx.count_expanded(step.produced)?;
            if step.produced > 0 || step.ended {
                return Ok((step.produced, step.ended));
            }
            if starved {
                return Err(ctx.damaged("truncated compressed data"));
            }
            if step.consumed == 0 {
                return Err(ctx.damaged("the compressed data make no progress"));
            }
        }
    }
}

/// Returns the progress of one call, which is at most the length of its buffer.
fn distance(before: u64, after: u64, buffer: &[u8]) -> usize {
    clamp_len(after.saturating_sub(before), buffer.len())
}
