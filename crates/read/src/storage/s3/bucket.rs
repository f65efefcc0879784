//! A bucket and the state that the requests to it share.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use aws_sdk_s3::operation::list_objects_v2::ListObjectsV2Output;
use aws_sdk_s3::types::RequestPayer;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

use super::client_config::{S3Client, S3ClientConfig};
use super::failure::{FailureCause, S3Failure};
use super::kept_bytes::KeptBytes;
use super::part_window::PartWindow;
use super::retry_timer::RetryTimer;
use crate::storage::traffic::TrafficCounters;
use crate::storage::{ReadTimeout, StorageError, StoreOptions};
use dupfs_base::sync::lock;
use dupfs_base::{ErrorKind, clamp_len};

/// Bytes per permit of the readahead budget.
const PERMIT_BYTES: u64 = 64 * 1024;
/// Credentials are not fetched twice within this time.
const MIN_RENEWAL_INTERVAL: Duration = Duration::from_secs(1);

/// The first page of a listing that is older than this is listed again.
const MAX_PAGE_AGE: Duration = Duration::from_secs(5);

/// A bucket and the state that the requests to it share.
///
/// Lock order: `client` and `renewal` are never held together with another lock, and `client` never across a request.
#[derive(Debug)]
pub(super) struct S3Bucket {
    pub(super) config: S3ClientConfig,
    client: Mutex<Arc<S3Client>>,
    /// The time at which credentials were last renewed. Locked while they are renewed.
    renewal: tokio::sync::Mutex<Option<Instant>>,
    /// Upper bound of the time in which a request makes no progress, over all its attempts.
    pub(super) timeout: Duration,
    /// The same for reads of a service that does not answer.
    pub(super) read_timeout: ReadTimeout,
    /// The statement about the payer, if requests have one.
    pub(super) payer: Option<RequestPayer>,
    connections: Semaphore,
    /// The connections that readahead may use. The others stay free for parts that a reader waits for.
    readahead_connections: Semaphore,
    /// The budget of bytes of the readahead.
    readahead_budget: Arc<Semaphore>,
    /// The parts that are fetched at once.
    pub(super) window: PartWindow,
    /// Bytes that came for requests that were interrupted.
    pub(super) kept: Arc<KeptBytes>,
    pub(super) counters: TrafficCounters,
    /// The page that was listed to find out if the bucket answers, and the time at which it came.
    first_page: Mutex<Option<(Instant, ListObjectsV2Output)>>,
}

/// Permits for one request. They are returned when it is dropped.
#[derive(Debug)]
pub(super) struct ConnectionPermits<'a> {
    _readahead: Option<SemaphorePermit<'a>>,
    _connection: SemaphorePermit<'a>,
}

impl S3Bucket {
    /// Connects to the bucket; no request is sent except for credentials.
    ///
    /// # Errors
    /// As [`S3ClientConfig::connect`].
    pub(super) async fn connect(config: S3ClientConfig, options: &StoreOptions) -> Result<Self, StorageError> {
        let budget = options.read_ahead_bytes as u64 / PERMIT_BYTES;
        let budget = clamp_len(budget, Semaphore::MAX_PERMITS);
        let connections = options.connections.clamp(1, 1024);
        let client = config.connect(config.first_region(), 0).await?;
        Ok(Self {
            config,
            client: Mutex::new(Arc::new(client)),
            renewal: tokio::sync::Mutex::new(None),
            timeout: options.timeout,
            read_timeout: options.read_timeout.clone().unwrap_or_else(|| ReadTimeout::new(options.timeout)),
            payer: options.s3_requester_pays.then_some(RequestPayer::Requester),
            connections: Semaphore::new(connections),
            readahead_connections: Semaphore::new((connections - connections / 4).max(1)),
            readahead_budget: Arc::new(Semaphore::new(budget)),
            window: PartWindow::default(),
            kept: KeptBytes::new(options.kept_bytes as u64),
            counters: TrafficCounters::default(),
            first_page: Mutex::default(),
        })
    }

    /// The client to use now.
    pub(super) fn client(&self) -> Arc<S3Client> {
        Arc::clone(&lock(&self.client))
    }

    /// Keeps the first page of the listing for the first caller that lists the bucket.
    pub(super) fn keep_first_page(&self, page: ListObjectsV2Output) {
        *lock(&self.first_page) = Some((Instant::now(), page));
    }

    /// The first page of the listing if it has just been listed. It is returned once.
    pub(super) fn take_first_page(&self) -> Option<ListObjectsV2Output> {
        let (at, page) = lock(&self.first_page).take()?;
        (at.elapsed() < MAX_PAGE_AGE).then_some(page)
    }

    /// Uses another region from now on.
    ///
    /// # Errors
    /// As [`S3ClientConfig::connect`].
    pub(super) async fn use_region(&self, region: &str) -> Result<(), StorageError> {
        let client = self.config.connect(region, 0).await?;
        *lock(&self.client) = Arc::new(client);
        Ok(())
    }

    /// Waits for a connection for a request for `object`.
    ///
    /// # Errors
    /// A final failure if the store is closed.
    pub(super) async fn connection(
        &self,
        object: &str,
        is_readahead: bool,
    ) -> Result<ConnectionPermits<'_>, S3Failure> {
        let closed = |_| S3Failure::last(StorageError::new(ErrorKind::Io, object, "the store is closed"));
        let readahead = match is_readahead {
            true => Some(self.readahead_connections.acquire().await.map_err(closed)?),
            false => None,
        };
        let connection = self.connections.acquire().await.map_err(closed)?;
        Ok(ConnectionPermits { _readahead: readahead, _connection: connection })
    }

    /// Takes `bytes` of the readahead budget; `None` if it is exhausted.
    pub(super) fn try_readahead(&self, bytes: u64) -> Option<OwnedSemaphorePermit> {
        let permits = u32::try_from(bytes.div_ceil(PERMIT_BYTES)).ok()?;
        Arc::clone(&self.readahead_budget).try_acquire_many_owned(permits).ok()
    }

    /// Prepares the next attempt after a failed one with the client `used`: waits, or renews the credentials.
    ///
    /// # Errors
    /// The failure, if another attempt is of no use or the attempts took too long.
    pub(super) async fn recover(
        &self,
        used: &S3Client,
        failure: S3Failure,
        timer: &mut RetryTimer,
    ) -> Result<(), StorageError> {
        if failure.cause == FailureCause::Expired && timer.may_renew() {
            self.renew(used).await?;
        } else {
            let line = failure.error.to_string();
            let delay = timer.next_delay(failure)?;
            log::debug!("{line}; retrying in {} ms", delay.as_millis());
            tokio::time::sleep(delay).await;
        }
        self.counters.retries.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Renews the credentials, unless another request did so since `used` was made.
    async fn renew(&self, used: &S3Client) -> Result<(), StorageError> {
        let mut last = self.renewal.lock().await;
        let current = self.client();
        if current.generation != used.generation || last.is_some_and(|last| last.elapsed() < MIN_RENEWAL_INTERVAL) {
            return Ok(());
        }
        log::info!("{}: the session token has expired; renewing the credentials", self.config.url());
        let client = self.config.connect(&current.region, current.generation.saturating_add(1)).await?;
        *lock(&self.client) = Arc::new(client);
        *last = Some(Instant::now());
        Ok(())
    }
}
