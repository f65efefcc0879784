//! Many streams that were begun and left.

use std::io::Write;
use std::sync::Arc;

use crate::byte_source::ByteSource;
use crate::decompressed_stream::DecompressedStream;
use crate::memory_source::MemorySource;
use crate::point_store::MemoryPointStore;
use crate::stream_codec::StreamCodec;
use crate::test_support::UNLIMITED;
use crate::unpacker::Unpacker;
use crate::{UnpackError, UnpackLimits};
use dupfs_cache::CacheConfig;

const MIB: u64 = 1 << 20;

fn unpacker(idle: u64) -> Arc<Unpacker> {
    let cache = CacheConfig { memory_bytes: 0, spill: None };
    Unpacker::new(cache, UnpackLimits { idle, ..UnpackLimits::default() }, Arc::new(MemoryPointStore::new(0)))
}

fn text(len: usize) -> Vec<u8> {
    (1_u64..).flat_map(|i| format!("{:x}\n", i.wrapping_mul(0x9e37_79b9_7f4a_7c15)).into_bytes()).take(len).collect()
}

/// A stream whose decoder has a window of 8 MiB, as that of `xz -6`, made as fast as that of `xz -0`.
fn xz(plain: &[u8]) -> Vec<u8> {
    let mut options = liblzma::stream::LzmaOptions::new_preset(0).unwrap();
    options.dict_size(8 << 20);
    let mut filters = liblzma::stream::Filters::new();
    filters.lzma2(&options);
    let library = liblzma::stream::Stream::new_stream_encoder(&filters, liblzma::stream::Check::Crc64).unwrap();
    let mut encoder = liblzma::write::XzEncoder::new_stream(Vec::new(), library);
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

fn zstd(plain: &[u8]) -> Vec<u8> {
    let mut encoder = ::zstd::stream::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(23).unwrap();
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

fn stream(unpacker: &Arc<Unpacker>, packed: &[u8], codec: StreamCodec) -> Arc<DecompressedStream> {
    DecompressedStream::new(unpacker, Arc::new(MemorySource::new("a", packed)), codec)
}

#[test]
fn idle_streams_together_stay_within_the_memory_bound() {
    let plain = text(3_000_000);
    for (codec, packed) in [(StreamCodec::Xz, xz(&plain)), (StreamCodec::Zstd, zstd(&plain))] {
        let unpacker = unpacker(40 * MIB);
        let streams: Vec<_> = (0..12).map(|_| stream(&unpacker, &packed, codec)).collect();
        for stream in &streams {
            assert_eq!(stream.read_at(0, 10, &UNLIMITED).unwrap(), &plain[..10]);
        }
        let memory = unpacker.idle.bytes();
        assert!((20 * MIB..=40 * MIB).contains(&memory), "{codec:?}: {memory} bytes");
        let live = |stream: &&Arc<DecompressedStream>| stream.cursors() > 0;
        let (first, last) =
            (streams.iter().take(6).filter(live).count(), streams.iter().rev().take(2).filter(live).count());
        assert_eq!((first, last), (0, 2), "the oldest go first");
        // A reader that continues gets the same bytes.
        for stream in &streams {
            assert_eq!(stream.read_at(2_000_000, 100, &UNLIMITED).unwrap(), &plain[2_000_000..2_000_100], "{codec:?}");
        }
        drop(streams);
        assert_eq!(unpacker.idle.bytes(), 0);
    }
}

#[test]
fn a_sequential_reader_retains_its_decoder_whatever_its_size() {
    let plain = text(3_000_000);
    let unpacker = unpacker(1);
    let stream = stream(&unpacker, &xz(&plain), StreamCodec::Xz);
    let mut out = Vec::new();
    while out.len() < plain.len() {
        out.extend_from_slice(&stream.read_at(out.len() as u64, 100_000, &UNLIMITED).unwrap());
        assert!(stream.cursors() == 1 || out.len() > plain.len() - 600_000);
    }
    assert_eq!(out, plain);
    assert_eq!(unpacker.idle.bytes(), 0, "it has ended");
}

#[test]
fn decoders_report_their_memory() -> Result<(), UnpackError> {
    let plain = text(3_000_000);
    let memory = |codec, packed: &[u8]| -> Result<u64, UnpackError> {
        let unpacker = unpacker(u64::MAX);
        let stream = stream(&unpacker, packed, codec);
        stream.read_at(0, 10, &UNLIMITED)?;
        Ok(unpacker.idle.bytes() / MIB)
    };
    assert!((8..20).contains(&memory(StreamCodec::Xz, &xz(&plain))?));
    assert!((8..14).contains(&memory(StreamCodec::Zstd, &zstd(&plain))?));
    let mut bzip2 = ::bzip2::write::BzEncoder::new(Vec::new(), ::bzip2::Compression::new(9));
    bzip2.write_all(&plain).unwrap();
    assert!((1..20).contains(&memory(StreamCodec::Bzip2, &bzip2.finish().unwrap())?));
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(&plain).unwrap();
    assert!((0..3).contains(&memory(StreamCodec::Gzip, &gzip.finish().unwrap())?));
    Ok(())
}

#[test]
fn many_concurrent_readers_get_their_bytes_while_decoders_are_evicted() {
    let plain = text(3_000_000);
    let unpacker = unpacker(10 * MIB);
    let packed = zstd(&plain);
    let streams: Vec<_> = (0..4).map(|_| stream(&unpacker, &packed, StreamCodec::Zstd)).collect();
    std::thread::scope(|scope| {
        for reader in 0..8_usize {
            let (streams, plain) = (&streams, &plain);
            scope.spawn(move || {
                for turn in 0..20_usize {
                    let at = (reader * 300_000 + turn * 170_001) % 2_900_000;
                    let bytes = streams[(reader + turn) % 4].read_at(at as u64, 50_000, &UNLIMITED).unwrap();
                    assert_eq!(bytes, &plain[at..at + 50_000]);
                }
            });
        }
    });
    // One that is never dropped, and one that was put back at the same time.
    assert!(unpacker.idle.bytes() <= 20 * MIB, "{}", unpacker.idle.bytes());
    drop(streams);
    assert_eq!(unpacker.idle.bytes(), 0);
}
