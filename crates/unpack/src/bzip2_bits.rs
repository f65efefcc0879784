//! Bits of bzip2 streams, whose blocks begin at any bit.

/// The magic at the start of a block.
pub(super) const BLOCK_MAGIC: u64 = 0x3141_5926_5359;
/// The magic at the end of a stream.
pub(super) const END_MAGIC: u64 = 0x1772_4538_5090;
/// Bits of either.
pub(super) const MAGIC_BITS: u64 = 48;

/// Bytes at the beginning of each piece of input that are examined one by one, together with the bytes before.
const HEAD: usize = 8;

const MASK: u64 = (1 << MAGIC_BITS) - 1;

/// A position where a block or the end of a stream seems to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BlockMark {
    /// Its first bit, counted from the start of the input.
    pub(super) bit: u64,
    /// True if it is a stream's end.
    pub(super) end: bool,
}

/// Finds the magics at any bit, in input that comes in pieces of any size.
#[derive(Debug)]
pub(super) struct MarkScanner {
    /// For each value of a byte, the shifts at which it can be the last but one byte of a magic.
    shifts: Box<[u8; 256]>,
    /// For each pair of bytes, a bit that is set if the pair can be within a magic.
    pairs: Box<[u8; 1 << 13]>,
    register: u64,
    /// Bytes of the input before the next.
    offset: u64,
    /// Bytes in the register, at most 8.
    filled: u64,
}

impl MarkScanner {
    /// A scanner of the input from byte `offset` on.
    pub(super) fn new(offset: u64) -> Self {
        let mut shifts = Box::new([0_u8; 256]);
        for shift in 0..8_u32 {
            for magic in [BLOCK_MAGIC, END_MAGIC] {
                let [.., byte, _] = (magic << shift).to_be_bytes();
                if let Some(slot) = shifts.get_mut(usize::from(byte)) {
                    *slot |= 1 << shift;
                }
            }
        }
        let mut pairs = Box::new([0_u8; 1 << 13]);
        for magic in [BLOCK_MAGIC, END_MAGIC] {
            for shift in 0..=MAGIC_BITS - 16 {
                let [.., high, low] = (magic >> shift).to_be_bytes();
                let (slot, bit) = slot_of(high, low);
                if let Some(slot) = pairs.get_mut(slot) {
                    *slot |= bit;
                }
            }
        }
        Self { shifts, pairs, register: 0, offset, filled: 0 }
    }

    /// Scans the next bytes.
    pub(super) fn scan(&mut self, bytes: &[u8], found: &mut Vec<BlockMark>) {
        let before = self.offset;
        let (head, rest) = bytes.split_at(bytes.len().min(HEAD));
        head.iter().for_each(|&byte| self.step(byte, found));
        if rest.is_empty() {
            return;
        }
        // A magic whose last bit is in byte `end` fills the five bytes before it, and one of the four pairs in them begins at a
        // multiple of four.
        for (quad, four) in bytes.chunks_exact(4).enumerate().skip(1) {
            if matches!(*four, [high, low, ..] if self.may_be_within(high, low)) {
                let ends = (quad * 4 + 2..quad * 4 + 6).filter(|&end| end >= HEAD);
                ends.for_each(|end| self.find_ending_at(before, bytes, end, found));
            }
        }
        // The last pair may begin in the remainder of less than four bytes.
        if let [a, b, ..] = *bytes.chunks_exact(4).remainder()
            && self.may_be_within(a, b)
        {
            let quad = bytes.len() / 4 * 4;
            (quad + 2..bytes.len())
                .filter(|&end| end >= HEAD)
                .for_each(|end| self.find_ending_at(before, bytes, end, found));
        }
        self.move_to(before, bytes, bytes.len() - 1);
    }

    fn may_be_within(&self, high: u8, low: u8) -> bool {
        let (slot, bit) = slot_of(high, low);
        self.pairs.get(slot).is_some_and(|bits| bits & bit != 0)
    }

    /// Looks for magics that end in byte `end` of `bytes`, which began at `before`.
    fn find_ending_at(&mut self, before: u64, bytes: &[u8], end: usize, found: &mut Vec<BlockMark>) {
        if self.move_to(before, bytes, end) {
            let [.., last, _] = self.register.to_be_bytes();
            self.check(self.shifts.get(usize::from(last)).copied().unwrap_or(0), found);
        }
    }

    /// Moves as if the bytes up to `end` had been scanned, at least [`HEAD`] of them.
    fn move_to(&mut self, before: u64, bytes: &[u8], end: usize) -> bool {
        let Some(last) = bytes.get(..=end).and_then(|seen| seen.last_chunk::<8>()) else { return false };
        self.register = u64::from_be_bytes(*last);
        self.offset = before + end as u64 + 1;
        self.filled = 8;
        true
    }

    fn step(&mut self, byte: u8, found: &mut Vec<BlockMark>) {
        let [.., last] = self.register.to_be_bytes();
        self.register = (self.register << 8) | u64::from(byte);
        self.offset += 1;
        self.filled = (self.filled + 1).min(8);
        self.check(self.shifts.get(usize::from(last)).copied().unwrap_or(0), found);
    }

    fn check(&self, shifts: u8, found: &mut Vec<BlockMark>) {
        for shift in (0..8_u64).rev().filter(|shift| shifts >> shift & 1 == 1) {
            let value = (self.register >> shift) & MASK;
            let complete = self.filled * 8 >= MAGIC_BITS + shift;
            if complete && (value == BLOCK_MAGIC || value == END_MAGIC) {
                let bit = self.offset.saturating_mul(8) - MAGIC_BITS - shift;
                found.push(BlockMark { bit, end: value == END_MAGIC });
            }
        }
    }
}

/// The location of the bit of a pair of bytes in a table of all pairs: the byte, and the bit in it.
fn slot_of(high: u8, low: u8) -> (usize, u8) {
    (usize::from(high) << 5 | usize::from(low >> 3), 1 << (low & 7))
}

/// The `count` (at most 48) bits at `bit` of `bytes`.
pub(super) fn bits_at(bytes: &[u8], bit: u64, count: u64) -> Option<u64> {
    let first = usize::try_from(bit / 8).ok()?;
    let last = usize::try_from(bit.checked_add(count)?.div_ceil(8)).ok()?;
    let value = bytes.get(first..last)?.iter().fold(0_u64, |value, &b| (value << 8) | u64::from(b));
    let spare = last as u64 * 8 - (bit + count);
    Some((value >> spare) & ((1 << count) - 1))
}

/// Appends bits to bytes.
#[derive(Debug)]
pub(super) struct BitWriter {
    pub(super) bytes: Vec<u8>,
    /// Bits used in the last byte; 0 for all.
    used: u32,
}

impl BitWriter {
    pub(super) fn new(bytes: Vec<u8>) -> Self {
        Self { bytes, used: 0 }
    }

    /// Appends the bits from `start` to `end` of `bytes`; only on a byte's boundary.
    pub(super) fn copy(&mut self, bytes: &[u8], start: u64, end: u64) -> Option<()> {
        let first = usize::try_from(start / 8).ok()?;
        let last = usize::try_from(end.div_ceil(8)).ok()?;
        let (left, len) = (u32::try_from(start % 8).ok()?, usize::try_from((end - start).div_ceil(8)).ok()?);
        let from = bytes.get(first..last)?;
        if left == 0 {
            self.bytes.extend_from_slice(from.get(..len)?);
        } else {
            let right = 8 - left;
            let next = from.iter().skip(1).copied().chain([0]);
            self.bytes.extend(from.iter().zip(next).map(|(&a, b)| (a << left) | (b >> right)).take(len));
        }
        self.used = u32::try_from((end - start) % 8).ok()?;
        if self.used > 0
            && let Some(byte) = self.bytes.last_mut()
        {
            *byte &= 0xff << (8 - self.used);
        }
        Some(())
    }

    /// Appends the lowest `count` bits of `value`.
    pub(super) fn push(&mut self, value: u64, count: u32) {
        for bit in (0..count).rev() {
            let one = u8::from(value >> bit & 1 == 1);
            if self.used == 0 {
                self.bytes.push(one << 7);
            } else if let Some(byte) = self.bytes.last_mut() {
                *byte |= one << (7 - self.used);
            }
            self.used = (self.used + 1) % 8;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn magics_are_found_at_every_bit_and_in_any_chunking() {
        for shift in 0..8 {
            let mut writer = BitWriter::new(vec![0xff; 3]);
            writer.push(0, shift);
            writer.push(BLOCK_MAGIC, 48);
            writer.push(0x5a5a, 16);
            writer.push(END_MAGIC, 48);
            let wanted = [
                BlockMark { bit: 24 + u64::from(shift), end: false },
                BlockMark { bit: 24 + u64::from(shift) + 64, end: true },
            ];
            for step in [1, 2, 5, 9, 10, 11, 12, 13, 17, 100] {
                let (mut scanner, mut found) = (MarkScanner::new(10), Vec::new());
                writer.bytes.chunks(step).for_each(|chunk| scanner.scan(chunk, &mut found));
                let wanted: Vec<_> = wanted.iter().map(|m| BlockMark { bit: m.bit + 80, ..*m }).collect();
                assert_eq!(found, wanted);
            }
            assert_eq!(bits_at(&writer.bytes, 24 + u64::from(shift), 48), Some(BLOCK_MAGIC));
        }
    }

    #[test]
    fn every_position_is_searched() {
        for lead in 0..40_u8 {
            for bit in 0..8 {
                let mut writer = BitWriter::new((0..lead).map(|i| i.wrapping_mul(89)).collect());
                writer.push(0b1011_0110 >> (8 - bit), bit);
                writer.push(END_MAGIC, 48);
                writer.push(BLOCK_MAGIC, 48);
                let (mut scanner, mut found) = (MarkScanner::new(0), Vec::new());
                scanner.scan(&writer.bytes, &mut found);
                let first = u64::from(lead) * 8 + u64::from(bit);
                let wanted = [BlockMark { bit: first, end: true }, BlockMark { bit: first + 48, end: false }];
                assert_eq!(found, wanted, "{lead} bytes and {bit} bits before");
                for cut in 1..writer.bytes.len() {
                    let (mut scanner, mut found) = (MarkScanner::new(0), Vec::new());
                    let (a, b) = writer.bytes.split_at(cut);
                    scanner.scan(a, &mut found);
                    scanner.scan(b, &mut found);
                    assert_eq!(found, wanted, "{lead} bytes and {bit} bits before, cut at {cut}");
                }
            }
        }
    }

    #[test]
    fn copied_bits_are_the_same() {
        let bytes: Vec<u8> = (0..40_u8).map(|i| i.wrapping_mul(37)).collect();
        for start in 0..20 {
            for end in start..=300 {
                let mut writer = BitWriter::new(vec![1]);
                writer.copy(&bytes, start, end).unwrap();
                writer.push(0b101, 3);
                for bit in start..end {
                    assert_eq!(bits_at(&writer.bytes, 8 + bit - start, 1), bits_at(&bytes, bit, 1));
                }
                assert_eq!(bits_at(&writer.bytes, 8 + end - start, 3), Some(5));
            }
        }
    }
}
