//! A stored stream: the bytes that one set holds for one path (the file itself, or a delta), located in its volumes.

use std::sync::Arc;

use super::error::ContentError;
use super::file::{FileRef, set_label};
use crate::format::difftar::{self, DiffKind};
use crate::format::manifest::{Manifest, Part as PartKey};
use crate::format::sigtar::SizeBounds;
use crate::types::{ArchivePath, ByteRange, EntryMeta, SetIndex, VolumeId, VolumeNumber};
use crate::volume::{MemberTable, Part, Reader, Run, VolumeError, Volumes};

/// Length of every part but the last since duplicity 0.6.21 (FORMAT.md 4).
const PART: u64 = 65_536;

#[derive(Clone, Copy, Debug)]
struct Located {
    volume: VolumeNumber,
    /// Offset in the stream.
    start: u64,
    /// Offset in the volume's plaintext.
    offset: u64,
    len: u64,
}

/// Where the parts of a stream are.
#[derive(Debug)]
enum Layout {
    /// Parts `1..=last` of 65536 bytes each but the last; a part's volume follows from the manifest alone.
    Uniform { last: u64 },
    /// Every part was looked up.
    Parts(Box<[Located]>),
}

/// The bytes one set holds for one path.
#[derive(Debug)]
pub struct Stream {
    /// The set that holds it.
    pub set: SetIndex,
    /// Whether the bytes are the file or a delta.
    pub kind: DiffKind,
    /// Number of bytes.
    pub len: u64,
    /// Metadata in the headers beside the data; the parts of one stream agree.
    pub meta: EntryMeta,
    position: u32,
    layout: Layout,
}

impl Stream {
    /// Finds the stream that the set at `position` holds for `file`, fetching the file's last volume in that set; all
    /// its volumes if it is a delta or its parts are not of one size.
    ///
    /// # Errors
    /// [`ContentError`].
    pub fn locate(volumes: &dyn Volumes, file: &FileRef, position: u32) -> Result<Self, ContentError> {
        let finder = Finder::new(volumes, file, position)?;
        let last_volume = finder.manifest.volume_of(&file.path, PartKey::Last).ok_or_else(|| finder.no_data())?;
        let (volume, table, run) = finder.find_last(last_volume)?;
        let run = table.run(run).ok_or_else(|| finder.no_data())?;
        let parts = table.parts(run);
        let last = parts.last().copied().ok_or_else(|| finder.no_data())?;
        let (set, kind, meta) = (finder.set, run.kind, run.meta.clone());
        if !run.multivol {
            let only = Located { volume, start: 0, offset: last.offset, len: last.len };
            let layout = Layout::Parts(Box::new([only]));
            return Ok(Self { set, kind, len: last.len, meta, position, layout });
        }
        if kind == DiffKind::Snapshot
            && let Some(len) = uniform_len(parts)
            && file.bounds_at(position).is_some_and(|b| b.contains(len) && tells_parts(&b, parts))
        {
            return Ok(Self { set, kind, len, meta, position, layout: Layout::Uniform { last: last.number } });
        }
        let parts = finder.all_parts(kind)?;
        let len = parts.last().map_or(0, |p| p.start.saturating_add(p.len));
        Ok(Self { set, kind, len, meta, position, layout: Layout::Parts(parts.into()) })
    }

    /// Appends the bytes `range` of the stream to `out`.
    ///
    /// # Errors
    /// [`ContentError`]; then `out` may hold a part of the range.
    pub fn read(
        &self,
        volumes: &dyn Volumes,
        file: &FileRef,
        range: ByteRange,
        out: &mut Vec<u8>,
    ) -> Result<(), ContentError> {
        let mut at = range.start;
        let finder = Finder::new(volumes, file, self.position)?;
        let last = finder.manifest.volume_of(&file.path, PartKey::Last).unwrap_or(VolumeNumber(0));
        let reader = Reader { file: u64::from(file.node.0), last };
        while at < range.end {
            let part = self.part_at(&finder, at)?;
            let within = at.saturating_sub(part.start);
            let len = part.len.saturating_sub(within).min(range.end.saturating_sub(at));
            if len == 0 {
                return Err(finder.incomplete(format!("nothing at byte {at}")));
            }
            let id = VolumeId { set: self.set, number: part.volume };
            let bytes = ByteRange::at(part.offset.saturating_add(within), len);
            volumes.read_volume(id, bytes, reader, out).map_err(|e| finder.wrap(e))?;
            at = at.saturating_add(len);
        }
        Ok(())
    }

    /// The volumes that hold the bytes `range`, as far as they are known without fetching anything.
    pub fn volumes_of(&self, manifest: &Manifest, path: &ArchivePath, range: ByteRange) -> Vec<VolumeNumber> {
        let mut found: Vec<VolumeNumber> = match &self.layout {
            Layout::Parts(parts) => parts
                .iter()
                .filter(|p| p.start < range.end && p.start.saturating_add(p.len) > range.start)
                .map(|p| p.volume)
                .collect(),
            Layout::Uniform { last } => (range.start / PART..range.end.div_ceil(PART))
                .filter_map(|index| manifest.volume_of(path, key_of(index.saturating_add(1), *last)))
                .collect(),
        };
        found.dedup();
        found
    }

    fn part_at(&self, finder: &Finder<'_>, at: u64) -> Result<Located, ContentError> {
        match &self.layout {
            Layout::Parts(parts) => {
                let after = parts.partition_point(|p| p.start <= at);
                let part = after.checked_sub(1).and_then(|i| parts.get(i)).copied();
                part.ok_or_else(|| finder.incomplete(format!("nothing at byte {at}")))
            }
            Layout::Uniform { last } => {
                let number = (at / PART).saturating_add(1);
                let start = at - at % PART;
                let (volume, part) = finder.part(number, *last, self.kind)?;
                let expected = if number == *last { self.len.saturating_sub(start) } else { PART };
                if part.len != expected {
                    return Err(finder.incomplete(format!("part {number} has {} bytes", part.len)));
                }
                if part.mtime != self.meta.mtime {
                    return Err(finder.mixed());
                }
                Ok(Located { volume, start, offset: part.offset, len: part.len })
            }
        }
    }
}

/// The length of a stream whose parts are all of 65536 bytes but a shorter last one, judged by the parts in its last
/// volume; `None` if they are not of that form.
fn uniform_len(parts: &[Part]) -> Option<u64> {
    let (last, full) = parts.split_last()?;
    let consecutive = parts.windows(2).all(|w| matches!(w, [a, b] if b.number == a.number.saturating_add(1)));
    let agree = full.iter().all(|p| p.len == PART && p.mtime == last.mtime);
    (consecutive && agree && last.len < PART && last.number > 1).then(|| (last.number - 1) * PART + last.len)
}

/// Whether `bounds` rule out that the parts in volumes not seen are shorter than 65536 bytes, as duplicity wrote them
/// before 0.6.21: then each but the last lacks 512 bytes or more (FORMAT.md 4). A part of full length among `parts` tells
/// it too.
fn tells_parts(bounds: &SizeBounds, parts: &[Part]) -> bool {
    let lacking = parts.last().map_or(0, |last| last.number.saturating_sub(1).saturating_mul(512));
    parts.len() > 1 || bounds.max.saturating_sub(bounds.min) < lacking
}

fn key_of(number: u64, last: u64) -> PartKey {
    if number == last { PartKey::Last } else { PartKey::Number(number) }
}

/// Finds the parts of one path in the volumes of one set.
struct Finder<'a> {
    volumes: &'a dyn Volumes,
    file: &'a FileRef,
    set: SetIndex,
    position: u32,
    manifest: Arc<Manifest>,
}

impl<'a> Finder<'a> {
    fn new(volumes: &'a dyn Volumes, file: &'a FileRef, position: u32) -> Result<Self, ContentError> {
        let path = &file.path;
        let set = file.line.set_at(position).ok_or_else(|| ContentError::NotFile { path: path.clone() })?;
        let wrap = |error| ContentError::Volume { path: path.clone(), error };
        let manifest = volumes.manifest(set).map_err(wrap)?;
        Ok(Self { volumes, file, set, position, manifest })
    }

    /// The last run of the path: in `volume`, or where the manifest's spelling of names differs from the tree's in one
    /// of its neighbours (FORMAT.md 4.3, last row).
    fn find_last(&self, volume: VolumeNumber) -> Result<(VolumeNumber, Arc<MemberTable>, usize), ContentError> {
        if let Some((table, run)) = self.find_run(volume, None)? {
            return Ok((volume, table, run));
        }
        if !self.file.path.as_bytes().is_ascii() {
            for number in [volume.0.saturating_add(1), volume.0.saturating_sub(1)] {
                let neighbour = VolumeNumber(number);
                if self.manifest.volume(neighbour).is_none() {
                    continue;
                }
                if let Some((table, run)) = self.find_run(neighbour, None)? {
                    return Ok((neighbour, table, run));
                }
            }
        }
        Err(self.no_data())
    }

    /// The last run of the path in `volume` (of `kind`, if given), as an index into the table's runs.
    fn find_run(
        &self,
        volume: VolumeNumber,
        kind: Option<DiffKind>,
    ) -> Result<Option<(Arc<MemberTable>, usize)>, ContentError> {
        let id = VolumeId { set: self.set, number: volume };
        let table = self.volumes.members(id).map_err(|e| self.wrap(e))?;
        let fits = |run: &Run| run.kind != DiffKind::Deleted && kind.is_none_or(|k| run.kind == k);
        let raw = table.runs_of(&self.file.path).filter(|(_, run)| fits(run)).last().map(|(index, _)| index);
        let found = match raw {
            Some(run) => Some(run),
            None => self.find_mangled(&table, volume, &fits),
        };
        Ok(found.map(|run| (table, run)))
    }

    /// The run of the path under a name that its writer mangled (FORMAT.md 4.3). Where two names were mangled alike,
    /// the order decides: volumes and signature archives list the same objects in the same order.
    fn find_mangled(&self, table: &MemberTable, volume: VolumeNumber, fits: &dyn Fn(&Run) -> bool) -> Option<usize> {
        for form in difftar::mangled_forms(&self.file.path) {
            let Ok(mangled) = ArchivePath::parse(&form) else { continue };
            let runs: Vec<usize> =
                table.runs_of(&mangled).filter(|(_, run)| fits(run)).map(|(index, _)| index).collect();
            match *runs.as_slice() {
                [] => {}
                [only] => return Some(only),
                _ => return runs.get(self.rank_among_alike(&form, volume)?).copied(),
            }
        }
        None
    }

    /// How many paths that this set lists before ours were mangled to the same `form` and lie in the same volume.
    fn rank_among_alike(&self, form: &[u8], volume: VolumeNumber) -> Option<usize> {
        let table = self.file.line.table();
        let mut rank = 0;
        for (node, present) in table.set_entries(self.position) {
            if node == self.file.node {
                return Some(rank);
            }
            let path = table.path(node);
            let alike = path.as_bytes() == form || difftar::mangled_forms(&path).iter().any(|f| **f == *form);
            if present && alike && self.manifest.volume_of(&path, PartKey::Last) == Some(volume) {
                rank += 1;
            }
        }
        None
    }

    fn part(&self, number: u64, last: u64, kind: DiffKind) -> Result<(VolumeNumber, Part), ContentError> {
        let missing = || self.incomplete(format!("part {number} is missing"));
        let volume = self.manifest.volume_of(&self.file.path, key_of(number, last)).ok_or_else(missing)?;
        let (table, run) = self.find_run(volume, Some(kind))?.ok_or_else(missing)?;
        let parts = table.run(run).map_or(&[][..], |run| table.parts(run));
        let index = parts.binary_search_by_key(&number, |p| p.number).map_err(|_| missing())?;
        parts.get(index).map(|part| (volume, *part)).ok_or_else(missing)
    }

    /// Every part of the path, from all volumes that may hold some, in order.
    fn all_parts(&self, kind: DiffKind) -> Result<Vec<Located>, ContentError> {
        let mut found: Vec<Located> = Vec::new();
        let mut next = 1u64;
        let mut start = 0u64;
        let mut mtime = None;
        for listed in self.manifest.volumes_of(&self.file.path) {
            let Some((table, run)) = self.find_run(listed.number, Some(kind))? else { continue };
            let Some(run) = table.run(run) else { continue };
            for part in table.parts(run) {
                if part.number != next {
                    return Err(self.incomplete(format!("part {next} is missing")));
                }
                if *mtime.get_or_insert(part.mtime) != part.mtime {
                    return Err(self.mixed());
                }
                found.push(Located { volume: listed.number, start, offset: part.offset, len: part.len });
                start = start.saturating_add(part.len);
                next = next.saturating_add(1);
            }
        }
        match found.as_slice() {
            [] => Err(self.no_data()),
            [.., last] if last.len == PART => Err(self.incomplete("its end is missing".to_owned())),
            _ => Ok(found),
        }
    }

    fn wrap(&self, error: VolumeError) -> ContentError {
        ContentError::Volume { path: self.file.path.clone(), error }
    }

    fn label(&self) -> Arc<str> {
        set_label(self.volumes, self.set)
    }

    fn no_data(&self) -> ContentError {
        ContentError::NoData { path: self.file.path.clone(), set: self.label() }
    }

    fn incomplete(&self, detail: String) -> ContentError {
        ContentError::Incomplete { path: self.file.path.clone(), set: self.label(), detail: detail.into() }
    }

    fn mixed(&self) -> ContentError {
        ContentError::Mixed { path: self.file.path.clone(), set: self.label() }
    }
}
