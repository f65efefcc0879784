//! Lengths stated by the directory of a zip archive or the index of an xz file. A read to a length that is too short
//! must not look like the end of the file.

use super::tests::{pack, stream, text, unpacker};
use super::*;
use crate::test_support::{TestSource, UNLIMITED};
use crate::zip_method::{StatedContent, ZipMethod};
use dupfs_base::{ErrorKind, HasKind};

/// All bytes as the kernel reads a file of known length: up to that, and never beyond it.
fn read_stated(stream: &DecompressedStream) -> Result<Vec<u8>, UnpackError> {
    let len = stream.len(&UNLIMITED)?;
    let mut out = Vec::new();
    while (out.len() as u64) < len {
        let want = usize::try_from(len).unwrap().saturating_sub(out.len()).min(128 << 10);
        let bytes = stream.read_at(out.len() as u64, want, &UNLIMITED)?;
        assert!(!bytes.is_empty(), "it ended at {} of {len} without an error", out.len());
        out.extend_from_slice(&bytes);
    }
    Ok(out)
}

/// Returns the error of reading to the stated length.
fn refused(stream: &DecompressedStream) -> ErrorKind {
    read_stated(stream).map(|bytes| bytes.len()).unwrap_err().kind()
}

#[test]
fn a_zip_directory_that_states_too_little_makes_no_short_file() {
    let plain = text(1, 3 * BLOCK_BYTES + 1000);
    let crc = crc32fast::hash(&plain);
    for wrong in [1, 1000, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 2 * BLOCK_BYTES, plain.len() - 1] {
        let size = wrong as u64;
        for crc in [crc, crc32fast::hash(&plain[..wrong])] {
            for codec in ZipMethod::ALL.map(|method| StreamCodec::Zip(method, StatedContent { crc, size })) {
                let stated = stream(&unpacker(1 << 20), pack(codec, &plain), codec);
                assert_eq!(refused(&stated), ErrorKind::Corrupt, "{codec:?} of {wrong}");
            }
        }
    }
}

/// `packed`, one xz stream of one block, with an index that states another length of its content.
fn reindexed(packed: &[u8], len: u64) -> Vec<u8> {
    let number = |mut value: u64, out: &mut Vec<u8>| {
        while value >= 0x80 {
            out.push(u8::try_from(value & 0x7f).unwrap() | 0x80);
            value >>= 7;
        }
        out.push(u8::try_from(value).unwrap());
    };
    let footer = packed.len() - 12;
    let words = u32::from_le_bytes(packed[footer + 4..footer + 8].try_into().unwrap());
    let index = footer - (words as usize + 1) * 4;
    let unpadded_end = index + 2 + packed[index + 2..].iter().position(|b| b & 0x80 == 0).unwrap() + 1;
    let mut new = packed[index..unpadded_end].to_vec();
    number(len, &mut new);
    new.resize(new.len().next_multiple_of(4), 0);
    new.extend_from_slice(&crc32fast::hash(&new).to_le_bytes());
    let mut tail = u32::try_from(new.len() / 4 - 1).unwrap().to_le_bytes().to_vec();
    tail.extend_from_slice(&packed[footer + 8..footer + 10]);
    let crc = crc32fast::hash(&tail).to_le_bytes();
    [&packed[..index], &new[..], &crc[..], &tail[..], &b"YZ"[..]].concat()
}

#[test]
fn an_xz_index_that_states_too_little_makes_no_short_file() {
    let plain = text(2, 3 * BLOCK_BYTES + 1000);
    let packed = pack(StreamCodec::Xz, &plain);
    let whole = stream(&unpacker(1 << 20), reindexed(&packed, plain.len() as u64), StreamCodec::Xz);
    assert_eq!(read_stated(&whole).unwrap(), plain);
    for wrong in [0, 1, 1000, BLOCK_BYTES, BLOCK_BYTES + 1, 2 * BLOCK_BYTES, plain.len() - 1, plain.len() + 1] {
        let bad = reindexed(&packed, wrong as u64);
        let stated = stream(&unpacker(1 << 20), bad.clone(), StreamCodec::Xz);
        assert_eq!(refused(&stated), ErrorKind::Corrupt, "index of {wrong}");
        // A read comes before the request for the length.
        let later = stream(&unpacker(1 << 20), bad, StreamCodec::Xz);
        later.read_at(0, 2 * BLOCK_BYTES, &UNLIMITED).unwrap();
        assert_eq!(refused(&later), ErrorKind::Corrupt, "index of {wrong}, asked later");
    }
}

#[test]
fn a_recorded_length_of_other_bytes_is_an_error() {
    let unpacker = unpacker(1 << 20);
    let named = |len: usize| -> Arc<dyn ByteSource> {
        Arc::new(TestSource::new("a", pack(StreamCodec::Gzip, &text(3, len))).with_identity(b"identity"))
    };
    assert_eq!(
        DecompressedStream::new(&unpacker, named(BLOCK_BYTES), StreamCodec::Gzip).len(&UNLIMITED).unwrap(),
        BLOCK_BYTES as u64
    );
    let other = DecompressedStream::new(&unpacker, named(2 * BLOCK_BYTES), StreamCodec::Gzip);
    assert_eq!(refused(&other), ErrorKind::Corrupt);
}
