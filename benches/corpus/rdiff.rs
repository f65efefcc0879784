//! librsync's signatures and deltas, as far as files shorter than a block need them.

use md4::{Digest, Md4};

/// The block length that duplicity takes for small files; every file here is shorter.
const BLOCK: u32 = 512;

pub(crate) fn signature(content: &[u8]) -> Vec<u8> {
    assert!(content.len() <= BLOCK as usize, "a file of {} bytes is more than one block", content.len());
    [&signature_header(BLOCK)[..], &block_sums(content, BLOCK)].concat()
}

/// The beginning of a signature with blocks of `block` bytes.
pub(crate) fn signature_header(block: u32) -> [u8; 12] {
    let [a, b, c, d] = block.to_be_bytes();
    [0x72, 0x73, 0x01, 0x36, a, b, c, d, 0, 0, 0, 8]
}

/// The sums of all blocks of `content`.
pub(crate) fn block_sums(content: &[u8], block: u32) -> Vec<u8> {
    let mut out = Vec::new();
    for content in content.chunks(block as usize) {
        let (mut s1, mut s2) = (0u16, 0u16);
        for byte in content {
            s1 = s1.wrapping_add(u16::from(*byte) + 31);
            s2 = s2.wrapping_add(s1);
        }
        out.extend(s2.to_be_bytes());
        out.extend(s1.to_be_bytes());
        out.extend(&Md4::digest(content)[..8]);
    }
    out
}

/// A delta that copies the first `stays` bytes of the old content and stores the rest as a literal.
pub(crate) fn delta(content: &[u8], stays: usize) -> Vec<u8> {
    let literal = &content[stays..];
    assert!(!literal.is_empty() && literal.len() <= 64);
    let mut out = vec![0x72, 0x73, 0x02, 0x36];
    // copy, with two bytes for the offset and two for the length
    out.push(0x45 + 4 + 1);
    out.extend(0u16.to_be_bytes());
    out.extend(u16::try_from(stays).unwrap().to_be_bytes());
    out.push(u8::try_from(literal.len()).unwrap());
    out.extend(literal);
    out.push(0);
    out
}
