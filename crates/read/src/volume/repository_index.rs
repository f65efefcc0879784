//! What the index keeps of a repository: who is who there, and the member tables of volumes.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use super::error::VolumeError;
use super::member_table::MemberTable;
use super::pass::ExpectedHash;
use super::repository::Repository;
use crate::storage::ObjectInfo;
use dupfs_base::RequestContext;
use dupfs_base::sync::lock;
use dupfs_cache::index::{Identity, Index};
use dupfs_format::collection::{BackupSet, Collection};
use dupfs_format::{SetIndex, VolumeId};

/// Where a repository's index is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexLocation {
    /// The directory that holds indexes, one directory each.
    pub base: PathBuf,
    /// What is demanded of objects: what was accepted under other demands is not looked at.
    pub requirements: Vec<u8>,
}

/// The index and the identities of sets in it.
#[derive(Debug, Default)]
pub(super) struct Known {
    index: Option<Arc<Index>>,
    /// As they were when they were first asked for: what is learnt later of a set is about the objects it had then, or is not
    /// found again.
    trees: Mutex<HashMap<SetIndex, Identity>>,
    stored: Mutex<HashMap<SetIndex, Identity>>,
}

impl Known {
    pub(super) fn open(place: Option<IndexLocation>, url: &str, collection: &Collection) -> Self {
        let Some(IndexLocation { base, requirements }) = place else { return Self::default() };
        let names = collection.prefixes();
        let parts = [url, &names.archive, &names.manifest, &names.signature].map(str::as_bytes);
        let identity = Identity::of(&parts).with(&[&requirements]);
        let live: HashSet<u64> = collection.sets().iter().map(|set| group_of(set)).collect();
        Self { index: Index::open(&base, identity, live), ..Self::default() }
    }
}

impl Repository {
    /// The index, if there is one.
    pub fn index(&self) -> Option<&Arc<Index>> {
        self.known.index.as_ref()
    }

    /// The identity of what the set's signature archive says; `None` without one.
    pub fn tree_identity(&self, set: SetIndex) -> Option<Identity> {
        if let Some(known) = lock(&self.known.trees).get(&set) {
            return Some(*known);
        }
        let record = self.set(set).ok()?;
        let mut parts = Parts::of(b"signatures", &record);
        parts.add(record.signatures.as_ref()?);
        let identity = parts.identity();
        lock(&self.known.trees).insert(set, identity);
        Some(identity)
    }

    /// The identity of all that the set stores, as the listing has it.
    pub fn stored_identity(&self, set: SetIndex) -> Option<Identity> {
        if let Some(known) = lock(&self.known.stored).get(&set) {
            return Some(*known);
        }
        let record = self.set(set).ok()?;
        let mut parts = Parts::of(b"stored", &record);
        record.objects().for_each(|object| parts.add(object));
        let identity = parts.identity();
        lock(&self.known.stored).insert(set, identity);
        Some(identity)
    }

    /// Under which list of the index the exact sizes of the set's files are, by their places in its signature archive.
    pub fn sizes_key(&self, set: SetIndex) -> Option<Identity> {
        Some(self.stored_identity(set)?.with(&[b"sizes"]))
    }

    /// What the set's records in the index go with.
    pub fn group(&self, set: SetIndex) -> u64 {
        self.set(set).map_or(0, |set| group_of(&set))
    }

    /// The member table of volume `id` as the index has it. It was verified when it was kept, and is about a volume of the
    /// same hash.
    pub(super) fn load_members(
        self: &Arc<Self>,
        id: VolumeId,
        context: &RequestContext,
    ) -> Result<Option<Arc<MemberTable>>, VolumeError> {
        let Some(index) = self.index() else { return Ok(None) };
        let (object, expected) = self.volume_object(id, context)?;
        let record = index.get(members_key(&object, expected.as_ref()));
        let Some(table) = record.and_then(|record| MemberTable::decode(&record)) else { return Ok(None) };
        let table = Arc::new(table);
        self.cache_table(id, &table);
        Ok(Some(table))
    }

    /// Keeps the member table of the volume of `set` that was just read from `object`, which was what was `expected`.
    pub(super) fn persist_members(
        &self,
        set: SetIndex,
        object: &ObjectInfo,
        expected: Option<&ExpectedHash>,
        table: &MemberTable,
    ) {
        if let Some(index) = self.index() {
            index.put(members_key(object, expected), self.group(set), table.encode());
        }
    }
}

fn members_key(object: &ObjectInfo, expected: Option<&ExpectedHash>) -> Identity {
    let (name, size) = (object.name.as_bytes(), object.size.to_le_bytes());
    match expected {
        Some(hash) => Identity::of(&[b"members", name, &size, b"hash", &hash.digest]),
        // Nothing but the listing tells this state of the object from others.
        None => Identity::of(&[b"members", name, &size, object.version.as_bytes()]),
    }
}

fn group_of(set: &BackupSet) -> u64 {
    Identity::of(&[b"set", set.label().as_bytes()]).short()
}

/// What an identity is made of.
struct Parts(Vec<Vec<u8>>);

impl Parts {
    fn of(what: &[u8], set: &BackupSet) -> Self {
        Self(vec![what.to_vec(), set.label().into_bytes()])
    }

    fn add(&mut self, object: &ObjectInfo) {
        let size = object.size.to_le_bytes().to_vec();
        self.0.extend([object.name.as_bytes().to_vec(), size, object.version.as_bytes().to_vec()]);
    }

    fn identity(&self) -> Identity {
        let parts: Vec<&[u8]> = self.0.iter().map(Vec::as_slice).collect();
        Identity::of(&parts)
    }
}
