//! A plan: a version of a file as one flat list of extents over stored streams. Deltas compose into it, so that no
//! version is ever materialised and reading after many increments costs what reading from the full costs.

use std::sync::{Arc, OnceLock};

use super::delta::{Delta, Op};
use super::error::ContentError;
use super::file::{FileRef, set_label};
use super::stream::Stream;
use crate::types::{ByteRange, SetIndex};
use crate::volume::Volumes;

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
pub struct Plan {
    pub(super) size: u64,
    pub(super) extents: Vec<Extent>,
    pub(super) streams: Vec<Arc<Stream>>,
    pub(super) set: SetIndex,
    /// Whether no stored byte stands in the file twice; found when it is first read.
    pub(super) once: OnceLock<bool>,
}

impl Plan {
    /// The plan of a file that one stream holds whole.
    pub(super) fn of_stream(stream: Arc<Stream>) -> Self {
        let (size, set) = (stream.len, stream.set);
        let extents = if size == 0 { Vec::new() } else { vec![Extent { start: 0, len: size, stream: 0, offset: 0 }] };
        Self { size, extents, streams: vec![stream], set, once: OnceLock::from(true) }
    }

    /// The plan of the version that `delta`, stored as `stream`, makes of the version `base`.
    ///
    /// # Errors
    /// [`ContentError`] when the version has more streams than a plan can number.
    pub(super) fn compose(base: Option<&Self>, delta: &Delta, stream: Arc<Stream>) -> Self {
        let set = stream.set;
        let mut streams = base.map_or_else(Vec::new, |b| b.streams.clone());
        let own = u32::try_from(streams.len()).unwrap_or(LOST);
        streams.push(stream);
        let mut plan = Self { size: 0, extents: Vec::new(), streams, set, once: OnceLock::new() };
        for op in &delta.ops {
            match *op {
                Op::Literal { at, len } => plan.push(len, own, at),
                Op::Copy { offset, len } => plan.push_slice(base, offset, len),
            }
        }
        plan.drop_unused_streams();
        plan
    }

    /// The file's size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Bytes of memory the plan takes, roughly.
    pub(super) fn weight(&self) -> u64 {
        (self.extents.capacity() * size_of::<Extent>() + self.streams.len() * 8 + 128) as u64
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
        let once = *self.once.get_or_init(|| self.has_no_doubles());
        for extent in self.slice(range) {
            let stream = self.streams.get(extent.stream as usize).ok_or_else(|| ContentError::Delta {
                path: file.path.clone(),
                set: set_label(volumes, self.set),
                detail: format!("it copies {} bytes from beyond the end of its base", extent.len).into(),
            })?;
            stream.read(volumes, file, ByteRange::at(extent.offset, extent.len), once, out)?;
        }
        Ok(())
    }

    /// Whether no two extents share stored bytes: deltas copy one place several times where content repeats.
    fn has_no_doubles(&self) -> bool {
        let mut places: Vec<_> = self.extents.iter().map(|e| (e.stream, e.offset, e.len)).collect();
        places.sort_unstable();
        let apart = |a: &(u32, u64, u64), b: &(u32, u64, u64)| a.0 != b.0 || a.1.saturating_add(a.2) <= b.1;
        places.windows(2).all(|pair| matches!(pair, [a, b] if apart(a, b)))
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
    use super::*;

    fn plan(places: &[(u32, u64, u64)]) -> Plan {
        let mut plan =
            Plan { size: 0, extents: Vec::new(), streams: Vec::new(), set: SetIndex(0), once: OnceLock::new() };
        for &(stream, offset, len) in places {
            plan.push(len, stream, offset);
        }
        plan
    }

    #[test]
    fn bytes_that_stand_in_the_file_twice_are_found() {
        assert!(plan(&[]).has_no_doubles());
        assert!(plan(&[(0, 500, 100), (1, 0, 50), (0, 0, 500), (1, 50, 1)]).has_no_doubles());
        assert!(!plan(&[(0, 0, 100), (1, 0, 50), (0, 99, 10)]).has_no_doubles());
        assert!(!plan(&[(0, 10, 5), (1, 0, 50), (0, 0, 100)]).has_no_doubles());
    }
}
