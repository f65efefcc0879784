//! OpenPGP's compressed packet as a reader (RFC 4880 section 5.6).

use std::io::{self, BufRead, Read};

use super::layer::{BUFFER, LayerReader, read_buffered};
use super::object_context::ObjectContext;
use super::packet_body::PacketBody;
use super::stream_decompressor::StreamDecompressor;

/// Reads the contents of a compressed packet. Ends only after the compressed stream, the packet and everything that
/// encloses it have ended correctly.
pub(super) struct CompressedPacket<'a> {
    ctx: ObjectContext,
    body: PacketBody<LayerReader<'a>>,
    state: StreamDecompressor,
    out: Vec<u8>,
    start: usize,
    end: usize,
    stream_ended: bool,
    done: bool,
}

impl<'a> CompressedPacket<'a> {
    /// Creates a reader that decompresses `body`, whose algorithm octet was read, with `state`.
    pub(super) fn new(ctx: &ObjectContext, body: PacketBody<LayerReader<'a>>, state: StreamDecompressor) -> Self {
        let out = vec![0; BUFFER];
        Self { ctx: ctx.clone(), body, state, out, start: 0, end: 0, stream_ended: false, done: false }
    }
}

impl BufRead for CompressedPacket<'_> {
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

impl Read for CompressedPacket<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        read_buffered(self, buf)
    }
}

/// Reads the contents of a compressed packet whose algorithm is "uncompressed". Ends as [`CompressedPacket`] does.
pub(super) struct UncompressedPacket<'a>(pub(super) PacketBody<LayerReader<'a>>);

impl BufRead for UncompressedPacket<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.0.fill_buf()?.is_empty() {
            self.0.expect_end()?;
        }
        self.0.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        self.0.consume(amount);
    }
}

impl Read for UncompressedPacket<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        read_buffered(self, buf)
    }
}
