//! A repository: its listing, its manifests, and its volumes as verified plaintext.

use std::collections::HashMap;
use std::io::Read;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};

use super::archive_dir::ArchiveDir;
use super::drop_behind::DropBehind;
use super::error::VolumeError;
use super::member_table::MemberTable;
use super::pass::{self, ExpectedHash};
use super::prefetcher::Prefetcher;
use super::read::DecodedVolume;
use super::refresh::{RefreshError, Refreshed};
use super::repository_index::{IndexLocation, Known};
use super::verified_blocks::VerifiedBlocks;
use crate::codec::Decoder;
use crate::storage::{ObjectInfo, ObjectStore};
use dupfs_base::sync::SingleFlight;
use dupfs_base::sync::lock;
use dupfs_base::{ByteRange, RequestContext};
use dupfs_cache::{BlockCache, ByteLru, CacheConfig};
use dupfs_format::collection::{BackupSet, Collection};
use dupfs_format::manifest::{Manifest, ManifestVolume};
use dupfs_format::{SetIndex, VolumeId};

/// Key of a block in the cache: volume, pass that decoded it, index. The pass keeps blocks that are not verified yet
/// out of every reader's sight.
pub(super) type BlockKey = (VolumeId, u32, u32);

/// Stored bytes of a signature archive that a peek fetches.
const PEEK: u64 = 256 << 10;

/// Stored bytes from which on it pays to decode an object by two threads.
pub(super) const WORTH_TWO: u64 = 128 << 10;

/// What a repository keeps in memory and on disk, and what it finds there.
#[derive(Debug)]
pub struct RepositoryConfig {
    /// The cache of decoded blocks.
    pub cache: CacheConfig,
    /// Bytes for member tables.
    pub member_table_bytes: u64,
    /// Where what was learnt is kept from one mount to the next; nowhere if `None`.
    pub index: Option<IndexLocation>,
    /// What duplicity itself has at hand of the repository.
    pub archive_dir: Option<ArchiveDir>,
}

/// A duplicity repository as the upper layers read it. Shared by all threads; no lock is held across I/O.
#[derive(Debug)]
pub struct Repository {
    pub(super) store: Arc<dyn ObjectStore>,
    pub(super) decoder: Decoder,
    collection: RwLock<Arc<Collection>>,
    pub(super) refresh_flight: SingleFlight<(), Refreshed, RefreshError>,
    manifests: Mutex<HashMap<SetIndex, Arc<Manifest>>>,
    manifest_flight: SingleFlight<SetIndex, Arc<Manifest>, VolumeError>,
    pub(super) tables: Mutex<ByteLru<VolumeId, Arc<MemberTable>>>,
    /// The last table that outweighs all of `tables`: else each question to a volume of very many small files would decode it.
    pub(super) outsize: Mutex<Option<(VolumeId, Arc<MemberTable>)>>,
    pub(super) blocks: BlockCache<BlockKey>,
    pub(super) verified: VerifiedBlocks,
    pub(super) volume_flight: SingleFlight<VolumeId, DecodedVolume, VolumeError>,
    /// Bytes that one pass may put into the cache ahead of the reader.
    pub(super) window: u64,
    pub(super) ahead: Prefetcher,
    pub(super) trails: DropBehind,
    pub(super) known: Known,
    archive: Option<ArchiveDir>,
    /// Passes under way.
    pub(super) passes: AtomicUsize,
    /// The repository itself, for work that goes on behind a request.
    pub(super) own: Weak<Self>,
}

impl Repository {
    /// A repository over `store`, whose listing gave `collection`.
    pub fn new(
        store: Arc<dyn ObjectStore>,
        decoder: Decoder,
        collection: Collection,
        config: RepositoryConfig,
    ) -> Arc<Self> {
        let spill = config.cache.spill.as_ref().map_or(0, |s| s.bytes);
        let window = config.cache.memory_bytes.saturating_add(spill) / 2;
        let known = Known::open(config.index, store.url(), &collection);
        Arc::new_cyclic(|own| Self {
            store,
            decoder,
            collection: RwLock::new(Arc::new(collection)),
            refresh_flight: SingleFlight::new(),
            manifests: Mutex::default(),
            manifest_flight: SingleFlight::new(),
            tables: Mutex::new(ByteLru::new(config.member_table_bytes)),
            outsize: Mutex::default(),
            blocks: BlockCache::new(config.cache),
            verified: VerifiedBlocks::default(),
            volume_flight: SingleFlight::new(),
            window,
            ahead: Prefetcher::default(),
            trails: DropBehind::default(),
            known,
            archive: config.archive_dir,
            passes: AtomicUsize::new(0),
            own: Weak::clone(own),
        })
    }

    /// What the last listing told.
    pub fn collection(&self) -> Arc<Collection> {
        Arc::clone(&self.collection.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// What is told from now on. `next` follows what was told before, so that all numbers stay good.
    pub(super) fn set_collection(&self, next: Arc<Collection>) {
        *self.collection.write().unwrap_or_else(PoisonError::into_inner) = next;
    }

    /// The store's URL without secrets.
    pub fn url(&self) -> &str {
        self.store.url()
    }

    /// What serving has cost so far, in one line: requests and bytes by kind, and what the cache of blocks did.
    pub fn cost(&self) -> String {
        let traffic = self.store.traffic();
        let cache = self.blocks.stats();
        format!(
            "{} list requests, {} get requests ({} repeated), {} bytes fetched; cache: {} hits in memory, {} on disk, {} \
             misses, {} bytes in memory, {} on disk",
            traffic.list_requests,
            traffic.get_requests,
            traffic.retries,
            traffic.bytes,
            cache.memory_hits,
            cache.spill_hits,
            cache.misses,
            cache.memory_bytes,
            cache.spill_bytes
        )
    }

    /// The set's record in the collection.
    ///
    /// # Errors
    /// [`VolumeError::Range`] for an index the collection does not have.
    pub fn set(&self, set: SetIndex) -> Result<Arc<BackupSet>, VolumeError> {
        let collection = self.collection();
        collection.set(set).cloned().ok_or_else(|| VolumeError::Range {
            object: "the collection".into(),
            start: u64::from(set.0),
            end: u64::from(set.0).saturating_add(1),
            len: collection.sets().len() as u64,
        })
    }

    /// The set as people name it.
    pub fn label(&self, set: SetIndex) -> Arc<str> {
        self.set(set).map_or_else(|_| Arc::from("an unknown set"), |set| set.label().into())
    }

    /// The set's manifest, read once.
    ///
    /// # Errors
    /// [`VolumeError`] when it is missing, cannot be decrypted, or is damaged.
    pub fn manifest(self: &Arc<Self>, set: SetIndex, context: &RequestContext) -> Result<Arc<Manifest>, VolumeError> {
        if let Some(manifest) = self.cached_manifest(set) {
            return Ok(manifest);
        }
        let this = Arc::clone(self);
        self.manifest_flight.run(set, "dupfs-manifest", context, move |context| this.load_manifest(set, context))
    }

    fn load_manifest(&self, set: SetIndex, context: &RequestContext) -> Result<Arc<Manifest>, VolumeError> {
        if let Some(manifest) = self.cached_manifest(set) {
            return Ok(manifest);
        }
        let record = self.set(set)?;
        let object = record.manifest.as_ref().ok_or_else(|| VolumeError::NoManifest { set: record.label().into() })?;
        let copy = self.archive.as_ref().and_then(|archive| archive.manifest(&record, &self.decoder, context));
        let manifest = Arc::new(copy.map_or_else(|| self.read_manifest(object, context), Ok)?);
        for problem in &manifest.problems {
            log::error!("{}: {problem}; what that volume holds cannot be read", object.name);
        }
        lock(&self.manifests).insert(set, Arc::clone(&manifest));
        Ok(manifest)
    }

    /// The set's manifest if it was read before.
    pub fn cached_manifest(&self, set: SetIndex) -> Option<Arc<Manifest>> {
        lock(&self.manifests).get(&set).cloned()
    }

    fn read_manifest(&self, object: &ObjectInfo, context: &RequestContext) -> Result<Manifest, VolumeError> {
        let mut manifest = None;
        self.stream(object, context, &mut |plain| {
            let read = Manifest::read(plain).map_err(|e| VolumeError::from_format(&object.name, &e))?;
            manifest = Some(read);
            Ok(())
        })?;
        manifest.ok_or_else(|| VolumeError::object(&object.name, dupfs_base::ErrorKind::Corrupt, "it is empty"))
    }

    /// Streams the plaintext of the set's signature archive into `consume`, from duplicity's archive directory or from the
    /// store. What `consume` learnt may be used only if this returns `Ok`: integrity is known at the end. It may be called
    /// twice, and then begins anew.
    ///
    /// # Errors
    /// [`VolumeError`] when it is missing, cannot be decrypted or is damaged, or the error of `consume`.
    pub fn stream_signatures(
        &self,
        set: SetIndex,
        context: &RequestContext,
        consume: &mut dyn FnMut(&str, &mut dyn Read) -> Result<(), VolumeError>,
    ) -> Result<(), VolumeError> {
        let (record, stored) = (self.set(set)?, (&*self.store, &self.decoder, context));
        if self.archive.as_ref().is_some_and(|archive| archive.signatures(&record, stored, consume)) {
            return Ok(());
        }
        self.stream_stored_signatures(set, context, consume)
    }

    /// As [`Self::stream_signatures`], but from the store alone, and once.
    ///
    /// # Errors
    /// [`VolumeError`] likewise.
    pub fn stream_stored_signatures(
        &self,
        set: SetIndex,
        context: &RequestContext,
        consume: &mut dyn FnMut(&str, &mut dyn Read) -> Result<(), VolumeError>,
    ) -> Result<(), VolumeError> {
        let object = self.signatures_object(set)?;
        self.stream(&object, context, &mut |plain| consume(&object.name, plain))
    }

    /// Streams the first plaintext of the set's signature archive into `consume`, fetching no more than a small part of
    /// it. Nothing vouches for what is seen: it may be shown until the whole archive was read, not longer. `consume` may be
    /// called twice, and then begins anew.
    ///
    /// # Errors
    /// [`VolumeError`] when it is missing or cannot be decrypted, or the error of `consume`.
    pub fn peek_signatures(
        &self,
        set: SetIndex,
        context: &RequestContext,
        consume: &mut dyn FnMut(&str, &mut dyn Read) -> Result<(), VolumeError>,
    ) -> Result<(), VolumeError> {
        let (record, stored) = (self.set(set)?, (&*self.store, &self.decoder, context));
        if self.archive.as_ref().is_some_and(|archive| archive.peek(&record, stored, consume)) {
            return Ok(());
        }
        let object = self.signatures_object(set)?;
        let head = ByteRange::at(0, object.size.min(PEEK));
        let input = self.store.open(&object, head, context).map_err(|e| VolumeError::from_storage(&object.name, &e))?;
        let mut plain =
            self.decoder.open(&object.name, input).map_err(|e| VolumeError::from_codec(&object.name, &e))?;
        consume(&object.name, &mut *plain)
    }

    fn signatures_object(&self, set: SetIndex) -> Result<ObjectInfo, VolumeError> {
        let record = self.set(set)?;
        record.signatures.clone().ok_or_else(|| VolumeError::NoSignatures { set: record.label().into() })
    }

    /// Streams an object that no manifest gives a hash of.
    fn stream(
        &self,
        object: &ObjectInfo,
        context: &RequestContext,
        consume: &mut dyn FnMut(&mut dyn Read) -> Result<(), VolumeError>,
    ) -> Result<(), VolumeError> {
        pass::stream_object(&*self.store, &self.decoder, object, None, object.size >= WORTH_TWO, context, consume)
    }

    /// The volume's object in the store and the hash its manifest gives.
    pub(super) fn volume_object(
        self: &Arc<Self>,
        id: VolumeId,
        context: &RequestContext,
    ) -> Result<(ObjectInfo, Option<ExpectedHash>), VolumeError> {
        let record = self.set(id.set)?;
        let missing = || VolumeError::NoVolume { set: record.label().into(), number: id.number };
        let object = record.volumes.get(&id.number).cloned().ok_or_else(missing)?;
        let manifest = self.manifest(id.set, context)?;
        let listed = manifest.volume(id.number).ok_or_else(missing)?;
        Ok((object, expected_hash(listed)))
    }
}

fn expected_hash(listed: &ManifestVolume) -> Option<ExpectedHash> {
    listed.hash.as_ref().map(|hash| ExpectedHash { kind: hash.kind, digest: hash.digest.clone() })
}
