//! The sums of the blocks of a file, as duplicity's signatures have them: librsync's rolling sum, and MD4 (FORMAT.md 5).

use dupfs_format::sigtar::{SIG_HEADER_LEN, SigHeader};
use md4::{Digest, Md4};

/// The beginning of a signature with such sums, the only ones that duplicity writes.
const MAGIC: [u8; 4] = *b"rs\x016";
/// Bytes of a rolling sum.
const WEAK_LEN: usize = 4;
/// Bytes of MD4. Strong sums are the first bytes of it; duplicity writes eight of them.
const MD4_LEN: usize = 16;
/// Upper bound of the length of a block, larger than duplicity makes of any file.
const MAX_BLOCK: u32 = 64 << 20;

/// Computes the sums that a signature has of each block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlockSums(SigHeader);

impl BlockSums {
    /// The sums of the signature that begins with `head`; `None` if it has sums of another kind.
    pub(crate) fn parse(head: &[u8; SIG_HEADER_LEN]) -> Option<Self> {
        let header = SigHeader::parse(head)?;
        (head.starts_with(&MAGIC) && header.block_len <= MAX_BLOCK).then_some(Self(header))
    }

    /// The header of the signature.
    pub(super) fn header(self) -> [u8; SIG_HEADER_LEN] {
        let ([m0, m1, m2, m3], SigHeader { block_len, strong_len }) = (MAGIC, self.0);
        let ([b0, b1, b2, b3], [s0, s1, s2, s3]) = (block_len.to_be_bytes(), strong_len.to_be_bytes());
        [m0, m1, m2, m3, b0, b1, b2, b3, s0, s1, s2, s3]
    }

    /// Bytes of a block of content.
    pub(crate) fn block_len(self) -> usize {
        self.0.block_len as usize
    }

    /// Bytes of the sums of a block.
    pub(crate) fn sums_len(self) -> usize {
        WEAK_LEN + (self.0.strong_len as usize).min(MD4_LEN)
    }

    /// The sums of `block`.
    pub(crate) fn of(self, block: &[u8]) -> Vec<u8> {
        let mut sums = Vec::with_capacity(WEAK_LEN + MD4_LEN);
        sums.extend_from_slice(&weak_sum(block).to_be_bytes());
        sums.extend_from_slice(&Md4::digest(block));
        sums.truncate(self.sums_len());
        sums
    }
}

/// librsync's rolling sum of a block.
fn weak_sum(block: &[u8]) -> u32 {
    let (mut low, mut high) = (0u32, 0u32);
    for &byte in block {
        low = low.wrapping_add(u32::from(byte).wrapping_add(31));
        high = high.wrapping_add(low);
    }
    (high << 16) | (low & 0xffff)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The signature of "hello\n" in FORMAT.md 5.
    pub(crate) const HELLO: &[u8] = &[
        0x72, 0x73, 0x01, 0x36, 0, 0, 2, 0, 0, 0, 0, 8, 0x0a, 0xd0, 0x02, 0xd8, 0x63, 0x48, 0x1c, 0x78, 0xae, 0x04,
        0xc2, 0x01,
    ];

    #[test]
    fn sums_are_those_of_the_signature() {
        let (head, sum) = HELLO.split_first_chunk().unwrap();
        let sums = BlockSums::parse(head).unwrap();
        assert_eq!((sums.header(), sums.block_len(), sums.sums_len()), (*head, 512, 12));
        assert_eq!(sums.of(b"hello\n"), sum);
    }

    #[test]
    fn signatures_with_other_sums_are_not_known() {
        let with = |at: usize, bytes: &[u8]| {
            let mut head: [u8; SIG_HEADER_LEN] = *HELLO.first_chunk().unwrap();
            head[at..at + bytes.len()].copy_from_slice(bytes);
            BlockSums::parse(&head)
        };
        assert_eq!(with(4, &MAX_BLOCK.to_be_bytes()).unwrap().block_len(), 64 << 20);
        assert_eq!(with(4, &(MAX_BLOCK + 1).to_be_bytes()), None);
        assert_eq!((with(3, b"7"), with(3, b"F"), with(0, b"x")), (None, None, None));
        assert_eq!(with(8, &16u32.to_be_bytes()).unwrap().of(b"hello\n").len(), 20);
    }
}
