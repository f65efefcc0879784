//! The code of the fuzz targets, as plain functions: each takes any bytes and asserts invariants that are true for all
//! of them.

use std::sync::Arc;

use super::archive_table::ArchiveTable;
use super::byte_source::ByteSource;
use super::bzip2::BzipDecoder;
use super::decode_context::DecodeContext;
use super::decode_workers::DecodeWorkers;
use super::decompressed_stream::DecompressedStream;
use super::memory_source::MemorySource;
use super::point_store::MemoryPointStore;
use super::seek_points::SeekPoints;
use super::stream_codec::StreamCodec;
use super::stream_decoder::StreamDecoder;
use super::unpacker::Unpacker;
use super::zip_method::{StatedContent, ZipMethod};
use super::{Archive, ArchiveFormat, UnpackLimits, links, xz};
use dupfs_base::{RequestContext, clamp_len};
use dupfs_cache::CacheConfig;

fn unpacker() -> Arc<Unpacker> {
    let cache = CacheConfig { memory_bytes: 1 << 20, spill: None };
    let limits = UnpackLimits { members: 200, names: 4096, free: 1 << 20, ratio: 100, ..UnpackLimits::default() };
    Unpacker::new(cache, limits, Arc::new(MemoryPointStore::new(0)))
}

/// bzip2: the decoder by blocks and the library return the same bytes.
pub fn fuzz_bzip2(data: &[u8]) {
    let source: Arc<dyn ByteSource> = Arc::new(MemorySource::new("a", data));
    let (workers, request) = (Arc::new(DecodeWorkers::new()), RequestContext::unlimited());
    let context = DecodeContext::new(&workers, 0, &request);
    let mut ours = BzipDecoder::new(source, Arc::clone(&workers));
    let mut out = Vec::new();
    let ended = loop {
        match ours.next(&context) {
            Ok(Some(bytes)) => out.extend_from_slice(&bytes),
            Ok(None) => break true,
            Err(_) => break false,
        }
        if out.len() > 1 << 22 {
            return;
        }
    };
    let mut theirs = Vec::new();
    let read = std::io::Read::read_to_end(&mut ::bzip2::bufread::MultiBzDecoder::new(data), &mut theirs);
    assert!(theirs.starts_with(&out) || read.is_err(), "bytes that the library does not give");
    assert!(!ended || out == theirs || read.is_err(), "an end that the library does not see");
}

/// Gzip, xz and zstd: reads in order and a jump agree.
pub fn fuzz_streams(data: &[u8]) {
    let unpacker = unpacker();
    for codec in [StreamCodec::Gzip, StreamCodec::Xz, StreamCodec::Zstd] {
        let stream = DecompressedStream::new(&unpacker, Arc::new(MemorySource::new("a", data)), codec);
        let Ok(len) = stream.len(&RequestContext::unlimited()) else { continue };
        let all = stream.read_at(0, 1 << 22, &RequestContext::unlimited());
        let middle = stream.read_at(len / 2, 100, &RequestContext::unlimited());
        if let (Ok(all), Ok(middle)) = (all, middle) {
            assert!(len > 1 << 22 || all.len() as u64 == len, "a wrong length");
            assert!(
                len > 1 << 22 || all.get(clamp_len(len / 2, all.len())..).is_some_and(|rest| rest.starts_with(&middle)),
                "a wrong jump"
            );
        }
    }
}

/// Methods of zip that have no other file form: any bytes are decoded within bounds or refused.
pub fn fuzz_members(data: &[u8]) {
    let unpacker = unpacker();
    for method in [ZipMethod::Deflate64, ZipMethod::Lzma] {
        let codec = StreamCodec::Zip(method, StatedContent { crc: crc32fast::hash(b""), size: 1 << 20 });
        let stream = DecompressedStream::new(&unpacker, Arc::new(MemorySource::new("a", data)), codec);
        let read = stream.read_at(0, 1 << 21, &RequestContext::unlimited());
        assert!(read.is_err(), "a length and a checksum that cannot both be right");
    }
}

/// Archives: the table is within its bounds, is decoded unchanged from its encoding, and its links stay inside.
pub fn fuzz_archive(data: &[u8]) {
    for container in [ArchiveFormat::Tar(None), ArchiveFormat::Zip] {
        let archive = Archive::new(&unpacker(), Arc::new(MemorySource::new("a", data)), container);
        let ended = archive.wait_for_pass(&RequestContext::unlimited());
        assert!(ended.is_ok(), "the pass does not end");
        archive.with_table(|table| {
            let encoded = table.encode();
            let again = encoded.as_ref().and_then(|bytes| ArchiveTable::decode(bytes, 1 << 20, 1 << 20));
            assert!(again.is_some_and(|again| again.encode() == encoded), "a table changes when it is encoded");
            for key in (0..u32::try_from(table.len()).unwrap_or(0)).map(super::NodeKey) {
                let depth = table.path(key).len().saturating_sub(1);
                let inside = links::inside(table, key);
                assert!(inside.is_none_or(|target| links::is_plain(&target, depth)), "a link leads out");
            }
        });
    }
}

/// Encoded seek points and tables: any bytes are decoded within bounds or refused.
pub fn fuzz_encoded(data: &[u8]) {
    if let Some((len, points)) = SeekPoints::decode(data) {
        assert_eq!(points.encode(len).as_deref(), Some(data), "points change when they are encoded");
    }
    drop(ArchiveTable::decode(data, 1000, 1 << 16));
    drop(xz::parse_index(data));
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use dupfs_test_tar::{TestHeader, mutations, put, put_entry};

    #[test]
    fn mutated_streams_archives_and_encoded_points() {
        let text: Vec<u8> = (0..3000_u32).flat_map(|i| (i * i).to_string().into_bytes()).collect();
        let mut bzip2 = ::bzip2::write::BzEncoder::new(Vec::new(), ::bzip2::Compression::new(1));
        bzip2.write_all(&text).unwrap();
        mutations(&bzip2.finish().unwrap(), 150, fuzz_bzip2);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        gzip.write_all(&text).unwrap();
        mutations(&gzip.finish().unwrap(), 150, fuzz_streams);
        mutations(&::zstd::encode_all(&text[..], 1).unwrap(), 150, fuzz_streams);
        let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 0);
        xz.write_all(&text).unwrap();
        let xz = xz.finish().unwrap();
        mutations(&xz, 100, fuzz_streams);
        mutations(&xz, 500, fuzz_encoded);
        let deflated = miniz_oxide::deflate::compress_to_vec(&text, 6);
        mutations(&deflated, 300, fuzz_members);
        mutations(&[&[9, 4, 5, 0, 0x5d, 0, 0, 4, 0, 0][..], &text].concat(), 100, fuzz_members);
        let mut tar = Vec::new();
        put_entry(&mut tar, b"d/a", b'0', b"text");
        put(&mut tar, TestHeader::new(b"d/l", b'2', 0).bytes(157, b"../../x/../y"), b"");
        put(&mut tar, TestHeader::new(b"h", b'1', 0).bytes(157, b"d/a"), b"");
        mutations(&tar, 500, fuzz_archive);
    }
}
