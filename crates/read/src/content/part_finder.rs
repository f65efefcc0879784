//! Finding the parts of one path in the volumes of one set.

use std::sync::Arc;

use super::error::ContentError;
use super::file_ref::{FileRef, set_label};
use super::part_layout::{PART_BYTES, PartLocation};
use crate::volume::{MemberPart, MemberTable, VolumeError, Volumes};
use dupfs_format::difftar::{self, DiffKind};
use dupfs_format::manifest::{Manifest, PartSelector, VolumeBoundary};
use dupfs_format::{ArchivePath, SetIndex, VolumeId, VolumeNumber};

/// Finds the parts of one path in the volumes of one set.
pub(super) struct PartFinder<'a> {
    volumes: &'a dyn Volumes,
    file: &'a FileRef,
    pub(super) set: SetIndex,
    pub(super) position: u32,
    pub(super) manifest: Arc<Manifest>,
}

impl<'a> PartFinder<'a> {
    pub(super) fn new(volumes: &'a dyn Volumes, file: &'a FileRef, position: u32) -> Result<Self, ContentError> {
        let path = &file.path;
        let set = file.branch.set_at(position).ok_or_else(|| ContentError::NotFile { path: path.clone() })?;
        let wrap = |error| ContentError::Volume { path: path.clone(), error };
        let manifest = volumes.manifest(set).map_err(wrap)?;
        Ok(Self { volumes, file, set, position, manifest })
    }

    /// The last run of the path: in `volume`, or where the manifest's spelling of names differs from the tree's in one
    /// of its neighbours (FORMAT.md 4.3, last row).
    pub(super) fn find_last(
        &self,
        volume: VolumeNumber,
    ) -> Result<(VolumeNumber, Arc<MemberTable>, usize), ContentError> {
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
        let fits = |&(_, stored): &(usize, DiffKind)| kind.is_none_or(|kind| stored == kind);
        let mut runs = stored(&table, &self.file.path);
        let mut form: Box<[u8]> = self.file.path.as_bytes().into();
        if runs.is_empty() {
            // A name that its writer mangled (FORMAT.md 4.3).
            for other in difftar::mangled_forms(&self.file.path) {
                let Ok(mangled) = ArchivePath::parse(&other) else { continue };
                runs = stored(&table, &mangled);
                if !runs.is_empty() {
                    form = other;
                    break;
                }
            }
        }
        let run = match *runs.as_slice() {
            [] => None,
            [only] => Some(only).filter(fits),
            _ => match self.rank_among_alike(&table, &form, volume) {
                Some((0, 1)) => runs.iter().rev().copied().find(fits),
                Some((rank, alike)) if alike == runs.len() => runs.get(rank).copied().filter(fits),
                _ => {
                    return Err(ContentError::Ambiguous { path: self.file.path.clone(), set: self.label() });
                }
            },
        };
        Ok(run.map(|(run, _)| (table, run)))
    }

    /// The rank of the path, from 0, among those stored as `form` in the volume, and the number of those: volumes and
    /// signature archives list the same objects in the same order.
    fn rank_among_alike(&self, members: &MemberTable, form: &[u8], volume: VolumeNumber) -> Option<(usize, usize)> {
        let table = self.file.branch.table();
        let (mut rank, mut alike) = (None, 0usize);
        for (node, present) in table.set_entries(self.position) {
            let path = table.path(node);
            let is_form = path.as_bytes() == form;
            let as_form =
                || difftar::mangled_forms(&path).iter().any(|f| **f == *form) && stored(members, &path).is_empty();
            let here = || self.manifest.volumes_of(&path).iter().any(|v| v.number == volume);
            if present && (is_form || as_form()) && here() {
                if node == self.file.node {
                    rank = Some(alike);
                }
                alike = alike.saturating_add(1);
            }
        }
        rank.map(|rank| (rank, alike))
    }

    /// Part `number` of the path, counted from 1; `last` is the number of the last part, if it is known.
    pub(super) fn part(
        &self,
        number: u64,
        last: Option<u64>,
        kind: DiffKind,
    ) -> Result<(VolumeNumber, MemberPart), ContentError> {
        let missing = || self.incomplete(format!("part {number} is missing"));
        let selector = if Some(number) == last { PartSelector::Last } else { PartSelector::Number(number) };
        let volume = self.manifest.volume_of(&self.file.path, selector).ok_or_else(missing)?;
        let (table, run) = self.find_run(volume, Some(kind))?.ok_or_else(missing)?;
        table.part(run, number).map(|part| (volume, part)).ok_or_else(missing)
    }

    /// Every part of the path, from all volumes that may have some, in order.
    ///
    /// The second value is true if there are parts of different times (FORMAT.md 2.3).
    pub(super) fn all_parts(&self, kind: DiffKind) -> Result<(Vec<PartLocation>, bool), ContentError> {
        let mut found: Vec<PartLocation> = Vec::new();
        let mut next = 1u64;
        let mut start = 0u64;
        let (mut mtime, mut mixed) = (None, false);
        for listed in self.manifest.volumes_of(&self.file.path) {
            let Some((table, run)) = self.find_run(listed.number, Some(kind))? else { continue };
            let Some(run) = table.run(run) else { continue };
            for part in table.parts(&run) {
                if part.number != next {
                    return Err(self.incomplete(format!("part {next} is missing")));
                }
                mixed |= *mtime.get_or_insert(part.mtime) != part.mtime;
                found.push(PartLocation { volume: listed.number, start, offset: part.offset, len: part.len });
                start = start.saturating_add(part.len);
                next = next.saturating_add(1);
            }
        }
        match found.as_slice() {
            [] => Err(self.no_data()),
            [.., last] if last.len == PART_BYTES => Err(self.incomplete("its end is missing".to_owned())),
            _ => Ok((found, mixed)),
        }
    }

    pub(super) fn wrap(&self, error: VolumeError) -> ContentError {
        ContentError::Volume { path: self.file.path.clone(), error }
    }

    fn label(&self) -> Arc<str> {
        set_label(self.volumes, self.set)
    }

    /// The error that no volume has the file: the manifest is the cause if it is damaged where it names the volume.
    pub(super) fn no_data(&self) -> ContentError {
        let none = || {
            let or_lost = self.lost_end().unwrap_or_default().into();
            ContentError::NoData { path: self.file.path.clone(), set: self.label(), or_lost }
        };
        self.manifest_damage().unwrap_or_else(none)
    }

    /// The error that the volumes have only some of the parts, or that the manifest does not name the volumes of the
    /// others.
    pub(super) fn incomplete(&self, detail: String) -> ContentError {
        let part =
            || ContentError::Incomplete { path: self.file.path.clone(), set: self.label(), detail: detail.into() };
        self.manifest_damage().unwrap_or_else(part)
    }

    /// The error that the manifest is damaged where it names the volumes of the file, if it is.
    fn manifest_damage(&self) -> Option<ContentError> {
        if self.manifest.is_rebuilt() {
            let doubt = self.manifest.doubt(&self.file.path).map_or_else(String::new, |doubt| format!(" ({doubt})"));
            let detail = format!(
                "has lost its manifest, and no available volume has the whole file{doubt}: copy the manifest or missing \
                 volumes back from another replica"
            );
            return Some(ContentError::Unproven {
                path: self.file.path.clone(),
                set: self.label(),
                detail: detail.into(),
            });
        }
        let detail = self.manifest.doubt(&self.file.path).or_else(|| self.wrong_end())?;
        let manifest = self.volumes.manifest_name(self.set);
        let (path, set) = (self.file.path.clone(), self.label());
        Some(ContentError::ManifestDamaged { path, set, manifest, detail: detail.into() })
    }

    /// Describes the possible loss of entries at the end of the manifest: the file sorts after the last volume, and the store
    /// has a further one, which may also be left over from an interrupted run.
    fn lost_end(&self) -> Option<String> {
        if self.manifest.volume_of(&self.file.path, PartSelector::Last).is_some() {
            return None;
        }
        let next = VolumeNumber(self.manifest.last_number().0.checked_add(1)?);
        let is_stored = self.volumes.stored_len(VolumeId { set: self.set, number: next }).is_some_and(|len| len > 0);
        let manifest = self.volumes.manifest_name(self.set);
        is_stored.then(|| {
            format!(", or {manifest} has lost its end, because the store has volume {next}, which it does not list")
        })
    }

    /// Describes an entry of the manifest that gives another end than its volume has, among those that determine where
    /// the file is. Names that may be mangled are not compared.
    fn wrong_end(&self) -> Option<String> {
        let first = self.manifest.volume_of(&self.file.path, PartSelector::Number(1))?;
        let last = self.manifest.volume_of(&self.file.path, PartSelector::Last).unwrap_or(first);
        [Some(first), Some(last), first.0.checked_sub(1).map(VolumeNumber)].into_iter().flatten().find_map(|number| {
            let listed = self.manifest.volume(number)?;
            // Its hash was verified, so it is the volume of the entry.
            let table = self.volumes.members(VolumeId { set: self.set, number }).ok()?;
            let run = table.last_run()?;
            let part = run.multivol.then(|| table.last_part(&run).number);
            let is_plain = run.path.as_bytes().is_ascii() && listed.end.path.as_bytes().is_ascii();
            let differs = run.path != listed.end.path || (listed.end.part.is_some() && listed.end.part != part);
            let found = VolumeBoundary { path: run.path.clone(), part };
            (is_plain && differs)
                .then(|| format!("volume {number} ends at {found}, but its entry states {}", listed.end))
        })
    }

    pub(super) fn mixed(&self) -> ContentError {
        ContentError::Mixed { path: self.file.path.clone(), set: self.label() }
    }
}

/// The runs of `path` that are an object or a delta: their indexes in the table and their kinds.
fn stored(table: &MemberTable, path: &ArchivePath) -> Vec<(usize, DiffKind)> {
    table.runs_of(path).filter(|(_, kind)| *kind != DiffKind::Deleted).collect()
}
