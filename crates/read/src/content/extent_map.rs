//! An extent map: a version of a file as one flat list of extents over stored streams. Deltas compose into it, so that no
//! version is ever materialised and reading after many increments costs what reading from the full costs.

use std::sync::{Arc, OnceLock};

use super::error::ContentError;
use super::file_ref::{FileRef, set_label};
use super::parsed_delta::{DeltaOp, ParsedDelta};
use super::stored_stream::StoredStream;
use crate::volume::Volumes;
use dupfs_base::ByteRange;
use dupfs_format::SetIndex;

/// `len` bytes of the file from `start`, which stand in stream `stream` at `offset`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) start: u64,
    pub(super) len: u64,
    pub(super) stream: u32,
    pub(super) offset: u64,
}

/// Stream number of ranges that a damaged delta takes from beyond its base's end: an error when they are read, not
/// before, as the rest of the file is good.
pub(super) const LOST: u32 = u32::MAX;

/// A version of a file as extents.
#[derive(Debug)]
pub struct ExtentMap {
    pub(super) size: u64,
    pub(super) extents: Vec<Extent>,
    pub(super) streams: Vec<Arc<StoredStream>>,
    pub(super) set: SetIndex,
    /// What stands in the file more than once; found when it is first read.
    pub(super) repeated: OnceLock<RepeatedRanges>,
}

/// Ranges of streams that a file holds more than once, in order: deltas copy one place several times where content repeats.
#[derive(Debug, Default)]
pub(super) struct RepeatedRanges(Vec<(u32, u64, u64)>);

impl RepeatedRanges {
    fn of(extents: &[Extent]) -> Self {
        let places = extents.iter().filter(|e| e.stream != LOST);
        let mut places: Vec<_> = places.map(|e| (e.stream, e.offset, e.offset.saturating_add(e.len))).collect();
        places.sort_unstable();
        let mut found: Vec<(u32, u64, u64)> = Vec::new();
        // Up to where, in which stream, the places so far reach.
        let (mut of, mut reach) = (0, 0);
        for (stream, start, end) in places {
            if stream != of {
                (of, reach) = (stream, 0);
            }
            if start < reach {
                match found.last_mut() {
                    Some(last) if last.0 == stream && last.2 >= start => last.2 = last.2.max(end.min(reach)),
                    _ => found.push((stream, start, end.min(reach))),
                }
            }
            reach = reach.max(end);
        }
        Self(found)
    }

    fn touch(&self, stream: u32, range: ByteRange) -> bool {
        let next = self.0.partition_point(|&(of, _, end)| (of, end) <= (stream, range.start));
        self.0.get(next).is_some_and(|&(of, start, _)| of == stream && start < range.end)
    }
}

impl ExtentMap {
    /// The extent map of a file that one stream holds whole.
    pub(super) fn of_stream(stream: Arc<StoredStream>) -> Self {
        let (size, set) = (stream.len, stream.set);
        let extents = if size == 0 { Vec::new() } else { vec![Extent { start: 0, len: size, stream: 0, offset: 0 }] };
        Self { size, extents, streams: vec![stream], set, repeated: OnceLock::new() }
    }

    /// The extent map of the version that `delta`, stored as `stream`, makes of the version `base`; `None` if it has more than `most`
    /// extents: small deltas that copy the whole of their base many times could multiply them without end.
    pub(super) fn compose(
        base: Option<&Self>,
        delta: &ParsedDelta,
        stream: Arc<StoredStream>,
        most: usize,
    ) -> Option<Self> {
        let set = stream.set;
        let mut streams = base.map_or_else(Vec::new, |b| b.streams.clone());
        let own = u32::try_from(streams.len()).unwrap_or(LOST);
        streams.push(stream);
        let mut extent_map = Self { size: 0, extents: Vec::new(), streams, set, repeated: OnceLock::new() };
        for op in &delta.ops {
            match *op {
                DeltaOp::Literal { at, len } => extent_map.push(len, own, at),
                DeltaOp::Copy { offset, len } => extent_map.push_slice(base, offset, len),
            }
            if extent_map.extents.len() > most {
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
        // What stands twice is found later, and has no more places than there are extents.
        let extent = size_of::<Extent>() + size_of::<(u32, u64, u64)>();
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
            let stream = self.streams.get(extent.stream as usize).ok_or_else(|| ContentError::Delta {
                path: file.path.clone(),
                set: set_label(volumes, self.set),
                detail: format!("it copies {} bytes from beyond the end of its base", extent.len).into(),
            })?;
            let stored = ByteRange::at(extent.offset, extent.len);
            stream.read(volumes, file, stored, !repeated.touch(extent.stream, stored), out)?;
        }
        Ok(())
    }

    /// The extents of `range`, cut at its ends and at the end of the file.
    fn slice(&self, range: ByteRange) -> impl Iterator<Item = Extent> + '_ {
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

    fn push(&mut self, len: u64, stream: u32, offset: u64) {
        if len == 0 {
            return;
        }
        let start = self.size;
        self.size = self.size.saturating_add(len);
        if let Some(last) = self.extents.last_mut()
            && last.stream == stream
            && (stream == LOST || last.offset.checked_add(last.len) == Some(offset))
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
        self.push(lost, LOST, 0);
    }

    /// Streams that later deltas have overwritten need not be kept.
    fn drop_unused_streams(&mut self) {
        let mut used = vec![false; self.streams.len()];
        for extent in &self.extents {
            if let Some(slot) = used.get_mut(extent.stream as usize) {
                *slot = true;
            }
        }
        if used.iter().all(|&u| u) {
            return;
        }
        let mut next = 0u32;
        let renumbered: Vec<u32> = used
            .iter()
            .map(|&u| {
                if u {
                    next += 1;
                    next - 1
                } else {
                    LOST
                }
            })
            .collect();
        for extent in &mut self.extents {
            extent.stream = renumbered.get(extent.stream as usize).copied().unwrap_or(LOST);
        }
        let mut keep = used.iter();
        self.streams.retain(|_| keep.next().copied().unwrap_or(false));
        self.extents.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::super::part_layout::{PartLayout, PartLocation};
    use super::*;
    use dupfs_format::difftar::DiffKind;
    use dupfs_format::{EntryKind, EntryMeta, VolumeNumber};

    fn repeated(places: &[(u32, u64, u64)]) -> Vec<(u32, u64, u64)> {
        let extent = |&(stream, offset, len)| Extent { start: 0, len, stream, offset };
        RepeatedRanges::of(&places.iter().map(extent).collect::<Vec<_>>()).0
    }

    #[test]
    fn bytes_that_stand_in_the_file_twice_are_found() {
        assert_eq!(repeated(&[]), []);
        assert_eq!(repeated(&[(0, 500, 100), (1, 0, 50), (0, 0, 500), (1, 50, 1), (LOST, 0, 9), (LOST, 0, 9)]), []);
        assert_eq!(repeated(&[(0, 0, 100), (1, 0, 50), (0, 99, 10), (1, 20, 10)]), [(0, 99, 100), (1, 20, 30)]);
        assert_eq!(repeated(&[(0, 10, 5), (0, 0, 100), (0, 12, 30), (0, 90, 20)]), [(0, 10, 42), (0, 90, 100)]);
    }

    /// A stored stream of `len` bytes in `parts` parts.
    fn stream(kind: DiffKind, len: u64, parts: u64) -> Arc<StoredStream> {
        let part =
            |i| PartLocation { volume: VolumeNumber(1), start: i * len / parts, offset: i * 1024, len: len / parts };
        let layout = PartLayout::Parts((0..parts).map(part).collect());
        let (uname, gname) = Default::default();
        let meta = EntryMeta { kind: EntryKind::File, mode: 0, uid: 0, gid: 0, uname, gname, mtime: 0 };
        Arc::new(StoredStream { set: SetIndex(0), kind, len, meta, position: 0, layout, settled: OnceLock::new() })
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
    fn a_plan_weighs_what_its_streams_do() {
        let weight = |parts| ExtentMap::of_stream(stream(DiffKind::Snapshot, 1 << 20, parts)).weight();
        assert_eq!(weight(1000) - weight(1), 999 * size_of::<PartLocation>() as u64);
    }

    #[test]
    fn a_read_touches_what_it_overlaps() {
        let repeated = RepeatedRanges(vec![(0, 10, 20), (0, 30, 40), (2, 0, 5)]);
        let touched = |stream| (0..50).filter(|&at| repeated.touch(stream, ByteRange::at(at, 2))).collect::<Vec<_>>();
        assert_eq!(touched(0), (9..20).chain(29..40).collect::<Vec<_>>());
        assert_eq!(touched(1), [0u64; 0]);
        assert_eq!(touched(2), [0, 1, 2, 3, 4]);
    }
}
