//! Files of many blocks, and of more zeros than anything.

use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::byte_source::StoredOrigin;
use crate::decompressed_stream::DecompressedStream;
use crate::memory_source::MemorySource;
use crate::point_store::MemoryPointStore;
use crate::stream_codec::StreamCodec;
use crate::test_support::UNLIMITED;
use crate::unpacker::Unpacker;
use dupfs_base::{ErrorKind, HasKind};
use dupfs_cache::CacheConfig;

fn stream(
    source: Arc<dyn ByteSource>,
    codec: StreamCodec,
    limits: UnpackLimits,
) -> Arc<super::super::DecompressedStream> {
    let cache = CacheConfig { memory_bytes: 1 << 20, spill: None };
    DecompressedStream::new(&Unpacker::new(cache, limits, Arc::new(MemoryPointStore::new(0))), source, codec)
}

fn pack(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 0);
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Text that compresses to about a fourth.
fn text(len: usize) -> Vec<u8> {
    let lines =
        (1_u64..).flat_map(|i| format!("{:016x} is row {i}\n", i.wrapping_mul(0x9e37_79b9_7f4a_7c15)).into_bytes());
    lines.take(len).collect()
}

/// `head` followed by zeros. It fails after more reads than any test needs.
#[derive(Debug)]
struct Sparse {
    head: Vec<u8>,
    len: u64,
    reads: AtomicU64,
}

impl Sparse {
    fn of(head: Vec<u8>, len: u64) -> Arc<Self> {
        Arc::new(Self { head, len, reads: AtomicU64::new(0) })
    }
}

impl ByteSource for Sparse {
    fn name(&self) -> Arc<str> {
        "sparse".into()
    }
    fn read_at(&self, offset: u64, len: usize, _: &RequestContext) -> Result<Vec<u8>, UnpackError> {
        if self.reads.fetch_add(1, Ordering::Relaxed) > 4000 {
            return Err(UnpackError::damaged(&self.name(), offset, "read and read again"));
        }
        let end = offset.saturating_add(len as u64).min(self.len);
        let mut out = vec![0; usize::try_from(end.saturating_sub(offset)).unwrap()];
        let start = usize::try_from(offset).unwrap().min(self.head.len());
        let head = self.head.get(start..).unwrap_or(&[]);
        let head = &head[..head.len().min(out.len())];
        out[..head.len()].copy_from_slice(head);
        Ok(out)
    }
    fn origin(&self) -> StoredOrigin {
        StoredOrigin::file(0, self.len)
    }
    fn known_len(&self) -> Option<u64> {
        Some(self.len)
    }
    fn len(&self, _: &RequestContext) -> Result<u64, UnpackError> {
        Ok(self.len)
    }
    fn identity(&self) -> Option<Arc<[u8]>> {
        None
    }
    fn verified_early(&self) -> bool {
        true
    }
}

#[test]
fn the_bytes_read_are_counted_from_the_start_of_the_file_wherever_decoding_began() {
    let plain = text(25 << 20);
    let packed: Vec<u8> = plain.chunks(1 << 20).flat_map(pack).collect();
    // All of it is within the ratio, and no block alone is within that of everything before it.
    let limits = UnpackLimits { free: 1 << 20, ratio: 20, ..UnpackLimits::default() };
    assert!(packed.len() * 20 > plain.len() * 2);
    let stream = stream(Arc::new(MemorySource::new("a.xz", packed)), StreamCodec::Xz, limits);
    let at = plain.len() - 100_000;
    assert_eq!(stream.read_at(at as u64, 200_000, &UNLIMITED).unwrap(), &plain[at..]);
}

#[test]
fn damage_in_a_block_is_reported_with_its_offset_in_the_file() {
    let plain = text(20 << 20);
    let mut packed: Vec<u8> = plain.chunks(1 << 20).flat_map(pack).collect();
    let hit = packed.len() - packed.len() / 40;
    packed[hit] ^= 0x55;
    let stream = stream(Arc::new(MemorySource::new("a.xz", packed)), StreamCodec::Xz, UnpackLimits::default());
    let error = stream.read_at(plain.len() as u64 - 300_000, 300_000, &UNLIMITED).unwrap_err();
    let UnpackError::Damaged { at: Some(at), .. } = error else { panic!("{error}") };
    assert!(at.abs_diff(hit as u64) < 1 << 20, "{at} is not near {hit}");
}

#[test]
fn padding_is_read_in_large_pieces_up_to_a_limit() {
    let packed = pack(b"text");
    let whole = blocks(&MemorySource::new("a", packed.clone()), packed.len() as u64, &UNLIMITED).unwrap().unwrap();
    for zeros in [4, 60, 1 << 16, 5_000_004] {
        let len = packed.len() as u64 + zeros;
        let source = Sparse::of(packed.clone(), len);
        assert_eq!(blocks(&*source, len, &UNLIMITED).unwrap().as_ref(), Some(&whole), "{zeros} zeros");
        assert!(source.reads.load(Ordering::Relaxed) < 100, "{zeros} zeros");
    }
    for len in [2 << 30, 1 << 62] {
        let source = Sparse::of(packed.clone(), len);
        assert_eq!(blocks(&*source, len, &UNLIMITED).unwrap(), None);
        let source = Sparse::of(vec![], len);
        assert_eq!(blocks(&*source, len, &UNLIMITED).unwrap(), None);
    }
    let odd = [&packed[..], &[0; 6]].concat();
    assert_eq!(blocks(&MemorySource::new("a", odd.clone()), odd.len() as u64, &UNLIMITED).unwrap(), None);
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn zeros_after_a_compressed_file_are_limited() {
    // A frame of zstd to be skipped, of zeros.
    let mut skipped = ::zstd::encode_all(&b"text"[..], 1).unwrap();
    for _ in 0..3 {
        skipped.extend_from_slice(&[0x50, 0x2a, 0x4d, 0x18, 0xff, 0xff, 0xff, 0xff]);
    }
    for (codec, packed) in
        [(StreamCodec::Gzip, gzip(b"text")), (StreamCodec::Xz, pack(b"text")), (StreamCodec::Zstd, skipped)]
    {
        let endless = stream(Sparse::of(packed, 1 << 62), codec, UnpackLimits::default());
        let error = endless.len(&UNLIMITED).unwrap_err();
        assert!(error.to_string().contains("MiB of zeros"), "{codec:?}: {error}");
        assert_eq!(error.kind(), ErrorKind::Unsupported);
    }
}

#[test]
fn padding_as_on_tapes_is_accepted() {
    for (codec, packed) in [(StreamCodec::Gzip, gzip(b"text")), (StreamCodec::Xz, pack(b"text"))] {
        let len = (packed.len() as u64 + (20 << 20)).next_multiple_of(512) + packed.len() as u64 % 4;
        let padded = stream(Sparse::of(packed, len), codec, UnpackLimits::default());
        assert_eq!(padded.read_at(0, 100, &UNLIMITED).unwrap(), b"text", "{codec:?}");
        assert_eq!(padded.len(&UNLIMITED).unwrap(), 4);
    }
}

/// An index of `count` records of the shortest blocks.
fn index(count: u64) -> Vec<u8> {
    let mut out = vec![0];
    put_number(&mut out, count);
    (0..count).for_each(|_| out.extend_from_slice(&[5, 1]));
    out.resize(out.len().next_multiple_of(4), 0);
    let crc = crc32fast::hash(&out);
    out.extend_from_slice(&crc.to_le_bytes());
    out
}

#[test]
fn an_index_with_too_many_blocks_is_refused() {
    assert_eq!(parse_index(&index(1000)).unwrap().len(), 1000);
    assert!(parse_index(&index(3 << 20)).is_none());
    // All of a file's streams together.
    let packed = pack(b"text").repeat(200);
    let source = MemorySource::new("a", packed.clone());
    assert_eq!(blocks(&source, packed.len() as u64, &UNLIMITED).unwrap().unwrap().len(), 200);
    assert_eq!(blocks_within(&source, packed.len() as u64, 199, &UNLIMITED).unwrap(), None);
}
