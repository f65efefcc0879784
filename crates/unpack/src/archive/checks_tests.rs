//! Checks that follow the data, in parts of a stream that the pass has no reason to decode.

use std::collections::HashMap;
use std::io::Write;

use super::tests::{find, unpacker};
use super::*;
use crate::test_support::{TestSource, UNLIMITED};
use crate::zip_method::{StatedContent, ZipMethod};
use crate::{MemorySource, UnpackLimits};
use dupfs_base::{ErrorKind, HasKind};
use dupfs_test_tar::{noise, put_entry};

/// An xz file with blocks of `block` bytes each.
fn xz(bytes: &[u8], block: usize) -> Vec<u8> {
    let pack = |part: &[u8]| {
        let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 0);
        encoder.write_all(part).unwrap();
        encoder.finish().unwrap()
    };
    // Most parts of a large member are the same.
    let mut packed = HashMap::new();
    bytes.chunks(block).flat_map(|part| packed.entry(part).or_insert_with(|| pack(part)).clone()).collect()
}

/// Changes one bit of `content`, which `packed` contains uncompressed.
fn flip(packed: &mut [u8], content: &[u8]) {
    // Not at its ends, which are compressed together with the bytes around it.
    let inner = content[100_000..200_000].chunks_exact(64).step_by(50);
    let at = inner.map(|known| packed.windows(64).position(|bytes| bytes == known)).find_map(|at| at).unwrap();
    packed[at + 20] ^= 4;
}

fn tar_xz(packed: Vec<u8>) -> (Arc<Archive>, Arc<TestSource>) {
    let source = Arc::new(TestSource::new("a.tar.xz", packed));
    let archive = Archive::new(
        &unpacker(UnpackLimits::default()),
        Arc::clone(&source) as _,
        ArchiveFormat::Tar(Some(StreamCodec::Xz)),
    );
    (archive, source)
}

/// Reads a member to its end.
fn read_all(archive: &Archive, path: &str) -> Result<Vec<u8>, UnpackError> {
    let key = find(archive, path)?.unwrap();
    let (source, entry) = archive.open(key, &UNLIMITED)?;
    let mut out = Vec::new();
    loop {
        let bytes = source.read_at(out.len() as u64, 128 << 10, &UNLIMITED)?;
        out.extend_from_slice(&bytes);
        if bytes.len() < 128 << 10 {
            return archive.confirm_end(key, entry, &UNLIMITED).map(|()| out);
        }
    }
}

const MIB: usize = 1 << 20;

/// A small member that does not compress, one of `large` bytes, and another small one.
fn members(large: usize) -> (Vec<u8>, Vec<u8>) {
    let small = noise(300_000);
    let large = noise(MIB).repeat(large / MIB);
    let mut tar = Vec::new();
    put_entry(&mut tar, b"small", b'0', &small);
    put_entry(&mut tar, b"large", b'0', &large);
    put_entry(&mut tar, b"last", b'0', b"last");
    tar.resize(tar.len() + 10_240, 0);
    (tar, small)
}

#[test]
fn a_wrong_byte_in_a_block_that_the_pass_leaves_early_is_always_an_error() {
    let (tar, small) = members(20 * MIB);
    let sound = xz(&tar, MIB);
    let (archive, source) = tar_xz(sound.clone());
    assert_eq!(read_all(&archive, "small").unwrap(), small);
    assert_eq!(read_all(&archive, "last").unwrap(), b"last");
    // The large member is skipped.
    let read = source.bytes_read();
    assert!(read < sound.len() as u64 / 4, "{read} of {}", sound.len());
    assert!(read_all(&archive, "large").unwrap() == noise(MIB).repeat(20));

    let mut bad = sound;
    flip(&mut bad, &small);
    let (archive, _) = tar_xz(bad.clone());
    assert_eq!(read_all(&archive, "small").map(|bytes| bytes.len()).unwrap_err().kind(), ErrorKind::Corrupt);
    assert!(matches!(archive.wait_for_pass(&UNLIMITED).unwrap(), PassProgress::Failed(_)));
}

#[test]
fn a_wrong_byte_before_unread_zeros_is_always_an_error() {
    let (mut tar, small) = members(MIB);
    tar.resize(tar.len() + 3 * MIB, 0);
    let mut bad = xz(&tar, usize::MAX);
    let (archive, _) = tar_xz(bad.clone());
    assert_eq!(read_all(&archive, "small").unwrap(), small);
    flip(&mut bad, &small);
    let (archive, _) = tar_xz(bad);
    assert_eq!(read_all(&archive, "small").map(|bytes| bytes.len()).unwrap_err().kind(), ErrorKind::Corrupt);
}

#[test]
fn an_xz_file_of_one_block_is_decoded_once_however_large_its_members_are() {
    let (mut tar, small) = members(6 * MIB);
    tar.truncate(tar.len() - 10_240);
    for name in [b"more", b"most"] {
        put_entry(&mut tar, name, b'0', &noise(2 * MIB));
    }
    tar.resize(tar.len() + 1024, 0);
    let packed = xz(&tar, usize::MAX);
    let (archive, source) = tar_xz(packed.clone());
    assert!(matches!(archive.wait_for_pass(&UNLIMITED).unwrap(), PassProgress::Done));
    let read = source.bytes_read();
    assert!(read < packed.len() as u64 * 5 / 4, "{read} of {}", packed.len());
    assert_eq!(read_all(&archive, "small").unwrap(), small);
}

#[test]
fn a_tar_in_a_zip_is_decoded_to_its_checksum() {
    let (mut tar, small) = members(MIB);
    tar.resize(tar.len() + 3 * MIB, 0);
    let crc = crc32fast::hash(&tar);
    let size = tar.len() as u64;
    let deflated = miniz_oxide::deflate::compress_to_vec(&tar, 0);
    for (method, mut packed) in [(ZipMethod::Deflate, deflated), (ZipMethod::Stored, tar)] {
        let codec = StreamCodec::Zip(method, StatedContent { crc, size });
        for sound in [true, false] {
            if !sound {
                flip(&mut packed, &small);
            }
            let unpacker = unpacker(UnpackLimits::default());
            let member =
                DecompressedStream::new(&unpacker, Arc::new(MemorySource::new("a.zip/a.tar", packed.clone())), codec);
            let archive = Archive::new(&unpacker, member, ArchiveFormat::Tar(None));
            assert_eq!(read_all(&archive, "small").is_ok(), sound, "{codec:?}");
        }
    }
}

#[test]
fn a_tar_in_a_tar_is_checked_by_the_blocks_that_it_overlaps() {
    let (inner, small) = members(20 * MIB);
    let mut tar = Vec::new();
    put_entry(&mut tar, b"inner.tar", b'0', &inner);
    put_entry(&mut tar, b"last", b'0', &vec![9; 20 * MIB]);
    // `small` begins in the third block: what the outer pass reads is in the first.
    let mut bad = xz(&[noise_member(3 * MIB), tar.clone()].concat(), MIB);
    for sound in [true, false] {
        if !sound {
            flip(&mut bad, &small);
        }
        let (outer, _) = tar_xz(bad.clone());
        let key = find(&outer, "inner.tar").unwrap().unwrap();
        let (source, _) = outer.open(key, &UNLIMITED).unwrap();
        let inner = Archive::new(&unpacker(UnpackLimits::default()), source, ArchiveFormat::Tar(None));
        assert_eq!(read_all(&inner, "small").is_ok(), sound);
    }
}

/// A member of `len` bytes, which moves the following members into other blocks.
fn noise_member(len: usize) -> Vec<u8> {
    let mut out = Vec::new();
    put_entry(&mut out, b"before", b'0', &vec![3; len]);
    out
}
