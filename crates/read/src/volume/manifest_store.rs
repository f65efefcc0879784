//! The manifests of the sets, each read once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use super::archive_dir::ArchiveDir;
use super::error::VolumeError;
use super::live_collection::LiveCollection;
use super::object_reader::{DecodeThreads, ObjectReader};
use crate::storage::ObjectInfo;
use dupfs_base::sync::{SingleFlight, lock};
use dupfs_base::{ErrorKind, RequestContext};
use dupfs_format::manifest::{Manifest, ManifestProblemKind, VolumeHash};
use dupfs_format::{SetIndex, VolumeId};

/// The manifests of a repository. Requests for one that is not loaded yet share the work.
#[derive(Debug)]
pub(super) struct ManifestStore {
    collection: Arc<LiveCollection>,
    objects: ObjectReader,
    archive_dir: Option<Arc<ArchiveDir>>,
    manifests: Mutex<HashMap<SetIndex, Arc<Manifest>>>,
    loads: SingleFlight<SetIndex, Arc<Manifest>, VolumeError>,
}

impl ManifestStore {
    /// A store without loaded manifests.
    pub(super) fn new(
        collection: Arc<LiveCollection>,
        objects: ObjectReader,
        archive_dir: Option<Arc<ArchiveDir>>,
    ) -> Self {
        Self { collection, objects, archive_dir, manifests: Mutex::default(), loads: SingleFlight::new() }
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
        let object = record.manifest.as_ref().ok_or_else(|| VolumeError::NoManifest { set: record.label().into() })?;
        let copy = self.archive_dir.as_ref().and_then(|dir| dir.manifest(&record, &self.objects, context));
        let manifest = Arc::new(copy.map_or_else(|| self.read(object, context), Ok)?);
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

    fn read(&self, object: &ObjectInfo, context: &RequestContext) -> Result<Manifest, VolumeError> {
        let mut manifest = None;
        self.objects.stream(object, None, DecodeThreads::TwoIfLarge, context, &mut |plain| {
            manifest = Some(Manifest::read(plain).map_err(|e| VolumeError::from_format(&object.name, &e))?);
            Ok(())
        })?;
        manifest.ok_or_else(|| VolumeError::object(&object.name, ErrorKind::Corrupt, "it is empty"))
    }
}
