//! The check that `latest` leads to a set that the required key has signed (`--sign-key`).
//!
//! Anyone who can write to the store and has the public key can add a set that decrypts. Reading it fails, but without this check
//! `latest` would lead to it. A manifest has the hashes of all volumes of its set, so its signature and the time of the signature
//! decide.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::error::VolumeError;
use super::fetch_log;
use super::object_reader::{DecodeThreads, ObjectReader};
use crate::codec::{Decoder, ExpansionLimit};
use crate::storage::{ObjectInfo, ObjectStore};
use dupfs_base::sync::lock;
use dupfs_base::{ErrorKind, HasKind, RequestContext};
use dupfs_format::BackupTime;
use dupfs_format::collection::{BackupSet, Collection, CollectionError, RefusedManifests};
use dupfs_format::name::NamePrefixes;

/// The sets whose signatures were checked.
#[derive(Debug)]
pub struct SignedSets {
    manifests: ObjectReader,
    checked: Mutex<CheckedManifests>,
}

#[derive(Debug, Default)]
struct CheckedManifests {
    refused: RefusedManifests,
    /// The objects that were read, by name, with their versions.
    versions: HashMap<Arc<str>, Arc<str>>,
}

impl SignedSets {
    /// A check of the sets of `store`, whose names have `prefixes`. Decoding one manifest may take `deadline`.
    pub fn new(store: Arc<dyn ObjectStore>, decoder: Arc<Decoder>, prefixes: NamePrefixes, deadline: Duration) -> Self {
        let objects = ObjectReader::new(store, decoder, prefixes, deadline);
        Self { manifests: objects.with_expansion(ExpansionLimit::MANIFEST), checked: Mutex::default() }
    }

    /// The reader of the manifests.
    pub(super) fn reader(&self) -> &ObjectReader {
        &self.manifests
    }

    /// Builds the collection of a listing with `build` and returns it, with the manifests refused that decide its latest
    /// snapshot and are not properly signed: that of the newest set, until one is, and those of sets of equal times, which an
    /// increment might build on. A manifest that no key opens is not refused, so that its own error is reported.
    ///
    /// # Errors
    /// [`VolumeError`] if a manifest could not be read for a reason that is not its own, or if `build` fails for the store with
    /// this `url`.
    pub fn check_latest(
        &self,
        url: &str,
        context: &RequestContext,
        build: impl Fn(&RefusedManifests) -> Result<Collection, CollectionError>,
    ) -> Result<Collection, VolumeError> {
        let build = || {
            let refused = lock(&self.checked).refused.clone();
            build(&refused).map_err(|error| VolumeError::object(url, error.kind(), error.to_string()))
        };
        let mut collection = build()?;
        let mut is_changed = false;
        for set in of_equal_times(&collection) {
            is_changed |= self.refuse_unsigned(set, context)?;
        }
        if is_changed {
            collection = build()?;
        }
        loop {
            let latest = collection.latest().and_then(|latest| collection.set(latest.set));
            // A refused set is the latest one only if all of them are refused.
            let Some(latest) = latest.filter(|set| set.refusal.is_none()) else { return Ok(collection) };
            if !self.refuse_unsigned(latest, context)? {
                return Ok(collection);
            }
            collection = build()?;
        }
    }

    /// Reads the manifest of `set` unless that was done before. Returns true if it is refused now.
    fn refuse_unsigned(&self, set: &BackupSet, context: &RequestContext) -> Result<bool, VolumeError> {
        let Some(object) = set.proof() else { return Ok(false) };
        if lock(&self.checked).versions.get(&object.name) == Some(&object.version) {
            return Ok(false);
        }
        let refusal = match self.read(object, context) {
            Ok(()) => None,
            Err(error) => match error.kind() {
                ErrorKind::Corrupt
                | ErrorKind::Unsupported
                | ErrorKind::Missing
                | ErrorKind::NotFound
                | ErrorKind::Archived => Some(error),
                // The key may be given or requested later.
                ErrorKind::KeyMissing => return Ok(false),
                ErrorKind::Denied
                | ErrorKind::Timeout
                | ErrorKind::OverLimit
                | ErrorKind::Invalid
                | ErrorKind::Io
                | ErrorKind::Cancelled
                | ErrorKind::WouldBlock => return Err(error),
            },
        };
        let mut checked = lock(&self.checked);
        checked.versions.insert(Arc::clone(&object.name), Arc::clone(&object.version));
        if let Some(error) = &refusal {
            checked.refused.add(object, error.to_string().into());
        }
        Ok(refusal.is_some())
    }

    /// Reads `object` to its end: the signature follows the content.
    fn read(&self, object: &ObjectInfo, context: &RequestContext) -> Result<(), VolumeError> {
        fetch_log::note(object, "for its signature");
        self.manifests.each_copy(object, &mut |copy| {
            self.manifests.stream(copy, None, DecodeThreads::TwoIfLarge, context, &mut |plain| {
                io::copy(plain, &mut io::sink()).map(drop).map_err(|error| VolumeError::from_io(&object.name, &error))
            })
        })
    }
}

/// The complete sets that are not the only ones of their time.
fn of_equal_times(collection: &Collection) -> impl Iterator<Item = &Arc<BackupSet>> {
    let mut once: HashSet<BackupTime> = HashSet::new();
    let complete = || collection.sets().iter().filter(|set| set.is_complete() && !collection.is_removed(set.index));
    let several: HashSet<BackupTime> = complete().filter(|set| !once.insert(set.time)).map(|set| set.time).collect();
    complete().filter(move |set| several.contains(&set.time))
}
