//! A bucket as a store, over aws-sdk-s3. The one place with an async runtime: callers are threads and block.
//!
//! Lock order: [`S3Bucket::session`]'s lock and [`S3Bucket::renewal`] are never held together with another one, and the former
//! never across a request.

mod boto;
mod connect;
mod credentials;
mod failure;
mod fetch;
mod list;
mod retry;

use std::io::Read;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use tokio::sync::Semaphore;

use self::connect::{S3Client, S3ClientConfig};
use self::failure::{FailureCause, S3Failure};
use self::fetch::S3Stream;
use self::retry::RetryTimer;
use super::traffic::TrafficCounters;
use super::{ObjectInfo, ObjectStore, S3Credentials, S3Location, StorageError, StoreOptions, Traffic};
use dupfs_base::sync::{Monitor, lock};
use dupfs_base::{ByteRange, ErrorKind, RequestContext};

/// Bytes that one permit of the read-ahead budget stands for.
const PERMIT_BYTES: u64 = 64 * 1024;
/// Longest timer with a service that does not answer while the store is opened: a user waits for it.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);

/// The objects below a prefix of a bucket.
#[derive(Debug)]
pub struct S3Store {
    core: Arc<S3Bucket>,
    /// Directories listed, relative to the prefix.
    listed: Vec<String>,
    /// Only `None` while the store is dropped.
    runtime: Option<Runtime>,
}

/// What the requests share.
#[derive(Debug)]
struct S3Bucket {
    plan: S3ClientConfig,
    session: Mutex<Arc<S3Client>>,
    /// Held while credentials are fetched anew, and when that was last.
    renewal: tokio::sync::Mutex<Option<Instant>>,
    timeout: Duration,
    connections: Semaphore,
    /// Those of them that parts ahead of a reader may take: somebody who waits finds one that is free.
    ahead: Semaphore,
    /// Room for bytes fetched ahead.
    room: Arc<Semaphore>,
    counters: TrafficCounters,
}

impl S3Store {
    /// Opens the store and makes sure that it can be listed; where the URL has two readings and there is nothing in the
    /// first, tries the other.
    ///
    /// # Errors
    /// [`StorageError`] for whatever is wrong with the bucket, the network or the credentials.
    pub fn open(location: &S3Location, options: &StoreOptions) -> Result<Self, StorageError> {
        for note in &location.notes {
            log::info!("{}: {note}", location.display());
        }
        let Some(other) = &location.alternative else { return Self::open_reading(location, options) };
        let first = match Self::open_reading(location, options) {
            Ok(store) => {
                log::info!("{}: reading {} as the bucket", location.display(), location.bucket);
                return Ok(store);
            }
            Err(e) => e,
        };
        match Self::open_reading(other, options) {
            Ok(store) => {
                let what = if other.host.is_some() { "host" } else { "bucket" };
                let which = other.host.as_ref().unwrap_or(&other.bucket);
                log::info!("{}: reading {which} as the {what}", other.display());
                Ok(store)
            }
            Err(second) => {
                // A service that was reached knows better than a host that is not there.
                let kind = if second.kind.is_transient() { first.kind } else { second.kind };
                let reason = format!("{}; read as {}: {}", first.reason, other.display(), second.reason);
                Err(StorageError::new(kind, &first.object, reason))
            }
        }
    }

    fn open_reading(location: &S3Location, options: &StoreOptions) -> Result<Self, StorageError> {
        let plan = S3ClientConfig::new(location, options);
        let listed = super::listed_dirs(&options.file_prefixes)?;
        let no_threads = |e| StorageError::from_io(&plan.url, "start the threads for the network", &e);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("dupfs-s3")
            .enable_all()
            .build()
            .map_err(no_threads)?;
        let room = u64::try_from(options.read_ahead_bytes).unwrap_or(u64::MAX) / PERMIT_BYTES;
        let room = usize::try_from(room).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        let connections = options.connections.clamp(1, 1024);
        let core = runtime.block_on(async {
            let session = plan.session(&plan.region, 0).await?;
            let core = S3Bucket {
                plan,
                session: Mutex::new(Arc::new(session)),
                renewal: tokio::sync::Mutex::new(None),
                timeout: options.timeout,
                connections: Semaphore::new(connections),
                ahead: Semaphore::new((connections - connections / 4).max(1)),
                room: Arc::new(Semaphore::new(room)),
                counters: TrafficCounters::default(),
            };
            core.probe().await?;
            Ok(core)
        });
        match core {
            Ok(core) => Ok(Self { core: Arc::new(core), listed, runtime: Some(runtime) }),
            Err(e) => {
                // Not waiting for a name server that does not answer.
                runtime.shutdown_background();
                Err(e)
            }
        }
    }

    fn runtime(&self) -> Result<&Runtime, StorageError> {
        let closed = || StorageError::new(ErrorKind::Io, &self.core.plan.url, "the store is closed");
        self.runtime.as_ref().ok_or_else(closed)
    }
}

impl S3Bucket {
    /// The client to use now.
    fn session(&self) -> Arc<S3Client> {
        Arc::clone(&lock(&self.session))
    }

    /// Asks for one key: that tells whether host, credentials, bucket and region are right, as a listing does and
    /// with no other permission.
    async fn probe(&self) -> Result<(), StorageError> {
        let mut timer = RetryTimer::new(self.timeout.min(OPEN_TIMEOUT));
        let mut moved = false;
        loop {
            let session = self.session();
            let failure = match list::page(self, &session, "", None, Some(1)).await {
                Ok(_) => return Ok(()),
                Err(failure) => failure,
            };
            match &failure.cause {
                FailureCause::Region(region) if !moved && *region != session.region => {
                    log::info!("{}: the bucket is in region {region}", self.plan.url);
                    moved = true;
                    let session = self.plan.session(region, 0).await?;
                    *lock(&self.session) = Arc::new(session);
                }
                FailureCause::NoService => return Err(failure.error),
                _ if failure.error.kind == ErrorKind::Denied && !session.signed => {
                    return Err(self.without_credentials(failure.error));
                }
                _ => self.recover(&session, failure, &mut timer).await?,
            }
        }
    }

    fn without_credentials(&self, error: StorageError) -> StorageError {
        match self.plan.credentials() {
            S3Credentials::Chain => {
                let reason = "no credentials found, and the bucket is not open to everybody; set AWS_ACCESS_KEY_ID and \
                              AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or fill ~/.aws/credentials or ~/.boto";
                StorageError::new(ErrorKind::Denied, &error.object, reason)
            }
            S3Credentials::Anonymous | S3Credentials::Static { .. } => error,
        }
    }

    /// After a failed attempt: pauses, or renews the credentials, so that the next one may succeed.
    ///
    /// # Errors
    /// The failure, if trying again is of no use or took too long.
    async fn recover(&self, used: &S3Client, failure: S3Failure, timer: &mut RetryTimer) -> Result<(), StorageError> {
        if failure.cause == FailureCause::Expired && timer.may_renew() {
            self.renew(used).await?;
        } else {
            let line = failure.error.to_string();
            let pause = timer.pause(failure)?;
            log::debug!("{line}; trying again in {} ms", pause.as_millis());
            tokio::time::sleep(pause).await;
        }
        self.counters.retries.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Fetches the credentials anew, unless somebody did since `used` was made.
    async fn renew(&self, used: &S3Client) -> Result<(), StorageError> {
        let mut last = self.renewal.lock().await;
        let now = self.session();
        if now.generation != used.generation || last.is_some_and(|last| last.elapsed() < Duration::from_secs(1)) {
            return Ok(());
        }
        log::info!("{}: the session token has expired, fetching the credentials anew", self.plan.url);
        let session = self.plan.session(&now.region, now.generation.saturating_add(1)).await?;
        *lock(&self.session) = Arc::new(session);
        *last = Some(Instant::now());
        Ok(())
    }
}

/// Publishes the outcome of a task; one that panics or is abandoned publishes an error.
struct OutcomeSender<T: Send + 'static> {
    outcome: Arc<Monitor<Option<Result<T, StorageError>>>>,
    object: Arc<str>,
}

impl<T: Send + 'static> Drop for OutcomeSender<T> {
    fn drop(&mut self) {
        self.outcome.update(|outcome| {
            outcome.get_or_insert_with(|| Err(StorageError::new(ErrorKind::Io, &self.object, "the store was closed")));
        });
    }
}

/// Runs `work` on the runtime and waits for its outcome within the limits of `context`; abandons the work when they end.
fn wait_for<T: Send + 'static>(
    runtime: &Runtime,
    object: &str,
    context: &RequestContext,
    work: impl Future<Output = Result<T, StorageError>> + Send + 'static,
) -> Result<T, StorageError> {
    let outcome = Monitor::new(None);
    let sender = OutcomeSender { outcome: Arc::clone(&outcome), object: object.into() };
    let task = runtime.spawn(async move {
        let result = work.await;
        sender.outcome.update(|outcome| *outcome = Some(result));
    });
    let done = outcome.wait_until(context, Option::take);
    done.unwrap_or_else(|stopped| {
        task.abort();
        Err(StorageError::stopped(object, stopped))
    })
}

impl ObjectStore for S3Store {
    fn url(&self) -> &str {
        &self.core.plan.url
    }

    fn list(&self, context: &RequestContext) -> Result<Vec<ObjectInfo>, StorageError> {
        let (core, listed) = (Arc::clone(&self.core), self.listed.clone());
        let listing = async move {
            let mut out = Vec::new();
            for dir in &listed {
                list::all(&core, dir, &mut out).await?;
            }
            Ok(out)
        };
        wait_for(self.runtime()?, &self.core.plan.url, context, listing)
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
        let handle = self.runtime()?.handle().clone();
        Ok(Box::new(S3Stream::open(Arc::clone(&self.core), handle, object.clone(), range, context.clone())?))
    }

    fn traffic(&self) -> Traffic {
        self.core.counters.get()
    }
}

impl Drop for S3Store {
    fn drop(&mut self) {
        // Not waiting: a request to a dead network would hold up the unmount.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
