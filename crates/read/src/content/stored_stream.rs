//! A stored stream: the bytes that one set has for one path (the file itself, or a delta), located in its volumes.

use std::sync::OnceLock;

use super::error::ContentError;
use super::file_ref::{FileRef, hint_number, set_label};
use super::part_finder::PartFinder;
use super::part_layout::{PART_BYTES, PartLayout, PartLocation};
use super::signature_check::SignatureCheck;
use crate::tree::FileVersion;
use crate::volume::{MemberPart, ReadHint, Volumes};
use dupfs_base::ByteRange;
use dupfs_format::difftar::DiffKind;
use dupfs_format::manifest::PartSelector;
use dupfs_format::sigtar::SizeBounds;
use dupfs_format::{EntryKind, EntryMeta, SetIndex, VolumeId};

/// The bytes that one set has for one path.
#[derive(Debug)]
pub(super) struct StoredStream {
    /// The set that has it.
    pub set: SetIndex,
    /// Distinguishes the file itself from a delta.
    pub kind: DiffKind,
    /// Number of bytes; for an assumed base, the upper bound.
    pub len: u64,
    /// Metadata in the headers beside the data; the parts of one stream agree.
    pub meta: EntryMeta,
    pub(super) position: u32,
    /// True if the set stores several objects under the name, so that the signature must prove which one this is.
    pub(super) is_ambiguous: bool,
    pub(super) layout: PartLayout,
    /// The stream with every part looked up, once a volume has refuted the layout or it was not enough.
    pub(super) resolved: OnceLock<Box<StoredStream>>,
}

impl StoredStream {
    /// Bytes of memory it takes, roughly, with an allowance for parts that may yet be looked up.
    pub(super) fn weight(&self) -> u64 {
        let parts = match &self.layout {
            PartLayout::Uniform { .. } => 0,
            PartLayout::Parts(parts) => parts.len() as u64,
            // Rarely looked up.
            PartLayout::Assumed { sure } => (*sure).min(1 << 15),
        };
        parts.saturating_mul(size_of::<PartLocation>() as u64).saturating_add(size_of::<Self>() as u64 + 128)
    }

    /// Finds the stream that the set at `position` has for `file`, fetching the file's last volume in that set; all its
    /// volumes if it is a delta or its parts are not of one size.
    ///
    /// # Errors
    /// [`ContentError`].
    pub(super) fn locate(volumes: &dyn Volumes, file: &FileRef, position: u32) -> Result<Self, ContentError> {
        let finder = PartFinder::new(volumes, file, position)?;
        let last_volume = finder.manifest.volume_of(&file.path, PartSelector::Last).ok_or_else(|| finder.no_data())?;
        let (volume, table, run) = finder.find_last(last_volume)?;
        let run = table.run(run).ok_or_else(|| finder.no_data())?;
        let last = table.last_part(&run);
        let (set, kind, meta) = (finder.set, run.kind, run.meta.clone());
        if meta.kind != EntryKind::File {
            return Err(ContentError::OtherType { path: file.path.clone(), set: set_label(volumes, set) });
        }
        let is_ambiguous = volume != last_volume || table.runs_of(&file.path).count() > 1;
        if !run.multivol {
            let only = PartLocation { volume, start: 0, offset: last.offset, len: last.len };
            let reader = ReadHint { file: hint_number(file.node), last_volume: Some(volume), read_once: false };
            volumes.record_lookup(VolumeId { set, number: volume }, ByteRange::at(last.offset, last.len), reader);
            let layout = PartLayout::Parts(Box::new([only]));
            return Ok(Self {
                set,
                kind,
                len: last.len,
                meta,
                position,
                is_ambiguous,
                layout,
                resolved: OnceLock::new(),
            });
        }
        if kind == DiffKind::Snapshot
            && let Some(len) = uniform_len(table.parts(&run))
            && file
                .bounds_at(position)
                .is_some_and(|b| b.contains(len) && has_full_parts(&b, last, run.first_part() != last))
        {
            let layout = PartLayout::Uniform { last: last.number };
            return Ok(Self { set, kind, len, meta, position, is_ambiguous, layout, resolved: OnceLock::new() });
        }
        Ok(Self { is_ambiguous, ..Self::look_up(volumes, file, &finder, kind, meta)? })
    }

    /// The stream with every part looked up. Parts of different times are the file only if its signature proves them.
    fn look_up(
        volumes: &dyn Volumes,
        file: &FileRef,
        finder: &PartFinder<'_>,
        kind: DiffKind,
        meta: EntryMeta,
    ) -> Result<Self, ContentError> {
        let (set, position) = (finder.set, finder.position);
        let (parts, mixed) = finder.all_parts(kind)?;
        let len = parts.last().map_or(0, |p| p.start.saturating_add(p.len));
        let layout = PartLayout::Parts(parts.into());
        let is_ambiguous = false;
        let mut stream = Self { set, kind, len, meta, position, is_ambiguous, layout, resolved: OnceLock::new() };
        if mixed {
            if !stream.is_signed(volumes, file)? {
                return Err(finder.mixed());
            }
            let version = file.version_at(position);
            stream.meta = version.and_then(|v| file.branch.table().meta(v.id)).unwrap_or(stream.meta);
        }
        Ok(stream)
    }

    /// Returns true if the stream is the file that its set signed, by the sums of every block. Reads all of it and the set's
    /// signature archive.
    ///
    /// # Errors
    /// [`ContentError`] when either cannot be read.
    pub(super) fn is_signed(&self, volumes: &dyn Volumes, file: &FileRef) -> Result<bool, ContentError> {
        if self.kind != DiffKind::Snapshot {
            return Ok(false);
        }
        let finder = PartFinder::new(volumes, file, self.position)?;
        let (mut holds, mut failure) = (false, None);
        let read = volumes.signatures(self.set, &mut |object, plain| {
            failure = None;
            let mut at = 0u64;
            let mut next = |len: usize| {
                let range = ByteRange { start: at, end: at.saturating_add(len as u64).min(self.len) };
                let mut block = Vec::new();
                match self.read_parts(&finder, volumes, file, range, false, &mut block) {
                    Ok(()) => at = range.end,
                    Err(error) => {
                        failure = Some(error);
                        return None;
                    }
                }
                Some(block)
            };
            let mut proof = SignatureCheck::new(&file.path, &mut next);
            let read = proof.read(object, plain);
            holds = proof.holds();
            read
        });
        read.map_err(|e| finder.wrap(e))?;
        failure.map_or(Ok(holds), Err)
    }

    /// Returns true if the metadata beside the data is that in the signature archive.
    pub(super) fn has_signed_meta(&self, file: &FileRef, version: FileVersion) -> bool {
        let signed = file.branch.table().meta(version.id);
        signed.is_some_and(|signed| signed == self.meta || signed.unmangled() == self.meta.unmangled())
    }

    /// Checks that the stream, which makes a file of `size` bytes, is the state that its set signed: the next delta was made
    /// from that.
    ///
    /// # Errors
    /// [`ContentError::OtherBase`] if it is another one, or [`ContentError`] when the signature cannot be read.
    pub(super) fn check_is_base(&self, volumes: &dyn Volumes, file: &FileRef, size: u64) -> Result<(), ContentError> {
        let Some(version) = file.version_at(self.position) else { return Ok(()) };
        let fits = version.bounds.is_none_or(|b| b.contains(size));
        if fits && (version.mtime == self.meta.mtime || self.is_signed(volumes, file)?) {
            return Ok(());
        }
        Err(ContentError::OtherBase { path: file.path.clone(), set: set_label(volumes, self.set) })
    }

    /// The stream that the set at `position`, the oldest of the file's history, must have: the file itself, because a
    /// delta would have no base. Fetches nothing. `None` without a signature.
    ///
    /// Copies of a delta need only the volumes of its base that contain the copied bytes, neither its last volume nor
    /// its size.
    pub(super) fn assume_base(file: &FileRef, position: u32) -> Option<Self> {
        let bounds = file.bounds_at(position)?;
        let sure = bounds.min / PART_BYTES;
        let set = file.branch.set_at(position)?;
        let version = file.version_at(position)?;
        let meta = file.branch.table().meta(version.id)?;
        let (kind, layout) = (DiffKind::Snapshot, PartLayout::Assumed { sure });
        let is_ambiguous = false;
        Some(Self { set, kind, len: bounds.max, meta, position, is_ambiguous, layout, resolved: OnceLock::new() })
    }

    /// Appends the bytes `range` of the stream to `out`; `once` is true if a reader of the whole file reads them once.
    ///
    /// # Errors
    /// [`ContentError`]; then `out` may contain a part of the range.
    pub(super) fn read(
        &self,
        volumes: &dyn Volumes,
        file: &FileRef,
        range: ByteRange,
        once: bool,
        out: &mut Vec<u8>,
    ) -> Result<(), ContentError> {
        let finder = PartFinder::new(volumes, file, self.position)?;
        let quick = match &self.layout {
            PartLayout::Parts(_) => return self.read_parts(&finder, volumes, file, range, once, out),
            PartLayout::Uniform { .. } => true,
            PartLayout::Assumed { sure } => range.end <= sure.saturating_mul(PART_BYTES),
        };
        if quick && self.resolved.get().is_none() {
            let before = out.len();
            match self.read_parts(&finder, volumes, file, range, once, out) {
                Err(error) if error.is_misplaced() => out.truncate(before),
                read => return read,
            }
        }
        let resolved = match self.resolved.get() {
            Some(resolved) => resolved,
            None => {
                let resolved = self.resolve(volumes, file, &finder)?;
                self.resolved.get_or_init(|| Box::new(resolved))
            }
        };
        if resolved.kind != self.kind || range.end > resolved.len {
            return Err(self.base_error(volumes, file, resolved, range.end));
        }
        resolved.read(volumes, file, range, once, out)
    }

    /// The error that this assumed base of a delta, which turned out to be `resolved`, does not have the bytes up to
    /// `end` that the delta copies.
    fn base_error(&self, volumes: &dyn Volumes, file: &FileRef, resolved: &Self, end: u64) -> ContentError {
        let path = file.path.clone();
        if resolved.kind != self.kind {
            return ContentError::NoBase { path, set: set_label(volumes, self.set) };
        }
        // The base is the oldest version, so it is the next one whose delta copies from it.
        let newer = file.history.iter().rev().find(|version| version.position > self.position);
        let set = newer.and_then(|version| file.branch.set_at(version.position)).unwrap_or(self.set);
        let detail = format!("it copies bytes up to {end} of a file that has {}", resolved.len);
        ContentError::Delta { path, set: set_label(volumes, set), detail: detail.into() }
    }

    fn resolve(&self, volumes: &dyn Volumes, file: &FileRef, finder: &PartFinder<'_>) -> Result<Self, ContentError> {
        if let PartLayout::Uniform { .. } = self.layout {
            return Self::look_up(volumes, file, finder, self.kind, self.meta.clone());
        }
        let located = Self::locate(volumes, file, self.position)?;
        located.check_is_base(volumes, file, located.len)?;
        Ok(located)
    }

    fn read_parts(
        &self,
        finder: &PartFinder<'_>,
        volumes: &dyn Volumes,
        file: &FileRef,
        range: ByteRange,
        once: bool,
        out: &mut Vec<u8>,
    ) -> Result<(), ContentError> {
        let mut at = range.start;
        let last_volume = finder.manifest.volume_of(&file.path, PartSelector::Last);
        let reader = ReadHint { file: hint_number(file.node), last_volume, read_once: once };
        while at < range.end {
            let part = self.part_at(finder, at)?;
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

    fn part_at(&self, finder: &PartFinder<'_>, at: u64) -> Result<PartLocation, ContentError> {
        match &self.layout {
            PartLayout::Parts(parts) => {
                let after = parts.partition_point(|p| p.start <= at);
                let part = after.checked_sub(1).and_then(|i| parts.get(i)).copied();
                part.ok_or_else(|| finder.incomplete(format!("nothing at byte {at}")))
            }
            PartLayout::Uniform { .. } | PartLayout::Assumed { .. } => {
                let last = match &self.layout {
                    PartLayout::Uniform { last } => Some(*last),
                    PartLayout::Assumed { .. } | PartLayout::Parts(_) => None,
                };
                let number = (at / PART_BYTES).saturating_add(1);
                let start = at - at % PART_BYTES;
                let (volume, part) = finder.part(number, last, self.kind)?;
                let expected = if Some(number) == last { self.len.saturating_sub(start) } else { PART_BYTES };
                if part.len != expected {
                    return Err(finder.incomplete(format!("part {number} has {} bytes", part.len)));
                }
                if part.mtime != self.meta.mtime {
                    return Err(finder.mixed());
                }
                Ok(PartLocation { volume, start, offset: part.offset, len: part.len })
            }
        }
    }
}

/// The length of a stream whose parts are all of 65536 bytes but a shorter last one, judged by the parts in its last
/// volume; `None` if they are not of that form.
fn uniform_len(mut parts: impl Iterator<Item = MemberPart>) -> Option<u64> {
    let mut last = parts.next()?;
    let agree = parts.all(|next| {
        let before = std::mem::replace(&mut last, next);
        next.number == before.number.saturating_add(1) && before.len == PART_BYTES && before.mtime == next.mtime
    });
    let before = last.number.checked_sub(1).filter(|&full| full > 0)?.checked_mul(PART_BYTES)?;
    before.checked_add(last.len).filter(|_| agree && last.len < PART_BYTES)
}

/// Returns true if `bounds` rule out that the parts in volumes not seen are shorter than 65536 bytes, as duplicity
/// wrote them before 0.6.21: then each but the `last` lacks 512 bytes or more (FORMAT.md 4). A part of full length before it
/// in its volume (`has_full`) rules it out too.
fn has_full_parts(bounds: &SizeBounds, last: MemberPart, has_full: bool) -> bool {
    let lacking = last.number.saturating_sub(1).saturating_mul(512);
    has_full || bounds.max.saturating_sub(bounds.min) < lacking
}
