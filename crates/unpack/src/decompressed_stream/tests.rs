use std::io::Write;

use proptest::prelude::*;

use super::*;
use crate::bzip2::BzipDecoder;
use crate::bzip2_bits::{BLOCK_MAGIC, BitWriter};
use crate::limits::UnpackLimits;
use crate::memory_source::MemorySource;
use crate::point_store::MemoryPointStore;
use crate::stream_decoder::StreamDecoder;
use crate::test_support::{TestSource, UNLIMITED};
use crate::zip_method::{StatedContent, ZipMethod};
use dupfs_base::{ErrorKind, HasKind};
use dupfs_cache::CacheConfig;

const LONE: [StreamCodec; 4] = [StreamCodec::Gzip, StreamCodec::Bzip2, StreamCodec::Xz, StreamCodec::Zstd];

pub(super) fn unpacker(memory: u64) -> Arc<Unpacker> {
    let cache = CacheConfig { memory_bytes: memory, spill: None };
    Unpacker::new(cache, UnpackLimits::default(), Arc::new(MemoryPointStore::new(1 << 20)))
}

/// Text that compresses, differs everywhere, and is the same on every run.
pub(super) fn text(seed: u64, len: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(len + 64);
    let mut state = seed | 1;
    while out.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(format!("INSERT INTO t VALUES ({state:x},{});\n", out.len()).as_bytes());
    }
    out.truncate(len);
    out
}

pub(super) fn pack(codec: StreamCodec, bytes: &[u8]) -> Vec<u8> {
    match codec {
        StreamCodec::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        }
        StreamCodec::Bzip2 => {
            let mut encoder = ::bzip2::write::BzEncoder::new(Vec::new(), ::bzip2::Compression::new(1));
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        }
        StreamCodec::Xz => {
            let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 0);
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        }
        StreamCodec::Zstd => {
            let mut encoder = ::zstd::stream::Encoder::new(Vec::new(), 1).unwrap();
            encoder.include_checksum(true).unwrap();
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        }
        StreamCodec::Zip(method, _) => pack_member(method, bytes),
    }
}

fn pack_member(method: ZipMethod, bytes: &[u8]) -> Vec<u8> {
    match method {
        ZipMethod::Stored => bytes.to_vec(),
        ZipMethod::Deflate => {
            let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        }
        ZipMethod::Deflate64 => {
            // Without matches both forms are the same.
            let flags = miniz_oxide::deflate::core::create_comp_flags_from_zip_params(
                6,
                -15,
                miniz_oxide::deflate::core::CompressionStrategy::HuffmanOnly as i32,
            );
            let mut library = miniz_oxide::deflate::core::CompressorOxide::new(flags);
            let mut out = Vec::new();
            let (status, _) = miniz_oxide::deflate::core::compress_to_output(
                &mut library,
                bytes,
                miniz_oxide::deflate::core::TDEFLFlush::Finish,
                |piece| {
                    out.extend_from_slice(piece);
                    true
                },
            );
            assert_eq!(status, miniz_oxide::deflate::core::TDEFLStatus::Done);
            out
        }
        ZipMethod::Bzip2 => pack(StreamCodec::Bzip2, bytes),
        ZipMethod::Zstd => pack(StreamCodec::Zstd, bytes),
        ZipMethod::Xz => pack(StreamCodec::Xz, bytes),
        ZipMethod::Lzma => {
            let options = liblzma::stream::LzmaOptions::new_preset(0).unwrap();
            let library = liblzma::stream::Stream::new_lzma_encoder(&options).unwrap();
            let mut encoder = liblzma::write::XzEncoder::new_stream(Vec::new(), library);
            encoder.write_all(bytes).unwrap();
            let alone = encoder.finish().unwrap();
            [&[9, 4, 5, 0], &alone[..5], &alone[13..]].concat()
        }
    }
}

fn all_codecs(bytes: &[u8]) -> Vec<StreamCodec> {
    let stated = StatedContent { crc: crc32fast::hash(bytes), size: bytes.len() as u64 };
    let members = ZipMethod::ALL.map(|method| StreamCodec::Zip(method, stated));
    [LONE.as_slice(), &members].concat()
}

pub(super) fn stream(unpacker: &Arc<Unpacker>, packed: Vec<u8>, codec: StreamCodec) -> Arc<DecompressedStream> {
    DecompressedStream::new(unpacker, Arc::new(MemorySource::new("a/file", packed)), codec)
}

/// All bytes by reads of `step`, then the length.
fn read_all(stream: &DecompressedStream, step: usize) -> Result<Vec<u8>, UnpackError> {
    let mut out = Vec::new();
    loop {
        let bytes = stream.read_at(out.len() as u64, step, &UNLIMITED)?;
        out.extend_from_slice(&bytes);
        if bytes.len() < step {
            return Ok(out);
        }
    }
}

#[test]
fn every_format_is_read_sequentially_and_randomly_with_a_cache_of_any_size() {
    let plain = text(1, 2_300_000);
    for codec in all_codecs(&plain) {
        let packed = pack(codec, &plain);
        for memory in [0, 64 << 20] {
            let unpacker = unpacker(memory);
            let stream = stream(&unpacker, packed.clone(), codec);
            assert_eq!(read_all(&stream, 100_000).unwrap(), plain, "{codec:?}");
            assert_eq!(stream.len(&UNLIMITED).unwrap(), plain.len() as u64);
            let mut state = 77_u64;
            for _ in 0..12 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let at = usize::try_from(state >> 33).unwrap() % plain.len();
                let end = (at + 70_000).min(plain.len());
                assert_eq!(
                    stream.read_at(at as u64, 70_000, &UNLIMITED).unwrap(),
                    &plain[at..end],
                    "{codec:?} at {at}"
                );
            }
            assert!(stream.read_at(plain.len() as u64, 10, &UNLIMITED).unwrap().is_empty());
            assert!(stream.read_at(u64::MAX - 5, 10, &UNLIMITED).unwrap().is_empty());
        }
    }
}

#[test]
fn lengths_at_the_edges_of_blocks_are_right() {
    for len in [0, 1, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 2 * BLOCK_BYTES] {
        let plain = text(3, len);
        for codec in all_codecs(&plain) {
            let unpacker = unpacker(1 << 20);
            let first = stream(&unpacker, pack(codec, &plain), codec);
            assert_eq!(first.len(&UNLIMITED).unwrap(), len as u64, "{codec:?}");
            assert_eq!(read_all(&first, 4096).unwrap(), plain);
            let second = stream(&unpacker, pack(codec, &plain), codec);
            assert_eq!(second.read_at(len as u64, 10, &UNLIMITED).unwrap(), b"", "{codec:?} {len}");
            assert_eq!(
                second.read_at(len.saturating_sub(3) as u64, 10, &UNLIMITED).unwrap(),
                plain[len.saturating_sub(3)..]
            );
        }
    }
}

#[test]
fn concatenated_streams_are_one_stream() {
    let parts = [text(4, 700_000), Vec::new(), text(5, 300_000), text(6, 1)];
    for codec in LONE {
        let mut packed: Vec<u8> = parts.iter().flat_map(|part| pack(codec, part)).collect();
        let unpacker = unpacker(8 << 20);
        let both = stream(&unpacker, packed.clone(), codec);
        assert_eq!(read_all(&both, 65_536).unwrap(), parts.concat(), "{codec:?}");
        let jump = stream(&unpacker, packed.clone(), codec);
        assert_eq!(jump.read_at(700_000, 5, &UNLIMITED).unwrap(), parts[2][..5], "{codec:?}");
        packed.extend_from_slice(b"garbage that is longer than a header");
        let garbage = stream(&unpacker, packed, codec);
        assert_eq!(read_all(&garbage, 65_536).unwrap_err().kind(), ErrorKind::Corrupt, "{codec:?}");
    }
}

#[test]
fn errors_name_the_fault() {
    let plain = text(3, 200_000);
    let fault = |codec, packed: Vec<u8>| {
        let error = read_all(&stream(&unpacker(8 << 20), packed, codec), 65_536).unwrap_err();
        assert!(error.to_string().contains(": damaged near byte "), "{codec:?}: {error}");
        error.to_string()
    };
    for (codec, truncated, mismatch, garbage) in [
        (
            StreamCodec::Gzip,
            "truncated deflate data;",
            "checksum mismatch: the data before this byte is damaged;",
            "trailing garbage after the gzip data;",
        ),
        (
            StreamCodec::Bzip2,
            "damaged or truncated block;",
            "checksum mismatch of the stream: a block is missing or belongs to another stream;",
            "garbage instead of a bzip2 header;",
        ),
        (
            StreamCodec::Xz,
            "truncated xz or LZMA data;",
            "invalid xz data or checksum mismatch;",
            "invalid xz data or checksum mismatch;",
        ),
        (
            StreamCodec::Zstd,
            "truncated zstd data;",
            "zstd: Restored data doesn't match checksum;",
            "zstd: Unknown frame descriptor;",
        ),
    ] {
        let packed = pack(codec, &plain);
        let error = fault(codec, packed[..packed.len() / 2].to_vec());
        assert!(error.contains(truncated), "{codec:?}: {error}");
        let mut flipped = packed.clone();
        let at = packed.len() - if codec == StreamCodec::Gzip { 5 } else { 2 };
        flipped[at] ^= 0x10;
        let error = fault(codec, flipped);
        assert!(error.contains(mismatch), "{codec:?}: {error}");
        let error = fault(codec, [&packed[..], b"garbage that is longer than a header"].concat());
        assert!(error.contains(garbage), "{codec:?}: {error}");
    }
    let mut longer = pack(StreamCodec::Gzip, &plain);
    *longer.last_mut().unwrap() ^= 1;
    let error = fault(StreamCodec::Gzip, longer);
    assert!(error.contains("length mismatch: the decompressed data does not have the stated length;"), "{error}");
}

#[test]
fn damage_is_always_an_error_and_never_a_wrong_end() {
    let plain = text(7, 400_000);
    for codec in all_codecs(&plain) {
        let packed = pack(codec, &plain);
        let step = packed.len() / 9 + 1;
        for at in (0..packed.len()).step_by(step) {
            let unpacker = unpacker(4 << 20);
            if !matches!(codec, StreamCodec::Zip(ZipMethod::Stored, _)) {
                let cut = stream(&unpacker, packed[..at].to_vec(), codec);
                let error = read_all(&cut, 65_536).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Corrupt, "{codec:?} cut at {at}: {error}");
                assert!(error.to_string().starts_with("a/file: "), "{error}");
                assert!(cut.len(&UNLIMITED).is_err() || matches!(codec, StreamCodec::Zip(..)));
            }
            let mut flipped = packed.clone();
            flipped[at] ^= 0x10;
            match read_all(&stream(&unpacker, flipped, codec), 65_536) {
                Ok(read) => {
                    // A name or time in a gzip header, the version in that of a zip member.
                    let unused = match codec {
                        StreamCodec::Gzip => 10,
                        StreamCodec::Zip(ZipMethod::Lzma, _) => 2,
                        _ => 0,
                    };
                    assert!(at < unused && read == plain, "{codec:?} at {at}");
                }
                Err(error) => assert_ne!(error.kind(), ErrorKind::NotFound),
            }
        }
    }
}

#[test]
fn bzip2_returns_only_blocks_with_the_right_checksum() {
    let plain = text(8, 400_000);
    let packed = pack(StreamCodec::Bzip2, &plain);
    for at in (0..packed.len()).step_by(packed.len() / 12) {
        let mut flipped = packed.clone();
        flipped[at] ^= 1;
        let unpacker = unpacker(4 << 20);
        let stream = stream(&unpacker, flipped, StreamCodec::Bzip2);
        for offset in (0..400_000_usize).step_by(50_000) {
            if let Ok(bytes) = stream.read_at(offset as u64, 50_000, &UNLIMITED) {
                assert!(plain[offset..].starts_with(&bytes), "flip at {at}, read at {offset}");
            }
        }
    }
}

/// A text whose block contains a magic cannot be found by trial, so the test gives the decoder false marks.
#[test]
fn a_block_magic_within_compressed_data_is_not_taken_for_a_block() {
    let plain = text(9, 400_000);
    let packed = pack(StreamCodec::Bzip2, &plain);
    let unpacker = unpacker(1 << 20);
    let source: Arc<dyn ByteSource> = Arc::new(MemorySource::new("a", packed.clone()));
    let mut decoder = BzipDecoder::new(source, Arc::clone(&unpacker.workers));
    decoder.split_at_false_marks(&[packed.len() as u64 * 2, packed.len() as u64 * 3, packed.len() as u64 * 5 + 3]);
    let mut out = Vec::new();
    let context = DecodeContext::new(&unpacker.workers, 0, &UNLIMITED);
    while let Some(bytes) = decoder.next(&context).unwrap() {
        out.extend_from_slice(&bytes);
    }
    assert_eq!(out, plain);
}

/// bunzip2 ignores everything after data that is not bzip2, be it four zeros or a hundred million. After many zeros
/// dupfs does the same. A stream after fewer zeros is not an intended end, so it is an error.
#[test]
fn zeros_after_bzip2_data_end_it_as_for_bunzip2() {
    let (first, second) = (pack(StreamCodec::Bzip2, b"first"), pack(StreamCodec::Bzip2, b"second"));
    for zeros in [4, 4096, 3_000_000, 20_000_000] {
        let padded = [&first[..], &vec![0; zeros]].concat();
        assert_eq!(read_all(&stream(&unpacker(0), padded, StreamCodec::Bzip2), 1000).unwrap(), b"first", "{zeros}");
        let followed = [&first[..], &vec![0; zeros], &second].concat();
        let got = read_all(&stream(&unpacker(0), followed, StreamCodec::Bzip2), 1000);
        match got {
            Ok(bytes) => assert!(zeros > 2_400_000 && bytes == b"first", "{zeros}"),
            Err(error) => assert!(zeros < 2_400_000 && error.to_string().contains("garbage"), "{zeros}: {error}"),
        }
    }
}

#[test]
fn a_block_of_zeros_that_is_long_when_decoded_is_served() {
    let plain = vec![0; 12_000_000];
    let packed = pack(StreamCodec::Bzip2, &plain);
    let stream = stream(&unpacker(1 << 20), packed, StreamCodec::Bzip2);
    assert_eq!(read_all(&stream, 1 << 20).unwrap(), plain);
    assert_eq!(stream.read_at(10_000_001, 7, &UNLIMITED).unwrap(), [0; 7]);
}

#[test]
fn bombs_exceed_the_limit_on_expansion() {
    let plain = vec![0; 40_000_000];
    for codec in [StreamCodec::Bzip2, StreamCodec::Zstd, StreamCodec::Xz] {
        let limits = UnpackLimits { ratio: 100, free: 10 << 20, ..UnpackLimits::default() };
        let cache = CacheConfig { memory_bytes: 1 << 20, spill: None };
        let unpacker = Unpacker::new(cache, limits, Arc::new(MemoryPointStore::new(0)));
        let stream = stream(&unpacker, pack(codec, &plain), codec);
        assert!(stream.read_at(1_000_000, 10, &UNLIMITED).is_ok());
        let error = read_all(&stream, 1 << 20).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains("expands to more than 100 times"), "{error}");
    }
}

#[test]
fn nested_levels_are_limited_together_by_the_stored_file() {
    let limits = UnpackLimits { ratio: 2000, free: 4 << 20, ..UnpackLimits::default() };
    let cache = CacheConfig { memory_bytes: 1 << 20, spill: None };
    let unpacker = Unpacker::new(cache, limits, Arc::new(MemoryPointStore::new(0)));
    let twice = |packed: Vec<u8>| {
        let once = stream(&unpacker, packed, StreamCodec::Gzip);
        DecompressedStream::new(&unpacker, once, StreamCodec::Gzip)
    };
    let zeros = pack(StreamCodec::Gzip, &vec![0; 40_000_000]);
    assert_eq!(stream(&unpacker, zeros.clone(), StreamCodec::Gzip).len(&UNLIMITED).unwrap(), 40_000_000);
    let bomb = twice(pack(StreamCodec::Gzip, &zeros));
    assert_eq!(bomb.origin().len, stream(&unpacker, pack(StreamCodec::Gzip, &zeros), StreamCodec::Gzip).origin().len);
    assert!(bomb.read_at(0, 1000, &UNLIMITED).is_ok());
    for error in [bomb.len(&UNLIMITED).unwrap_err(), read_all(&bomb, 1 << 20).unwrap_err()] {
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains("of the stored file around it"), "{error}");
    }
    // As many zeros, and a little that does not compress: within the limit.
    let text = text(20, 400_000);
    let honest = twice(pack(StreamCodec::Gzip, &pack(StreamCodec::Gzip, &[&text[..], &vec![0; 40_000_000]].concat())));
    assert_eq!(honest.len(&UNLIMITED).unwrap(), 40_400_000);
}

fn counted(packed: &[u8]) -> Arc<TestSource> {
    Arc::new(TestSource::new("a", packed.to_vec()).with_identity(b"counted"))
}

#[test]
fn a_sequential_reader_never_restarts_and_a_jump_needs_no_second_pass() {
    let plain = text(10, 6_000_000);
    for codec in [StreamCodec::Gzip, StreamCodec::Bzip2] {
        let packed = pack(codec, &plain);
        let source = counted(&packed);
        let unpacker = unpacker(0);
        let stream = DecompressedStream::new(&unpacker, Arc::clone(&source) as _, codec);
        // As in the kernel's readahead: two reads out of order.
        for offset in (0..plain.len()).step_by(262_144) {
            for half in [131_072, 0] {
                let at = offset + half;
                let wanted = plain.get(at..plain.len().min(at + 131_072)).unwrap_or(&[]);
                assert_eq!(stream.read_at(at as u64, 131_072, &UNLIMITED).unwrap(), wanted);
            }
        }
        let read = source.bytes_read();
        assert!(read <= packed.len() as u64, "{codec:?}: {read} bytes of {} were read", packed.len());
        stream.read_at(4_500_000, 10, &UNLIMITED).unwrap();
        let more = source.bytes_read() - read;
        assert!(more < packed.len() as u64 / 2, "{codec:?}: {more} of {} for a jump", packed.len());

        // A later mount loads the stored length and seek points.
        let source = counted(&packed);
        let again = DecompressedStream::new(&unpacker, Arc::clone(&source) as _, codec);
        assert_eq!(again.known_len(), Some(plain.len() as u64));
        assert_eq!(again.read_at(5_500_000, 10, &UNLIMITED).unwrap(), &plain[5_500_000..5_500_010]);
        let read = source.bytes_read();
        // Points of gzip contain content, and are not stored.
        assert!(codec == StreamCodec::Gzip || read < packed.len() as u64 / 2, "{codec:?}: {read} of {}", packed.len());
    }
}

#[test]
fn a_stream_that_exceeds_the_limit_is_decoded_only_once() {
    let limits = UnpackLimits { ratio: 100, free: 10 << 20, ..UnpackLimits::default() };
    let cache = CacheConfig { memory_bytes: 1 << 20, spill: None };
    let unpacker = Unpacker::new(cache, limits, Arc::new(MemoryPointStore::new(0)));
    let source = counted(&pack(StreamCodec::Gzip, &vec![0; 40_000_000]));
    let stream = DecompressedStream::new(&unpacker, Arc::clone(&source) as _, StreamCodec::Gzip);
    assert_eq!(stream.len(&UNLIMITED).unwrap_err().kind(), ErrorKind::Unsupported);
    let read = source.bytes_read();
    assert_eq!(stream.len(&UNLIMITED).unwrap_err().kind(), ErrorKind::Unsupported);
    assert_eq!(source.bytes_read(), read);
    // The part within the limit can still be read.
    assert_eq!(stream.read_at(1_000_000, 10, &UNLIMITED).unwrap(), [0; 10]);
}

#[test]
fn blocks_of_an_xz_file_are_seek_points_and_give_its_length() {
    let plain = text(11, 25_000_000);
    let mut packed: Vec<u8> = plain.chunks(1 << 20).flat_map(|part| pack(StreamCodec::Xz, part)).collect();
    packed.extend_from_slice(&[0; 8]);
    packed.extend_from_slice(&pack(StreamCodec::Xz, b"and a second stream"));
    let plain = [&plain[..], b"and a second stream"].concat();
    let source = counted(&packed);
    let stream = DecompressedStream::new(&unpacker(1 << 20), Arc::clone(&source) as _, StreamCodec::Xz);
    assert_eq!(stream.len(&UNLIMITED).unwrap(), plain.len() as u64);
    let at = plain.len() - 2_000_000;
    assert_eq!(stream.read_at(at as u64, 3_000_000, &UNLIMITED).unwrap(), &plain[at..]);
    let read = source.bytes_read();
    assert!(read < packed.len() as u64 / 4, "{read} of {}", packed.len());
    assert_eq!(read_all(&stream, 1 << 20).unwrap(), plain);
}

#[test]
fn several_readers_at_once_share_and_do_not_disturb_each_other() {
    let plain = Arc::new(text(12, 3_000_000));
    for codec in LONE {
        let unpacker = unpacker(2 << 20);
        let stream = stream(&unpacker, pack(codec, &plain), codec);
        std::thread::scope(|scope| {
            for reader in 0..6_usize {
                let (stream, plain) = (&stream, &plain);
                scope.spawn(move || {
                    let mut at = reader * 400_000;
                    while at < plain.len() {
                        let end = (at + 50_000).min(plain.len());
                        assert_eq!(
                            stream.read_at(at as u64, 50_000, &UNLIMITED).unwrap(),
                            &plain[at..end],
                            "{codec:?}"
                        );
                        at += if reader % 2 == 0 { 50_000 } else { 700_000 };
                    }
                });
            }
        });
    }
}

#[test]
fn bits_beyond_the_end_of_a_block_are_refused() {
    // Marks everywhere, and no real block.
    let mut writer = BitWriter::new(b"BZh9".to_vec());
    for _ in 0..2000 {
        writer.push(BLOCK_MAGIC, 48);
        writer.push(0x1234_5678_9abc, 47);
    }
    let error = read_all(&stream(&unpacker(0), writer.bytes, StreamCodec::Bzip2), 1000).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10, ..ProptestConfig::default() })]
    #[test]
    fn compressed_data_is_decompressed_unchanged(
        parts in proptest::collection::vec((any::<u64>(), 0_usize..400_000, 1_usize..40_000), 1..4),
        reads in proptest::collection::vec((0_u64..1_000_000, 1_usize..300_000), 1..8),
    ) {
        // Runs of text, noise and one byte over and over.
        let plain: Vec<u8> = parts.iter().flat_map(|&(seed, len, run)| match seed % 3 {
            0 => text(seed, len),
            1 => (0..len).map(|i| (seed >> (i / run % 8)).to_le_bytes()[0]).collect(),
            _ => text(seed, len).into_iter().map(|b| b.wrapping_mul(seed.to_le_bytes()[1] | 1)).collect(),
        }).collect();
        for codec in all_codecs(&plain) {
            let unpacker = unpacker(1 << 20);
            let stream = stream(&unpacker, pack(codec, &plain), codec);
            for &(at, len) in &reads {
                let start = usize::try_from(at).unwrap().min(plain.len());
                let end = (start + len).min(plain.len());
                prop_assert_eq!(&stream.read_at(at, len, &UNLIMITED).unwrap(), &plain[start..end]);
            }
            prop_assert_eq!(stream.len(&UNLIMITED).unwrap(), plain.len() as u64);
        }
    }
}
