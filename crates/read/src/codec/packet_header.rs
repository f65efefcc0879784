//! Headers of OpenPGP packets (RFC 4880 section 4.2).

use std::io::{self, BufRead};

use super::object_context::ObjectContext;

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
pub(super) enum PacketLength {
    /// The number of bytes of the body, or of its last chunk.
    Fixed(u32),
    /// The number of bytes of a chunk that another length follows.
    Partial(u32),
    /// Up to the end of the enclosing data (old format).
    Indeterminate,
}

/// The header of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PacketHeader {
    pub(super) tag: u8,
    pub(super) length: PacketLength,
}

/// Upper bound of the length of a header: a tag and a length of five bytes.
pub(super) const MAX_HEADER: usize = 6;

/// Parses the header at the start of `bytes`. Returns it and its length in bytes, or `Ok(None)` when more bytes are needed
/// (never more than [`MAX_HEADER`]).
///
/// # Errors
/// `Err(())` when the first byte is not that of a packet.
pub(super) fn parse_header(bytes: &[u8]) -> Result<Option<(PacketHeader, usize)>, ()> {
    let Some((&first, rest)) = bytes.split_first() else { return Ok(None) };
    if first & 0x80 == 0 {
        return Err(());
    }
    if first & 0x40 != 0 {
        let parsed = parse_length(rest);
        return Ok(parsed.map(|(length, used)| (PacketHeader { tag: first & 0x3f, length }, used + 1)));
    }
    let tag = (first >> 2) & 0x0f;
    let width = match first & 3 {
        0 => 1,
        1 => 2,
        2 => 4,
        _ => return Ok(Some((PacketHeader { tag, length: PacketLength::Indeterminate }, 1))),
    };
    Ok(big_endian(rest, width).map(|n| (PacketHeader { tag, length: PacketLength::Fixed(n) }, width + 1)))
}

/// Parses a new-format length at the start of `bytes`. Returns it and its size in bytes, or `None` when more are needed.
pub(super) fn parse_length(bytes: &[u8]) -> Option<(PacketLength, usize)> {
    let &first = bytes.first()?;
    match first {
        0..=191 => Some((PacketLength::Fixed(first.into()), 1)),
        192..=223 => {
            let second = *bytes.get(1)?;
            Some((PacketLength::Fixed((u32::from(first) - 192) * 256 + u32::from(second) + 192), 2))
        }
        224..=254 => Some((PacketLength::Partial(1 << (first & 0x1f)), 1)),
        255 => big_endian(bytes.get(1..)?, 4).map(|n| (PacketLength::Fixed(n), 5)),
    }
}

fn big_endian(bytes: &[u8], width: usize) -> Option<u32> {
    Some(bytes.get(..width)?.iter().fold(0, |n, &b| (n << 8) | u32::from(b)))
}

/// Reads the header of a packet. Returns `None` at the end of `source`.
///
/// # Errors
/// Damage when the bytes are no header or end within it, and the errors of `source`.
pub(super) fn read_header(ctx: &ObjectContext, source: &mut dyn BufRead) -> io::Result<Option<PacketHeader>> {
    let mut bytes = Vec::with_capacity(MAX_HEADER);
    loop {
        match parse_header(&bytes) {
            Err(()) => return Err(ctx.damaged("no OpenPGP packet where one must begin")),
            Ok(Some((header, _))) => return Ok(Some(header)),
            Ok(None) => match next_byte(source)? {
                Some(b) => bytes.push(b),
                None if bytes.is_empty() => return Ok(None),
                None => return Err(ctx.damaged("truncated within a packet header")),
            },
        }
    }
}

/// Reads the length of the next chunk of a packet.
///
/// # Errors
/// Damage when `source` ends, and the errors of `source`.
pub(super) fn read_chunk_length(ctx: &ObjectContext, source: &mut dyn BufRead) -> io::Result<PacketLength> {
    let mut bytes = Vec::with_capacity(MAX_HEADER);
    loop {
        match next_byte(source)? {
            Some(b) => bytes.push(b),
            None => return Err(ctx.damaged("truncated between the chunks of a packet")),
        }
        if let Some((length, _)) = parse_length(&bytes) {
            return Ok(length);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn header(bytes: &[u8]) -> Option<(u8, PacketLength, usize)> {
        parse_header(bytes).unwrap().map(|(h, n)| (h.tag, h.length, n))
    }

    #[test]
    fn headers_of_both_formats_are_parsed_as_rfc_4880_section_4_2_gives_them() {
        assert_eq!(header(&[0x8c, 0x0d]), Some((3, PacketLength::Fixed(13), 2)));
        assert_eq!(header(&[0x85, 0x01, 0x0c]), Some((1, PacketLength::Fixed(268), 3)));
        assert_eq!(header(&[0xa3]), Some((8, PacketLength::Indeterminate, 1)));
        assert_eq!(header(&[0xd2, 0xed]), Some((18, PacketLength::Partial(8192), 2)));
        assert_eq!(header(&[0xcb, 0xc5, 0xfb]), Some((11, PacketLength::Fixed(1723), 3)));
        assert_eq!(header(&[0xcb, 0xff, 0, 1, 0x86, 0xa0]), Some((11, PacketLength::Fixed(100_000), 6)));
        assert_eq!(header(&[0xcb, 0xff, 0, 1, 0x86]), None);
        assert!(parse_header(b"x").is_err());
    }
}
