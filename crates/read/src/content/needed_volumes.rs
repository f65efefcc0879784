//! The volumes that a read of a file needs, from the extent map if it is known, else from the manifests. No volume is fetched.

use std::collections::BTreeSet;

use super::error::ContentError;
use super::extent::Extent;
use super::extent_map::ExtentMap;
use super::file_ref::FileRef;
use super::part_layout::{PART_BYTES, PartLayout};
use super::stored_stream::StoredStream;
use crate::volume::Volumes;
use dupfs_format::manifest::{Manifest, PartSelector};
use dupfs_format::{ArchivePath, SetIndex, VolumeId, VolumeNumber};

/// The volumes that a read of a whole file needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NeededVolumes {
    /// The volumes that it needs.
    pub certain: BTreeSet<VolumeId>,
    /// The volumes that it may need besides. Together with the others they are an upper bound.
    pub possible: BTreeSet<VolumeId>,
}

impl NeededVolumes {
    fn add(&mut self, set: SetIndex, numbers: impl IntoIterator<Item = VolumeNumber>, is_certain: bool) {
        let kind = if is_certain { &mut self.certain } else { &mut self.possible };
        kind.extend(numbers.into_iter().map(|number| VolumeId { set, number }));
    }

    fn finish(mut self) -> Self {
        self.possible.retain(|id| !self.certain.contains(id));
        self
    }
}

/// The volume that gives the exact size of `file`, unless it has to be searched; `None` also if the manifest cannot be read.
pub fn size_volume(volumes: &dyn Volumes, file: &FileRef) -> Option<VolumeId> {
    let set = file.branch.set_at(file.version()?.position)?;
    let number = manifest(volumes, file, set).ok()?.volume_of(&file.path, PartSelector::Last)?;
    Some(VolumeId { set, number })
}

/// The volumes that hold the extents of `extent_map`.
pub(super) fn of_extent_map(
    volumes: &dyn Volumes,
    file: &FileRef,
    extent_map: &ExtentMap,
) -> Result<NeededVolumes, ContentError> {
    let mut needed = NeededVolumes::default();
    for (index, stream) in extent_map.streams.iter().enumerate() {
        let manifest = manifest(volumes, file, stream.set)?;
        let own = |extent: &&Extent| extent.stream.is_some_and(|stream| stream.get() == index);
        for extent in extent_map.extents.iter().filter(own) {
            add_extent(&mut needed, &manifest, file, stream, extent);
        }
    }
    Ok(needed.finish())
}

fn add_extent(needed: &mut NeededVolumes, manifest: &Manifest, file: &FileRef, stream: &StoredStream, extent: &Extent) {
    let (start, end) = (extent.offset, extent.offset.saturating_add(extent.len));
    let last_part = match &stream.layout {
        PartLayout::Parts(parts) => {
            let overlaps = |at: u64, len: u64| at < end && at.saturating_add(len) > start;
            let held = parts.iter().filter(|part| overlaps(part.start, part.len)).map(|part| part.volume);
            return needed.add(stream.set, held, true);
        }
        PartLayout::Uniform { last } => Some(*last),
        PartLayout::Assumed { sure } if end <= sure.saturating_mul(PART_BYTES) => None,
        // The parts have to be looked up, beginning with the last one.
        PartLayout::Assumed { .. } => {
            let held = manifest.volumes_of(&file.path).iter().map(|volume| volume.number);
            needed.add(stream.set, manifest.volume_of(&file.path, PartSelector::Last), true);
            return needed.add(stream.set, held, false);
        }
    };
    let volume_at = |byte: u64| {
        let number = (byte / PART_BYTES).saturating_add(1);
        let part = if Some(number) == last_part { PartSelector::Last } else { PartSelector::Number(number) };
        manifest.volume_of(&file.path, part)
    };
    if let (Some(first), Some(last)) = (volume_at(start), volume_at(end.saturating_sub(1))) {
        let numbers = manifest.volumes.iter().map(|volume| volume.number);
        needed.add(stream.set, numbers.filter(|number| (first..=last).contains(number)), true);
    }
}

/// The volumes of all versions that the content of `file` may rest on, by their manifests.
pub(super) fn of_history(volumes: &dyn Volumes, file: &FileRef) -> Result<NeededVolumes, ContentError> {
    let mut needed = NeededVolumes::default();
    for (index, version) in file.history.iter().enumerate() {
        let Some(set) = file.branch.set_at(version.position) else { continue };
        let manifest = manifest(volumes, file, set)?;
        let held = manifest.volumes_of(&file.path).iter().map(|volume| volume.number);
        // Deltas may copy nothing from older versions. For an empty file the member table in the index is enough.
        let is_empty = version.bounds.is_some_and(|bounds| bounds.max == 0);
        let is_certain = index == 0 && !is_empty && manifest.doubt(&file.path).is_none() && !manifest.is_rebuilt();
        needed.add(set, held, is_certain);
        needed.add(set, respelled(&manifest, &file.path), false);
    }
    Ok(needed.finish())
}

/// The neighbours of the last volume of `path` that are searched where the manifest may spell the name in another encoding than
/// the tree (FORMAT.md 4.3, last row). Boundaries of ASCII alone sort the same before and after both spellings.
fn respelled(manifest: &Manifest, path: &ArchivePath) -> Vec<VolumeNumber> {
    let Some(last) = manifest.volume_of(path, PartSelector::Last).filter(|_| !path.as_bytes().is_ascii()) else {
        return Vec::new();
    };
    let neighbours = [last.0.checked_sub(1), last.0.checked_add(1)].into_iter().flatten().map(VolumeNumber);
    let listed: Vec<_> = neighbours.filter_map(|number| manifest.volume(number)).collect();
    let mut ends = listed.iter().copied().chain(manifest.volume(last)).map(|volume| volume.end.path.as_bytes());
    if ends.all(<[u8]>::is_ascii) { Vec::new() } else { listed.iter().map(|volume| volume.number).collect() }
}

fn manifest(volumes: &dyn Volumes, file: &FileRef, set: SetIndex) -> Result<std::sync::Arc<Manifest>, ContentError> {
    volumes.manifest(set).map_err(|error| ContentError::Volume { path: file.path.clone(), error })
}
