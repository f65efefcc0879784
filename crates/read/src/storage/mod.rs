//! Stores of the objects of a backup. They are independent of duplicity.

mod bucket_location;
mod counting;
mod endpoint_host;
mod faulty;
mod fetch_limit;
mod file_identity;
mod file_prefix;
mod handed_over_stream;
mod local;
mod memory;
mod metered;
mod multi;
mod multi_location;
mod object_store;
mod open;
mod options;
mod outage_watch;
mod percent;
mod rate_limited;
mod rate_meter;
mod rclone;
mod read_timeout;
mod remote_location;
#[cfg(feature = "s3")]
mod s3;
mod secret_source;
mod staged;
mod storage_error;
mod traffic;
mod url;
mod wrapping;

pub use dupfs_format::ObjectInfo;

pub use bucket_location::BucketLocation;
pub use counting::{CountingStore, ReadCount};
pub use faulty::{Effect, Fault, FaultyStore, Nth, Target};
pub use fetch_limit::{FetchLimit, LimitedStore};
pub use local::LocalStore;
pub use memory::MemoryStore;
pub use metered::{ActiveTransfer, MeteredStore, StoreMeter};
pub use multi::MultiStore;
pub use multi_location::MultiLocation;
pub use object_store::{DirectoryListing, ObjectStore, RejectedCopy};
pub use open::open;
pub use options::{S3Addressing, S3Credentials, StoreOptions};
pub use rate_limited::RateLimitedStore;
pub use rclone::{RcloneStore, fuzz_entry};
pub use read_timeout::ReadTimeout;
pub use remote_location::RemoteLocation;
#[cfg(feature = "s3")]
pub use s3::S3Store;
pub use secret_source::SecretSource;
pub use staged::{StagedBatch, StagedStore};
pub use storage_error::StorageError;
pub use traffic::Traffic;
pub use url::{Location, S3Location, S3UrlStyle, UrlOptions, parse_url, parse_url_with};
pub use wrapping::WrappingStore;
