//! Listing the store again while the repository is in use: new sets are taken in once they are complete.

use std::sync::Arc;
use std::time::Duration;

use super::repository::Repository;
use crate::storage::StorageError;
use dupfs_base::sync::SingleFlightError;
use dupfs_base::{ErrorKind, HasKind, RequestContext};
use dupfs_format::SetIndex;
use dupfs_format::collection::{Collection, CollectionError, Problem};

/// Listings in a row that may each show something else of a new set than the one before.
const LISTINGS: usize = 5;
/// Time between them.
const PAUSE: Duration = Duration::from_secs(1);

/// Why the store could not be listed again. Everything stays as it was.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RefreshError {
    /// The store could not be listed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The names no longer tell of the backup.
    #[error("{url}: {error}")]
    Collection {
        /// The store's URL without secrets.
        url: Arc<str>,
        /// What is wrong.
        error: CollectionError,
    },
    /// Each listing showed something else of a new set.
    #[error("{url}: a new backup still changes while the place is listed; it is shown once it does not")]
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
            Self::Unsettled { .. } => ErrorKind::Io,
            Self::SingleFlight(error) => error.kind(),
        }
    }
}

/// What a listing brought.
#[derive(Clone, Debug, Default)]
pub struct Refreshed {
    /// Names of the snapshots that are new.
    pub new: Vec<Arc<str>>,
    /// Names of the snapshots of whose own sets nothing is left since.
    pub gone: Vec<Arc<str>>,
    /// Problems that were not known.
    pub problems: Vec<Problem>,
}

impl Repository {
    /// Lists the store again and takes in what changed. Those who ask while a listing is under way share it.
    ///
    /// # Errors
    /// [`RefreshError`]; then everything stays as it was.
    pub fn refresh(self: &Arc<Self>, context: &RequestContext) -> Result<Refreshed, RefreshError> {
        let this = Arc::clone(self);
        self.refresh_flight.run((), "dupfs-refresh", context, move |context| {
            let before = this.collection();
            let after = Arc::new(this.follow(&before, context)?);
            this.set_collection(Arc::clone(&after));
            Ok(difference(&before, &after))
        })
    }

    /// A listing is no moment's picture: it may show a manifest that was written while it was under way and not the
    /// objects that were written before it, or one half written. A set that is new and complete is believed once two
    /// listings in a row show the same of it.
    fn follow(&self, before: &Collection, context: &RequestContext) -> Result<Collection, RefreshError> {
        let url: Arc<str> = self.url().into();
        let mut seen: Option<Collection> = None;
        for round in 0..LISTINGS {
            if round > 0 {
                std::thread::sleep(PAUSE);
            }
            let objects = self.store.list(context)?;
            let wrap = |error| RefreshError::Collection { url: Arc::clone(&url), error };
            let next = before.refreshed(&objects).map_err(wrap)?;
            if next.is_confirmed(before, seen.as_ref()) {
                return Ok(next);
            }
            seen = Some(next);
        }
        Err(RefreshError::Unsettled { url })
    }
}

fn difference(before: &Collection, after: &Collection) -> Refreshed {
    let known = before.snapshots().len();
    let left = |set: SetIndex| after.is_removed(set) && !before.is_removed(set);
    let gone = before.snapshots().iter().filter(|snapshot| left(snapshot.set));
    let is_new = |problem: &&Problem| !before.problems().iter().any(|old| old.message == problem.message);
    Refreshed {
        new: after.snapshots().iter().skip(known).map(|snapshot| Arc::clone(&snapshot.name)).collect(),
        gone: gone.map(|snapshot| Arc::clone(&snapshot.name)).collect(),
        problems: after.problems().iter().filter(is_new).cloned().collect(),
    }
}
