//! Bodies of OpenPGP packets: fixed, partial and indeterminate lengths (RFC 4880 section 4.2).

use std::io::{self, BufRead, Read};

use super::layer::{fill, read_buffered, read_up_to};
use super::object_context::ObjectContext;
use super::packet_header::{PacketLength, read_chunk_length};
use dupfs_base::clamp_len;

/// The body of a packet. Ends (empty `fill_buf`) at the end of the packet, not of the source: see
/// [`PacketBody::expect_end`].
pub(super) struct PacketBody<S> {
    ctx: ObjectContext,
    source: S,
    length: PacketLength,
    /// Bytes that remain of the current chunk.
    left: u32,
    /// Bytes that were put back.
    unread: io::Cursor<Vec<u8>>,
}

impl<S: BufRead> PacketBody<S> {
    /// Creates the body that follows a header with `length` in `source`.
    pub(super) fn new(ctx: &ObjectContext, source: S, length: PacketLength) -> Self {
        Self { ctx: ctx.clone(), source, length, left: chunk_len(length), unread: io::Cursor::default() }
    }

    /// Checks that the body, and the source after it, have ended: the enclosing layers are then verified.
    ///
    /// # Errors
    /// Damage when anything follows, and the errors of the source.
    pub(super) fn expect_end(&mut self) -> io::Result<()> {
        if !self.fill_buf()?.is_empty() {
            return Err(self.ctx.damaged("bytes after the end of the data within a packet"));
        }
        if !self.source.fill_buf()?.is_empty() {
            return Err(self.ctx.damaged("bytes after the last packet"));
        }
        Ok(())
    }

    /// Fills `buf` with bytes of a fixed part of the packet.
    ///
    /// # Errors
    /// Damage when the packet ends before, and the errors of the source.
    pub(super) fn exactly(&mut self, buf: &mut [u8]) -> io::Result<()> {
        let wanted = buf.len();
        if fill(self, buf)? < wanted {
            return Err(self.ctx.damaged("a packet is too short"));
        }
        Ok(())
    }

    /// Reads the whole body of a small packet.
    ///
    /// # Errors
    /// Damage when it is longer than `limit` bytes, and the errors of the source.
    pub(super) fn all(&mut self, limit: usize) -> io::Result<Vec<u8>> {
        let out = read_up_to(self, limit + 1)?;
        if out.len() > limit {
            return Err(self.ctx.damaged("a packet exceeds the maximum length of its type"));
        }
        Ok(out)
    }

    /// Returns the source, which is at the packet's end if the body was read to its end.
    pub(super) fn into_source(self) -> S {
        self.source
    }

    /// Puts back `bytes`, the last ones read.
    pub(super) fn unread(mut self, bytes: Vec<u8>) -> Self {
        self.unread = io::Cursor::new(bytes);
        self
    }

    /// Moves to the chunk that contains the next byte. Afterwards `left` is 0 only at the packet's end.
    fn advance(&mut self) -> io::Result<()> {
        while self.left == 0 && matches!(self.length, PacketLength::Partial(_)) {
            self.length = read_chunk_length(&self.ctx, &mut self.source)?;
            self.left = chunk_len(self.length);
        }
        Ok(())
    }
}

fn chunk_len(length: PacketLength) -> u32 {
    match length {
        PacketLength::Fixed(n) | PacketLength::Partial(n) => n,
        PacketLength::Indeterminate => 0,
    }
}

impl<S: BufRead> BufRead for PacketBody<S> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if !self.unread.fill_buf()?.is_empty() {
            return self.unread.fill_buf();
        }
        if self.length == PacketLength::Indeterminate {
            return self.source.fill_buf();
        }
        self.advance()?;
        if self.left == 0 {
            return Ok(&[]);
        }
        let bytes = self.source.fill_buf()?;
        if bytes.is_empty() {
            return Err(self.ctx.damaged("truncated within a packet"));
        }
        let end = clamp_len(self.left.into(), bytes.len());
        Ok(bytes.get(..end).unwrap_or(bytes))
    }

    fn consume(&mut self, amount: usize) {
        if !self.unread.fill_buf().unwrap_or(&[]).is_empty() {
            return self.unread.consume(amount);
        }
        self.source.consume(amount);
        // `fill_buf` never gives more than the rest of the chunk, so `amount` fits.
        self.left = u32::try_from(amount).map_or(0, |amount| self.left.saturating_sub(amount));
    }
}

impl<S: BufRead> Read for PacketBody<S> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        read_buffered(self, buf)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_in_partial_chunks_is_joined_and_ends_with_the_last_chunk() {
        let ctx = ObjectContext::new("x");
        let bytes: &[u8] = &[1, 2, 0xe0, 3, 1, 4, 9];
        let mut body = PacketBody::new(&ctx, bytes, PacketLength::Partial(2));
        assert_eq!(body.all(10).unwrap(), [1, 2, 3, 4]);
        assert!(body.expect_end().unwrap_err().to_string().contains("after the last packet"));
        assert_eq!(body.into_source(), [9]);
        for cut in 0..5 {
            let mut body = PacketBody::new(&ctx, bytes.get(..cut).unwrap(), PacketLength::Partial(2));
            body.all(10).unwrap_err();
        }
    }
}
