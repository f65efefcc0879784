//! The encoding of numbers and strings in records. Decoding accepts any bytes: it returns `None` for invalid input,
//! does not panic, and allocates no more than the length of the input.

use dupfs_base::common_prefix_len;

/// Encodes fields one after the other.
#[derive(Clone, Debug, Default)]
pub struct RecordEncoder {
    /// The encoded fields.
    pub out: Vec<u8>,
}

impl RecordEncoder {
    /// Appends `value` in as few bytes as it needs, seven bits each, the low ones first.
    pub fn number(&mut self, mut value: u64) {
        while value > 0x7f {
            self.out.push(low_byte(value) | 0x80);
            value >>= 7;
        }
        self.out.push(low_byte(value));
    }

    /// Appends a number that may be negative; a small absolute value takes few bytes.
    pub fn signed(&mut self, value: i64) {
        let folded = (value << 1) ^ (value >> 63);
        self.number(u64::from_ne_bytes(folded.to_ne_bytes()));
    }

    /// Appends one byte.
    pub fn byte(&mut self, value: u8) {
        self.out.push(value);
    }

    /// Appends the length of `bytes`, and the bytes.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.out.extend_from_slice(bytes);
    }

    /// Appends `text` as the length of the prefix it shares with `previous`, and the rest of it.
    pub fn text_after(&mut self, previous: &[u8], text: &[u8]) {
        let shared = common_prefix_len(previous, text);
        self.number(shared as u64);
        self.bytes(text.get(shared..).unwrap_or(&[]));
    }
}

/// The low eight bits.
fn low_byte(value: u64) -> u8 {
    let [low, ..] = value.to_le_bytes();
    low
}

/// Decodes fields one after the other.
#[derive(Clone, Debug)]
pub struct RecordDecoder<'a> {
    rest: &'a [u8],
}

impl<'a> RecordDecoder<'a> {
    /// A decoder at the start of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Returns true if no byte remains.
    pub fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }

    /// Number of bytes that remain. No list that follows has more items.
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// The next `len` bytes.
    pub fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.rest.split_at_checked(len)?;
        self.rest = tail;
        Some(head)
    }

    /// The next byte.
    pub fn byte(&mut self) -> Option<u8> {
        let (&first, tail) = self.rest.split_first()?;
        self.rest = tail;
        Some(first)
    }

    /// Decodes a number of [`RecordEncoder::number`].
    pub fn number(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return None;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    /// Decodes a number of [`RecordEncoder::number`] that fits 32 bits.
    pub fn number_u32(&mut self) -> Option<u32> {
        self.number().and_then(|n| u32::try_from(n).ok())
    }

    /// Decodes the number of the items that follow, of at least one byte each.
    pub fn count(&mut self) -> Option<usize> {
        self.number().and_then(|n| usize::try_from(n).ok()).filter(|&n| n <= self.remaining())
    }

    /// Decodes a number of [`RecordEncoder::signed`].
    pub fn signed(&mut self) -> Option<i64> {
        let folded = self.number()?;
        let half = i64::from_ne_bytes((folded >> 1).to_ne_bytes());
        Some(if folded & 1 == 0 { half } else { !half })
    }

    /// Decodes the bytes of [`RecordEncoder::bytes`].
    pub fn bytes(&mut self) -> Option<&'a [u8]> {
        let len = usize::try_from(self.number()?).ok()?;
        self.take(len)
    }

    /// Decodes a text of [`RecordEncoder::text_after`]: `text` is the previous one, and becomes the decoded one.
    pub fn text_after(&mut self, text: &mut Vec<u8>) -> Option<()> {
        let shared = usize::try_from(self.number()?).ok().filter(|&n| n <= text.len())?;
        let rest = self.bytes()?;
        text.truncate(shared);
        text.extend_from_slice(rest);
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encoded_numbers_are_decoded() {
        let numbers = [0, 1, 127, 128, 300, u64::from(u32::MAX), i64::MAX.unsigned_abs(), u64::MAX];
        let signed = [0, -1, 1, i64::MIN, i64::MAX, -1_700_000_000];
        let mut encoder = RecordEncoder::default();
        numbers.iter().for_each(|&n| encoder.number(n));
        signed.iter().for_each(|&n| encoder.signed(n));
        let mut decoder = RecordDecoder::new(&encoder.out);
        assert!(numbers.iter().all(|&n| decoder.number() == Some(n)));
        assert!(signed.iter().all(|&n| decoder.signed() == Some(n)));
        assert!(decoder.is_at_end() && decoder.byte().is_none() && decoder.number().is_none());
        assert_eq!(RecordDecoder::new(&[0xff; 10]).number(), None);
        assert_eq!(RecordDecoder::new(&[0x80; 11]).number(), None);
    }

    #[test]
    fn encoded_texts_are_decoded_after_their_predecessors() {
        let texts = ["", "a/b", "a/bc/d", "a/bc", "z"];
        let (mut encoder, mut previous) = (RecordEncoder::default(), "");
        for text in texts {
            encoder.text_after(previous.as_bytes(), text.as_bytes());
            previous = text;
        }
        let (mut decoder, mut text) = (RecordDecoder::new(&encoder.out), Vec::new());
        for expected in texts {
            decoder.text_after(&mut text).unwrap();
            assert_eq!(text, expected.as_bytes());
        }
        assert!(RecordDecoder::new(&[1, 0]).text_after(&mut Vec::new()).is_none());
        assert!(RecordDecoder::new(&[0, 9, 1]).text_after(&mut Vec::new()).is_none());
    }
}
