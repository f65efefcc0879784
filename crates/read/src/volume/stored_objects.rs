//! Everything that the volumes of a set name, for the comparison with its signature archive.
//!
//! duplicity writes both from the same objects, so in a run that was not resumed each object is in both, with the same
//! metadata. Names and texts that a writer may have mangled are not compared (docs/FORMAT.md section 4.3).
//!
//! A backup can have tens of millions of objects, so one takes 32 bytes here, and paths are known by their hashes.

use std::collections::hash_map::RandomState;
use std::collections::{BinaryHeap, HashMap};
use std::hash::BuildHasher;
use std::ops::Range;

use super::member_table::{MemberRun, MemberTable};
use dupfs_format::difftar::{self, DiffKind};
use dupfs_format::sigtar::{SigChange, SigEntry, SizeBounds};
use dupfs_format::{ArchivePath, EntryKind, EntryMeta, VolumeNumber};

/// Parts of the table: each grows apart from the others, so that growing needs little room.
const SHARDS: usize = 256;
/// Bytes of memory of a part of a file, with the room that the table keeps free.
const SPLIT_BYTES: u64 = 2 * (size_of::<((u32, u32), SplitRun)>() as u64 + 1);
/// Runs of one path that are added up for each entry that names it. Those of more are added up once: a signature archive can
/// have any number of such entries, because a writer mangles many names into one.
const MANY_RUNS: usize = 64;
/// Bytes of memory of a file with more runs.
const LONG_BYTES: u64 = 2 * (size_of::<(u64, Option<StoredParts>)>() as u64 + 1);

const OTHER_METADATA: &str = "its volume has other metadata than the signature archive";
const NOT_STORED: &str = "it is in the signature archive, and no volume names it";
/// The reason for which a path of a volume differs.
pub(super) const NOT_SIGNED: &str = "a volume names it, and it is not in the signature archive";

const GAP: &str = "its stored parts are not consecutive";
const MIXED: &str = "its stored parts are of different states of it";

/// The properties of a run, in the upper byte of its length.
mod flag {
    /// It is data of a regular file.
    pub(super) const FILE: u64 = 1 << 56;
    /// The data is a delta.
    pub(super) const DELTA: u64 = 1 << 57;
    /// Its path has only ASCII characters.
    pub(super) const ASCII: u64 = 1 << 58;
    /// An entry of the signature archive names it.
    pub(super) const SIGNED: u64 = 1 << 59;
    /// Its parts are not consecutive.
    pub(super) const GAP: u64 = 1 << 60;
    /// Its parts have different times.
    pub(super) const MIXED: u64 = 1 << 61;
    /// It may be continued in another volume, or continue another run: it has a [`SplitRun`](super::SplitRun).
    pub(super) const SPLIT: u64 = 1 << 62;
    /// It is the first of several with its path, whose metadata differ.
    pub(super) const REPEATED: u64 = 1 << 63;
    /// The length.
    pub(super) const LEN: u64 = FILE - 1;
}

/// A run of parts in a volume.
#[derive(Clone, Copy, Debug)]
struct StoredObject {
    /// The hash of its path.
    key: u64,
    /// The hash of its metadata, or of its deletion.
    metadata: u64,
    volume: u32,
    run: u32,
    /// The bytes of its data, and flags.
    len: u64,
}

impl StoredObject {
    fn is(&self, flag: u64) -> bool {
        self.len & flag != 0
    }

    /// The order in the table.
    fn order(&self) -> (u64, u32, u32) {
        (self.key, self.volume, self.run)
    }
}

/// The numbers of the first and the last part of a run, and its time.
#[derive(Clone, Copy, Debug)]
struct SplitRun {
    first: u64,
    last: u64,
    mtime: i64,
}

/// A regular file as the volumes have it.
#[derive(Clone, Copy, Debug)]
pub(super) struct StoredParts {
    bytes: u64,
    is_delta: bool,
    flaw: Option<&'static str>,
}

impl StoredParts {
    /// The reason for which this may not be the file whose size is within `bounds`.
    pub(super) fn suspicion(&self, bounds: Option<&SizeBounds>) -> Option<&'static str> {
        let fits = self.is_delta || bounds.is_none_or(|bounds| bounds.contains(self.bytes));
        self.flaw.or_else(|| (!fits).then_some("its stored size contradicts its signature"))
    }
}

/// The objects of all volumes of a set. Volumes are added in order, then the table is sorted, then it is compared.
#[derive(Debug)]
pub(super) struct StoredObjects {
    /// Keyed at random, because the writer of a backup chooses the paths.
    hasher: RandomState,
    shards: Vec<Vec<StoredObject>>,
    /// Objects that the shards have room for.
    capacity: usize,
    split: HashMap<(u32, u32), SplitRun>,
    /// The files with more than [`MANY_RUNS`] runs.
    long: HashMap<u64, Option<StoredParts>>,
}

impl StoredObjects {
    /// An empty table.
    pub(super) fn new() -> Self {
        let shards = (0..SHARDS).map(|_| Vec::new()).collect();
        Self { hasher: RandomState::new(), shards, capacity: 0, split: HashMap::new(), long: HashMap::new() }
    }

    /// Adds the next volume.
    pub(super) fn add_volume(&mut self, volume: VolumeNumber, members: &MemberTable) {
        let mut runs = members.runs().peekable();
        while let Some(run) = runs.next() {
            let is_last = runs.peek().is_none();
            self.add(volume, &run, is_last, members);
        }
    }

    fn add(&mut self, volume: VolumeNumber, run: &MemberRun, is_last: bool, members: &MemberTable) {
        let place = (volume.0, u32::try_from(run.index).unwrap_or(u32::MAX));
        let mut len = if run.path.as_bytes().is_ascii() { flag::ASCII } else { 0 };
        if run.kind != DiffKind::Deleted && run.meta.kind == EntryKind::File {
            len |= flag::FILE;
            if run.kind == DiffKind::Diff {
                len |= flag::DELTA;
            }
            let first = run.first_part().number;
            let is_split = run.multivol && (is_last || first != 1);
            let (mut bytes, mut last) = (0_u64, if is_split { first.saturating_sub(1) } else { 0 });
            for part in members.parts(run) {
                if part.number != last.saturating_add(1) {
                    len |= flag::GAP;
                } else if part.mtime != run.meta.mtime {
                    len |= flag::MIXED;
                }
                last = part.number;
                bytes = bytes.saturating_add(part.len);
            }
            len |= bytes.min(flag::LEN);
            if is_split {
                len |= flag::SPLIT;
                self.split.insert(place, SplitRun { first, last, mtime: run.meta.mtime });
            }
        }
        let (key, metadata) =
            (self.hasher.hash_one(run.path.as_bytes()), self.digest(run.kind == DiffKind::Deleted, &run.meta));
        let object = StoredObject { key, metadata, volume: place.0, run: place.1, len };
        if let Some(shard) = self.shards.get_mut(shard_of(key)) {
            let before = shard.capacity();
            shard.push(object);
            self.capacity += shard.capacity() - before;
        }
    }

    /// Sorts the table, after the last volume and before the first comparison.
    pub(super) fn sort(&mut self) {
        for shard in &mut self.shards {
            shard.sort_unstable_by_key(StoredObject::order);
            for objects in shard.chunk_by_mut(|a, b| a.key == b.key) {
                let Some((first, others)) = objects.split_first_mut() else { continue };
                if others.iter().any(|other| other.metadata != first.metadata) {
                    first.len |= flag::REPEATED;
                }
                if objects.len() > MANY_RUNS
                    && let Some(first) = objects.first()
                {
                    self.long.insert(first.key, stored_parts(objects, &self.split));
                }
            }
        }
    }

    /// Bytes of memory.
    pub(super) fn bytes(&self) -> u64 {
        let objects = (self.capacity as u64).saturating_mul(size_of::<StoredObject>() as u64);
        let split = (self.split.len() as u64).saturating_mul(SPLIT_BYTES);
        objects.saturating_add(split).saturating_add((self.long.len() as u64).saturating_mul(LONG_BYTES))
    }

    /// Compares an entry of the signature archive with the volumes. Returns the difference, if there is one.
    pub(super) fn take(&mut self, entry: &SigEntry) -> Option<&'static str> {
        let metadata = self.digest(entry.change == SigChange::Deleted, &entry.meta);
        let Some((shard, range)) = self.find(&entry.path, |_| true) else {
            return entry.path.as_bytes().is_ascii().then_some(NOT_STORED);
        };
        let first = self.shards.get_mut(shard)?.get_mut(range.start)?;
        first.len |= flag::SIGNED;
        // A part of another state may have the name too: the run was resumed, or the names are mangled.
        (first.metadata != metadata && !first.is(flag::REPEATED)).then_some(OTHER_METADATA)
    }

    /// Forgets the entries with which the volumes were compared.
    pub(super) fn unmark(&mut self) {
        self.shards.iter_mut().flatten().for_each(|object| object.len &= !flag::SIGNED);
    }

    /// The regular file that is stored as `path`, or under a name into which a writer mangles it.
    pub(super) fn file(&self, path: &ArchivePath) -> Option<StoredParts> {
        let (shard, range) = self.find(path, |objects| self.parts(objects).is_some())?;
        self.parts(self.shards.get(shard)?.get(range)?)
    }

    /// The regular file in `objects`, which are all of one path.
    fn parts(&self, objects: &[StoredObject]) -> Option<StoredParts> {
        let long = objects.first().filter(|_| objects.len() > MANY_RUNS).and_then(|first| self.long.get(&first.key));
        long.map_or_else(|| stored_parts(objects, &self.split), |long| *long)
    }

    /// The volumes and runs of the objects that no entry names: the first `max` in order, and the number of the others.
    pub(super) fn unsigned(&self, max: usize) -> (Vec<(VolumeNumber, u32)>, u64) {
        let (mut first, mut more) = (BinaryHeap::new(), 0_u64);
        let groups = self.shards.iter().flat_map(|shard| shard.chunk_by(|a, b| a.key == b.key));
        let unsigned = groups
            .filter_map(<[StoredObject]>::first)
            .filter(|object| !object.is(flag::SIGNED) && object.is(flag::ASCII));
        for object in unsigned {
            first.push((VolumeNumber(object.volume), object.run));
            if first.len() > max {
                first.pop();
                more = more.saturating_add(1);
            }
        }
        (first.into_sorted_vec(), more)
    }

    /// The place of the objects that have the name `path`, or one into which a writer mangles it, and `fit`.
    fn find(&self, path: &ArchivePath, fit: impl Fn(&[StoredObject]) -> bool) -> Option<(usize, Range<usize>)> {
        let of_name = |name: &[u8]| {
            let key = self.hasher.hash_one(name);
            let shard = self.shards.get(shard_of(key))?;
            let begin = shard.partition_point(|object| object.key < key);
            let tail = shard.get(begin..)?;
            let range = begin..begin.saturating_add(tail.partition_point(|object| object.key == key));
            let objects = shard.get(range.clone()).filter(|objects| !objects.is_empty())?;
            fit(objects).then_some((shard_of(key), range))
        };
        of_name(path.as_bytes()).or_else(|| difftar::mangled_forms(path).iter().find_map(|form| of_name(form)))
    }

    fn digest(&self, is_deleted: bool, meta: &EntryMeta) -> u64 {
        self.hasher.hash_one((!is_deleted).then(|| meta.unmangled()))
    }
}

/// The regular file in `objects`, which are all of one path, in order.
fn stored_parts(objects: &[StoredObject], split: &HashMap<(u32, u32), SplitRun>) -> Option<StoredParts> {
    let mut file: Option<StoredParts> = None;
    // The number of the part that comes next, and the time of the first one, if runs may follow.
    let mut next: Option<(u64, i64)> = None;
    for run in objects.iter().filter(|object| object.is(flag::FILE)) {
        let split = split.get(&(run.volume, run.run)).filter(|_| run.is(flag::SPLIT));
        let (is_first, bytes, is_delta) = (file.is_none(), run.len & flag::LEN, run.is(flag::DELTA));
        let file = file.get_or_insert(StoredParts { bytes: 0, is_delta, flaw: None });
        file.bytes = file.bytes.saturating_add(bytes);
        let expected = if is_first { split.map(|split| (1, split.mtime)) } else { next };
        let follows = match (split, expected) {
            (Some(split), Some((number, _))) => split.first == number,
            (None, _) => is_first,
            (Some(_), None) => false,
        };
        let is_same =
            is_delta == file.is_delta && split.zip(expected).is_none_or(|(split, (_, mtime))| split.mtime == mtime);
        if run.is(flag::GAP) || !follows {
            file.flaw = Some(GAP);
        } else if run.is(flag::MIXED) || !is_same {
            file.flaw = Some(MIXED);
        }
        next = split.zip(expected).map(|(split, (_, mtime))| (split.last.saturating_add(1), mtime));
    }
    file
}

/// The part of the table with the objects of `key`.
fn shard_of(key: u64) -> usize {
    usize::try_from(key >> 56).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::member_table_builder::MemberTableBuilder;
    use super::*;
    use dupfs_format::difftar::DiffEntryName;
    use dupfs_format::sigtar::SigChange::{Deleted, Signature, Snapshot};

    fn meta(kind: EntryKind, mode: u16) -> EntryMeta {
        EntryMeta { kind, mode, uid: 1, gid: 2, uname: (*b"user").into(), gname: (*b"group").into(), mtime: 5 }
    }

    fn path(name: &[u8]) -> ArchivePath {
        ArchivePath::parse(name).unwrap()
    }

    fn signed(name: &[u8], change: SigChange, meta: EntryMeta) -> SigEntry {
        SigEntry { path: path(name), change, meta, signature: None, bounds: None }
    }

    fn comparison(members: &[(&[u8], DiffKind, Option<u64>, EntryMeta)]) -> StoredObjects {
        let mut builder = MemberTableBuilder::default();
        for (name, kind, part, meta) in members {
            builder.push(&DiffEntryName { path: path(name), kind: *kind, part: *part }, meta, 512, 0);
        }
        let mut comparison = StoredObjects::new();
        comparison.add_volume(VolumeNumber(1), &builder.finish(512));
        comparison.sort();
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

    /// The file `f` whose parts are in these volumes: number, length, time.
    fn file_of(volumes: &[&[(u64, u64, i64)]]) -> StoredParts {
        let mut objects = StoredObjects::new();
        for (number, parts) in (1..).zip(volumes) {
            let mut builder = MemberTableBuilder::default();
            let mut offset = 512;
            for &(part, len, mtime) in *parts {
                let meta = EntryMeta { mtime, ..meta(EntryKind::File, 0o644) };
                let name = DiffEntryName { path: path(b"f"), kind: DiffKind::Snapshot, part: Some(part) };
                builder.push(&name, &meta, offset, len);
                offset += 512 + len.next_multiple_of(512);
            }
            objects.add_volume(VolumeNumber(number), &builder.finish(offset));
        }
        objects.sort();
        objects.file(&path(b"f")).unwrap()
    }

    #[test]
    fn a_path_that_is_stored_and_signed_very_often_takes_little_time() {
        // With the runs counted for each entry this is 40,000,000,000 steps.
        let (stored, entries) = (200_000, 200_000);
        let file = meta(EntryKind::File, 0o644);
        let mut objects = StoredObjects::new();
        let mut builder = MemberTableBuilder::default();
        for at in 0..stored {
            let path = path(if at % 2 == 0 { b"???" } else { b"b" });
            builder.push(&DiffEntryName { path, kind: DiffKind::Snapshot, part: None }, &file, at * 512, 0);
        }
        objects.add_volume(VolumeNumber(1), &builder.finish(stored * 512));
        objects.sort();
        for at in 0..entries {
            let name = [at, at >> 6, at >> 12].map(|bits| 0xc0 | u8::try_from(bits & 63).unwrap());
            let entry = signed(&name, Signature, file.clone());
            assert_eq!(objects.take(&entry), None);
            assert_eq!(objects.file(&entry.path).unwrap().flaw, Some(GAP));
        }
        assert_eq!(objects.unsigned(9), (vec![(VolumeNumber(1), 1)], 0));
    }

    #[test]
    fn parts_that_are_missing_or_of_other_states_and_wrong_sizes_are_suspect() {
        let bounds = SizeBounds { blocks: 1, min: 1, max: 512 };
        let suspicion = |volumes: &[&[(u64, u64, i64)]]| file_of(volumes).suspicion(Some(&bounds));
        assert_eq!(suspicion(&[&[(1, 10, 5), (2, 3, 5)]]), None);
        assert_eq!(suspicion(&[&[(1, 10, 5)], &[(2, 3, 5), (3, 1, 5)], &[(4, 1, 5)]]), None);
        assert_eq!(suspicion(&[&[(1, 10, 5), (3, 3, 5)]]), Some(GAP));
        assert_eq!(suspicion(&[&[(1, 10, 5)], &[(3, 3, 5)]]), Some(GAP));
        assert_eq!(suspicion(&[&[(2, 10, 5)]]), Some(GAP));
        assert_eq!(suspicion(&[&[(1, 10, 5)], &[(1, 10, 5)]]), Some(GAP));
        assert_eq!(suspicion(&[&[(1, 10, 5), (2, 3, 6)]]), Some(MIXED));
        assert_eq!(suspicion(&[&[(1, 10, 5)], &[(2, 3, 6)]]), Some(MIXED));
        assert!(suspicion(&[&[(1, 600, 5)]]).is_some());
        assert_eq!(file_of(&[&[(1, 10, 5)], &[(2, 3, 5)]]).bytes, 13);
    }
}
