//! The index on disk as the volume layer uses it: identities of sets, and the member tables of volumes.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use super::live_collection::LiveCollection;
use super::member_table::MemberTable;
use crate::storage::{ObjectInfo, ObjectStore};
use dupfs_base::escape_bytes;
use dupfs_base::sync::lock;
use dupfs_cache::index::{Identity, Index, IndexDescription, keyed_identity};
use dupfs_format::SetIndex;
use dupfs_format::collection::BackupSet;
use dupfs_format::manifest::VolumeHash;
use dupfs_format::name::NamePrefixes;

/// The location of a repository's index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexLocation {
    /// The directory of indexes, one subdirectory each.
    pub base: PathBuf,
    /// The requirements on objects. Records of objects that were accepted under other requirements are not used.
    pub requirements: Vec<u8>,
    /// The options that distinguish this index from others of the same repository, as the user gives them.
    pub options: Vec<String>,
    /// The directory of the repository, if it is one of this machine.
    pub local: Option<PathBuf>,
    /// Records are also about the listed states of objects: a changed object has none, even if the hash in the manifest is that
    /// of before. So a record proves that this very object was read, and had the hash that the manifest has now.
    pub is_of_states: bool,
}

/// The index of a repository, if it has one.
#[derive(Debug)]
pub struct RepositoryIndex {
    index: Option<Arc<Index>>,
    collection: Arc<LiveCollection>,
    /// True if a volume is accepted only with the hash in the manifest, so that the hash identifies its content.
    hash_identifies: bool,
    /// True if records are also about the listed states of objects ([`IndexLocation::is_of_states`]).
    is_of_states: bool,
    /// Identities as of their first use. A record that is made later is about the objects that the set had
    /// then, or it is not found again.
    tree_identities: Mutex<HashMap<SetIndex, Identity>>,
    stored_identities: Mutex<HashMap<SetIndex, Identity>>,
}

impl RepositoryIndex {
    /// Opens the index at `location` of the repository in `store`. Without one, or if it cannot be opened, nothing is loaded and
    /// nothing is stored. `hash_identifies` is true if a volume is accepted only with the hash in the manifest.
    pub(super) fn open(
        location: Option<IndexLocation>,
        store: &dyn ObjectStore,
        collection: Arc<LiveCollection>,
        hash_identifies: bool,
    ) -> Self {
        let is_of_states = location.as_ref().is_some_and(|location| location.is_of_states);
        let index = location.and_then(|IndexLocation { base, requirements, options, local, .. }| {
            let current = collection.current();
            let names = current.prefixes();
            let url = store.url();
            let parts = [url, &names.archive, &names.manifest, &names.signature].map(str::as_bytes);
            let identity = match store.url_with_secrets().map(|text| keyed_identity(&base, text.expose())).transpose() {
                Ok(keyed) => keyed.into_iter().fold(Identity::of(&parts), |identity, keyed| identity.with(&[&keyed.0])),
                Err(e) => {
                    let base = escape_bytes(base.as_os_str().as_encoded_bytes());
                    log::warn!("{base}: the index on disk cannot be opened, continuing without it: {e}");
                    return None;
                }
            };
            let identity = identity.with(&[&requirements]);
            let live: HashSet<u64> = current.sets().iter().map(|set| group_of(set)).collect();
            let index = Index::open(&base, identity, live)?;
            let options = prefix_options(names).into_iter().chain(options).collect();
            index.describe(&IndexDescription { url: url.to_owned(), options, local });
            Some(index)
        });
        Self {
            index,
            collection,
            hash_identifies,
            is_of_states,
            tree_identities: Mutex::default(),
            stored_identities: Mutex::default(),
        }
    }

    /// The index on disk.
    pub fn on_disk(&self) -> Option<&Arc<Index>> {
        self.index.as_ref()
    }

    /// The identity of the content of the signature archive of `set`; `None` without one.
    pub fn tree_identity(&self, set: SetIndex) -> Option<Identity> {
        self.identity(&self.tree_identities, set, |record| {
            let mut parts = IdentityParts::new(b"signatures", record);
            parts.add(record.signatures.as_ref()?);
            Some(parts)
        })
    }

    /// The identity of all objects of `set`, as they were listed; `None` for a set without a manifest.
    pub fn stored_identity(&self, set: SetIndex) -> Option<Identity> {
        self.identity(&self.stored_identities, set, |record| {
            // Data proved without a manifest and data verified by one are not mixed.
            if record.is_rebuilt {
                return None;
            }
            let mut parts = IdentityParts::new(b"stored", record);
            record.objects().for_each(|object| parts.add(object));
            Some(parts)
        })
    }

    /// The key of the list of exact file sizes of `set`. A file is identified by its position in the signature archive.
    pub fn sizes_key(&self, set: SetIndex) -> Option<Identity> {
        Some(self.stored_identity(set)?.with(&[b"sizes"]))
    }

    /// The group of the records of `set`; they are removed together. `None` if the collection has no such set.
    pub fn group(&self, set: SetIndex) -> Option<u64> {
        self.collection.set(set).ok().map(|record| group_of(&record))
    }

    /// Loads the member table of the volume `object`, for which the manifest has the hash `expected`. It was verified when it
    /// was stored. May read the disk.
    pub(super) fn load_members(&self, object: &ObjectInfo, expected: Option<&VolumeHash>) -> Option<MemberTable> {
        MemberTable::decode(&self.index.as_ref()?.load_record(self.members_key(object, expected))?)
    }

    /// Returns true if the index has the member table of the volume `object`, as [`Self::load_members`] finds it.
    pub(super) fn has_members(&self, object: &ObjectInfo, expected: Option<&VolumeHash>) -> bool {
        self.index.as_ref().is_some_and(|index| index.has_record(self.members_key(object, expected)))
    }

    /// Stores the member table of the volume `object` of `set`, which was accepted with the hash `expected` in the manifest.
    pub(super) fn store_members(
        &self,
        set: SetIndex,
        object: &ObjectInfo,
        expected: Option<&VolumeHash>,
        table: &MemberTable,
    ) {
        if let (Some(index), Some(group)) = (&self.index, self.group(set)) {
            index.store_record(self.members_key(object, expected), group, table.encode());
        }
    }

    fn members_key(&self, object: &ObjectInfo, expected: Option<&VolumeHash>) -> Identity {
        let (name, size) = (object.name.as_bytes(), object.size.to_le_bytes());
        match expected.filter(|_| self.hash_identifies) {
            Some(hash) if self.is_of_states => {
                Identity::of(&[b"members", name, &size, object.version.as_bytes(), b"hash", &hash.digest])
            }
            Some(hash) => Identity::of(&[b"members", name, &size, b"hash", &hash.digest]),
            // Only the listing distinguishes this state of the object from others.
            None => Identity::of(&[b"members", name, &size, object.version.as_bytes()]),
        }
    }

    /// The identity of `set` in `identities`; at the first time it is made of `parts`.
    fn identity(
        &self,
        identities: &Mutex<HashMap<SetIndex, Identity>>,
        set: SetIndex,
        parts: impl FnOnce(&BackupSet) -> Option<IdentityParts>,
    ) -> Option<Identity> {
        if let Some(identity) = lock(identities).get(&set) {
            return Some(*identity);
        }
        let record = self.collection.set(set).ok()?;
        let identity = parts(&record)?.identity();
        Some(*lock(identities).entry(set).or_insert(identity))
    }
}

/// The options that select a backup with these prefixes.
fn prefix_options(prefixes: &NamePrefixes) -> Vec<String> {
    let NamePrefixes { archive, manifest, signature } = prefixes;
    if archive == manifest && manifest == signature {
        return [archive]
            .into_iter()
            .filter(|prefix| !prefix.is_empty())
            .map(|p| format!("--file-prefix={p}"))
            .collect();
    }
    let kinds = [("archive", archive), ("manifest", manifest), ("signature", signature)];
    let given = kinds.into_iter().filter(|(_, prefix)| !prefix.is_empty());
    given.map(|(kind, prefix)| format!("--file-prefix-{kind}={prefix}")).collect()
}

fn group_of(set: &BackupSet) -> u64 {
    Identity::of(&[b"set", set.label().as_bytes()]).truncated()
}

/// The parts that an identity of a set is made of.
struct IdentityParts(Vec<Vec<u8>>);

impl IdentityParts {
    fn new(subject: &[u8], set: &BackupSet) -> Self {
        Self(vec![subject.to_vec(), set.label().into_bytes()])
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
