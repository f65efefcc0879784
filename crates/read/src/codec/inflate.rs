//! Decompression: the step that gzip and OpenPGP share, and OpenPGP's compressed packet as a reader.

use std::io::{self, BufRead, Read};

use super::frame::Body;
use super::source::{BUFFER, Ctx, Source};

/// What one step of decompression did.
struct Step {
    consumed: usize,
    produced: usize,
    ended: bool,
}

/// A decompressor's state.
pub(super) enum Inflate {
    /// Raw deflate, or deflate in zlib's frame with its checksum.
    Deflate(Box<flate2::Decompress>),
    /// bzip2 with its checksums.
    Bzip2(Box<bzip2::Decompress>),
}

impl Inflate {
    /// Raw deflate (RFC 1951).
    pub(super) fn raw() -> Self {
        Self::Deflate(Box::new(flate2::Decompress::new(false)))
    }

    /// deflate in zlib's frame (RFC 1950).
    pub(super) fn zlib() -> Self {
        Self::Deflate(Box::new(flate2::Decompress::new(true)))
    }

    /// One bzip2 stream.
    pub(super) fn bzip2() -> Self {
        Self::Bzip2(Box::new(bzip2::Decompress::new(false)))
    }

    fn step(&mut self, input: &[u8], out: &mut [u8]) -> Result<Step, &'static str> {
        match self {
            Self::Deflate(state) => {
                let (before_in, before_out) = (state.total_in(), state.total_out());
                let status = state
                    .decompress(input, out, flate2::FlushDecompress::None)
                    .map_err(|_| "the deflate stream is wrong")?;
                Ok(Step {
                    consumed: distance(before_in, state.total_in()),
                    produced: distance(before_out, state.total_out()),
                    ended: status == flate2::Status::StreamEnd,
                })
            }
            Self::Bzip2(state) => {
                let (before_in, before_out) = (state.total_in(), state.total_out());
                let status = state.decompress(input, out).map_err(|_| "the bzip2 stream is wrong")?;
                Ok(Step {
                    consumed: distance(before_in, state.total_in()),
                    produced: distance(before_out, state.total_out()),
                    ended: status == bzip2::Status::StreamEnd,
                })
            }
        }
    }

    /// Decompresses from `source` into `out` until something was produced or the stream ended: the number of bytes, and
    /// whether the stream is over. Nothing after the stream's last byte is consumed.
    ///
    /// # Errors
    /// Damage when the stream is wrong or `source` ends before it; what `source` gives.
    pub(super) fn read(&mut self, ctx: &Ctx, source: &mut dyn BufRead, out: &mut [u8]) -> io::Result<(usize, bool)> {
        loop {
            let input = source.fill_buf()?;
            let (len, starved) = (input.len(), input.is_empty());
            let step = self.step(input, out).map_err(|what| ctx.damaged(what))?;
            source.consume(step.consumed.min(len));
            if step.produced > 0 || step.ended {
                return Ok((step.produced, step.ended));
            }
            if starved {
                return Err(ctx.damaged("the compressed data are cut short"));
            }
            if step.consumed == 0 {
                return Err(ctx.damaged("the compressed data lead nowhere"));
            }
        }
    }
}

fn distance(before: u64, after: u64) -> usize {
    usize::try_from(after.saturating_sub(before)).unwrap_or(usize::MAX)
}

/// The contents of a compressed packet. Ends only after the stream ended as it must, and with it the packet and all
/// that holds it.
pub(super) struct Unpacked<'a> {
    ctx: Ctx,
    body: Body<Source<'a>>,
    state: Inflate,
    out: Vec<u8>,
    start: usize,
    end: usize,
    stream_ended: bool,
    done: bool,
}

impl<'a> Unpacked<'a> {
    /// Decompresses `body`, whose algorithm octet was read, with `state`.
    pub(super) fn new(ctx: &Ctx, body: Body<Source<'a>>, state: Inflate) -> Self {
        let out = vec![0; BUFFER];
        Self { ctx: ctx.clone(), body, state, out, start: 0, end: 0, stream_ended: false, done: false }
    }
}

impl BufRead for Unpacked<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.start == self.end && !self.done {
            if self.stream_ended {
                self.body.expect_end()?;
                self.done = true;
                break;
            }
            let (produced, ended) = self.state.read(&self.ctx, &mut self.body, &mut self.out)?;
            (self.start, self.end, self.stream_ended) = (0, produced, ended);
        }
        Ok(self.out.get(self.start..self.end).unwrap_or(&[]))
    }

    fn consume(&mut self, amount: usize) {
        self.start = self.end.min(self.start.saturating_add(amount));
    }
}

impl Read for Unpacked<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let mut bytes = self.fill_buf()?;
        let n = bytes.read(buf)?;
        self.consume(n);
        Ok(n)
    }
}
