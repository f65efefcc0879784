//! The collection as the last listing of the store shows it.

use std::sync::{Arc, RwLock};
use std::thread;
use std::time::Duration;

use super::error::VolumeError;
use super::signed_sets::SignedSets;
use crate::storage::{ObjectStore, StorageError};
use dupfs_base::sync::{SingleFlight, SingleFlightError, read, write};
use dupfs_base::{ErrorKind, HasKind, RequestContext};
use dupfs_format::collection::{BackupSet, Collection, CollectionError, Problem};
use dupfs_format::{SetIndex, VolumeId};

/// Upper bound of the listings of one refresh.
const MAX_LISTINGS: usize = 5;
/// Time between two listings of a refresh.
const LISTING_INTERVAL: Duration = Duration::from_secs(1);

/// The reason why the store could not be listed again. The collection stays as it was.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RefreshError {
    /// The store could not be listed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The names of the objects no longer describe the backup.
    #[error("{url}: {error}")]
    Collection {
        /// The store's URL without secrets.
        url: Arc<str>,
        /// The contradiction.
        error: CollectionError,
    },
    /// The signature of a new set could not be checked.
    #[error(transparent)]
    Signature(#[from] VolumeError),
    /// Each listing showed different objects of a new set.
    #[error("{url}: a backup is being written; it will appear when complete")]
    Unsettled {
        /// The store's URL without secrets.
        url: Arc<str>,
    },
    /// The shared listing failed, or the request ended first.
    #[error(transparent)]
    SingleFlight(#[from] SingleFlightError),
}

impl HasKind for RefreshError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Storage(error) => error.kind(),
            Self::Collection { error, .. } => error.kind(),
            Self::Signature(error) => error.kind(),
            Self::Unsettled { .. } => ErrorKind::Io,
            Self::SingleFlight(error) => error.kind(),
        }
    }
}

/// The changes that a refresh found.
#[derive(Clone, Debug, Default)]
pub struct Refreshed {
    /// Names of new snapshots.
    pub new: Vec<Arc<str>>,
    /// Names of snapshots whose own sets were removed.
    pub removed: Vec<Arc<str>>,
    /// New problems.
    pub problems: Vec<Problem>,
}

/// The collection of a store. A refresh replaces it; indexes of sets and snapshots stay valid.
#[derive(Debug)]
pub(super) struct LiveCollection {
    store: Arc<dyn ObjectStore>,
    /// Locked only to copy or replace the reference.
    current: RwLock<Arc<Collection>>,
    /// The check of signatures, if they are required.
    signed: Option<SignedSets>,
    refreshes: SingleFlight<(), Refreshed, RefreshError>,
}

impl LiveCollection {
    /// The collection that a listing of `store` gave. `signed` checks the new sets of later listings.
    pub(super) fn new(store: Arc<dyn ObjectStore>, collection: Collection, signed: Option<SignedSets>) -> Self {
        Self { store, current: RwLock::new(Arc::new(collection)), signed, refreshes: SingleFlight::new() }
    }

    /// The collection of the last listing.
    pub(super) fn current(&self) -> Arc<Collection> {
        Arc::clone(&read(&self.current))
    }

    /// The set with this index.
    ///
    /// # Errors
    /// [`VolumeError::NoSet`].
    pub(super) fn set(&self, set: SetIndex) -> Result<Arc<BackupSet>, VolumeError> {
        self.current().set(set).cloned().ok_or(VolumeError::NoSet { index: set.0 })
    }

    /// The name of volume `id` in the store, for messages.
    pub(super) fn volume_name(&self, id: VolumeId) -> Arc<str> {
        let set = self.set(id.set).ok();
        let name = set.and_then(|set| set.volumes.get(&id.number).map(|object| Arc::clone(&object.name)));
        name.unwrap_or_else(|| format!("volume {} of set {}", id.number, id.set.0).into())
    }

    /// Lists the store again and adopts the changes. Requests during a listing share it.
    ///
    /// # Errors
    /// [`RefreshError`]; then the collection stays as it was.
    pub(super) fn refresh(self: &Arc<Self>, context: &RequestContext) -> Result<Refreshed, RefreshError> {
        let this = Arc::clone(self);
        self.refreshes.run((), "dupfs-refresh", context, move |context| {
            let before = this.current();
            let after = Arc::new(this.list_until_confirmed(&before, context)?);
            *write(&this.current) = Arc::clone(&after);
            Ok(difference(&before, &after))
        })
    }

    /// Lists the store until two listings in a row agree on each new complete set. A listing is not a snapshot of the store:
    /// it may show a manifest that was written during the listing but not the objects written before it, or a manifest that
    /// is half written.
    fn list_until_confirmed(&self, before: &Collection, context: &RequestContext) -> Result<Collection, RefreshError> {
        let url: Arc<str> = self.store.url().into();
        let mut previous: Option<Collection> = None;
        for round in 0..MAX_LISTINGS {
            if round > 0 {
                thread::sleep(LISTING_INTERVAL);
            }
            context.check().map_err(SingleFlightError::from)?;
            let objects = self.store.list(context)?;
            let wrap = |error| RefreshError::Collection { url: Arc::clone(&url), error };
            let next = before.refreshed(&objects).map_err(wrap)?;
            if next.is_confirmed(before, previous.as_ref()) {
                let Some(signed) = &self.signed else { return Ok(next) };
                let refreshed = |refused: &_| before.refreshed_with(&objects, refused);
                return Ok(signed.check_latest(&url, context, refreshed)?);
            }
            previous = Some(next);
        }
        Err(RefreshError::Unsettled { url })
    }
}

fn difference(before: &Collection, after: &Collection) -> Refreshed {
    let old_count = before.snapshots().len();
    let is_removed = |set: SetIndex| after.is_removed(set) && !before.is_removed(set);
    let removed = before.snapshots().iter().filter(|snapshot| is_removed(snapshot.set));
    let is_new = |problem: &&Problem| !before.problems().iter().any(|old| old.message == problem.message);
    Refreshed {
        new: after.snapshots().iter().skip(old_count).map(|snapshot| Arc::clone(&snapshot.name)).collect(),
        removed: removed.map(|snapshot| Arc::clone(&snapshot.name)).collect(),
        problems: after.problems().iter().filter(is_new).cloned().collect(),
    }
}
