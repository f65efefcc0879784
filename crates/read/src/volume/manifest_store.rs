//! The manifests of the sets, each read once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use super::archive_dir::ArchiveDir;
use super::decode_volume::read_members;
use super::error::VolumeError;
use super::live_collection::LiveCollection;
use super::manifest_rebuild::{KnownEnds, rebuild_manifest};
use super::object_reader::{DecodeThreads, ObjectReader};
use super::repository_index::RepositoryIndex;
use crate::storage::ObjectInfo;
use dupfs_base::sync::{SingleFlight, lock};
use dupfs_base::{ErrorKind, RequestContext};
use dupfs_format::collection::BackupSet;
use dupfs_format::manifest::{Manifest, ManifestProblemKind, VolumeHash};
use dupfs_format::name::{FileRole, NameSuffix};
use dupfs_format::{SetIndex, VolumeId};

/// The sources that manifests are read from.
#[derive(Debug)]
pub(super) struct ManifestReaders {
    pub(super) manifests: ObjectReader,
    /// Reads volumes, for manifests that are rebuilt.
    pub(super) volumes: ObjectReader,
    pub(super) archive_dir: Option<Arc<ArchiveDir>>,
    pub(super) index: Arc<RepositoryIndex>,
}

/// The manifests of a repository. Requests for one that is not loaded yet share the work.
#[derive(Debug)]
pub(super) struct ManifestStore {
    collection: Arc<LiveCollection>,
    readers: ManifestReaders,
    manifests: Mutex<HashMap<SetIndex, Arc<Manifest>>>,
    loads: SingleFlight<SetIndex, Arc<Manifest>, VolumeError>,
    /// What was read of volumes for manifests that are rebuilt, so that another attempt continues there.
    rebuilding: Mutex<HashMap<SetIndex, KnownEnds>>,
}

impl ManifestStore {
    /// A store without loaded manifests.
    pub(super) fn new(collection: Arc<LiveCollection>, readers: ManifestReaders) -> Self {
        let (manifests, rebuilding) = Default::default();
        Self { collection, readers, manifests, loads: SingleFlight::new(), rebuilding }
    }

    /// The manifest of `set`, if it is loaded.
    pub(super) fn cached(&self, set: SetIndex) -> Option<Arc<Manifest>> {
        lock(&self.manifests).get(&set).cloned()
    }

    /// The manifest of `set`.
    ///
    /// # Errors
    /// [`VolumeError`] if it is missing, cannot be decrypted, or is damaged.
    pub(super) fn get(self: &Arc<Self>, set: SetIndex, context: &RequestContext) -> Result<Arc<Manifest>, VolumeError> {
        if let Some(manifest) = self.cached(set) {
            return Ok(manifest);
        }
        let this = Arc::clone(self);
        let loaded = self.loads.run(set, "dupfs-manifest", context, move |context| this.load(set, context));
        loaded.map_err(|error| match self.collection.set(set).ok().and_then(|set| set.manifest.clone()) {
            Some(object) => error.while_waiting_for(&object.name),
            None => error,
        })
    }

    /// The object of volume `id` in the store and the hash of it in the manifest.
    ///
    /// # Errors
    /// [`VolumeError`] if the store or the manifest does not have the volume, or the manifest cannot be read.
    pub(super) fn volume_object(
        self: &Arc<Self>,
        id: VolumeId,
        context: &RequestContext,
    ) -> Result<(ObjectInfo, Option<VolumeHash>), VolumeError> {
        let record = self.collection.set(id.set)?;
        let (set, number) = (|| record.label().into(), id.number);
        let object = record.volumes.get(&number).cloned();
        let object = object.ok_or_else(|| VolumeError::NoVolume { set: set(), number })?;
        let manifest = self.get(id.set, context)?;
        let listed = manifest.volume(number).ok_or_else(|| VolumeError::UnlistedVolume { set: set(), number })?;
        Ok((object, listed.hash.clone()))
    }

    fn load(&self, set: SetIndex, context: &RequestContext) -> Result<Arc<Manifest>, VolumeError> {
        if let Some(manifest) = self.cached(set) {
            return Ok(manifest);
        }
        let record = self.collection.set(set)?;
        if record.is_rebuilt {
            let manifest = Arc::new(self.rebuild(&record, context)?);
            lock(&self.manifests).insert(set, Arc::clone(&manifest));
            return Ok(manifest);
        }
        let object = record.manifest.as_ref().ok_or_else(|| VolumeError::NoManifest { set: record.label().into() })?;
        let copy = self.readers.archive_dir.as_ref();
        let copy = copy.and_then(|dir| dir.manifest(&record, &self.readers.manifests, context));
        let read = copy.map_or_else(|| self.read(object, context), Ok);
        let manifest = Arc::new(read.map_err(|error| error.with_second_copy(&record, FileRole::Manifest))?);
        for problem in &manifest.problems {
            match problem.kind {
                ManifestProblemKind::Entry(_) | ManifestProblemKind::UnknownEntry => {
                    log::error!("{}: damaged: {problem}; the content of that volume cannot be read", object.name);
                }
                ManifestProblemKind::Order(_) => {
                    log::error!("{}: damaged: {problem}; files in these volumes may not be found", object.name);
                }
                ManifestProblemKind::FileList => {
                    log::info!("{}: {problem}; nothing is read by this list, so everything is readable", object.name);
                }
            }
        }
        lock(&self.manifests).insert(set, Arc::clone(&manifest));
        Ok(manifest)
    }

    /// Rebuilds the manifest of a set that has lost it. No volume is read twice for it.
    fn rebuild(&self, set: &BackupSet, context: &RequestContext) -> Result<Manifest, VolumeError> {
        let mut known = lock(&self.rebuilding).remove(&set.index).unwrap_or_default();
        let is_encrypted = set.suffix.is_encrypted();
        let manifest = rebuild_manifest(set, &mut known, |number| {
            let object = set.volumes.get(&number);
            let missing = || VolumeError::NoVolume { set: set.label().into(), number };
            let object = object.ok_or_else(missing)?;
            if NameSuffix::of(&object.name).is_encrypted() != is_encrypted {
                let what = "it is not encrypted as the rest of the set is, and no manifest lists it";
                return Err(VolumeError::object(&object.name, ErrorKind::Corrupt, what));
            }
            context.check()?;
            if let Some(table) = self.readers.index.load_members(object, None) {
                return Ok(table);
            }
            let table = read_members(&self.readers.volumes, object, context)?;
            self.readers.index.store_members(set.index, object, None, &table);
            Ok(table)
        });
        lock(&self.rebuilding).insert(set.index, known);
        manifest
    }

    fn read(&self, object: &ObjectInfo, context: &RequestContext) -> Result<Manifest, VolumeError> {
        let mut manifest = None;
        self.readers.manifests.stream(object, None, DecodeThreads::TwoIfLarge, context, &mut |plain| {
            manifest = Some(Manifest::read(plain).map_err(|e| VolumeError::from_format(&object.name, &e))?);
            Ok(())
        })?;
        manifest.ok_or_else(|| VolumeError::object(&object.name, ErrorKind::Corrupt, "it is empty"))
    }
}
