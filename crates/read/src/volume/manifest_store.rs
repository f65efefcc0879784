//! The manifests of the sets, as many as there is memory for.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use super::archive_dir::ArchiveDir;
use super::decode_volume::{TableLimits, read_members};
use super::error::VolumeError;
use super::fetch_log;
use super::live_collection::LiveCollection;
use super::loaded_manifest::LoadedManifest;
use super::manifest_rebuild::{KnownEnds, rebuild_manifest};
use super::object_reader::{DecodeThreads, ObjectReader};
use super::repository_index::RepositoryIndex;
use crate::storage::ObjectInfo;
use dupfs_base::sync::{SingleFlight, lock};
use dupfs_base::{ErrorKind, RequestContext};
use dupfs_cache::SharedLru;
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
    /// The limits of the tables of manifests, and of the volumes that are read for them.
    pub(super) limits: TableLimits,
}

/// The manifests of a repository. Requests for one that is not loaded share the work. Those that were used longest ago are
/// dropped beyond a bound of memory, and read again when they are needed.
#[derive(Debug)]
pub(super) struct ManifestStore {
    collection: Arc<LiveCollection>,
    readers: ManifestReaders,
    manifests: SharedLru<SetIndex, Arc<LoadedManifest>>,
    loads: SingleFlight<SetIndex, Arc<Manifest>, VolumeError>,
    /// Member tables that were read for manifests that are rebuilt, so that another attempt continues there.
    rebuilding: Mutex<HashMap<SetIndex, KnownEnds>>,
}

impl ManifestStore {
    /// A store without loaded manifests. It keeps up to `bytes` of them.
    pub(super) fn new(collection: Arc<LiveCollection>, readers: ManifestReaders, bytes: u64) -> Self {
        let (manifests, rebuilding) = (SharedLru::new(bytes), Mutex::default());
        Self { collection, readers, manifests, loads: SingleFlight::new(), rebuilding }
    }

    /// The manifest of `set`, if it is loaded.
    pub(super) fn cached(&self, set: SetIndex) -> Option<Arc<Manifest>> {
        self.manifests.get(&set).map(|loaded| Arc::clone(&loaded.manifest))
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
        let object = || self.collection.set(set).ok().and_then(|set| Some(Arc::clone(&set.manifest.as_ref()?.name)));
        let _waiting = context.awaiting(|| object().unwrap_or_else(|| "a lost manifest".into()));
        let loaded = self.loads.run(set, "dupfs-manifest", context, move |context| this.load(set, context));
        loaded.map_err(|error| match object() {
            Some(name) => error.while_waiting_for(&name),
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
            let loaded = self.rebuild(&record, context)?;
            let manifest = Arc::clone(&loaded.manifest);
            self.manifests.insert(&set, &Arc::new(loaded), manifest.weight());
            return Ok(manifest);
        }
        let object = record.manifest.as_ref().ok_or_else(|| VolumeError::NoManifest { set: record.label().into() })?;
        let copy = self.readers.archive_dir.as_ref();
        let copy =
            copy.and_then(|dir| dir.manifest(&record, &self.readers.manifests, &self.readers.limits.tables, context));
        let read = copy.map_or_else(|| self.read(&record, object, context), Ok);
        let loaded = read.map_err(|error| error.with_second_copy(&record, FileRole::Manifest))?;
        let manifest = Arc::clone(&loaded.manifest);
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
        self.manifests.insert(&set, &Arc::new(loaded), manifest.weight());
        Ok(manifest)
    }

    /// Rebuilds the manifest of a set that has lost it. No volume is read twice for it.
    fn rebuild(&self, set: &BackupSet, context: &RequestContext) -> Result<LoadedManifest, VolumeError> {
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
            let limits = (&self.readers.limits, context);
            let volumes = &self.readers.volumes;
            let table = volumes.each_copy(object, &mut |copy| read_members(volumes, copy, limits))?;
            self.readers.index.store_members(set.index, object, None, &table);
            Ok(table)
        });
        lock(&self.rebuilding).insert(set.index, known);
        LoadedManifest::rebuilt(set, &self.readers.limits.tables, manifest?)
    }

    fn read(
        &self,
        set: &BackupSet,
        object: &ObjectInfo,
        context: &RequestContext,
    ) -> Result<LoadedManifest, VolumeError> {
        fetch_log::note(object, "for the list of volumes");
        // A manifest that has lost entries is used if no copy of it is sound.
        let mut with_losses = None;
        let read = self.readers.manifests.each_copy(object, &mut |copy| {
            let mut loaded = None;
            self.readers.manifests.stream(copy, None, DecodeThreads::TwoIfLarge, context, &mut |plain| {
                loaded = Some(LoadedManifest::read(set, object, &self.readers.limits.tables, plain)?);
                Ok(())
            })?;
            let damaged = |what: &str| VolumeError::object(&object.name, ErrorKind::Corrupt, what);
            let loaded = loaded.ok_or_else(|| damaged("it is empty"))?;
            match loaded.manifest.entry_damage() {
                Some(damage) => {
                    with_losses.get_or_insert(loaded);
                    Err(damaged(&damage))
                }
                None => Ok(loaded),
            }
        });
        match with_losses {
            Some(loaded) if read.is_err() => {
                context.check()?;
                Ok(loaded)
            }
            _ => read,
        }
    }
}
