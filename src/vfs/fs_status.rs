//! The activity of a file system, as the attribute `user.dupfs.status` reports it (docs/SEMANTICS.md).

use std::time::Duration;

use dupfs_read::storage::ActiveTransfer;
use dupfs_read::volume::RepositoryStatus;
use serde::{Deserialize, Serialize};

/// The activity of a file system. The keys are a contract.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct FsStatus {
    /// The snapshots that are shown.
    pub snapshots: ShownRange,
    /// The path of the snapshot that is the root; `None` if the root is the overview.
    pub path: Option<String>,
    /// The last listing of the store.
    pub listing: LastListing,
    /// The reads of objects, and listings, that have begun and not ended; the oldest first.
    pub fetching: Vec<FetchStatus>,
    /// The link to the store.
    pub link: LinkStatus,
    /// The block cache.
    pub cache: CacheStatus,
    /// The directory of the index; `None` without one.
    pub index: Option<String>,
    /// Number of paths in all trees that are loaded.
    pub paths: u64,
}

/// The snapshots that a mount shows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ShownRange {
    /// Their number.
    pub count: u64,
    /// The name of the first one.
    pub oldest: Option<String>,
    /// The name of the last one.
    pub newest: Option<String>,
}

/// The last listing of the store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LastListing {
    /// Seconds since it ended.
    pub seconds: u64,
    /// The reason why it failed; `None` if it succeeded.
    pub error: Option<String>,
}

/// A read of an object, or a listing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct FetchStatus {
    /// The name of the object; `None` for a listing.
    pub object: Option<String>,
    /// Bytes to read.
    pub size: u64,
    /// Bytes that were read.
    pub bytes: u64,
    /// Seconds since it began.
    pub seconds: f64,
}

/// The link to the store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LinkStatus {
    /// Bytes per second, on the average of the last ten seconds.
    pub bytes_per_second: u64,
    /// Received bytes since the mount started.
    pub bytes: u64,
    /// Requests that list.
    pub list_requests: u64,
    /// Requests that fetch.
    pub get_requests: u64,
    /// Retries.
    pub retries: u64,
}

/// The block cache.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CacheStatus {
    /// Bytes in memory.
    pub memory_bytes: u64,
    /// Upper bound of the bytes in memory.
    pub max_memory_bytes: u64,
    /// Bytes in the spill file.
    pub disk_bytes: u64,
    /// Upper bound of the bytes in the spill file; 0 without one.
    pub max_disk_bytes: u64,
    /// Blocks found in memory.
    pub memory_hits: u64,
    /// Blocks found in the spill file.
    pub disk_hits: u64,
    /// Blocks not found.
    pub misses: u64,
}

impl FsStatus {
    /// The activity of a file system over a repository.
    pub(super) fn of_repository(status: RepositoryStatus) -> Self {
        let RepositoryStatus { traffic, bytes_per_second, transfers, cache, index } = status;
        Self {
            fetching: transfers.iter().map(fetch_status).collect(),
            link: LinkStatus {
                bytes_per_second,
                bytes: traffic.bytes,
                list_requests: traffic.list_requests,
                get_requests: traffic.get_requests,
                retries: traffic.retries,
            },
            cache: CacheStatus {
                memory_bytes: cache.memory_bytes,
                max_memory_bytes: cache.max_memory_bytes,
                disk_bytes: cache.spill_bytes,
                max_disk_bytes: cache.max_spill_bytes,
                memory_hits: cache.memory_hits,
                disk_hits: cache.spill_hits,
                misses: cache.misses,
            },
            index,
            ..Self::default()
        }
    }
}

fn fetch_status(transfer: &ActiveTransfer) -> FetchStatus {
    FetchStatus {
        object: transfer.object.as_ref().map(|name| name.to_string()),
        size: transfer.size,
        bytes: transfer.bytes,
        seconds: tenths(transfer.elapsed),
    }
}

/// A duration in seconds, rounded to tenths.
pub(crate) fn tenths(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 10.0).round() / 10.0
}
