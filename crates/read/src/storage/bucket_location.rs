//! The bucket that a store reads, for commands that the user runs with other programs.

/// A bucket of an S3 service, and the prefix of a backup's keys in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketLocation {
    /// The name of the bucket.
    pub bucket: String,
    /// The part of each key before the object's name: empty, or with a trailing slash.
    pub prefix: String,
    /// The URL of the service; `None` for AWS.
    pub endpoint: Option<String>,
    /// The region in which requests are made.
    pub region: String,
}
