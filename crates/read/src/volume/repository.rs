//! A repository as the upper layers read it.

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use super::archive_dir::ArchiveDir;
use super::block_store::{BlockStore, cache_bytes};
use super::captured_archives::CapturedArchives;
use super::damaged_copies::DamagedCopy;
use super::decode_volume::TableLimits;
use super::drop_behind::{DropBehind, PassedBlocks};
use super::error::VolumeError;
use super::expected_fetches::{ExpectedFetch, ExpectedFetches, ExpectedProgress};
use super::live_collection::{LiveCollection, RefreshError, Refreshed};
use super::manifest_store::{ManifestReaders, ManifestStore};
use super::member_table::MemberTable;
use super::object_reader::ObjectReader;
use super::pass_wait::PassWait;
use super::prefetcher::{PrefetchSource, Prefetcher};
use super::read_hint::ReadHint;
use super::repository_index::{IndexLocation, RepositoryIndex};
use super::running_volume::RunningVolume;
use super::signature_archives::{CaptureLimits, SignatureArchives};
use super::signature_stream::SignatureStream;
use super::signed_blocks::SignedBlocks;
use super::signed_contents::SignedContent;
use super::signed_sets::SignedSets;
use super::small_volumes::SmallVolumes;
use super::table_allowance::TableMemory;
use super::volume_store::{VolumeSources, VolumeStore};
use crate::codec::{BackdatedObject, Decoder, ExpansionLimit};
use crate::storage::{
    ActiveTransfer, BucketLocation, MeteredStore, ObjectStore, StagedBatch, StagedStore, StoreMeter, Traffic,
};
use dupfs_base::sync::Semaphore;
use dupfs_base::{ByteRange, RequestContext};
use dupfs_cache::{CacheConfig, CacheStats, LentMemory};
use dupfs_format::collection::{BackupSet, Collection};
use dupfs_format::manifest::Manifest;
use dupfs_format::{ArchivePath, SetIndex, VolumeId};

/// The caches of a repository and its sources besides the store.
#[derive(Debug)]
pub struct RepositoryConfig {
    /// The cache of decoded blocks.
    pub cache: CacheConfig,
    /// Upper bound of the member tables in memory, in bytes.
    pub member_table_bytes: u64,
    /// Upper bound of the manifests in memory, in bytes.
    pub manifest_bytes: u64,
    /// Upper bound of the tables in memory that are larger than the stored bytes of their objects explain, in bytes.
    pub table_bytes: u64,
    /// The location of the index, if there is to be one.
    pub index: Option<IndexLocation>,
    /// duplicity's own cache of the repository.
    pub archive_dir: Option<ArchiveDir>,
    /// The check of the signatures of sets that a later listing shows, if they are required.
    pub signed: Option<SignedSets>,
    /// The time that a request may take. Decoding one object may take as long.
    pub deadline: Duration,
    /// The time after which content of a volume that is still being read is served if its signature proves it. `None` if every
    /// volume is verified as a whole first.
    pub prove_after: Option<Duration>,
}

/// The activity and the caches of a [`Repository`].
#[derive(Clone, Debug)]
pub struct RepositoryStatus {
    /// Requests and bytes since the repository was opened.
    pub traffic: Traffic,
    /// Bytes per second that come from the store, on the average of the last ten seconds.
    pub bytes_per_second: u64,
    /// The reads of objects, and listings, that have begun and not ended; the oldest first.
    pub transfers: Vec<ActiveTransfer>,
    /// The block cache.
    pub cache: CacheStats,
    /// The directory of the index; `None` without one.
    pub index: Option<String>,
}

/// A duplicity repository: its listing, its manifests and signature archives, and its volumes as verified plaintext. Shared by
/// all threads; no lock is held across I/O.
#[derive(Debug)]
pub struct Repository {
    store: Arc<dyn ObjectStore>,
    staging: Arc<StagedStore>,
    meter: Arc<StoreMeter>,
    collection: Arc<LiveCollection>,
    manifests: Arc<ManifestStore>,
    signatures: Arc<SignatureArchives>,
    objects: ObjectReader,
    index: Arc<RepositoryIndex>,
    volumes: Arc<VolumeStore>,
    table_memory: TableMemory,
    lent: LentMemory,
    prefetcher: Arc<Prefetcher>,
    drop_behind: DropBehind,
    small: SmallVolumes,
    expected: Arc<ExpectedFetches>,
}

impl Repository {
    /// A repository over `store`, whose listing gave `collection`.
    pub fn new(
        store: Arc<dyn ObjectStore>,
        decoder: impl Into<Arc<Decoder>>,
        collection: Collection,
        config: RepositoryConfig,
    ) -> Arc<Self> {
        let meter = Arc::<StoreMeter>::default();
        let store: Arc<dyn ObjectStore> = Arc::new(MeteredStore::new(store, Arc::clone(&meter)));
        let staging = Arc::new(StagedStore::new(store));
        let store: Arc<dyn ObjectStore> = Arc::<StagedStore>::clone(&staging);
        let prefixes = collection.prefixes().clone();
        let decoder = decoder.into();
        let hash_identifies = decoder.requires_volume_hash();
        let objects = ObjectReader::new(Arc::clone(&store), decoder, prefixes, config.deadline);
        let objects = match &config.signed {
            Some(signed) => objects.recording_with(signed.reader()),
            None => objects,
        };
        let collection = Arc::new(LiveCollection::new(Arc::clone(&store), collection, config.signed));
        let index = RepositoryIndex::open(config.index, &*store, Arc::clone(&collection), hash_identifies);
        let index = Arc::new(index);
        let archive_dir = config.archive_dir.map(Arc::new);
        let table_memory = TableMemory::new(config.table_bytes);
        let table_limits = TableLimits {
            tables: table_memory.clone(),
            max_concurrent_bytes: config.member_table_bytes / 8,
            large: Semaphore::new(1),
        };
        let readers = ManifestReaders {
            limits: table_limits.clone(),
            manifests: objects.with_expansion(ExpansionLimit::MANIFEST),
            volumes: objects.clone(),
            archive_dir: archive_dir.clone(),
            index: Arc::clone(&index),
        };
        let manifests = Arc::new(ManifestStore::new(Arc::clone(&collection), readers, config.manifest_bytes));
        let (memory_bytes, cache_bytes) = (config.cache.memory_bytes, cache_bytes(&config.cache));
        let lent = LentMemory::default();
        let blocks = Arc::new(BlockStore::new(config.cache, lent.clone()));
        let capture = config.prove_after.map(|_| CaptureLimits {
            archives: CapturedArchives::new(Arc::clone(&blocks)),
            max_bytes: memory_bytes / 8,
            max_requested_bytes: cache_bytes / 4,
        });
        let signatures = Arc::new(SignatureArchives::new(
            Arc::clone(&collection),
            objects.clone(),
            Arc::clone(&manifests),
            archive_dir,
            capture,
        ));
        let sources = VolumeSources {
            objects: objects.clone(),
            collection: Arc::clone(&collection),
            manifests: Arc::clone(&manifests),
            index: Arc::clone(&index),
            table_limits,
        };
        let volumes = Arc::new(VolumeStore::new(sources, blocks, config.member_table_bytes, config.prove_after));
        let source: Arc<dyn PrefetchSource> = Arc::<VolumeStore>::clone(&volumes);
        let prefetcher = Arc::new(Prefetcher::new(source, cache_bytes, lent.clone()));
        let drop_behind = DropBehind::default();
        let small = SmallVolumes::new(Arc::clone(&staging), Arc::clone(&collection));
        Arc::new(Self {
            store,
            staging,
            meter,
            collection,
            manifests,
            signatures,
            objects,
            index,
            volumes,
            table_memory,
            lent,
            prefetcher,
            drop_behind,
            small,
            expected: Arc::default(),
        })
    }

    /// The collection as the last listing shows it.
    pub fn collection(&self) -> Arc<Collection> {
        self.collection.current()
    }

    /// Lists the store again and adopts the changes. Requests during a listing share it.
    ///
    /// # Errors
    /// [`RefreshError`]; then the collection stays as it was.
    pub fn refresh(&self, context: &RequestContext) -> Result<Refreshed, RefreshError> {
        self.collection.refresh(context)
    }

    /// The store's URL without secrets.
    pub fn url(&self) -> &str {
        self.store.url()
    }

    /// The objects read so far that were written before the times of their sets, one for each set: they were renamed.
    pub fn backdated_objects(&self) -> Vec<BackdatedObject> {
        self.objects.backdated_objects()
    }

    /// The damaged copies of objects met so far that have another copy in the store: at most 10,000.
    pub fn damaged_copies(&self) -> Vec<DamagedCopy> {
        self.objects.damaged_copies()
    }

    /// The bucket with the objects, if they are in one.
    pub fn bucket(&self) -> Option<BucketLocation> {
        self.store.bucket()
    }

    /// The index of the repository.
    pub fn index(&self) -> &RepositoryIndex {
        &self.index
    }

    /// Records that the reader of the file that hints name as `file` is gone. The fetch of volumes for it stops, unless its scan
    /// has continued with another file.
    pub fn leave(&self, file: u64) {
        self.prefetcher.leave(file);
        self.volumes.leave(file);
    }

    /// Returns true if volumes are prefetched now.
    pub fn is_prefetching(&self) -> bool {
        self.prefetcher.is_running()
    }

    /// Stops the prefetch of volumes that no request waits for.
    pub fn stop_prefetch(&self) {
        self.prefetcher.stop();
        self.volumes.end_answered_passes();
    }

    /// The requests and bytes so far.
    pub fn traffic(&self) -> Traffic {
        self.store.traffic()
    }

    /// Expects that `bytes` are fetched for the reading of `sets` backup sets, until the result is dropped.
    pub fn expect_fetch(&self, bytes: u64, sets: usize) -> ExpectedFetch {
        self.expected.expect(bytes, sets, self.fetched_bytes())
    }

    /// Expects that `bytes` are fetched by all work until the result is dropped. What that work expects itself is a part of them.
    pub fn expect_phase(&self, bytes: u64) -> ExpectedFetch {
        self.expected.expect_phase(bytes, self.fetched_bytes())
    }

    /// The progress of the fetches that are expected now; `None` if there are none.
    pub fn expected_progress(&self) -> Option<ExpectedProgress> {
        self.expected.progress(self.fetched_bytes())
    }

    /// Bytes that were read from the store, and from duplicity's archive directory.
    fn fetched_bytes(&self) -> u64 {
        self.store.traffic().bytes.saturating_add(self.signatures.copied_bytes())
    }

    /// The activity and the caches now. Fetches nothing.
    pub fn status(&self) -> RepositoryStatus {
        RepositoryStatus {
            traffic: self.store.traffic(),
            bytes_per_second: self.meter.bytes_per_second(),
            transfers: self.meter.transfers(),
            cache: self.volumes.cache_stats(),
            index: self.index.on_disk().map(|index| index.display_path().to_owned()),
        }
    }

    /// A line with the requests and bytes so far, and the statistics of the block cache.
    pub fn cost(&self) -> String {
        let traffic = self.store.traffic();
        let cache = self.volumes.cache_stats();
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

    /// The set with this index.
    ///
    /// # Errors
    /// [`VolumeError::NoSet`].
    pub fn set(&self, set: SetIndex) -> Result<Arc<BackupSet>, VolumeError> {
        self.collection.set(set)
    }

    /// The common share of memory for tables that are larger than the stored bytes of their objects explain.
    pub fn table_memory(&self) -> &TableMemory {
        &self.table_memory
    }

    /// The memory that the cache of blocks lends to others, who set it.
    pub fn lent_memory(&self) -> &LentMemory {
        &self.lent
    }

    /// The name of `set` in messages.
    pub fn label(&self, set: SetIndex) -> Arc<str> {
        self.set(set).map_or_else(|_| Arc::from("an unknown set"), |set| set.label().into())
    }

    /// The manifest of `set`, which is read once.
    ///
    /// # Errors
    /// [`VolumeError`] if it is missing, cannot be decrypted, or is damaged.
    pub fn manifest(&self, set: SetIndex, context: &RequestContext) -> Result<Arc<Manifest>, VolumeError> {
        self.manifests.get(set, context)
    }

    /// Stored bytes of the signature archive of `set`, or of duplicity's copy of it if that is longer; 0 without either.
    pub fn signatures_len(&self, set: SetIndex) -> u64 {
        self.signatures.stored_len(set)
    }

    /// Bytes that [`Self::stream_signatures`] fetches for `set`, about.
    pub fn signatures_fetch_len(&self, set: SetIndex) -> u64 {
        self.signatures.fetch_len(set)
    }

    /// Bytes that [`Self::check_signatures`] fetches for `set`, about.
    pub fn signatures_check_len(&self, set: SetIndex) -> u64 {
        self.signatures.check_len(set)
    }

    /// Streams the plaintext of the signature archive of `set` into `consume`, from duplicity's archive directory or from the
    /// store. The results of `consume` may be used only if this returns `Ok`: integrity is known at the end. `consume` may be
    /// called twice, and then starts over.
    ///
    /// # Errors
    /// [`VolumeError`] if it is missing, cannot be decrypted or is damaged, or the error of `consume`.
    pub fn stream_signatures(
        &self,
        set: SetIndex,
        context: &RequestContext,
        consume: &mut dyn FnMut(&mut SignatureStream<'_, '_>) -> Result<(), VolumeError>,
    ) -> Result<(), VolumeError> {
        self.signatures.stream(set, context, consume)
    }

    /// Announces that the signature archives of `sets` will be read, in this order: they are fetched in advance, many at a time,
    /// with the manifests that they are compared with, until the returned batch is dropped.
    pub fn stage_signatures(&self, sets: &[SetIndex], context: &RequestContext) -> StagedBatch {
        self.staging.stage(sets.iter().flat_map(|set| self.signatures.needed_objects(*set)), context)
    }

    /// As [`Self::stream_signatures`], but from the store only. `consume` is called once.
    ///
    /// # Errors
    /// As [`Self::stream_signatures`].
    pub fn stream_stored_signatures(
        &self,
        set: SetIndex,
        context: &RequestContext,
        consume: &mut dyn FnMut(&mut SignatureStream<'_, '_>) -> Result<(), VolumeError>,
    ) -> Result<(), VolumeError> {
        self.signatures.stream_stored(set, context, consume)
    }

    /// Reads the stored signature archive of `set`, and compares it with the manifest of the set if both are encrypted.
    ///
    /// # Errors
    /// [`VolumeError`] if the archive is missing, cannot be decrypted, is damaged, or is that of another set.
    pub fn check_signatures(&self, set: SetIndex, context: &RequestContext) -> Result<(), VolumeError> {
        self.signatures.check(set, context)
    }

    /// The content of the file at `path` as `set` signed it, from the stored signature archive; `None` without a signature.
    ///
    /// # Errors
    /// [`VolumeError`] if the archive is missing, cannot be decrypted or is damaged.
    pub fn signed_content(
        &self,
        set: SetIndex,
        path: &ArchivePath,
        context: &RequestContext,
    ) -> Result<Option<SignedContent>, VolumeError> {
        Ok(self.signatures.signed_contents(set, context)?.get(path))
    }

    /// Streams the beginning of the signature archive of `set` into `consume`; only a small part of it is fetched. Nothing is
    /// verified: the results may be used only until the whole archive has been read. `consume` may be called twice, and then
    /// starts over.
    ///
    /// # Errors
    /// [`VolumeError`] if it is missing or cannot be decrypted, or the error of `consume`.
    pub fn peek_signatures(
        &self,
        set: SetIndex,
        context: &RequestContext,
        consume: &mut dyn FnMut(&str, &mut dyn Read) -> Result<(), VolumeError>,
    ) -> Result<(), VolumeError> {
        self.signatures.peek(set, context, consume)
    }

    /// The member table of volume `id`. The volume is decoded if neither memory nor the index has it.
    ///
    /// # Errors
    /// [`VolumeError`] if the volume is missing, damaged or cannot be decrypted, or for the end of the request.
    pub fn members(&self, id: VolumeId, context: &RequestContext) -> Result<Arc<MemberTable>, VolumeError> {
        self.members_within(id, PassWait::ToItsEnd, context)
    }

    /// As [`Self::members`]; a pass is waited for as `wait` says.
    pub(super) fn members_within(
        &self,
        id: VolumeId,
        wait: PassWait<'_>,
        context: &RequestContext,
    ) -> Result<Arc<MemberTable>, VolumeError> {
        self.volumes.members(id, wait, context)
    }

    /// Returns true if content may be served before its volume is verified.
    pub(super) fn serves_slow_passes(&self) -> bool {
        self.volumes.serves_slow_passes()
    }

    /// The sums of the blocks of the file at `path` as `set` signed it.
    ///
    /// # Errors
    /// For the end of the request.
    pub(super) fn signed_blocks(
        &self,
        set: SetIndex,
        path: &ArchivePath,
        max_fetch: u64,
        context: &RequestContext,
    ) -> Result<Option<SignedBlocks>, VolumeError> {
        self.signatures.signed_blocks(set, path, max_fetch, context)
    }

    /// Records that `range` of a volume was proved and served before the volume is verified. The volumes after it are prefetched
    /// once most of it was read: earlier they would delay it.
    pub(super) fn record_proved(&self, running: &RunningVolume, range: ByteRange, hint: ReadHint, path: &ArchivePath) {
        self.volumes.record_answer(running, hint.file, path);
        if let Some(plain_len) = running.likely_plain_len() {
            let may_start = running.is_mostly_read();
            self.prefetcher.record_read(running.id(), range, (plain_len, may_start), hint);
        }
    }

    /// Returns true if the member table of any volume is in memory.
    pub fn has_cached_members(&self) -> bool {
        self.volumes.has_cached_members()
    }

    /// Returns true if the member table of volume `id` is in memory or in the index. May read the manifest of the set.
    ///
    /// # Errors
    /// [`VolumeError`] if the store or the manifest does not have the volume, or the manifest cannot be read.
    pub fn has_members(&self, id: VolumeId, context: &RequestContext) -> Result<bool, VolumeError> {
        self.volumes.has_members(id, context)
    }

    /// Decodes volume `id` into the cache for requests that are expected, if the cache has room for it beside others. Requests for
    /// it share the work.
    ///
    /// # Errors
    /// [`VolumeError`]; a request for the volume makes its own attempt.
    pub fn fetch_ahead(&self, id: VolumeId, context: &RequestContext) -> Result<(), VolumeError> {
        self.prefetcher.fetch_ahead(id, self.stored_len(id), context)
    }

    /// Stored bytes of volume `id`; 0 if there is none.
    fn stored_len(&self, id: VolumeId) -> u64 {
        let set = self.collection.set(id.set).ok();
        set.and_then(|set| Some(set.volumes.get(&id.number)?.size)).unwrap_or(0)
    }

    /// Returns true if volume `id` was decoded since the repository was opened.
    pub fn was_decoded(&self, id: VolumeId) -> bool {
        self.volumes.was_decoded(id)
    }

    /// Appends the bytes `range` of the plaintext of volume `id` to `out`. A request that may not block is answered from
    /// memory.
    ///
    /// # Errors
    /// [`VolumeError`] if the volume cannot be read or ends before the range does, or for the end of the request; then `out`
    /// is as it was.
    pub fn read_volume(
        &self,
        id: VolumeId,
        range: ByteRange,
        hint: ReadHint,
        out: &mut Vec<u8>,
        context: &RequestContext,
    ) -> Result<(), VolumeError> {
        self.read_within(id, range, hint, out, (PassWait::ToItsEnd, context))
    }

    /// As [`Self::read_volume`]; a pass is waited for as `wait` says.
    pub(super) fn read_within(
        &self,
        id: VolumeId,
        range: ByteRange,
        hint: ReadHint,
        out: &mut Vec<u8>,
        wait: (PassWait<'_>, &RequestContext),
    ) -> Result<(), VolumeError> {
        if range.is_empty() {
            return Ok(());
        }
        self.volumes.read(id, range, out, wait)?;
        self.record_lookup(id, range, hint);
        self.small.record_read(id, hint.file);
        if let Some(table) = self.volumes.cached_members(id) {
            let passed = self.drop_behind.record_read(id, range, table.plain_len(), hint.read_once);
            passed.into_iter().for_each(|PassedBlocks { id, blocks }| self.volumes.demote(id, blocks));
        }
        Ok(())
    }

    /// Records that `range` of volume `id` was located or read. Starts to prefetch if it is part of a scan.
    pub fn record_lookup(&self, id: VolumeId, range: ByteRange, hint: ReadHint) {
        // A lookup that the index answered needs no volume.
        if let Some(table) = self.volumes.cached_members(id).filter(|_| self.volumes.was_decoded(id)) {
            self.prefetcher.record_read(id, range, (table.plain_len(), true), hint);
        }
    }
}

impl Drop for Repository {
    fn drop(&mut self) {
        // A suspended pass refers to the volumes, and they to the pass.
        self.volumes.end_answered_passes();
    }
}
