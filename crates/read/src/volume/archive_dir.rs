//! duplicity's own cache of manifests and signature archives (`--archive-dir`), read in place of the store's, without a key.
//!
//! Nothing there is authenticated, so a copy counts only for a set that the store has, by the times in its name, and only if
//! nothing tells it from the store's: see [`ArchiveDir::manifest`] and [`ArchiveDir::signatures`].

use std::collections::{HashMap, HashSet};
use std::io::Read;
use std::path::Path;
use std::sync::{Arc, Mutex};

use super::error::VolumeError;
use super::pass;
use crate::codec::Decoder;
use crate::storage::{LocalStore, ObjectInfo, ObjectStore};
use dupfs_base::sync::lock;
use dupfs_base::{ByteRange, RequestContext, escape_bytes};
use dupfs_format::SetIndex;
use dupfs_format::collection::{BackupSet, Collection, PrefixOptions};
use dupfs_format::manifest::Manifest;
use dupfs_format::name::NameSuffix;

/// Bytes at the end of a gzip file: sum and length of what it holds.
const GZIP_TRAILER: usize = 8;

/// What duplicity has at hand of the sets of a repository.
#[derive(Debug)]
pub struct ArchiveDir {
    store: Arc<dyn ObjectStore>,
    copies: HashMap<SetIndex, Copies>,
    /// Names of copies that turned out not to be the store's.
    refused: Mutex<HashSet<Arc<str>>>,
}

#[derive(Debug)]
struct Copies {
    manifest: Option<ObjectInfo>,
    signatures: Option<ObjectInfo>,
}

impl ArchiveDir {
    /// The copies in `dir` of what `collection` has. `None`, after a line in the log, if there are none.
    pub fn open(dir: &Path, collection: &Collection, context: &RequestContext) -> Option<Self> {
        let shown = escape_bytes(dir.as_os_str().as_encoded_bytes());
        let opened = LocalStore::open(dir).and_then(|store| Ok((store.list(context)?, store)));
        let (objects, store) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                log::warn!("--archive-dir: {error}; everything is read from the backup itself");
                return None;
            }
        };
        let prefixes = PrefixOptions::from(collection.prefixes().clone());
        let here = Collection::from_listing(&objects, &prefixes).ok();
        let times = |set: &Arc<BackupSet>| (set.start, set.time);
        let by_time: HashMap<_, _> = here.iter().flat_map(|c| c.sets()).map(|set| (times(set), set)).collect();
        let copy = |set: &Arc<BackupSet>| {
            let found = by_time.get(&times(set))?;
            Some((set.index, Copies { manifest: found.manifest.clone(), signatures: found.signatures.clone() }))
        };
        let copies: HashMap<_, _> = collection.sets().iter().filter(|set| set.is_complete()).filter_map(copy).collect();
        if copies.is_empty() {
            log::warn!("--archive-dir: {shown} has nothing of this backup; everything is read from the backup itself");
            return None;
        }
        Some(Self { store: Arc::new(store), copies, refused: Mutex::default() })
    }

    /// The set's manifest, if duplicity has it, it is sound, and it is the store's as far as can be told: an unencrypted one
    /// by its size; any by listing all the volumes that the store has.
    pub(super) fn manifest(&self, set: &BackupSet, decoder: &Decoder, context: &RequestContext) -> Option<Manifest> {
        let copy = self.copies.get(&set.index)?.manifest.as_ref().filter(|copy| self.may_use(copy))?;
        let original = set.manifest.as_ref()?;
        let mut read = None;
        let outcome = self.stream(copy, decoder, context, &mut |plain| {
            read = Some(Manifest::read(plain).map_err(|e| VolumeError::from_format(&copy.name, &e))?);
            Ok(())
        });
        let same_size = NameSuffix::of(&original.name).is_encrypted() || original.size == copy.size;
        let is_whole = |m: &Manifest| {
            let listed = set.volumes.keys().all(|&n| m.volume(n).is_some());
            listed && m.problems.is_empty() && m.volumes.iter().all(|v| v.hash.is_some())
        };
        match (outcome, read) {
            (Ok(()), Some(manifest)) if same_size && is_whole(&manifest) => Some(manifest),
            (Ok(()), _) => self.refuse(copy, "it is not the one in the backup"),
            (Err(error), _) => self.refuse(copy, &error.to_string()),
        }
    }

    /// Streams the set's signature archive into `consume`, if duplicity has it, it is sound, and it is the store's as far as
    /// can be told: an unencrypted one by sum and length of its content. If this returns false, what `consume` learnt is void.
    pub(super) fn signatures(
        &self,
        set: &BackupSet,
        (store, decoder, context): (&dyn ObjectStore, &Decoder, &RequestContext),
        consume: &mut dyn FnMut(&str, &mut dyn Read) -> Result<(), VolumeError>,
    ) -> bool {
        let Some(copy) = self.signatures_of(set) else { return false };
        if let Some(original) = &set.signatures
            && !self.agree(copy, original, (store, context))
        {
            self.refuse::<()>(copy, "it is not the one in the backup");
            return false;
        }
        match self.stream(copy, decoder, context, &mut |plain| consume(&copy.name, plain)) {
            Ok(()) => true,
            Err(error) => self.refuse::<()>(copy, &error.to_string()).is_some(),
        }
    }

    /// Streams the beginning of the set's signature archive into `consume`. As [`Self::signatures`], but nothing vouches for
    /// what is seen.
    pub(super) fn peek(
        &self,
        set: &BackupSet,
        (store, decoder, context): (&dyn ObjectStore, &Decoder, &RequestContext),
        consume: &mut dyn FnMut(&str, &mut dyn Read) -> Result<(), VolumeError>,
    ) -> bool {
        let Some(copy) = self.signatures_of(set) else { return false };
        if set.signatures.as_ref().is_some_and(|original| !self.agree(copy, original, (store, context))) {
            return false;
        }
        let whole = ByteRange::at(0, copy.size);
        let Ok(input) = self.store.open(copy, whole, context) else { return false };
        decoder.open(&copy.name, input).is_ok_and(|mut plain| consume(&copy.name, &mut *plain).is_ok())
    }

    /// duplicity's copy of the set's signature archive, unless it was refused.
    fn signatures_of(&self, set: &BackupSet) -> Option<&ObjectInfo> {
        self.copies.get(&set.index)?.signatures.as_ref().filter(|copy| self.may_use(copy))
    }

    /// Whether what is known without reading either as a whole tells them apart.
    fn agree(
        &self,
        copy: &ObjectInfo,
        original: &ObjectInfo,
        (store, context): (&dyn ObjectStore, &RequestContext),
    ) -> bool {
        if NameSuffix::of(&original.name).is_encrypted() {
            return true;
        }
        let Some(own) = trailer(&*self.store, copy, context) else { return false };
        if is_gzip(&original.name) {
            return trailer(store, original, context) == Some(own);
        }
        let [_, _, _, _, len @ ..] = own;
        original.size.to_le_bytes().starts_with(&len)
    }

    fn stream(
        &self,
        copy: &ObjectInfo,
        decoder: &Decoder,
        context: &RequestContext,
        consume: &mut dyn FnMut(&mut dyn Read) -> Result<(), VolumeError>,
    ) -> Result<(), VolumeError> {
        pass::stream_object(
            &*self.store,
            decoder,
            copy,
            None,
            copy.size >= super::repository::WORTH_TWO,
            context,
            consume,
        )
    }

    fn may_use(&self, copy: &ObjectInfo) -> bool {
        !lock(&self.refused).contains(&copy.name)
    }

    fn refuse<T>(&self, copy: &ObjectInfo, reason: &str) -> Option<T> {
        if lock(&self.refused).insert(Arc::clone(&copy.name)) {
            log::warn!("{}/{}: not used: {reason}; the backup's own is read", self.store.url(), copy.name);
        }
        None
    }
}

fn is_gzip(name: &str) -> bool {
    NameSuffix::of(name) == NameSuffix::Gzip
}

/// The last bytes of a gzip file.
fn trailer(store: &dyn ObjectStore, object: &ObjectInfo, context: &RequestContext) -> Option<[u8; GZIP_TRAILER]> {
    let start = object.size.checked_sub(GZIP_TRAILER as u64).filter(|_| is_gzip(&object.name))?;
    let mut bytes = [0; GZIP_TRAILER];
    let mut input = store.open(object, ByteRange { start, end: object.size }, context).ok()?;
    input.read_exact(&mut bytes).ok().map(|()| bytes)
}
