//! Rebuilds the manifest of a set that has lost it from the headers in its volumes (`--rebuild`).
//!
//! The result states where files may be, and proves nothing: the volumes have no hash, one may be missing at the end,
//! and one may be left over from an interrupted run. Readers prove the content that they serve if
//! [`Manifest::is_rebuilt`] is true.

use std::collections::BTreeMap;

use super::error::VolumeError;
use super::member_table::{MemberRun, MemberTable};
use dupfs_base::{ErrorKind, HasKind};
use dupfs_format::collection::BackupSet;
use dupfs_format::manifest::{Manifest, ManifestProblem, ManifestProblemKind, ManifestVolume, VolumeBoundary};
use dupfs_format::{ArchivePath, VolumeNumber};

/// The first and the last entry of a volume.
#[derive(Clone, Debug)]
pub(super) struct VolumeEnds {
    first: EntryKey,
    last: EntryKey,
}

/// An entry of a volume.
#[derive(Clone, Debug)]
struct EntryKey {
    path: ArchivePath,
    /// The number of the part, if the object was cut into parts.
    part: Option<u64>,
}

impl VolumeEnds {
    /// The ends of the volume with this `table`; `None` if it has no entries.
    fn of(table: &MemberTable) -> Option<Self> {
        let key = |run: &MemberRun, part: Option<u64>| EntryKey {
            path: run.path.clone(),
            part: part.filter(|_| run.multivol),
        };
        let (first, last) = (table.run(0)?, table.last_run()?);
        let (first_part, last_part) = (first.first_part().number, table.last_part(&last).number);
        Some(Self { first: key(&first, Some(first_part)), last: key(&last, Some(last_part)) })
    }

    /// Returns true if `next`, the volume after this one, continues the last object of this one.
    fn continues_in(&self, next: &Self) -> bool {
        self.last.path == next.first.path && self.last.part.is_some() && next.first.part > self.last.part
    }
}

/// The ends of the volumes that were read so far; `None` for volumes without entries.
pub(super) type KnownEnds = BTreeMap<VolumeNumber, Option<VolumeEnds>>;

/// Rebuilds the manifest of `set`. `table` reads the member table of a volume. `known` keeps what was read when this fails, so
/// that another attempt continues there.
///
/// # Errors
/// [`VolumeError`] if a volume cannot be read now and may be readable later. A damaged volume only loses its entry.
pub(super) fn rebuild_manifest(
    set: &BackupSet,
    known: &mut KnownEnds,
    mut table: impl FnMut(VolumeNumber) -> Result<MemberTable, VolumeError>,
) -> Result<Manifest, VolumeError> {
    let mut problems = Vec::new();
    for &number in set.volumes.keys() {
        if known.contains_key(&number) {
            continue;
        }
        match table(number) {
            Ok(table) => {
                known.insert(number, VolumeEnds::of(&table));
            }
            Err(error) if is_lost(error.kind()) => {
                log::error!("{error}; {}, whose manifest is lost, is rebuilt without this volume", set.label());
                let what = format!("volume {number} cannot be read: {error}");
                problems.push(ManifestProblem { kind: ManifestProblemKind::Entry(number), offset: None, what });
            }
            Err(error) => return Err(error),
        }
    }
    let root = || VolumeBoundary { path: ArchivePath::root(), part: None };
    let mut volumes: Vec<ManifestVolume> = Vec::new();
    let mut following = known.values().skip(1);
    for (&number, ends) in known.iter() {
        let next = following.next().and_then(Option::as_ref);
        let (start, end) = match ends {
            // As duplicity has it: no entries, and the end of the volume before.
            None => (root(), volumes.last().map_or_else(root, |volume| volume.end.clone())),
            Some(ends) => {
                let part = ends.last.part.filter(|_| next.is_some_and(|next| ends.continues_in(next)));
                let VolumeEnds { first, last } = ends.clone();
                (VolumeBoundary { path: first.path, part: first.part }, VolumeBoundary { path: last.path, part })
            }
        };
        volumes.push(ManifestVolume { number, start, end, hash: None });
    }
    let last_number = set.volumes.keys().next_back().copied();
    Ok(Manifest::rebuilt(volumes, problems, last_number.unwrap_or(VolumeNumber(0))))
}

/// Returns true if another attempt cannot succeed.
fn is_lost(kind: ErrorKind) -> bool {
    match kind {
        ErrorKind::Corrupt | ErrorKind::Missing | ErrorKind::NotFound | ErrorKind::Unsupported | ErrorKind::Invalid => {
            true
        }
        ErrorKind::Denied
        | ErrorKind::KeyMissing
        | ErrorKind::Timeout
        | ErrorKind::OverLimit
        | ErrorKind::Archived
        | ErrorKind::Cancelled
        | ErrorKind::WouldBlock
        | ErrorKind::Io => false,
    }
}
