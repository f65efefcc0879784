//! A place that rclone reads, as a store.

use std::io::Read;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::program::RcloneProgram;
use super::remote::RcloneRemote;
use super::session::RcloneSession;
use super::stream::RcloneStream;
use crate::storage::file_prefix::listed_dirs;
use crate::storage::{
    BucketLocation, DirectoryListing, ObjectInfo, ObjectStore, RemoteLocation, StorageError, StoreOptions, Traffic,
};
use dupfs_base::sync::lock;
use dupfs_base::{ByteRange, ErrorKind, RequestContext, Secret};

/// The time for which the listing that opened the store answers the first request for one.
const FIRST_LISTING_AGE: Duration = Duration::from_secs(5);
/// The objects in a directory of a service that rclone reads.
#[derive(Debug)]
pub struct RcloneStore {
    session: Arc<RcloneSession>,
    /// Listed directories, relative to the store: empty, or with a trailing slash.
    listed: Vec<String>,
    first_listing: Mutex<Option<(Instant, Vec<ObjectInfo>)>>,
    url_with_secrets: Option<Secret>,
}

impl RcloneStore {
    /// Starts rclone for `location` and lists it. If there are several ways to log in, they are tried in their order.
    ///
    /// # Errors
    /// [`StorageError`] if rclone is missing, or for a failure of the service, the network or the credentials.
    pub fn open(location: &RemoteLocation, options: &StoreOptions) -> Result<Self, StorageError> {
        let program = RcloneProgram::find(options.rclone.as_deref(), &location.display())?;
        let mut refused: Option<StorageError> = None;
        for remote in location.remotes(program.version, options)? {
            let url_with_secrets = location.display_with_secrets().or_else(|| remote.account());
            match Self::open_remote(program.clone(), remote, url_with_secrets, options) {
                Err(error) if error.kind == ErrorKind::Denied => refused = Some(refused.unwrap_or(error)),
                other => return other,
            }
        }
        let nothing = || StorageError::new(ErrorKind::Denied, &location.display(), "there is no way to log in");
        Err(refused.unwrap_or_else(nothing))
    }

    fn open_remote(
        program: RcloneProgram,
        remote: RcloneRemote,
        url_with_secrets: Option<Secret>,
        options: &StoreOptions,
    ) -> Result<Self, StorageError> {
        let listed = listed_dirs(&options.file_prefixes)?;
        let session = Arc::new(RcloneSession::start(program, remote, options)?);
        let store = Self { session, listed, first_listing: Mutex::default(), url_with_secrets };
        let objects = store.list_all(&RequestContext::unlimited(), true)?;
        *lock(&store.first_listing) = Some((Instant::now(), objects));
        Ok(store)
    }

    fn list_all(&self, context: &RequestContext, opening: bool) -> Result<Vec<ObjectInfo>, StorageError> {
        let mut out = Vec::new();
        for dir in &self.listed {
            match self.session.list(dir, true, context, opening) {
                Ok(listing) => out.extend(listing.objects),
                // The directory of a file prefix may not exist.
                Err(error) if error.kind == ErrorKind::NotFound && !dir.is_empty() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(out)
    }
}

impl ObjectStore for RcloneStore {
    fn url(&self) -> &str {
        &self.session.remote.url
    }

    fn url_with_secrets(&self) -> Option<Secret> {
        self.url_with_secrets.clone()
    }

    fn list(&self, context: &RequestContext) -> Result<Vec<ObjectInfo>, StorageError> {
        context.check_may_block().map_err(|stopped| StorageError::stopped(self.url(), stopped))?;
        let first = lock(&self.first_listing).take();
        if let Some((_, objects)) = first.filter(|(time, _)| time.elapsed() < FIRST_LISTING_AGE) {
            return Ok(objects);
        }
        self.list_all(context, false)
    }

    fn list_directory(&self, dir: &str, context: &RequestContext) -> Result<DirectoryListing, StorageError> {
        self.session.list(dir, false, context, false)
    }

    fn open(
        &self,
        object: &ObjectInfo,
        range: ByteRange,
        context: &RequestContext,
    ) -> Result<Box<dyn Read + Send>, StorageError> {
        let range = ByteRange { start: range.start, end: range.end.min(object.size) };
        if range.is_empty() {
            return Ok(Box::new(std::io::empty()));
        }
        Ok(Box::new(RcloneStream::open(Arc::clone(&self.session), object.clone(), range, context.clone())?))
    }

    fn traffic(&self) -> Traffic {
        self.session.counters.get()
    }

    fn bucket(&self) -> Option<BucketLocation> {
        None
    }
}
