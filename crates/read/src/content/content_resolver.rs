//! Resolves a file at a snapshot to its size and its extent map.

use std::sync::{Arc, Mutex};

use super::content_index;
use super::error::ContentError;
use super::extent_map::ExtentMap;
use super::file_ref::{FileKey, FileRef, set_label};
use super::parsed_delta::{MAX_EXTENTS, ParsedDelta, too_many};
use super::proof::{self, Doubt};
use super::stored_stream::StoredStream;
use super::version_locator::{LocatedVersion, VersionLocator};
use crate::tree::VersionId;
use crate::volume::Volumes;
use dupfs_base::sync::lock;
use dupfs_cache::ByteLru;
use dupfs_format::EntryMeta;

/// Resolves files to sizes and extent maps. It caches located streams, parsed deltas and composed extent maps, bounded in
/// bytes.
#[derive(Debug)]
pub struct ContentResolver {
    locator: VersionLocator,
    extent_maps: Mutex<ByteLru<FileKey, Arc<ExtentMap>>>,
    /// The most bytes that one extent map counts for. A larger one is cached all the same: computing it again for each
    /// request could take hours.
    max_weight: u64,
}

impl ContentResolver {
    /// A resolver that caches up to `bytes`.
    pub fn new(bytes: u64) -> Self {
        let half = bytes / 2;
        let max_weight = half / 4;
        let extent_maps = Mutex::new(ByteLru::new(half));
        Self { locator: VersionLocator::new(half, max_weight), extent_maps, max_weight }
    }

    /// The exact size of `file` in bytes, and the metadata stored with its data where that differs from the
    /// signature archive's in time (FORMAT.md 2.3: `duplicity restore` shows the former).
    ///
    /// Costs at most the file's last volume in the newest set that holds it; for a delta, the delta's volumes.
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
        let other = (newest.stream.meta.mtime != version.mtime).then(|| newest.stream.meta.clone());
        if other.is_none() {
            content_index::set_exact_size(volumes, file, version, size);
        }
        Ok((size, other))
    }

    /// The extent map of a file with deltas, if the index has it.
    fn load_extent_map(&self, volumes: &dyn Volumes, file: &FileRef) -> Option<Arc<ExtentMap>> {
        let extent_map = Arc::new(content_index::load_extent_map(volumes, file)?);
        self.cache_extent_map(file, file.version()?.id, &extent_map);
        Some(extent_map)
    }

    fn cache_extent_map(&self, file: &FileRef, version: VersionId, extent_map: &Arc<ExtentMap>) {
        let evicted = lock(&self.extent_maps).insert(
            file.key(version),
            Arc::clone(extent_map),
            extent_map.weight().min(self.max_weight),
        );
        drop(evicted);
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
        let mut pending: Vec<(Arc<StoredStream>, Arc<ParsedDelta>)> = Vec::new();
        let mut base: Option<Arc<ExtentMap>> = None;
        // True if the newest version is stored in the state that was signed: others are no base, so their extent maps are not
        // cached.
        let mut signed = true;
        // A set that proves nothing of what it stores. Also a delta that only copies decides the content.
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
                located = self.locator.locate_ahead(volumes, file, index);
            }
            let LocatedVersion { stream, delta } = self.locator.locate_base(volumes, file, index)?;
            doubtful = doubtful.or_else(|| Some((stream.set, Doubt::about(volumes, &stream)?)));
            let size = delta.as_ref().map_or(stream.len, |d| d.out_len);
            if index > 0 {
                stream.check_is_base(volumes, file, size)?;
            } else {
                signed = stream.meta.mtime == older.mtime && older.bounds.is_none_or(|b| b.contains(size));
            }
            match delta {
                None => {
                    base = Some(Arc::new(ExtentMap::of_stream(stream)));
                    break;
                }
                Some(delta) => {
                    let goes_on = delta.has_copies();
                    pending.push((stream, delta));
                    if !goes_on {
                        break;
                    }
                }
            }
        }
        if base.is_none()
            && let Some((stream, delta)) = pending.last()
            && delta.has_copies()
        {
            let set = set_label(volumes, stream.set);
            return Err(ContentError::NoBase { path: file.path.clone(), set });
        }
        let composed = !pending.is_empty();
        for (stream, delta) in pending.into_iter().rev() {
            let set = stream.set;
            let composed = ExtentMap::compose(base.as_deref(), &delta, stream, MAX_EXTENTS);
            base = Some(Arc::new(composed.ok_or_else(|| too_many(volumes, file, set))?));
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

    fn cached_extent_map(&self, file: &FileRef, version: VersionId) -> Option<Arc<ExtentMap>> {
        lock(&self.extent_maps).get(&file.key(version)).cloned()
    }
}
