//! ASCII armour (RFC 4880 section 6): base64 in lines, between a BEGIN and an END line.

use std::io::{self, BufRead, Read};

use super::layer::{LayerReader, read_buffered};
use super::object_context::ObjectContext;

/// The first bytes of an armoured message.
pub(super) const BEGIN_MESSAGE: &[u8] = b"-----BEGIN PGP MESSAGE-----";

/// Upper bound of the length of a line; gpg writes 64 bytes.
const MAX_LINE: u64 = 4096;

/// Reads the binary contents of an armoured block. Ends only after the END line, the checksum if there is one, and nothing
/// but white space after them.
pub(super) struct ArmorReader<'a> {
    ctx: ObjectContext,
    source: LayerReader<'a>,
    label: Vec<u8>,
    started: bool,
    done: bool,
    crc: u32,
    padded: bool,
    out: Vec<u8>,
    start: usize,
}

impl<'a> ArmorReader<'a> {
    /// Creates a reader of the block that begins at the start of `source`.
    pub(super) fn new(ctx: &ObjectContext, source: LayerReader<'a>) -> Self {
        Self {
            ctx: ctx.clone(),
            source,
            label: Vec::new(),
            started: false,
            done: false,
            crc: CRC_INIT,
            padded: false,
            out: Vec::new(),
            start: 0,
        }
    }

    /// Reads the next line, without its end and trailing white space. Returns `None` at the end of the source.
    fn line(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut line = Vec::with_capacity(80);
        if (&mut self.source).take(MAX_LINE).read_until(b'\n', &mut line)? == 0 {
            return Ok(None);
        }
        if line.len() as u64 >= MAX_LINE {
            return Err(self.ctx.damaged("a line of the armour is too long"));
        }
        line.truncate(line.trim_ascii_end().len());
        Ok(Some(line))
    }

    fn required_line(&mut self) -> io::Result<Vec<u8>> {
        self.line()?.ok_or_else(|| self.ctx.damaged("truncated armour"))
    }

    fn begin(&mut self) -> io::Result<()> {
        let first = self.required_line()?;
        let label = first.strip_prefix(b"-----BEGIN ").and_then(|rest| rest.strip_suffix(b"-----"));
        self.label = label.ok_or_else(|| self.ctx.damaged("no armour where it must begin"))?.to_vec();
        while !self.required_line()?.is_empty() {}
        self.started = true;
        Ok(())
    }

    fn refill(&mut self) -> io::Result<()> {
        if !self.started {
            self.begin()?;
        }
        self.out.clear();
        self.start = 0;
        while self.out.len() < 4096 {
            let line = self.required_line()?;
            if line.first() == Some(&b'-') {
                return self.finish(&line);
            }
            if let Some(sum) = line.strip_prefix(b"=").filter(|rest| rest.len() == 4) {
                let mut expected = Vec::new();
                decode(sum, &mut expected)
                    .ok_or_else(|| self.ctx.damaged("the checksum of the armour is not base64"))?;
                self.check(&expected)?;
                let end = self.required_line()?;
                return self.finish(&end);
            }
            if self.padded && !line.is_empty() {
                return Err(self.ctx.damaged("base64 continues after its padding"));
            }
            let from = self.out.len();
            self.padded |= decode(&line, &mut self.out).ok_or_else(|| self.ctx.damaged("the armour is not base64"))?;
            self.crc = crc24(self.crc, self.out.get(from..).unwrap_or(&[]));
        }
        Ok(())
    }

    fn check(&self, expected: &[u8]) -> io::Result<()> {
        let [_, sum @ ..] = self.crc.to_be_bytes();
        if expected == sum { Ok(()) } else { Err(self.ctx.damaged("the checksum of the armour is wrong")) }
    }

    fn finish(&mut self, line: &[u8]) -> io::Result<()> {
        let label = line.strip_prefix(b"-----END ").and_then(|rest| rest.strip_suffix(b"-----"));
        if label != Some(self.label.as_slice()) {
            return Err(self.ctx.damaged("the armour has no proper end line"));
        }
        while let Some(line) = self.line()? {
            if !line.is_empty() {
                return Err(self.ctx.damaged("bytes after the armour"));
            }
        }
        self.done = true;
        Ok(())
    }
}

impl BufRead for ArmorReader<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.start >= self.out.len() && !self.done {
            self.refill()?;
        }
        Ok(self.out.get(self.start..).unwrap_or(&[]))
    }

    fn consume(&mut self, amount: usize) {
        self.start = self.out.len().min(self.start.saturating_add(amount));
    }
}

impl Read for ArmorReader<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        read_buffered(self, buf)
    }
}

/// Appends the bytes of one line of base64 to `out`. Returns true if it ended in padding, and `None` if it is not base64 of
/// whole groups of four.
fn decode(line: &[u8], out: &mut Vec<u8>) -> Option<bool> {
    let (groups, rest) = line.as_chunks::<4>();
    if !rest.is_empty() {
        return None;
    }
    let mut padded = false;
    for group in groups {
        if padded {
            return None;
        }
        let letters = group.iter().position(|&c| c == b'=').unwrap_or(4);
        if letters < 2 || group.iter().skip(letters).any(|&c| c != b'=') {
            return None;
        }
        let mut bits = 0_u32;
        for &c in group {
            bits = (bits << 6) | if c == b'=' { 0 } else { sextet(c)? };
        }
        let [_, bytes @ ..] = bits.to_be_bytes();
        out.extend_from_slice(bytes.get(..letters - 1)?);
        padded = letters < 4;
    }
    Some(padded)
}

fn sextet(c: u8) -> Option<u32> {
    Some(u32::from(match c {
        b'A'..=b'Z' => c - b'A',
        b'a'..=b'z' => c - b'a' + 26,
        b'0'..=b'9' => c - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    }))
}

const CRC_INIT: u32 = 0x00b7_04ce;

/// Updates the checksum of the armour (RFC 4880 section 6.1).
fn crc24(crc: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(crc, |crc, &b| {
        (0..8).fold(crc ^ (u32::from(b) << 16), |crc, _| {
            let shifted = crc << 1;
            if shifted & 0x0100_0000 == 0 { shifted } else { shifted ^ 0x0186_4cfb }
        }) & 0x00ff_ffff
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dearmor(text: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        ArmorReader::new(&ObjectContext::new("x"), Box::new(io::Cursor::new(text.to_vec()))).read_to_end(&mut out)?;
        Ok(out)
    }

    const TEXT: &[u8] =
        b"-----BEGIN PGP MESSAGE-----\r\nVersion: x\r\n\r\naGVsbG8g\r\nd29ybGQK\r\n-----END PGP MESSAGE-----\r\n\n";

    #[test]
    fn a_block_is_decoded_and_checked_to_its_end() {
        assert_eq!(dearmor(TEXT).unwrap(), b"hello world\n");
        dearmor(&[TEXT, b"x"].concat()).unwrap_err();
        for cut in 0..TEXT.len() - 5 {
            dearmor(TEXT.get(..cut).unwrap()).unwrap_err();
        }
        dearmor(b"-----BEGIN PGP MESSAGE-----\n\naGVsbG8g\n=AAAA\n-----END PGP MESSAGE-----\n").unwrap_err();
    }

    #[test]
    fn base64_is_strict_about_its_padding() {
        let mut out = Vec::new();
        assert_eq!(decode(b"aGk=", &mut out), Some(true));
        assert_eq!(decode(b"aA==", &mut out), Some(true));
        assert_eq!(out, b"hih");
        for bad in ["a", "a===", "=aaa", "aA==aA==", "aA=a", "aa-a"] {
            assert_eq!(decode(bad.as_bytes(), &mut out), None, "{bad}");
        }
    }
}
