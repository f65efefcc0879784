//! Encodes an [`ExtentMap`] as a record of the index and decodes it. Decoding takes any bytes.

use std::sync::{Arc, OnceLock};

use super::extent::{Extent, StreamIndex};
use super::extent_map::ExtentMap;
use super::file_ref::FileRef;
use super::part_layout::{PART_BYTES, PartLayout, PartLocation};
use super::stored_stream::StoredStream;
use crate::meta_encoding::{decode_meta, encode_meta};
use dupfs_cache::index::encoding::{RecordDecoder, RecordEncoder};
use dupfs_format::VolumeNumber;
use dupfs_format::difftar::DiffKind;

/// Encodes `extent_map` as a record.
pub(super) fn encode(extent_map: &ExtentMap) -> Vec<u8> {
    let mut encoder = RecordEncoder::default();
    encoder.number(extent_map.streams.len() as u64);
    for stream in &extent_map.streams {
        encoder.number(stream.position.into());
        encoder.byte(u8::from(stream.kind == DiffKind::Diff));
        encoder.number(stream.len);
        encode_meta(&mut encoder, &stream.meta);
        match &stream.layout {
            PartLayout::Uniform { last } => {
                encoder.byte(0);
                encoder.number(*last);
            }
            PartLayout::Assumed { sure } => {
                encoder.byte(1);
                encoder.number(*sure);
            }
            PartLayout::Parts(parts) => {
                encoder.byte(2);
                encoder.number(parts.len() as u64);
                for PartLocation { volume, offset, len, .. } in parts {
                    encoder.number(volume.0.into());
                    encoder.number(*offset);
                    encoder.number(*len);
                }
            }
        }
    }
    encoder.number(extent_map.extents.len() as u64);
    for Extent { len, stream, offset, .. } in &extent_map.extents {
        encoder.number(*len);
        encoder.number(stream.map_or(0, |index| index.get() as u64 + 1));
        encoder.number(*offset);
    }
    encoder.out
}

/// Decodes a record of [`encode`] about `file`; `None` if it is not valid.
pub(super) fn decode(file: &FileRef, record: &[u8]) -> Option<ExtentMap> {
    let mut decoder = RecordDecoder::new(record);
    let mut streams = Vec::new();
    for _ in 0..decoder.count()? {
        streams.push(Arc::new(read_stream(file, &mut decoder)?));
    }
    let (mut extents, mut size) = (Vec::new(), 0u64);
    for _ in 0..decoder.count()? {
        let len = decoder.number().filter(|&len| len > 0)?;
        // 0 marks a range that is in no stream.
        let stream = match decoder.number_u32()?.checked_sub(1) {
            Some(index) => Some(StreamIndex::new(usize::try_from(index).ok()?)?),
            None => None,
        };
        let offset = decoder.number()?;
        let within = |stream: &Arc<StoredStream>| offset.checked_add(len).is_some_and(|end| end <= stream.len);
        if stream.is_some_and(|index| !streams.get(index.get()).is_some_and(within)) {
            return None;
        }
        extents.push(Extent { start: size, len, stream, offset });
        size = size.checked_add(len)?;
    }
    let version = file.version()?;
    let fits = decoder.is_at_end() && version.bounds.is_none_or(|bounds| bounds.contains(size));
    let set = file.branch.set_at(version.position).filter(|_| fits)?;
    Some(ExtentMap { size, extents, streams, set, repeated: OnceLock::new() })
}

fn read_stream(file: &FileRef, decoder: &mut RecordDecoder<'_>) -> Option<StoredStream> {
    let position = decoder.number_u32()?;
    let set = file.branch.set_at(file.version_at(position)?.position)?;
    let kind = match decoder.byte()? {
        0 => DiffKind::Snapshot,
        1 => DiffKind::Diff,
        _ => return None,
    };
    let len = decoder.number()?;
    let meta = decode_meta(decoder)?;
    let layout = match decoder.byte()? {
        0 => PartLayout::Uniform {
            last: decoder.number().filter(|&last| Some(last) == (len / PART_BYTES).checked_add(1))?,
        },
        1 => PartLayout::Assumed { sure: decoder.number().filter(|sure| *sure <= len / PART_BYTES)? },
        2 => PartLayout::Parts(read_parts(decoder, len)?),
        _ => return None,
    };
    // An extent map of ambiguous streams was proved before it was stored.
    let is_ambiguous = false;
    Some(StoredStream { set, kind, len, meta, position, is_ambiguous, layout, resolved: OnceLock::new() })
}

fn read_parts(decoder: &mut RecordDecoder<'_>, len: u64) -> Option<Box<[PartLocation]>> {
    let (mut parts, mut start) = (Vec::new(), 0u64);
    for _ in 0..decoder.count()? {
        let volume = VolumeNumber(decoder.number_u32()?);
        let (offset, len) = (decoder.number()?, decoder.number()?);
        parts.push(PartLocation { volume, start, offset, len });
        start = start.checked_add(len)?;
    }
    (start == len).then(|| parts.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use dupfs_format::{EntryKind, EntryMeta, SetIndex};

    /// The index contains these bytes: for another encoding, raise VERSION in crates/cache/src/index/framed_file.rs.
    #[test]
    fn the_bytes_of_an_extent_map_are_stable() {
        let meta = EntryMeta {
            kind: EntryKind::File,
            mode: 0o640,
            uid: 1000,
            gid: 100,
            uname: (*b"u").into(),
            gname: (*b"gr").into(),
            mtime: -7,
        };
        let stream = |position, kind, len, layout| {
            let (set, meta) = (SetIndex(9), meta.clone());
            Arc::new(StoredStream {
                set,
                kind,
                len,
                meta,
                position,
                is_ambiguous: false,
                layout,
                resolved: OnceLock::new(),
            })
        };
        let part = |volume, start, offset, len| PartLocation { volume: VolumeNumber(volume), start, offset, len };
        let parts = PartLayout::Parts([part(1, 0, 512, 5), part(300, 5, 1024, 2)].into());
        let streams = vec![
            stream(0, DiffKind::Snapshot, 65_537, PartLayout::Uniform { last: 2 }),
            stream(1, DiffKind::Snapshot, 200, PartLayout::Assumed { sure: 0 }),
            stream(130, DiffKind::Diff, 7, parts),
        ];
        let extent = |start, len, stream: Option<usize>, offset| Extent {
            start,
            len,
            stream: stream.map(|index| StreamIndex::new(index).unwrap()),
            offset,
        };
        let extents = vec![extent(0, 300, Some(0), 65_000), extent(300, 7, Some(2), 0), extent(307, 1, None, 5)];
        let map = ExtentMap { size: 308, extents, streams, set: SetIndex(9), repeated: OnceLock::new() };
        let attributes = b"\xe8\x07\x64\x01u\x02gr\xa0\x03\x0d\x00";
        let expected: &[&[u8]] = &[
            b"\x03",
            &[b"\x00\x00\x81\x80\x04", &attributes[..], b"\x00\x02"].concat(),
            &[b"\x01\x00\xc8\x01", &attributes[..], b"\x01\x00"].concat(),
            &[b"\x82\x01\x01\x07", &attributes[..], b"\x02\x02", b"\x01\x80\x04\x05", b"\xac\x02\x80\x08\x02"].concat(),
            b"\x03",
            b"\xac\x02\x01\xe8\xfb\x03",
            b"\x07\x03\x00",
            b"\x01\x00\x05",
        ];
        assert_eq!(encode(&map), expected.concat());
    }
}
