//! An extent map: a version of a file as one flat list of extents over stored streams. Deltas compose into it, so no
//! version is ever materialised, and reading after many increments is as fast as reading from the full set.

use std::sync::{Arc, OnceLock};

use super::error::ContentError;
use super::extent::{Extent, RepeatedRanges, StreamIndex};
use super::file_ref::{FileRef, set_label};
use super::parsed_delta::{DeltaOp, ParsedDelta};
use super::stored_stream::StoredStream;
use crate::volume::Volumes;
use dupfs_base::ByteRange;
use dupfs_format::SetIndex;

/// A version of a file as extents.
#[derive(Debug)]
pub struct ExtentMap {
    pub(super) size: u64,
    pub(super) extents: Vec<Extent>,
    pub(super) streams: Vec<Arc<StoredStream>>,
    pub(super) set: SetIndex,
    /// The ranges that are in the file more than once; found when it is first read.
    pub(super) repeated: OnceLock<RepeatedRanges>,
}

impl ExtentMap {
    /// The extent map of a file that is one whole stream.
    pub(super) fn of_stream(stream: Arc<StoredStream>) -> Self {
        let (size, set) = (stream.len, stream.set);
        let whole = Extent { start: 0, len: size, stream: StreamIndex::new(0), offset: 0 };
        let extents = if size == 0 { Vec::new() } else { vec![whole] };
        Self { size, extents, streams: vec![stream], set, repeated: OnceLock::new() }
    }

    /// The extent map of the version that `delta`, stored as `stream`, makes of the version `base`; `None` if it has more than
    /// `max_extents`: small deltas that copy the whole of their base many times could multiply them without bound.
    pub(super) fn compose(
        base: Option<&Self>,
        delta: &ParsedDelta,
        stream: Arc<StoredStream>,
        max_extents: usize,
    ) -> Option<Self> {
        let set = stream.set;
        let mut streams = base.map_or_else(Vec::new, |b| b.streams.clone());
        let own = StreamIndex::new(streams.len())?;
        streams.push(stream);
        let mut extent_map = Self { size: 0, extents: Vec::new(), streams, set, repeated: OnceLock::new() };
        for op in &delta.ops {
            match *op {
                DeltaOp::Literal { at, len } => extent_map.push(len, Some(own), at),
                DeltaOp::Copy { offset, len } => extent_map.push_slice(base, offset, len),
            }
            if extent_map.extents.len() > max_extents {
                return None;
            }
        }
        extent_map.drop_unused_streams();
        Some(extent_map)
    }

    /// The file's size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Bytes of memory the extent map takes, roughly.
    pub(super) fn weight(&self) -> u64 {
        // The repeated ranges are found later; they are no more than there are extents.
        let extent = size_of::<Extent>() + RepeatedRanges::WEIGHT;
        let streams: u64 = self.streams.iter().map(|stream| stream.weight()).sum();
        streams.saturating_add((self.extents.capacity() * extent + size_of::<Self>()) as u64)
    }

    /// Appends the bytes `range` (cut at the end of the file) to `out`.
    ///
    /// # Errors
    /// [`ContentError`] when a byte of it cannot be read.
    pub fn read(
        &self,
        volumes: &dyn Volumes,
        file: &FileRef,
        range: ByteRange,
        out: &mut Vec<u8>,
    ) -> Result<(), ContentError> {
        let repeated = self.repeated.get_or_init(|| RepeatedRanges::of(&self.extents));
        for extent in self.slice(range) {
            let stored = extent.stream.and_then(|index| Some((index, self.streams.get(index.get())?)));
            let (index, stream) = stored.ok_or_else(|| ContentError::Delta {
                path: file.path.clone(),
                set: set_label(volumes, self.set),
                detail: format!("it copies {} bytes from beyond the end of its base", extent.len).into(),
            })?;
            let range = ByteRange::at(extent.offset, extent.len);
            stream.read(volumes, file, range, !repeated.overlap(index, range), out)?;
        }
        Ok(())
    }

    /// The extents of `range`, cut at its ends and at the end of the file.
    pub(super) fn slice(&self, range: ByteRange) -> impl Iterator<Item = Extent> + '_ {
        let end = range.end.min(self.size);
        let first = self.extents.partition_point(|e| e.start.saturating_add(e.len) <= range.start);
        let extents = self.extents.get(first..).unwrap_or(&[]);
        extents.iter().take_while(move |e| e.start < end).map(move |e| {
            let skip = range.start.saturating_sub(e.start);
            let until = e.len.min(end.saturating_sub(e.start));
            let (start, len) = (e.start.saturating_add(skip), until.saturating_sub(skip));
            Extent { start, len, stream: e.stream, offset: e.offset.saturating_add(skip) }
        })
    }

    fn push(&mut self, len: u64, stream: Option<StreamIndex>, offset: u64) {
        if len == 0 {
            return;
        }
        let start = self.size;
        self.size = self.size.saturating_add(len);
        if let Some(last) = self.extents.last_mut()
            && last.stream == stream
            && (stream.is_none() || last.offset.checked_add(last.len) == Some(offset))
        {
            last.len = last.len.saturating_add(len);
            return;
        }
        self.extents.push(Extent { start, len, stream, offset });
    }

    fn push_slice(&mut self, base: Option<&Self>, offset: u64, len: u64) {
        let before = self.size;
        if let Some(base) = base {
            for extent in base.slice(ByteRange::at(offset, len)) {
                self.push(extent.len, extent.stream, extent.offset);
            }
        }
        let lost = len.saturating_sub(self.size.saturating_sub(before));
        self.push(lost, None, 0);
    }

    /// Drops the streams that later deltas have overwritten.
    fn drop_unused_streams(&mut self) {
        let mut used = vec![false; self.streams.len()];
        for index in self.extents.iter().filter_map(|extent| extent.stream) {
            if let Some(is_used) = used.get_mut(index.get()) {
                *is_used = true;
            }
        }
        if used.iter().all(|&is_used| is_used) {
            return;
        }
        let mut next_index = 0;
        let mut renumber = |is_used: &bool| {
            let index = is_used.then(|| StreamIndex::new(next_index)).flatten();
            next_index += usize::from(*is_used);
            index
        };
        let renumbered: Vec<Option<StreamIndex>> = used.iter().map(&mut renumber).collect();
        for extent in &mut self.extents {
            extent.stream = extent.stream.and_then(|index| renumbered.get(index.get()).copied().flatten());
        }
        let mut used = used.iter();
        self.streams.retain(|_| used.next().copied().unwrap_or(false));
        self.extents.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::super::part_layout::{PartLayout, PartLocation};
    use super::*;
    use dupfs_format::difftar::DiffKind;
    use dupfs_format::{EntryKind, EntryMeta, VolumeNumber};

    /// A stored stream of `len` bytes in `parts` parts.
    fn stream(kind: DiffKind, len: u64, parts: u64) -> Arc<StoredStream> {
        let part =
            |i| PartLocation { volume: VolumeNumber(1), start: i * len / parts, offset: i * 1024, len: len / parts };
        let layout = PartLayout::Parts((0..parts).map(part).collect());
        let (uname, gname) = Default::default();
        let meta = EntryMeta { kind: EntryKind::File, mode: 0, uid: 0, gid: 0, uname, gname, mtime: 0 };
        let (is_ambiguous, resolved) = (false, OnceLock::new());
        Arc::new(StoredStream { set: SetIndex(0), kind, len, meta, position: 0, is_ambiguous, layout, resolved })
    }

    #[test]
    fn deltas_that_multiply_the_pieces_of_their_base_meet_a_limit() {
        let delta = |ops: Vec<DeltaOp>| ParsedDelta { out_len: 0, ops: ops.into() };
        let base = ExtentMap::of_stream(stream(DiffKind::Snapshot, 1000, 1));
        let pieces = delta((0..100).map(|i| DeltaOp::Copy { offset: i * 7 % 1000, len: 1 }).collect());
        let base = ExtentMap::compose(Some(&base), &pieces, stream(DiffKind::Diff, 9, 1), 100).unwrap();
        assert_eq!((base.size(), base.extents.len()), (100, 100));
        let whole = delta(vec![DeltaOp::Copy { offset: 0, len: 100 }; 1_000_000]);
        assert!(ExtentMap::compose(Some(&base), &whole, stream(DiffKind::Diff, 9, 1), 10_000).is_none());
        let some = delta(vec![DeltaOp::Copy { offset: 0, len: 100 }; 100]);
        assert!(ExtentMap::compose(Some(&base), &some, stream(DiffKind::Diff, 9, 1), 10_000).is_some());
    }

    #[test]
    fn the_weight_of_an_extent_map_includes_its_streams() {
        let weight = |parts| ExtentMap::of_stream(stream(DiffKind::Snapshot, 1 << 20, parts)).weight();
        assert_eq!(weight(1000) - weight(1), 999 * size_of::<PartLocation>() as u64);
    }
}
