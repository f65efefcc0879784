//! Resolves a file at a snapshot to its size and its extent map.

use std::sync::Arc;

use super::content_index;
use super::delta_memory::DeltaMemory;
use super::error::ContentError;
use super::extent_map::ExtentMap;
use super::file_ref::{FileKey, FileRef, set_label};
use super::needed_volumes::{self, NeededVolumes};
use super::parsed_delta::{ParsedDelta, too_many};
use super::proof::{self, Doubt};
use super::proved_read::{self, ProvedFile};
use super::stored_stream::StoredStream;
use super::version_locator::{LocatedVersion, VersionLocator};
use crate::tree::{FileVersion, VersionId};
use crate::volume::{VolumeError, Volumes};
use dupfs_base::Stopped;
use dupfs_base::sync::Permit;
use dupfs_cache::SharedLru;
use dupfs_format::EntryMeta;

/// A delta that is composed once its base is known.
#[derive(Debug)]
struct PendingDelta {
    /// Its index in the file's history.
    index: usize,
    /// The delta, if there was memory for it. Otherwise it is located again.
    located: Option<(LocatedVersion, Permit)>,
}

/// Resolves files to sizes and extent maps. It caches located streams, parsed deltas and composed extent maps, bounded in
/// bytes.
#[derive(Debug)]
pub struct ContentResolver {
    locator: VersionLocator,
    extent_maps: SharedLru<FileKey, Arc<ExtentMap>>,
    memory: Arc<DeltaMemory>,
    /// The files whose sizes were proved before their volumes were verified.
    proved: SharedLru<FileKey, Arc<ProvedFile>>,
}

impl ContentResolver {
    /// A resolver that caches up to `bytes`. While it makes deltas and extent maps they take as much again, and the one large
    /// map that is made at a time up to four times that.
    pub fn new(bytes: u64) -> Self {
        let (half, proved) = (bytes / 2, SharedLru::new(bytes / 32));
        let memory = Arc::new(DeltaMemory::new(bytes));
        let locator = VersionLocator::new(half, Arc::clone(&memory));
        Self { locator, extent_maps: SharedLru::new(half), memory, proved }
    }

    /// The exact size of `file` in bytes, and the metadata stored with its data where that differs from the
    /// signature archive's (FORMAT.md 2.3). `duplicity restore` shows the former, and the manifest has the hash of it.
    ///
    /// Fetches at most the file's last volume in the newest set that has it; for a delta, the delta's volumes. If the last volume
    /// is being read and its beginning has the end of the file, the signature proves the size at once.
    ///
    /// # Errors
    /// [`ContentError`] when the size cannot be known.
    pub fn stat(&self, volumes: &dyn Volumes, file: &FileRef) -> Result<(u64, Option<EntryMeta>), ContentError> {
        let version = file.version().ok_or_else(|| ContentError::NotFile { path: file.path.clone() })?;
        if let Some(extent_map) =
            self.cached_extent_map(file, version.id).or_else(|| self.load_extent_map(volumes, file))
        {
            // Only files that are stored as they were signed have one.
            content_index::set_exact_size(volumes, file, version, extent_map.size());
            return Ok((extent_map.size(), None));
        }
        // It keeps the pass that it has found to be slow, until the request has its answer.
        let until_slow = volumes.until_slow();
        if let Some(proved) = self.prove_size((volumes, until_slow.as_deref()), file, version)? {
            return Ok((proved.extents.size(), None));
        }
        let newest = self.locator.locate(volumes, file, 0)?;
        if Doubt::about(volumes, &newest.stream).is_some() {
            let size = self.extent_map(volumes, file)?.size();
            content_index::set_exact_size(volumes, file, version, size);
            return Ok((size, None));
        }
        let size = newest.delta.as_ref().map_or(newest.stream.len, |d| d.out_len);
        if version.bounds.is_some_and(|b| !b.contains(size)) && newest.stream.meta.mtime == version.mtime {
            let set = set_label(volumes, newest.stream.set);
            return Err(ContentError::Size { path: file.path.clone(), set, size });
        }
        let other = (!newest.stream.has_signed_meta(file, version)).then(|| newest.stream.meta.clone());
        if other.is_none() {
            content_index::set_exact_size(volumes, file, version, size);
        }
        Ok((size, other))
    }

    /// The file, if its size is proved and its last volume is not verified, or if its size is proved now by what a pass has decoded
    /// of that volume.
    fn prove_size(
        &self,
        (volumes, until_slow): (&dyn Volumes, Option<&dyn Volumes>),
        file: &FileRef,
        version: FileVersion,
    ) -> Result<Option<Arc<ProvedFile>>, ContentError> {
        if let Some(proved) = self.proved_file(file) {
            // Without waiting, it is located only once the volume is verified.
            let is_verified = until_slow.is_none() && self.locator.locate(volumes, file, 0).is_ok();
            return Ok((!is_verified).then_some(proved));
        }
        let Some(volumes) = until_slow else { return Ok(None) };
        match self.locator.locate(volumes, file, 0) {
            Err(ContentError::Volume { error: VolumeError::Slow { .. }, .. }) => {}
            // The pass has failed.
            Err(error @ ContentError::Volume { .. }) => return Err(error),
            Ok(_) | Err(_) => return Ok(None),
        }
        let Some(running) = volumes.slow_volume() else { return Ok(None) };
        let Some(proved) = proved_read::locate(volumes, file, &running)? else { return Ok(None) };
        let proved = Arc::new(proved);
        self.proved.insert(&file.key(version.id), &proved, proved.weight());
        Ok(Some(proved))
    }

    /// The file, if its size was proved before its last volume was verified.
    pub(super) fn proved_file(&self, file: &FileRef) -> Option<Arc<ProvedFile>> {
        self.proved.get(&file.key(file.version()?.id))
    }

    /// The extent map of a file with deltas, if the index has it.
    fn load_extent_map(&self, volumes: &dyn Volumes, file: &FileRef) -> Option<Arc<ExtentMap>> {
        let extent_map = Arc::new(content_index::load_extent_map(volumes, file)?);
        self.cache_extent_map(file, file.version()?.id, &extent_map);
        Some(extent_map)
    }

    fn cache_extent_map(&self, file: &FileRef, version: VersionId, extent_map: &Arc<ExtentMap>) {
        self.extent_maps.insert(&file.key(version), extent_map, extent_map.weight());
    }

    /// The extent map of `file`.
    ///
    /// # Errors
    /// [`ContentError`] when a delta or the base of the chain cannot be found or read.
    pub fn extent_map(&self, volumes: &dyn Volumes, file: &FileRef) -> Result<Arc<ExtentMap>, ContentError> {
        let version = file.version().ok_or_else(|| ContentError::NotFile { path: file.path.clone() })?;
        if let Some(extent_map) =
            self.cached_extent_map(file, version.id).or_else(|| self.load_extent_map(volumes, file))
        {
            return Ok(extent_map);
        }
        let mut pending: Vec<PendingDelta> = Vec::new();
        let mut goes_on = false;
        let mut base: Option<Arc<ExtentMap>> = None;
        // True if the newest version is stored in the state that was signed: others are no base, so their extent maps are not
        // cached.
        let mut signed = true;
        // A set that proves nothing about its content. Also a delta that only copies decides the content.
        let mut doubtful = None;
        let mut located = 1;
        for (index, older) in file.history.iter().enumerate() {
            if let Some(newer) = index.checked_sub(1).and_then(|i| file.history.get(i)) {
                file.check_succession(volumes, *newer, *older)?;
            }
            if let Some(known) = self.cached_extent_map(file, older.id) {
                base = Some(known);
                break;
            }
            if index == located {
                located = self.locator.locate_concurrently(volumes, file, index);
            }
            let located_version = self.locator.locate_base(volumes, file, index)?;
            let LocatedVersion { stream, delta } = &located_version;
            doubtful = doubtful.or_else(|| Some((stream.set, Doubt::about(volumes, stream)?)));
            let size = delta.as_ref().map_or(stream.len, |d| d.out_len);
            if index > 0 {
                stream.check_is_base(volumes, file, size)?;
            } else {
                signed = stream.has_signed_meta(file, *older) && older.bounds.is_none_or(|b| b.contains(size));
            }
            match delta {
                None => {
                    base = Some(Arc::new(ExtentMap::of_stream(Arc::clone(stream))));
                    break;
                }
                Some(delta) => {
                    goes_on = delta.has_copies();
                    pending.push(self.hold(index, located_version));
                    if !goes_on {
                        break;
                    }
                }
            }
        }
        if base.is_none()
            && goes_on
            && let Some(position) = pending.last().and_then(|last| file.history.get(last.index)).map(|v| v.position)
        {
            let set = file.branch.set_at(position).map_or_else(|| "an unknown set".into(), |s| set_label(volumes, s));
            return Err(ContentError::NoBase { path: file.path.clone(), set });
        }
        let composed = !pending.is_empty();
        for PendingDelta { index, located } in pending.into_iter().rev() {
            let LocatedVersion { stream, delta } = match &located {
                Some((located, _)) => located.clone(),
                None => self.locator.locate_base(volumes, file, index)?,
            };
            let delta = delta.ok_or_else(|| ContentError::NotFile { path: file.path.clone() })?;
            base = Some(Arc::new(self.compose(volumes, file, base.as_deref(), &delta, stream)?));
        }
        let extent_map = base.ok_or_else(|| ContentError::NotFile { path: file.path.clone() })?;
        if let Some(doubtful) = doubtful {
            proof::prove(volumes, file, version, &extent_map, doubtful)?;
        }
        if signed {
            self.cache_extent_map(file, version.id, &extent_map);
            if composed {
                content_index::store_extent_map(volumes, file, &extent_map);
            }
        }
        Ok(extent_map)
    }

    /// The volumes that a read of the whole of `file` needs: exactly, if its extent map is known, else by the manifests. Fetches
    /// no volume, unless a set has lost its manifest.
    ///
    /// # Errors
    /// [`ContentError`] when a manifest cannot be read.
    pub fn needed_volumes(&self, volumes: &dyn Volumes, file: &FileRef) -> Result<NeededVolumes, ContentError> {
        let version = file.version().ok_or_else(|| ContentError::NotFile { path: file.path.clone() })?;
        let known = self.cached_extent_map(file, version.id).or_else(|| self.load_extent_map(volumes, file));
        match known {
            Some(extent_map) => needed_volumes::of_extent_map(volumes, file, &extent_map),
            None => needed_volumes::of_history(volumes, file),
        }
    }

    /// Keeps a delta in memory until its base is known, if there is memory for it.
    fn hold(&self, index: usize, located: LocatedVersion) -> PendingDelta {
        let bytes = located.weight();
        let permit = self.memory.pending.try_acquire(bytes).filter(|permit| permit.count() >= bytes);
        PendingDelta { index, located: permit.map(|permit| (located, permit)) }
    }

    /// The extent map of the version that `delta`, stored as `stream`, makes of `base`. A large extent map waits for
    /// its permit.
    fn compose(
        &self,
        volumes: &dyn Volumes,
        file: &FileRef,
        base: Option<&ExtentMap>,
        delta: &ParsedDelta,
        stream: Arc<StoredStream>,
    ) -> Result<ExtentMap, ContentError> {
        let memory = &self.memory;
        if let Some(small) =
            ExtentMap::compose(base, delta, Arc::clone(&stream), memory.max_small.min(memory.max_extents))
        {
            return Ok(small);
        }
        let wrap = |stopped: Stopped| ContentError::Volume { path: file.path.clone(), error: stopped.into() };
        let _permit = memory.large.acquire(1, volumes.context()).map_err(wrap)?;
        let set = stream.set;
        let large = ExtentMap::compose(base, delta, stream, memory.max_extents);
        large.ok_or_else(|| too_many(volumes, file, set, memory.max_extents))
    }

    fn cached_extent_map(&self, file: &FileRef, version: VersionId) -> Option<Arc<ExtentMap>> {
        self.extent_maps.get(&file.key(version))
    }
}
