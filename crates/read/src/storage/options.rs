//! The options of stores.

use std::path::PathBuf;
use std::time::Duration;

use super::SecretSource;
use super::read_timeout::ReadTimeout;
use dupfs_base::Secret;

/// The options of a store. The defaults are those of the program.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// duplicity's file prefixes. A prefix with a `/` names a directory that is listed too.
    pub file_prefixes: Vec<String>,
    /// `--s3-endpoint-url`. Without a scheme it is HTTPS, or HTTP with `s3_unencrypted`.
    pub s3_endpoint_url: Option<String>,
    /// `--s3-region-name`. It is corrected if the service names another one.
    pub s3_region: Option<String>,
    /// `--s3-unencrypted-connection`: HTTP if the endpoint's URL has no scheme.
    pub s3_unencrypted: bool,
    /// The form of request URLs.
    pub s3_addressing: S3Addressing,
    /// The source of the credentials.
    pub s3_credentials: S3Credentials,
    /// The program rclone; `None` for the one in the path.
    pub rclone: Option<PathBuf>,
    /// The file with the CA certificates for services that rclone reads; `None` for those of the machine.
    pub ca_file: Option<PathBuf>,
    /// `--ssh-options`, split into words.
    pub ssh_options: Vec<String>,
    /// The secrets of the environment.
    pub secrets: SecretSource,
    /// Upper bound of the time in which a request makes no progress, over all its retries. Then it fails with a timeout.
    pub timeout: Duration,
    /// Upper bound of the time in which a read makes no progress because the service does not answer; `None` for the timeout.
    pub read_timeout: Option<ReadTimeout>,
    /// `--s3-requester-pays`: the requests state that the requester pays for them.
    pub s3_requester_pays: bool,
    /// Upper bound of the requests at once.
    pub connections: usize,
    /// Upper bound of the bytes fetched before a reader requests them. Each open stream may have one more part (2 MiB)
    /// in memory.
    pub read_ahead_bytes: usize,
    /// Upper bound of the bytes that are retained of interrupted fetches, and of running ones in case they are
    /// interrupted.
    pub kept_bytes: usize,
}

impl StoreOptions {
    /// Default of [`Self::timeout`].
    pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
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
            rclone: None,
            ca_file: None,
            ssh_options: Vec::new(),
            secrets: SecretSource::default(),
            timeout: Self::DEFAULT_TIMEOUT,
            read_timeout: None,
            s3_requester_pays: false,
            connections: 16,
            read_ahead_bytes: 48 << 20,
            kept_bytes: 16 << 20,
        }
    }
}

/// The form of request URLs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum S3Addressing {
    /// `Path` for services other than AWS and for buckets that are no host names (upper case, dots), else `VirtualHost`.
    #[default]
    Auto,
    /// `https://host/bucket/key`.
    Path,
    /// `https://bucket.host/key` (`--s3-use-new-style`), if the bucket and the host allow it.
    VirtualHost,
}

/// The source of credentials.
#[derive(Clone, Default)]
pub enum S3Credentials {
    /// Environment, profiles, web identity, boto's files, container and instance roles. Requests are unsigned if there are none.
    #[default]
    Chain,
    /// The profile of this name in the files of AWS's tools, and no other source.
    Profile(String),
    /// Unsigned requests.
    Anonymous,
    /// A fixed access key.
    Static {
        /// The ID of the access key.
        id: String,
        /// The secret access key.
        secret: Secret,
        /// The session token of temporary credentials.
        token: Option<Secret>,
    },
}

impl std::fmt::Debug for S3Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Chain => "Chain",
            Self::Profile(_) => "Profile",
            Self::Anonymous => "Anonymous",
            Self::Static { .. } => "Static",
        })
    }
}
