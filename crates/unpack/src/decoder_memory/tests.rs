//! Many streams that are read at once, or that were begun and left.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::byte_source::ByteSource;
use crate::decompressed_stream::DecompressedStream;
use crate::memory_source::MemorySource;
use crate::point_store::MemoryPointStore;
use crate::stream_codec::StreamCodec;
use crate::test_support::{TestSource, UNLIMITED};
use crate::unpacker::Unpacker;
use crate::{UnpackError, UnpackLimits};
use dupfs_base::{ErrorKind, HasKind, RequestContext};
use dupfs_cache::CacheConfig;

const MIB: u64 = 1 << 20;

/// An unpacker whose decoders may take `decoders` bytes, and one alone `max_decoders`. Each is kept for `hold`.
fn with_limits(decoders: u64, max_decoders: u64, hold: Duration) -> Arc<Unpacker> {
    let cache = CacheConfig { memory_bytes: 0, spill: None };
    let limits = UnpackLimits { decoders, max_decoders, hold, ..UnpackLimits::default() };
    Unpacker::new(cache, limits, Arc::new(MemoryPointStore::new(0)))
}

/// An unpacker that drops idle decoders at once when others need their memory.
fn unpacker(decoders: u64) -> Arc<Unpacker> {
    with_limits(decoders, 64 * MIB, Duration::ZERO)
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
        let memory = unpacker.decoders.bytes();
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
        assert_eq!(unpacker.decoders.bytes(), 0);
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
    assert_eq!(unpacker.decoders.bytes(), 0, "it has ended");
}

#[test]
fn decoders_report_their_memory() -> Result<(), UnpackError> {
    let plain = text(3_000_000);
    let memory = |codec, packed: &[u8]| -> Result<u64, UnpackError> {
        let unpacker = unpacker(u64::MAX);
        let stream = stream(&unpacker, packed, codec);
        stream.read_at(0, 10, &UNLIMITED)?;
        Ok(unpacker.decoders.bytes() / MIB)
    };
    assert!((8..20).contains(&memory(StreamCodec::Xz, &xz(&plain))?));
    assert!((8..14).contains(&memory(StreamCodec::Zstd, &zstd(&plain))?));
    let mut bzip2 = ::bzip2::write::BzEncoder::new(Vec::new(), ::bzip2::Compression::new(9));
    bzip2.write_all(&plain).unwrap();
    assert!((1..500).contains(&memory(StreamCodec::Bzip2, &bzip2.finish().unwrap())?));
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
    assert!(unpacker.decoders.bytes() <= 20 * MIB, "{}", unpacker.decoders.bytes());
    drop(streams);
    assert_eq!(unpacker.decoders.bytes(), 0);
}

/// Source bytes that are read when `readers` streams of the same content are read in order at once, as a multiple of those
/// of one reader after the other.
fn repetition(unpacker: &Arc<Unpacker>, packed: &[u8], plain: &[u8]) -> f64 {
    let sources: Vec<_> = (0..5).map(|_| Arc::new(TestSource::new("a", packed.to_vec()))).collect();
    std::thread::scope(|scope| {
        for source in &sources {
            scope.spawn(move || {
                let stream = DecompressedStream::new(unpacker, Arc::clone(source) as _, StreamCodec::Xz);
                let mut at = 0;
                while at < plain.len() {
                    let bytes = stream.read_at(at as u64, 128 << 10, &UNLIMITED).unwrap();
                    assert_eq!(bytes, &plain[at..(at + (128 << 10)).min(plain.len())]);
                    at += bytes.len();
                }
            });
        }
    });
    let read: u64 = sources.iter().map(|source| source.bytes_read()).sum();
    read as f64 / (5 * packed.len()) as f64
}

#[test]
fn parallel_readers_whose_decoders_do_not_fit_together_decode_each_byte_once() {
    let plain = text(6_000_000);
    let packed = xz(&plain);
    let unpacker = with_limits(12 * MIB, 12 * MIB, Duration::from_secs(30));
    // The first bytes are read twice: a decoder starts before it knows how much memory it needs.
    let ratio = repetition(&unpacker, &packed, &plain);
    assert!(ratio < 1.5, "{ratio}");
    assert_eq!(unpacker.decoders.bytes(), 0);
}

#[test]
fn a_reader_that_has_had_its_share_leaves_its_memory_and_at_most_as_much_is_decoded_again() {
    let plain = text(6_000_000);
    let packed = xz(&plain);
    let unpacker = with_limits(12 * MIB, 12 * MIB, Duration::from_millis(20));
    let ratio = repetition(&unpacker, &packed, &plain);
    assert!(ratio < 3.5, "{ratio}");
}

#[test]
fn nested_streams_whose_decoders_do_not_fit_together_do_not_deadlock() {
    let plain = text(2_000_000);
    let packed = xz(&xz(&plain));
    let unpacker = with_limits(22 * MIB, 24 * MIB, Duration::from_millis(20));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let (unpacker, packed, plain) = (&unpacker, &packed, &plain);
            scope.spawn(move || {
                let inner = stream(unpacker, packed, StreamCodec::Xz);
                let outer = DecompressedStream::new(unpacker, inner, StreamCodec::Xz);
                let mut out = Vec::new();
                while out.len() < plain.len() {
                    out.extend_from_slice(&outer.read_at(out.len() as u64, 100_000, &UNLIMITED).unwrap());
                }
                assert!(&out == plain);
            });
        }
    });
    assert_eq!(unpacker.decoders.bytes(), 0);
}

#[test]
fn nested_streams_that_are_read_for_ever_do_not_keep_others_from_their_memory() {
    let plain = text(400_000);
    let packed = xz(&xz(&plain));
    // One pair of decoders fits.
    let unpacker = with_limits(22 * MIB, 24 * MIB, Duration::from_millis(20));
    let unfinished = AtomicUsize::new(3);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            let (unpacker, packed, plain, unfinished) = (&unpacker, &packed, &plain, &unfinished);
            scope.spawn(move || {
                let mut has_finished = false;
                // A new stream has no blocks in the cache, so each round needs both decoders for all of the content.
                while unfinished.load(Ordering::SeqCst) > 0 {
                    let inner = stream(unpacker, packed, StreamCodec::Xz);
                    let outer = DecompressedStream::new(unpacker, inner, StreamCodec::Xz);
                    let mut at = 0;
                    while at < plain.len() && !(has_finished && unfinished.load(Ordering::SeqCst) == 0) {
                        let bytes = outer.read_at(at as u64, 50_000, &UNLIMITED).unwrap();
                        assert_eq!(bytes, &plain[at..at + bytes.len()]);
                        at += bytes.len();
                    }
                    if !std::mem::replace(&mut has_finished, true) {
                        unfinished.fetch_sub(1, Ordering::SeqCst);
                    }
                }
            });
        }
    });
    assert_eq!(unpacker.decoders.bytes(), 0);
}

#[test]
fn decoders_that_never_fit_are_refused_with_the_memory_that_they_need() {
    let plain = text(1_000_000);
    let unpacker = with_limits(4 * MIB, 12 * MIB, Duration::ZERO);
    let alone = stream(&unpacker, &xz(&plain), StreamCodec::Xz);
    assert_eq!(alone.read_at(7, 3, &UNLIMITED).unwrap(), &plain[7..10], "larger than the budget, and alone");
    let nested =
        DecompressedStream::new(&unpacker, stream(&unpacker, &xz(&xz(&plain)), StreamCodec::Xz), StreamCodec::Xz);
    let error = nested.read_at(0, 10, &UNLIMITED).unwrap_err();
    assert!(matches!(error, UnpackError::Limit { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains(" MiB of memory: mount with --memory ") && text.contains("M or more"), "{text}");
}

#[test]
fn a_request_for_memory_ends_at_its_deadline_and_names_the_option() {
    let plain = text(3_000_000);
    let unpacker = with_limits(12 * MIB, 12 * MIB, Duration::from_secs(600));
    let [first, second] = [(); 2].map(|()| stream(&unpacker, &xz(&plain), StreamCodec::Xz));
    first.read_at(0, 10, &UNLIMITED).unwrap();
    let soon = RequestContext::with_timeout(Duration::from_millis(30));
    let error = second.read_at(0, 10, &soon).unwrap_err();
    assert!(error.kind() == ErrorKind::Timeout && error.to_string().contains("a larger --memory"), "{error}");
    assert_eq!(second.read_at(0, 10, &RequestContext::cached_only()).unwrap_err().kind(), ErrorKind::WouldBlock);
    drop(first);
    assert_eq!(second.read_at(0, 10, &UNLIMITED).unwrap(), &plain[..10]);
}

#[test]
fn a_later_stream_with_a_larger_window_counts_too() {
    let plain = text(2_000_000);
    let mut small = liblzma::write::XzEncoder::new(Vec::new(), 0);
    small.write_all(&plain).unwrap();
    let packed = [small.finish().unwrap(), xz(&plain)].concat();
    let unpacker = unpacker(40 * MIB);
    let stream = stream(&unpacker, &packed, StreamCodec::Xz);
    stream.read_at(0, 10, &UNLIMITED).unwrap();
    assert!(unpacker.decoders.bytes() < 4 * MIB, "{}", unpacker.decoders.bytes());
    assert_eq!(stream.read_at(2_500_000, 10, &UNLIMITED).unwrap(), &plain[500_000..500_010]);
    assert!(unpacker.decoders.bytes() > 8 * MIB, "{}", unpacker.decoders.bytes());
}
