//! How stores are opened, and the one place that opens them.

use std::sync::Arc;
use std::time::Duration;

use zeroize::Zeroizing;

use super::{LocalStore, Location, ObjectStore, StorageError};

/// How to open a store. The defaults are what a user without options gets.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// duplicity's file prefixes; those with a `/` name a directory that has to be listed too.
    pub file_prefixes: Vec<String>,
    /// `--s3-endpoint-url`; without a scheme it is HTTPS, or HTTP with `s3_unencrypted`.
    pub s3_endpoint_url: Option<String>,
    /// `--s3-region-name`; corrected where the service tells another one.
    pub s3_region: Option<String>,
    /// `--s3-unencrypted-connection`: HTTP where the endpoint's URL does not say.
    pub s3_unencrypted: bool,
    /// How the bucket is named in requests.
    pub s3_addressing: S3Addressing,
    /// Whence the credentials come.
    pub s3_credentials: S3Credentials,
    /// How long a request may make no progress, over all its retries, before it fails with a timeout.
    pub timeout: Duration,
    /// Most requests under way at once.
    pub connections: usize,
    /// Most bytes fetched ahead of the readers. Each open stream may hold one part (8 MiB) beyond.
    pub read_ahead_bytes: usize,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            file_prefixes: Vec::new(),
            s3_endpoint_url: None,
            s3_region: None,
            s3_unencrypted: false,
            s3_addressing: S3Addressing::Auto,
            s3_credentials: S3Credentials::Chain,
            timeout: Duration::from_secs(30),
            connections: 16,
            read_ahead_bytes: 64 << 20,
        }
    }
}

/// How the bucket is named in requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum S3Addressing {
    /// In the path for services other than AWS and for buckets that are no host names (upper case, dots), else in the
    /// host.
    #[default]
    Auto,
    /// `https://host/bucket/key`.
    Path,
    /// `https://bucket.host/key` (`--s3-use-new-style`), where the bucket and the host allow it.
    VirtualHost,
}

/// Whence the credentials come.
#[derive(Clone, Default)]
pub enum S3Credentials {
    /// Environment, profiles, web identity, boto's files, container and instance roles; none at all if there are none.
    #[default]
    Chain,
    /// Unsigned requests.
    Anonymous,
    /// These.
    Static {
        /// The access key's id.
        id: String,
        /// The secret access key.
        secret: Zeroizing<String>,
    },
}

impl std::fmt::Debug for S3Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Chain => "Chain",
            Self::Anonymous => "Anonymous",
            Self::Static { .. } => "Static",
        })
    }
}

/// Opens the store at `location` and makes sure that it answers. Starts threads for S3: a process that forks to become
/// a daemon does so before.
///
/// # Errors
/// [`StorageError`] for whatever is wrong with the place, the network or the credentials.
pub fn open(location: &Location, options: &StoreOptions) -> Result<Arc<dyn ObjectStore>, StorageError> {
    match location {
        Location::Local(dir) => Ok(Arc::new(LocalStore::open(dir)?.with_prefixes(&options.file_prefixes)?)),
        #[cfg(feature = "s3")]
        Location::S3(s3) => Ok(Arc::new(super::S3Store::open(s3, options)?)),
        #[cfg(not(feature = "s3"))]
        Location::S3(s3) => {
            let reason = "this program was built without support for S3; build it with the feature s3";
            Err(StorageError::new(dupfs_base::ErrorKind::Unsupported, &s3.display(), reason))
        }
    }
}
