//! Composed extent maps and exact sizes in the index. An extent map is found again only for the very same sets and versions, and only
//! where nothing of the tree is in doubt; reading takes any bytes, and what is no extent map of the file gives `None`.

use std::sync::{Arc, OnceLock};

use super::extent_map::{Extent, ExtentMap, LOST};
use super::file_ref::FileRef;
use super::part_layout::{PART_BYTES, PartLayout, PartLocation};
use super::stored_stream::StoredStream;
use crate::meta_encoding::{decode_meta, encode_meta};
use crate::tree::FileVersion;
use crate::volume::Volumes;
use dupfs_cache::index::Identity;
use dupfs_cache::index::encoding::{RecordDecoder, RecordEncoder};
use dupfs_format::difftar::DiffKind;
use dupfs_format::{SetIndex, VolumeNumber};

/// Larger extent maps are not kept.
const MAX_RECORD_BYTES: usize = 4 << 20;

/// Keeps the exact size of a version of `file`, here and in the index.
pub(super) fn set_exact_size(volumes: &dyn Volumes, file: &FileRef, version: FileVersion, size: u64) {
    let (fresh, place) = {
        let table = file.branch.table();
        (table.set_exact_size(version.id, size), table.index_in_set(version.id))
    };
    if fresh
        && let Some((position, at)) = place
        && let Some(set) = file.branch.set_at(position)
    {
        volumes.index().store_size(set, at, size);
    }
}

/// The extent map of `file`, which has deltas, if the index has it.
pub(super) fn load_extent_map(volumes: &dyn Volumes, file: &FileRef) -> Option<ExtentMap> {
    if file.history.len() < 2 || !volumes.index().may_load() {
        return None;
    }
    let record = volumes.index().load(key(volumes, file)?)?;
    decode(file, &record)
}

/// Keeps the extent map of `file` in the index.
pub(super) fn store_extent_map(volumes: &dyn Volumes, file: &FileRef, extent_map: &ExtentMap) {
    if !volumes.index().is_enabled() {
        return;
    }
    let Some((key, set)) = key(volumes, file).zip(file.version().and_then(|v| file.branch.set_at(v.position))) else {
        return;
    };
    let record = encode(extent_map);
    if record.len() <= MAX_RECORD_BYTES {
        volumes.index().store(key, set, record);
    }
}

/// The identity of the file's versions, and of all that their sets store.
fn key(volumes: &dyn Volumes, file: &FileRef) -> Option<Identity> {
    let places: Vec<(u32, u32)> = {
        let table = file.branch.table();
        if table.has_uncertainty() {
            return None;
        }
        file.history.iter().map(|version| table.index_in_set(version.id)).collect::<Option<_>>()?
    };
    let mut identity = Identity::of(&[b"plan"]);
    for (position, place) in places {
        let set = volumes.index().identity(file.branch.set_at(position)?)?;
        identity = identity.with(&[&set.0, &position.to_le_bytes(), &place.to_le_bytes()]);
    }
    Some(identity)
}

impl FileRef {
    /// The identity of the file's content, and the set that holds its newest version. `None` where something of the tree is in
    /// doubt.
    pub fn identity(&self, volumes: &dyn Volumes) -> Option<(Identity, SetIndex)> {
        let set = self.branch.set_at(self.version()?.position)?;
        Some((key(volumes, self)?.with(&[b"content"]), set))
    }
}

fn encode(extent_map: &ExtentMap) -> Vec<u8> {
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
        encoder.number(stream.checked_add(1).unwrap_or(0).into());
        encoder.number(*offset);
    }
    encoder.out
}

fn decode(file: &FileRef, record: &[u8]) -> Option<ExtentMap> {
    let mut decoder = RecordDecoder::new(record);
    let mut streams = Vec::new();
    for _ in 0..decoder.count()? {
        streams.push(Arc::new(read_stream(file, &mut decoder)?));
    }
    let (mut extents, mut size) = (Vec::new(), 0u64);
    for _ in 0..decoder.count()? {
        let len = decoder.number().filter(|&len| len > 0)?;
        let stream = decoder.number_u32()?.checked_sub(1).unwrap_or(LOST);
        let offset = decoder.number()?;
        let within = |stream: &Arc<StoredStream>| offset.checked_add(len).is_some_and(|end| end <= stream.len);
        if stream != LOST && !streams.get(stream as usize).is_some_and(within) {
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
    Some(StoredStream { set, kind, len, meta, position, layout, settled: OnceLock::new() })
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
