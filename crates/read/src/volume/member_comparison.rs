//! Compares everything that the volumes of a set name with the entries of its signature archive.
//!
//! duplicity writes both from the same objects, so in a run that was not resumed each object is in both, with the same
//! metadata. Names and texts that a writer may have mangled are not compared (docs/FORMAT.md section 4.3).

use std::collections::hash_map::{Entry, RandomState};
use std::collections::{BinaryHeap, HashMap};
use std::hash::BuildHasher;

use super::member_table::MemberRun;
use dupfs_format::difftar::{self, DiffKind};
use dupfs_format::sigtar::{SigChange, SigEntry};
use dupfs_format::{EntryMeta, VolumeNumber};

/// Bytes of memory of an object in the table, with the room that the table keeps free.
const OBJECT_BYTES: u64 = 2 * (size_of::<(u64, ComparedMember)>() as u64 + 1);

const OTHER_METADATA: &str = "its volume has other metadata than the signature archive";
const NOT_STORED: &str = "it is in the signature archive, and no volume names it";
/// The reason for which a path of a volume differs.
pub(super) const NOT_SIGNED: &str = "a volume names it, and it is not in the signature archive";

/// An object or a deletion that the volumes name.
#[derive(Clone, Copy, Debug)]
struct ComparedMember {
    metadata: u64,
    volume: VolumeNumber,
    run: u32,
    /// True if a part of another state has the name too: the run was resumed, or the names are mangled.
    is_repeated: bool,
    is_signed: bool,
    is_ascii: bool,
}

/// The comparison of one set: first its volumes in order, then its signature archive.
#[derive(Debug, Default)]
pub(super) struct MemberComparison {
    /// Keyed at random, because the writer of a backup chooses the paths.
    hasher: RandomState,
    objects: HashMap<u64, ComparedMember>,
}

impl MemberComparison {
    /// Adds a run of `volume`.
    pub(super) fn add(&mut self, volume: VolumeNumber, run: &MemberRun) {
        let metadata = self.digest(run.kind == DiffKind::Deleted, &run.meta);
        let object = ComparedMember {
            metadata,
            volume,
            run: u32::try_from(run.index).unwrap_or(u32::MAX),
            is_repeated: false,
            is_signed: false,
            is_ascii: run.path.as_bytes().is_ascii(),
        };
        match self.objects.entry(self.hasher.hash_one(run.path.as_bytes())) {
            Entry::Vacant(vacant) => {
                vacant.insert(object);
            }
            Entry::Occupied(mut known) => {
                let known = known.get_mut();
                known.is_repeated |= known.metadata != metadata;
            }
        }
    }

    /// Bytes of memory.
    pub(super) fn bytes(&self) -> u64 {
        (self.objects.len() as u64).saturating_mul(OBJECT_BYTES)
    }

    /// Compares an entry of the signature archive with the volumes. Returns the difference, if there is one.
    pub(super) fn take(&mut self, entry: &SigEntry) -> Option<&'static str> {
        let is_deleted = entry.change == SigChange::Deleted;
        let metadata = self.digest(is_deleted, &entry.meta);
        let forms = difftar::mangled_forms(&entry.path);
        let names = std::iter::once(entry.path.as_bytes()).chain(forms.iter().map(|form| &**form));
        let key = names.map(|name| self.hasher.hash_one(name)).find(|key| self.objects.contains_key(key));
        let object = match key {
            Some(key) => self.objects.get_mut(&key),
            None => None,
        };
        let Some(object) = object else {
            return entry.path.as_bytes().is_ascii().then_some(NOT_STORED);
        };
        object.is_signed = true;
        (object.metadata != metadata && !object.is_repeated).then_some(OTHER_METADATA)
    }

    /// The volumes and runs of the objects that no entry names: the first `max` in order, and the number of the others.
    pub(super) fn unsigned(&self, max: usize) -> (Vec<(VolumeNumber, u32)>, u64) {
        let unsigned = self.objects.values().filter(|object| !object.is_signed && object.is_ascii);
        let (mut first, mut more) = (BinaryHeap::new(), 0_u64);
        for object in unsigned {
            first.push((object.volume, object.run));
            if first.len() > max {
                first.pop();
                more = more.saturating_add(1);
            }
        }
        (first.into_sorted_vec(), more)
    }

    fn digest(&self, is_deleted: bool, meta: &EntryMeta) -> u64 {
        self.hasher.hash_one((!is_deleted).then(|| meta.unmangled()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::member_table_builder::MemberTableBuilder;
    use super::*;
    use dupfs_format::difftar::DiffEntryName;
    use dupfs_format::sigtar::SigChange::{Deleted, Signature, Snapshot};
    use dupfs_format::{ArchivePath, EntryKind};

    fn meta(kind: EntryKind, mode: u16) -> EntryMeta {
        EntryMeta { kind, mode, uid: 1, gid: 2, uname: (*b"user").into(), gname: (*b"group").into(), mtime: 5 }
    }

    fn path(name: &[u8]) -> ArchivePath {
        ArchivePath::parse(name).unwrap()
    }

    fn signed(name: &[u8], change: SigChange, meta: EntryMeta) -> SigEntry {
        SigEntry { path: path(name), change, meta, signature: None, bounds: None }
    }

    fn comparison(members: &[(&[u8], DiffKind, Option<u64>, EntryMeta)]) -> MemberComparison {
        let mut builder = MemberTableBuilder::default();
        for (name, kind, part, meta) in members {
            builder.push(&DiffEntryName { path: path(name), kind: *kind, part: *part }, meta, 512, 0);
        }
        let mut comparison = MemberComparison::default();
        builder.finish(512).runs().for_each(|run| comparison.add(VolumeNumber(1), &run));
        comparison
    }

    #[test]
    fn members_of_other_kinds_and_metadata_differ() {
        let link = |target: &[u8]| meta(EntryKind::Symlink(target.into()), 0o777);
        let file = meta(EntryKind::File, 0o644);
        let stored: [(&[u8], DiffKind, Option<u64>, EntryMeta); 6] = [
            (b"d", DiffKind::Snapshot, None, meta(EntryKind::Dir, 0o755)),
            (b"f", DiffKind::Diff, None, file.clone()),
            (b"gone", DiffKind::Deleted, None, file.clone()),
            (b"link", DiffKind::Snapshot, None, link(b"to")),
            (b"null", DiffKind::Snapshot, None, meta(EntryKind::CharDevice(1, 3), 0o666)),
            (b"only stored", DiffKind::Snapshot, None, file.clone()),
        ];
        let take = |name: &[u8], change, meta| comparison(&stored).take(&signed(name, change, meta));
        let same: [(&[u8], SigChange, EntryMeta); 5] = [
            (b"d", Snapshot, meta(EntryKind::Dir, 0o755)),
            (b"f", Signature, file.clone()),
            (b"gone", Deleted, meta(EntryKind::File, 0)),
            (b"link", Snapshot, link(b"to")),
            (b"null", Snapshot, meta(EntryKind::CharDevice(1, 3), 0o666)),
        ];
        let mut whole = comparison(&stored);
        for (name, change, meta) in same {
            assert_eq!(whole.take(&signed(name, change, meta)), None, "{}", path(name));
        }
        assert_eq!(whole.unsigned(9), (vec![(VolumeNumber(1), 5)], 0));
        assert_eq!(comparison(&stored).unsigned(2), (vec![(VolumeNumber(1), 0), (VolumeNumber(1), 1)], 4));
        let other: [(&[u8], SigChange, EntryMeta); 9] = [
            (b"d", Snapshot, meta(EntryKind::Dir, 0o700)),
            (b"d", Deleted, meta(EntryKind::File, 0)),
            (b"f", Signature, EntryMeta { mtime: 6, ..file.clone() }),
            (b"f", Signature, EntryMeta { uid: 0, ..file.clone() }),
            (b"f", Signature, EntryMeta { gname: (*b"root").into(), ..file.clone() }),
            (b"f", Snapshot, link(b"to")),
            (b"gone", Signature, file.clone()),
            (b"link", Snapshot, link(b"elsewhere")),
            (b"null", Snapshot, meta(EntryKind::CharDevice(1, 5), 0o666)),
        ];
        for (name, change, meta) in other {
            assert_eq!(take(name, change, meta.clone()), Some(OTHER_METADATA), "{}: {meta:?}", path(name));
        }
        assert_eq!(take(b"only signed", Signature, file), Some(NOT_STORED));
    }

    #[test]
    fn mangled_texts_and_parts_of_two_states_are_not_compared() {
        let link = |target: &[u8]| meta(EntryKind::Symlink(target.into()), 0o777);
        let file = meta(EntryKind::File, 0o644);
        let mut comparison = comparison(&[
            (b"big", DiffKind::Snapshot, Some(1), file.clone()),
            (b"big", DiffKind::Snapshot, Some(1), EntryMeta { mtime: 9, ..file.clone() }),
            (b"caf?", DiffKind::Snapshot, None, link(b"t?")),
            ("\u{e9}".as_bytes(), DiffKind::Snapshot, None, file.clone()),
        ]);
        assert_eq!(comparison.take(&signed(b"big", Signature, EntryMeta { mtime: 7, ..file.clone() })), None);
        assert_eq!(comparison.take(&signed(b"caf\xe9", Snapshot, link(b"t\xe9"))), None);
        assert_eq!(comparison.take(&signed(b"\xff", Signature, file)), None);
        assert_eq!(comparison.unsigned(9), (Vec::new(), 0));
    }
}
