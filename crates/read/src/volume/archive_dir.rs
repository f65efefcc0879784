//! duplicity's own cache of manifests and signature archives (`--archive-dir`), read instead of the store's, without a
//! key.
//!
//! Its files are not authenticated. A copy is used only for a set of the store, which is identified by the times in the name,
//! and only if nothing distinguishes it from the store's object: see [`ArchiveDir::manifest`] and [`ArchiveDir::signatures`].

use std::collections::{HashMap, HashSet};
use std::io::Read;
use std::path::Path;
use std::sync::{Arc, Mutex};

use super::error::VolumeError;
use super::loaded_manifest::LoadedManifest;
use super::object_reader::{DecodeThreads, ObjectReader};
use super::signature_stream::SignatureStream;
use super::table_allowance::TableMemory;
use crate::storage::{LocalStore, ObjectInfo, ObjectStore};
use dupfs_base::sync::lock;
use dupfs_base::{ByteRange, RequestContext, escape_bytes};
use dupfs_format::SetIndex;
use dupfs_format::collection::{BackupSet, Collection, PrefixOptions};
use dupfs_format::manifest::Manifest;
use dupfs_format::name::NameSuffix;

/// Bytes at the end of a gzip file: checksum and length of its content.
const GZIP_TRAILER_BYTES: usize = 8;

/// duplicity's copies of manifests and signature archives of a repository.
#[derive(Debug)]
pub struct ArchiveDir {
    store: Arc<dyn ObjectStore>,
    copies: HashMap<SetIndex, SetCopies>,
    /// Names of copies that differ from the store's object.
    refused: Mutex<HashSet<Arc<str>>>,
}

/// The copies of one set.
#[derive(Debug)]
struct SetCopies {
    manifest: Option<ObjectInfo>,
    signatures: Option<ObjectInfo>,
}

impl ArchiveDir {
    /// Opens `dir` and finds the copies of objects of `collection`. Returns `None`, and logs a warning, if there are none.
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
        let copied = Collection::from_listing(&objects, &prefixes).ok();
        let times = |set: &Arc<BackupSet>| (set.start, set.time);
        let by_time: HashMap<_, _> = copied.iter().flat_map(|c| c.sets()).map(|set| (times(set), set)).collect();
        let copies_of = |set: &Arc<BackupSet>| {
            let copy = by_time.get(&times(set))?;
            Some((set.index, SetCopies { manifest: copy.manifest.clone(), signatures: copy.signatures.clone() }))
        };
        let complete = collection.sets().iter().filter(|set| set.is_complete());
        let copies: HashMap<_, _> = complete.filter_map(copies_of).collect();
        let is_lost = |set: &&Arc<BackupSet>| set.manifest.is_none();
        let manifest_of = |set| Some((set, by_time.get(&times(set))?.manifest.as_ref()?));
        let lost: Vec<_> = collection.sets().iter().filter(is_lost).filter_map(manifest_of).collect();
        for (set, manifest) in &lost {
            log::warn!(
                "--archive-dir: {shown}/{} is the manifest that the backup lacks of {}: copy it into the backup to show the \
                 set",
                manifest.name,
                set.label()
            );
        }
        if copies.is_empty() && lost.is_empty() {
            log::warn!("--archive-dir: {shown} has no file of this backup; reading everything from the backup itself");
            return None;
        }
        Some(Self { store: Arc::new(store), copies, refused: Mutex::default() })
    }

    /// The manifest of `set`, if there is a valid copy that nothing distinguishes from the store's: an unencrypted one has
    /// the same size, and any lists all volumes that the store has. `objects` reads the store.
    pub(super) fn manifest(
        &self,
        set: &BackupSet,
        objects: &ObjectReader,
        memory: &TableMemory,
        context: &RequestContext,
    ) -> Option<LoadedManifest> {
        let copy = self.copies.get(&set.index)?.manifest.as_ref().filter(|copy| self.may_use(copy))?;
        let original = set.manifest.as_ref()?;
        let mut read = None;
        let outcome = self.stream(copy, objects, context, &mut |plain| {
            read = Some(LoadedManifest::read(set, copy, memory, plain)?);
            Ok(())
        });
        match (outcome, read) {
            (Ok(()), Some(loaded)) => match difference(&loaded.manifest, copy, original, set) {
                None => return Some(loaded),
                Some(reason) => self.refuse(copy, &reason, context),
            },
            (Ok(()), None) => self.refuse(copy, "it is empty", context),
            (Err(error), _) => self.refuse(copy, &error.to_string(), context),
        }
        None
    }

    /// Streams the signature archive of `set` into `consume`, if there is a valid copy that nothing distinguishes from the
    /// store's: of an unencrypted one, checksum and length of the content are compared. If this returns false, the results
    /// of `consume` are void.
    pub(super) fn signatures(
        &self,
        set: &BackupSet,
        objects: &ObjectReader,
        context: &RequestContext,
        consume: &mut dyn FnMut(&mut SignatureStream<'_, '_>) -> Result<(), VolumeError>,
    ) -> bool {
        let Some(copy) = self.signatures_copy(set) else { return false };
        if let Some(original) = &set.signatures
            && !self.may_be_equal(copy, original, objects, context)
        {
            let reason = format!(
                "its checksum and length are not those of {}, so one of the two is damaged or of another run",
                original.name
            );
            self.refuse(copy, &reason, context);
            return false;
        }
        let streamed = self
            .stream(copy, objects, context, &mut |plain| consume(&mut SignatureStream::new(&copy.name, plain, None)));
        if let Err(error) = &streamed {
            self.refuse(copy, &error.to_string(), context);
        }
        streamed.is_ok()
    }

    /// Streams the beginning of the signature archive of `set` into `consume`. As [`Self::signatures`], but the content is
    /// not verified.
    pub(super) fn peek(
        &self,
        set: &BackupSet,
        objects: &ObjectReader,
        context: &RequestContext,
        consume: &mut dyn FnMut(&str, &mut dyn Read) -> Result<(), VolumeError>,
    ) -> bool {
        let Some(copy) = self.signatures_copy(set) else { return false };
        if set.signatures.as_ref().is_some_and(|original| !self.may_be_equal(copy, original, objects, context)) {
            return false;
        }
        let copies = objects.with_store(Arc::clone(&self.store));
        copies.peek(copy, copy.size, context, &mut |plain| consume(&copy.name, plain)).is_ok()
    }

    /// Bytes read so far.
    pub(super) fn read_bytes(&self) -> u64 {
        self.store.traffic().bytes
    }

    /// Bytes of duplicity's copy of the signature archive of `set`; 0 without one.
    pub(super) fn signatures_len(&self, set: SetIndex) -> u64 {
        let copies = self.copies.get(&set);
        copies.and_then(|copies| copies.signatures.as_ref()).map_or(0, |copy| copy.size)
    }

    /// duplicity's copy of the signature archive of `set`, unless it was refused.
    fn signatures_copy(&self, set: &BackupSet) -> Option<&ObjectInfo> {
        self.copies.get(&set.index)?.signatures.as_ref().filter(|copy| self.may_use(copy))
    }

    /// Returns false if the copy differs from the original, as far as that is visible without reading either as a whole.
    fn may_be_equal(
        &self,
        copy: &ObjectInfo,
        original: &ObjectInfo,
        objects: &ObjectReader,
        context: &RequestContext,
    ) -> bool {
        if NameSuffix::of(&original.name).is_encrypted() {
            return true;
        }
        let Some(of_copy) = gzip_trailer(&*self.store, copy, context) else { return false };
        if is_gzip(&original.name) {
            return gzip_trailer(objects.store(), original, context) == Some(of_copy);
        }
        let [_, _, _, _, len @ ..] = of_copy;
        original.size.to_le_bytes().starts_with(&len)
    }

    fn stream(
        &self,
        copy: &ObjectInfo,
        objects: &ObjectReader,
        context: &RequestContext,
        consume: &mut dyn FnMut(&mut dyn Read) -> Result<(), VolumeError>,
    ) -> Result<(), VolumeError> {
        let copies = objects.with_store(Arc::clone(&self.store));
        copies.stream(copy, None, DecodeThreads::TwoIfLarge, context, consume)
    }

    fn may_use(&self, copy: &ObjectInfo) -> bool {
        !lock(&self.refused).contains(&copy.name)
    }

    /// Refuses the copy from now on, unless the request has ended: then the failure proves nothing about the copy.
    fn refuse(&self, copy: &ObjectInfo, reason: &str, context: &RequestContext) {
        if context.check().is_ok() && lock(&self.refused).insert(Arc::clone(&copy.name)) {
            // The error of a lower layer begins with the name.
            let reason = reason.strip_prefix(&*copy.name).and_then(|rest| rest.strip_prefix(": ")).unwrap_or(reason);
            log::warn!("{}/{}: ignored: {reason}; reading the backup's own copy instead", self.store.url(), copy.name);
        }
    }
}

/// The reason why `manifest`, which was read from `copy`, cannot replace `original`, the manifest of `set`.
fn difference(manifest: &Manifest, copy: &ObjectInfo, original: &ObjectInfo, set: &BackupSet) -> Option<String> {
    if let Some(problem) = manifest.problems.first() {
        return Some(format!("damaged: {problem}"));
    }
    if !NameSuffix::of(&original.name).is_encrypted() && original.size != copy.size {
        return Some(format!("it has {} bytes and {} has {}", copy.size, original.name, original.size));
    }
    if let Some(number) = set.volumes.keys().find(|number| manifest.volume(**number).is_none()) {
        return Some(format!("it does not list volume {number}, which the backup has"));
    }
    let unhashed = manifest.volumes.iter().find(|volume| volume.hash.is_none());
    unhashed.map(|volume| format!("it has no hash of volume {}", volume.number))
}

fn is_gzip(name: &str) -> bool {
    NameSuffix::of(name) == NameSuffix::Gzip
}

/// The trailer of a gzip file.
fn gzip_trailer(
    store: &dyn ObjectStore,
    object: &ObjectInfo,
    context: &RequestContext,
) -> Option<[u8; GZIP_TRAILER_BYTES]> {
    let start = object.size.checked_sub(GZIP_TRAILER_BYTES as u64).filter(|_| is_gzip(&object.name))?;
    let mut bytes = [0; GZIP_TRAILER_BYTES];
    let mut input = store.open(object, ByteRange { start, end: object.size }, context).ok()?;
    input.read_exact(&mut bytes).ok().map(|()| bytes)
}
