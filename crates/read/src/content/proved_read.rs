//! Serves content of volumes that are still being read, if the signature archive proves it.
//!
//! A signature has the sums of each block of a file at a snapshot, whatever parts and deltas the block is made of. So the proof is
//! over offsets in the file: its extents say which bytes of which volumes make a block, the members that a pass has decoded say
//! where they are, and nothing of that needs to be right. A wrong place gives bytes that the sums do not prove. Then the request
//! waits until the volumes are verified.

use std::sync::{Arc, OnceLock};

use super::error::ContentError;
use super::extent_map::ExtentMap;
use super::file_ref::{FileRef, hint_number};
use super::part_finder::PartFinder;
use super::part_layout::{PART_BYTES, PartLayout, PartLocation};
use super::stored_stream::StoredStream;
use crate::volume::{MemberPart, MemberTable, ReadHint, RunningVolume, SignedBlocks, Unverified, VolumeError, Volumes};
use dupfs_base::ByteRange;
use dupfs_format::difftar::DiffKind;
use dupfs_format::manifest::PartSelector;
use dupfs_format::{ArchivePath, EntryKind, VolumeId, VolumeNumber};

/// A signature archive is read for the sums if it has at most this fraction of the bytes of the volume that they are for.
const MAX_SUMS_FRACTION: u64 = 4;

/// A file whose end was proved before its last volume is verified: its size is right, but the places of its parts may be wrong.
#[derive(Debug)]
pub(super) struct ProvedFile {
    pub(super) extents: ExtentMap,
    sums: SignedBlocks,
}

/// Bytes of a volume that were read from its pass.
struct RunningBytes {
    running: Arc<RunningVolume>,
    range: ByteRange,
    hint: ReadHint,
}

/// The sums that prove `file`, of which a volume of `stored_len` bytes is being read.
///
/// # Errors
/// For the end of the request.
pub(super) fn sums(
    volumes: &dyn Volumes,
    file: &FileRef,
    stored_len: u64,
) -> Result<Option<SignedBlocks>, ContentError> {
    let Some(set) = file.version().and_then(|version| file.branch.set_at(version.position)) else { return Ok(None) };
    let signed = volumes.signed_blocks(set, &file.path, stored_len / MAX_SUMS_FRACTION);
    signed.map_err(|error| ContentError::Volume { path: file.path.clone(), error })
}

/// Finds `file`, whose newest version is stored whole, in its last volume `running`, and proves its size by its last block. `None`
/// if that is not possible before the volume is verified. `volumes` do not wait for slow passes.
///
/// # Errors
/// [`ContentError`] if a pass fails, or for the end of the request.
pub(super) fn locate(
    volumes: &dyn Volumes,
    file: &FileRef,
    running: &Arc<RunningVolume>,
) -> Result<Option<ProvedFile>, ContentError> {
    let Some(version) = file.version() else { return Ok(None) };
    let finder = PartFinder::new(volumes, file, version.position)?;
    let last_volume = finder.manifest.volume_of(&file.path, PartSelector::Last);
    let id = running.id();
    if id.set != finder.set || Some(id.number) != last_volume || volumes.is_rebuilt(finder.set) {
        return Ok(None);
    }
    let Some(sums) = sums(volumes, file, running.stored_len())? else { return Ok(None) };
    let found = running.find(volumes.context(), &file.path, |members| last_part(members, &file.path));
    let Some(end) = found.map_err(|error| finder.wrap(error))? else { return Ok(None) };
    let before = end.number.saturating_sub(1).saturating_mul(PART_BYTES);
    let len = before.saturating_add(end.part.len);
    let layout = if end.is_multivol {
        PartLayout::Uniform { last: end.number }
    } else {
        PartLayout::Parts(Box::new([PartLocation { volume: id.number, start: 0, offset: end.part.offset, len }]))
    };
    let stream = StoredStream {
        set: finder.set,
        kind: end.kind,
        len,
        meta: end.meta,
        position: version.position,
        is_ambiguous: false,
        layout,
        resolved: OnceLock::new(),
    };
    let is_file = stream.kind == DiffKind::Snapshot && stream.meta.kind == EntryKind::File;
    // An empty file has no block that proves it.
    let is_covered = sums.covers(running.is_encrypted());
    if !is_file || !is_covered || !stream.has_signed_meta(file, version) || !sums.allows(len) {
        return Ok(None);
    }
    let extents = ExtentMap::of_stream(Arc::new(stream));
    let proved = ProvedFile { extents, sums };
    let last_block = len.saturating_sub(1) / proved.sums.block_len() * proved.sums.block_len();
    // The volume before is not fetched for the size.
    let first_here = end.first_number.saturating_sub(1).saturating_mul(PART_BYTES);
    if last_block < first_here {
        return Ok(None);
    }
    if !proved.read(volumes, file, ByteRange { start: last_block, end: len }, &mut Vec::new())? {
        return Ok(None);
    }
    if len == 0 {
        let hint = ReadHint { file: hint_number(file.node), last_volume, read_once: true };
        volumes.record_proved(running, ByteRange::at(end.part.offset, 0), hint, &file.path);
    }
    Ok(Some(proved))
}

impl ProvedFile {
    /// Bytes of memory it takes, roughly.
    pub(super) fn weight(&self) -> u64 {
        self.extents.weight().saturating_add(size_of::<Self>() as u64)
    }

    /// As [`read`], for this file.
    ///
    /// # Errors
    /// As [`read`].
    pub(super) fn read(
        &self,
        volumes: &dyn Volumes,
        file: &FileRef,
        range: ByteRange,
        out: &mut Vec<u8>,
    ) -> Result<bool, ContentError> {
        read(volumes, file, (&self.extents, &self.sums), range, out)
    }
}

/// Appends the bytes `range` (cut at the end of the file) to `out` if `sums` prove each of them. Returns false, with `out` as it
/// was, if they do not, or if a volume was verified meanwhile. `volumes` do not wait for slow passes.
///
/// # Errors
/// [`ContentError`] if a pass fails, or for the end of the request.
pub(super) fn read(
    volumes: &dyn Volumes,
    file: &FileRef,
    (extents, sums): (&ExtentMap, &SignedBlocks),
    range: ByteRange,
    out: &mut Vec<u8>,
) -> Result<bool, ContentError> {
    let (size, block) = (extents.size(), sums.block_len());
    let range = ByteRange { start: range.start, end: range.end.min(size) };
    if range.start >= range.end {
        return Ok(true);
    }
    let start = range.start / block * block;
    let whole = ByteRange { start, end: range.end.checked_next_multiple_of(block).unwrap_or(size).min(size) };
    let (mut content, mut used) = (Unverified::default(), Vec::new());
    for extent in extents.slice(whole) {
        let stream = extent.stream.and_then(|index| extents.streams.get(index.get()));
        let Some(stream) = stream else { return Ok(false) };
        let part = ByteRange::at(extent.offset, extent.len);
        if !append(volumes, file, stream, part, (&mut content, &mut used))? {
            return Ok(false);
        }
    }
    let Some(proved) = sums.prove(start, content, size) else { return Ok(false) };
    let within = |offset: u64| usize::try_from(offset.saturating_sub(start)).unwrap_or(usize::MAX);
    let Some(wanted) = proved.get(within(range.start)..within(range.end)) else { return Ok(false) };
    out.extend_from_slice(wanted);
    for RunningBytes { running, range, hint } in &used {
        volumes.record_proved(running, *range, *hint, &file.path);
    }
    Ok(true)
}

/// Appends the bytes `range` of `stream` to the content, and the volumes that are not verified to `used`.
fn append(
    volumes: &dyn Volumes,
    file: &FileRef,
    stream: &StoredStream,
    range: ByteRange,
    (content, used): (&mut Unverified, &mut Vec<RunningBytes>),
) -> Result<bool, ContentError> {
    let stream = stream.resolved.get().map_or(stream, |resolved| resolved);
    let finder = PartFinder::new(volumes, file, stream.position)?;
    let last_volume = finder.manifest.volume_of(&file.path, PartSelector::Last);
    let hint = ReadHint { file: hint_number(file.node), last_volume, read_once: true };
    let mut at = range.start;
    let mut verified = Vec::new();
    while at < range.end {
        let Some(part) = part_at(volumes, &finder, file, stream, at)? else { return Ok(false) };
        let within = at.saturating_sub(part.start);
        let len = part.len.saturating_sub(within).min(range.end.saturating_sub(at));
        if len == 0 {
            return Ok(false);
        }
        let id = VolumeId { set: stream.set, number: part.volume };
        let bytes = ByteRange::at(part.offset.saturating_add(within), len);
        verified.clear();
        match volumes.read_volume(id, bytes, hint, &mut verified) {
            Ok(()) => content.extend_verified(&verified),
            Err(VolumeError::Slow { .. }) => {
                let Some(running) = volumes.slow_volume() else { return Ok(false) };
                let is_read = running.append(bytes, volumes.context(), content).map_err(|e| finder.wrap(e))?;
                used.push(RunningBytes { running, range: bytes, hint });
                if !is_read {
                    return Ok(false);
                }
            }
            // The place is wrong.
            Err(VolumeError::Range { .. }) => return Ok(false),
            Err(error) => return Err(finder.wrap(error)),
        }
        at = at.saturating_add(len);
    }
    Ok(true)
}

/// The likely place of the part with byte `at` of `stream`.
fn part_at(
    volumes: &dyn Volumes,
    finder: &PartFinder<'_>,
    file: &FileRef,
    stream: &StoredStream,
    at: u64,
) -> Result<Option<PartLocation>, ContentError> {
    let last = match &stream.layout {
        PartLayout::Parts(parts) => {
            let after = parts.partition_point(|part| part.start <= at);
            return Ok(after.checked_sub(1).and_then(|index| parts.get(index)).copied());
        }
        PartLayout::Uniform { last } => Some(*last),
        PartLayout::Assumed { .. } => None,
    };
    let number = (at / PART_BYTES).saturating_add(1);
    let start = at - at % PART_BYTES;
    let selector = if Some(number) == last { PartSelector::Last } else { PartSelector::Number(number) };
    let Some(volume) = finder.manifest.volume_of(&file.path, selector) else { return Ok(None) };
    let part =
        find_part(volumes, (finder, &file.path), volume, |members| part_of(members, &file.path, stream.kind, number))?;
    let expected = if Some(number) == last { stream.len.saturating_sub(start) } else { PART_BYTES };
    let part = part.filter(|part| part.len == expected);
    Ok(part.map(|part| PartLocation { volume, start, offset: part.offset, len: part.len }))
}

/// The part of the object at `path` that `look` finds in the members of `volume`, as far as they were decoded.
fn find_part(
    volumes: &dyn Volumes,
    (finder, path): (&PartFinder<'_>, &ArchivePath),
    volume: VolumeNumber,
    look: impl Fn(&MemberTable) -> Option<MemberPart>,
) -> Result<Option<MemberPart>, ContentError> {
    match volumes.members(VolumeId { set: finder.set, number: volume }) {
        Ok(members) => Ok(look(&members)),
        Err(VolumeError::Slow { .. }) => match volumes.slow_volume() {
            Some(running) => running.find(volumes.context(), path, look).map_err(|error| finder.wrap(error)),
            None => Ok(None),
        },
        Err(error) => Err(finder.wrap(error)),
    }
}

/// Part `number` of the object of `kind` at `path`.
fn part_of(members: &MemberTable, path: &ArchivePath, kind: DiffKind, number: u64) -> Option<MemberPart> {
    let runs = members.runs_of(path).filter(|(_, stored)| *stored == kind);
    runs.filter_map(|(run, _)| members.part(run, number)).next()
}

/// The last part of a file, in its last volume.
struct FileEnd {
    kind: DiffKind,
    meta: dupfs_format::EntryMeta,
    is_multivol: bool,
    /// The number of the first part in the volume.
    first_number: u64,
    number: u64,
    part: MemberPart,
}

/// The last part of the object at `path`, if all its parts are in `members`, which may be those of the beginning of a volume.
fn last_part(members: &MemberTable, path: &ArchivePath) -> Option<FileEnd> {
    let (index, _) = members.runs_of(path).find(|(_, kind)| *kind != DiffKind::Deleted)?;
    let run = members.run(index)?;
    let part = members.last_part(&run);
    // Only the last part is shorter. One that is not is the last if another object follows.
    let is_last = !run.multivol || part.len < PART_BYTES || members.run_count() > index.saturating_add(1);
    let (kind, first_number) = (run.kind, run.first_part().number);
    let end =
        || FileEnd { kind, meta: run.meta.clone(), is_multivol: run.multivol, first_number, number: part.number, part };
    is_last.then(end)
}
