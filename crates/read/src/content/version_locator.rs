//! Locates the stored streams of a file's versions.
//!
//! Each delta of a chain is located in its own set, so several sets are searched concurrently. One after the other, a
//! file thirty increments deep would take sixty times the store's latency.

use std::sync::Arc;

use super::delta_memory::DeltaMemory;
use super::error::ContentError;
use super::file_ref::{FileKey, FileRef};
use super::parsed_delta::{DeltaSize, ParsedDelta};
use super::stored_stream::StoredStream;
use crate::volume::Volumes;
use dupfs_cache::SharedLru;
use dupfs_format::VolumeId;
use dupfs_format::difftar::DiffKind;

/// Versions located concurrently.
const WIDTH: usize = 8;
/// A version that may not be needed, as a newer delta may copy nothing of it, is located early if its volumes have at
/// most this number of bytes in the store.
const MAX_SPECULATIVE_BYTES: u64 = 8 << 20;

/// The stored stream of one version, and its ops if it is a delta.
#[derive(Clone, Debug)]
pub(super) struct LocatedVersion {
    pub(super) stream: Arc<StoredStream>,
    pub(super) delta: Option<Arc<ParsedDelta>>,
}

impl LocatedVersion {
    /// Bytes of memory it takes, roughly.
    pub(super) fn weight(&self) -> u64 {
        self.stream.weight().saturating_add(self.delta.as_ref().map_or(0, |delta| delta.weight()))
    }
}

/// Locates versions and caches what it finds, bounded in bytes.
#[derive(Debug)]
pub(super) struct VersionLocator {
    located: SharedLru<FileKey, LocatedVersion>,
    memory: Arc<DeltaMemory>,
}

impl VersionLocator {
    /// A locator that caches up to `bytes`, and makes deltas within the limits of `memory`.
    pub(super) fn new(bytes: u64, memory: Arc<DeltaMemory>) -> Self {
        Self { located: SharedLru::new(bytes), memory }
    }

    /// As [`Self::locate`], but the oldest version that a delta may apply to is located only as far as it is read.
    pub(super) fn locate_base(
        &self,
        volumes: &dyn Volumes,
        file: &FileRef,
        index: usize,
    ) -> Result<LocatedVersion, ContentError> {
        self.locate_base_of(volumes, file, index, DeltaSize::Any(&self.memory))
    }

    fn locate_base_of(
        &self,
        volumes: &dyn Volumes,
        file: &FileRef,
        index: usize,
        size: DeltaSize<'_>,
    ) -> Result<LocatedVersion, ContentError> {
        let oldest = index > 0 && index.saturating_add(1) == file.history.len();
        let version = file.history.get(index).filter(|_| oldest);
        let known = version.and_then(|version| self.located.get(&file.key(version.id)));
        if let Some(located) = known {
            return Ok(located);
        }
        match version.and_then(|version| StoredStream::assume_base(file, version.position)) {
            Some(stream) => Ok(LocatedVersion { stream: Arc::new(stream), delta: None }),
            None => self.locate_of(volumes, file, index, size),
        }
    }

    /// The stream, and for deltas the ops, of the version `index` steps back in the file's history.
    pub(super) fn locate(
        &self,
        volumes: &dyn Volumes,
        file: &FileRef,
        index: usize,
    ) -> Result<LocatedVersion, ContentError> {
        self.locate_of(volumes, file, index, DeltaSize::Any(&self.memory))
    }

    fn locate_of(
        &self,
        volumes: &dyn Volumes,
        file: &FileRef,
        index: usize,
        size: DeltaSize<'_>,
    ) -> Result<LocatedVersion, ContentError> {
        let not_file = || ContentError::NotFile { path: file.path.clone() };
        let version = file.history.get(index).ok_or_else(not_file)?;
        let key = file.key(version.id);
        if let Some(located) = self.located.get(&key) {
            return Ok(located);
        }
        let stream = Arc::new(StoredStream::locate(volumes, file, version.position)?);
        let delta = match stream.kind {
            DiffKind::Diff => Some(Arc::new(ParsedDelta::read(volumes, file, &stream, size)?)),
            DiffKind::Snapshot | DiffKind::Deleted => None,
        };
        let located = LocatedVersion { stream, delta };
        self.located.insert(&key, &located, located.weight());
        Ok(located)
    }

    /// Locates the version at `index` of the file's history and older ones concurrently. Returns the index of the first
    /// that was not tried. An error is reported again when the version is needed.
    pub(super) fn locate_concurrently(&self, volumes: &dyn Volumes, file: &FileRef, index: usize) -> usize {
        let end = index.saturating_add(WIDTH).min(file.history.len());
        if !volumes.context().may_block() || index.saturating_add(1) >= end {
            return end;
        }
        std::thread::scope(|scope| {
            for at in index..end {
                let work = move || {
                    // A delta that may not be needed, or that is large, is located when its turn comes.
                    let small = DeltaSize::Small(&self.memory);
                    let is_needed = at == index;
                    if is_needed || self.is_small(volumes, file, at) {
                        let size = if is_needed { DeltaSize::Any(&self.memory) } else { small };
                        let _ = self.locate_base_of(volumes, file, at, size);
                    }
                };
                // Without a thread it is located when its turn comes.
                let _ = std::thread::Builder::new().name("dupfs-chain".into()).spawn_scoped(scope, work);
            }
        });
        end
    }

    /// Returns true if little is fetched for the version at `index` of the file's history. Reads its set's manifest, which is needed
    /// also of the oldest.
    fn is_small(&self, volumes: &dyn Volumes, file: &FileRef, index: usize) -> bool {
        let position = file.history.get(index).map(|version| version.position);
        let Some(set) = position.and_then(|position| file.branch.set_at(position)) else { return false };
        let Ok(manifest) = volumes.manifest(set) else { return false };
        let listed = manifest.volumes_of(&file.path);
        let lens = listed.iter().filter_map(|volume| volumes.stored_len(VolumeId { set, number: volume.number }));
        lens.fold(0u64, u64::saturating_add) <= MAX_SPECULATIVE_BYTES
    }
}
