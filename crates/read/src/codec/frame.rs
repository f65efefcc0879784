//! OpenPGP packet framing (RFC 4880 section 4.2): headers, fixed, partial and indeterminate lengths.

use std::io::{self, BufRead, Read};

use super::source::Ctx;

/// Packet tags used here (RFC 4880 section 4.3; 20 from LibrePGP).
pub(super) mod tag {
    pub(crate) const PKESK: u8 = 1;
    pub(crate) const SIGNATURE: u8 = 2;
    pub(crate) const SKESK: u8 = 3;
    pub(crate) const ONE_PASS: u8 = 4;
    pub(crate) const COMPRESSED: u8 = 8;
    pub(crate) const SED: u8 = 9;
    pub(crate) const MARKER: u8 = 10;
    pub(crate) const LITERAL: u8 = 11;
    pub(crate) const SEIPD: u8 = 18;
    pub(crate) const OCB: u8 = 20;
}

/// The length of a packet's body, or of its first chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Length {
    /// All of the body, or its last chunk: this many bytes.
    Fixed(u32),
    /// A chunk of this many bytes; another length follows it.
    Partial(u32),
    /// Up to the end of what holds the packet (old format).
    Indeterminate,
}

/// A packet's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) tag: u8,
    pub(super) length: Length,
}

/// Longest header: a tag and a five-byte length.
pub(super) const MAX_HEADER: usize = 6;

/// Parses the header at the start of `bytes`: the header and its length in bytes; `Ok(None)` when more bytes are needed
/// (never more than [`MAX_HEADER`]).
///
/// # Errors
/// `Err(())` when the first byte is not one of a packet.
pub(super) fn parse_header(bytes: &[u8]) -> Result<Option<(Header, usize)>, ()> {
    let Some((&first, rest)) = bytes.split_first() else { return Ok(None) };
    if first & 0x80 == 0 {
        return Err(());
    }
    if first & 0x40 != 0 {
        let parsed = parse_length(rest);
        return Ok(parsed.map(|(length, used)| (Header { tag: first & 0x3f, length }, used + 1)));
    }
    let tag = (first >> 2) & 0x0f;
    let width = match first & 3 {
        0 => 1,
        1 => 2,
        2 => 4,
        _ => return Ok(Some((Header { tag, length: Length::Indeterminate }, 1))),
    };
    Ok(big_endian(rest, width).map(|n| (Header { tag, length: Length::Fixed(n) }, width + 1)))
}

/// Parses a new-format length at the start of `bytes`: the length and its size in bytes; `None` when more are needed.
pub(super) fn parse_length(bytes: &[u8]) -> Option<(Length, usize)> {
    let &first = bytes.first()?;
    match first {
        0..=191 => Some((Length::Fixed(first.into()), 1)),
        192..=223 => {
            let second = *bytes.get(1)?;
            Some((Length::Fixed((u32::from(first) - 192) * 256 + u32::from(second) + 192), 2))
        }
        224..=254 => Some((Length::Partial(1 << (first & 0x1f)), 1)),
        255 => big_endian(bytes.get(1..)?, 4).map(|n| (Length::Fixed(n), 5)),
    }
}

fn big_endian(bytes: &[u8], width: usize) -> Option<u32> {
    Some(bytes.get(..width)?.iter().fold(0, |n, &b| (n << 8) | u32::from(b)))
}

/// Reads a packet's header; `None` at the end of `source`.
///
/// # Errors
/// What `source` gives, and damage when the bytes are no header or end within it.
pub(super) fn read_header(ctx: &Ctx, source: &mut dyn BufRead) -> io::Result<Option<Header>> {
    let mut bytes = Vec::with_capacity(MAX_HEADER);
    loop {
        match parse_header(&bytes) {
            Err(()) => return Err(ctx.damaged("no OpenPGP packet where one must begin")),
            Ok(Some((header, _))) => return Ok(Some(header)),
            Ok(None) => match next_byte(source)? {
                Some(b) => bytes.push(b),
                None if bytes.is_empty() => return Ok(None),
                None => return Err(ctx.damaged("ends within a packet header")),
            },
        }
    }
}

fn next_byte(source: &mut dyn BufRead) -> io::Result<Option<u8>> {
    let byte = source.fill_buf()?.first().copied();
    if byte.is_some() {
        source.consume(1);
    }
    Ok(byte)
}

/// A packet's body. Ends (empty `fill_buf`) at the end of the packet, not of the source: see [`Body::expect_end`].
pub(super) struct Body<S> {
    ctx: Ctx,
    source: S,
    length: Length,
    left: u32,
    unread: io::Cursor<Vec<u8>>,
}

impl<S: BufRead> Body<S> {
    /// The body that follows a header with `length` in `source`.
    pub(super) fn new(ctx: &Ctx, source: S, length: Length) -> Self {
        Self { ctx: ctx.clone(), source, length, left: chunk(length), unread: io::Cursor::default() }
    }

    /// Checks that the body, and the source after it, have ended: whatever encloses the packet was verified.
    ///
    /// # Errors
    /// Damage when anything follows, and what the source gives.
    pub(super) fn expect_end(&mut self) -> io::Result<()> {
        if !self.fill_buf()?.is_empty() {
            return Err(self.ctx.damaged("bytes after the end of the data within a packet"));
        }
        if !self.source.fill_buf()?.is_empty() {
            return Err(self.ctx.damaged("bytes after the last packet"));
        }
        Ok(())
    }

    /// Reads exactly `buf.len()` bytes of a fixed part of the packet.
    pub(super) fn exactly(&mut self, buf: &mut [u8]) -> io::Result<()> {
        let wanted = buf.len();
        if super::source::fill(self, buf)? < wanted {
            return Err(self.ctx.damaged("a packet is too short"));
        }
        Ok(())
    }

    /// The whole body of a small packet.
    ///
    /// # Errors
    /// Damage when it is longer than `limit` bytes, and what the source gives.
    pub(super) fn all(&mut self, limit: usize) -> io::Result<Vec<u8>> {
        let out = super::source::take(self, limit + 1)?;
        if out.len() > limit {
            return Err(self.ctx.damaged("a packet is longer than its kind can be"));
        }
        Ok(out)
    }

    /// The source, at the packet's end if the body was read to its end.
    pub(super) fn into_source(self) -> S {
        self.source
    }

    /// Puts `bytes`, the last ones read, back.
    pub(super) fn unread(mut self, bytes: Vec<u8>) -> Self {
        self.unread = io::Cursor::new(bytes);
        self
    }

    /// Goes to the chunk that holds the next byte; afterwards `left` is 0 only at the packet's end.
    fn advance(&mut self) -> io::Result<()> {
        while self.left == 0 && matches!(self.length, Length::Partial(_)) {
            let mut bytes = Vec::with_capacity(MAX_HEADER);
            self.length = loop {
                match next_byte(&mut self.source)? {
                    Some(b) => bytes.push(b),
                    None => return Err(self.ctx.damaged("cut short between the chunks of a packet")),
                }
                if let Some((length, _)) = parse_length(&bytes) {
                    break length;
                }
            };
            self.left = chunk(self.length);
        }
        Ok(())
    }
}

fn chunk(length: Length) -> u32 {
    match length {
        Length::Fixed(n) | Length::Partial(n) => n,
        Length::Indeterminate => 0,
    }
}

impl<S: BufRead> BufRead for Body<S> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if !self.unread.fill_buf()?.is_empty() {
            return self.unread.fill_buf();
        }
        if self.length == Length::Indeterminate {
            return self.source.fill_buf();
        }
        self.advance()?;
        if self.left == 0 {
            return Ok(&[]);
        }
        let bytes = self.source.fill_buf()?;
        if bytes.is_empty() {
            return Err(self.ctx.damaged("cut short within a packet"));
        }
        let len = bytes.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        Ok(bytes.get(..len).unwrap_or(bytes))
    }

    fn consume(&mut self, amount: usize) {
        if !self.unread.fill_buf().unwrap_or(&[]).is_empty() {
            return self.unread.consume(amount);
        }
        self.source.consume(amount);
        self.left = self.left.saturating_sub(u32::try_from(amount).unwrap_or(u32::MAX));
    }
}

impl<S: BufRead> Read for Body<S> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let bytes = self.fill_buf()?;
        let n = bytes.len().min(buf.len());
        if let (Some(to), Some(from)) = (buf.get_mut(..n), bytes.get(..n)) {
            to.copy_from_slice(from);
        }
        self.consume(n);
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(bytes: &[u8]) -> Option<(u8, Length, usize)> {
        parse_header(bytes).unwrap().map(|(h, n)| (h.tag, h.length, n))
    }

    #[test]
    fn headers_of_both_formats_are_parsed_as_rfc_4880_section_4_2_gives_them() {
        assert_eq!(header(&[0x8c, 0x0d]), Some((3, Length::Fixed(13), 2)));
        assert_eq!(header(&[0x85, 0x01, 0x0c]), Some((1, Length::Fixed(268), 3)));
        assert_eq!(header(&[0xa3]), Some((8, Length::Indeterminate, 1)));
        assert_eq!(header(&[0xd2, 0xed]), Some((18, Length::Partial(8192), 2)));
        assert_eq!(header(&[0xcb, 0xc5, 0xfb]), Some((11, Length::Fixed(1723), 3)));
        assert_eq!(header(&[0xcb, 0xff, 0, 1, 0x86, 0xa0]), Some((11, Length::Fixed(100_000), 6)));
        assert_eq!(header(&[0xcb, 0xff, 0, 1, 0x86]), None);
        assert!(parse_header(b"x").is_err());
    }

    #[test]
    fn a_body_in_partial_chunks_is_joined_and_ends_where_the_last_chunk_says() {
        let ctx = Ctx::new("x");
        let bytes: &[u8] = &[1, 2, 0xe0, 3, 1, 4, 9];
        let mut body = Body::new(&ctx, bytes, Length::Partial(2));
        assert_eq!(body.all(10).unwrap(), [1, 2, 3, 4]);
        assert!(body.expect_end().unwrap_err().to_string().contains("after the last packet"));
        assert_eq!(body.into_source(), [9]);
        for cut in 0..5 {
            let mut body = Body::new(&ctx, bytes.get(..cut).unwrap(), Length::Partial(2));
            body.all(10).unwrap_err();
        }
    }
}
