//! A bucket as a store.

use std::io::Read;
use std::sync::Arc;

use tokio::runtime::Runtime;

use super::blocking::wait_for;
use super::bucket::S3Bucket;
use super::client_config::S3ClientConfig;
use super::list;
use super::probe::probe;
use super::s3_stream::S3Stream;
use crate::storage::{
    BucketLocation, DirectoryListing, ObjectInfo, ObjectStore, S3Location, StorageError, StoreOptions, Traffic,
    file_prefix::listed_dirs,
};
use dupfs_base::{ByteRange, ErrorKind, RequestContext};

/// The objects below a prefix of a bucket.
#[derive(Debug)]
pub struct S3Store {
    bucket: Arc<S3Bucket>,
    /// Listed directories, relative to the prefix.
    listed: Vec<String>,
    /// `None` only while the store is dropped.
    runtime: Option<Runtime>,
}

impl S3Store {
    /// Opens the store and checks that it can be listed. If the URL has two readings, the other one is tried when the first
    /// fails.
    ///
    /// # Errors
    /// [`StorageError`] for a failure of the bucket, the network or the credentials.
    pub fn open(location: &S3Location, options: &StoreOptions) -> Result<Self, StorageError> {
        if location.has_credentials {
            log::warn!(
                "{}: the credentials in the URL are not used, as in duplicity; give them in AWS_ACCESS_KEY_ID and \
                 AWS_SECRET_ACCESS_KEY, or in ~/.aws/credentials (docs/S3.md, Credentials)",
                location.display()
            );
        }
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
                let role = if other.host.is_some() { "host" } else { "bucket" };
                let name = other.host.as_ref().unwrap_or(&other.bucket);
                log::info!("{}: reading {name} as the {role}", other.display());
                Ok(store)
            }
            Err(second) => {
                // The error of a service that answered is more specific than that of a host that does not exist.
                let kind = if second.kind.is_transient() { first.kind } else { second.kind };
                let reason = format!("{}; read as {}: {}", first.reason, other.display(), second.reason);
                Err(StorageError::new(kind, &first.object, reason))
            }
        }
    }

    /// Opens one reading of the URL: at its prefix, or where that is empty at the one that duplicity reads.
    fn open_reading(location: &S3Location, options: &StoreOptions) -> Result<Self, StorageError> {
        let store = Self::open_prefix(location, options)?;
        let Some(prefix) = &location.duplicity_prefix else { return Ok(store) };
        let listing = store.list_directory("", &RequestContext::with_timeout(options.timeout))?;
        if listing != DirectoryListing::default() {
            return Ok(store);
        }
        let other = S3Location { prefix: prefix.clone(), duplicity_prefix: None, ..location.clone() };
        log::info!("{}: nothing is there; reading it as duplicity does: {}", location.display(), other.display());
        Self::open_prefix(&other, options)
    }

    fn open_prefix(location: &S3Location, options: &StoreOptions) -> Result<Self, StorageError> {
        let config = S3ClientConfig::new(location, options);
        let listed = listed_dirs(&options.file_prefixes)?;
        let no_threads = |e| StorageError::from_io(config.url(), "start the threads for the network", &e);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("dupfs-s3")
            .enable_all()
            .build()
            .map_err(no_threads)?;
        let bucket = runtime.block_on(async {
            let bucket = S3Bucket::connect(config, options).await?;
            probe(&bucket).await?;
            Ok(bucket)
        });
        match bucket {
            Ok(bucket) => Ok(Self { bucket: Arc::new(bucket), listed, runtime: Some(runtime) }),
            Err(e) => {
                // Does not wait for a name server that does not answer.
                runtime.shutdown_background();
                Err(e)
            }
        }
    }

    fn runtime(&self) -> Result<&Runtime, StorageError> {
        let closed = || StorageError::new(ErrorKind::Io, self.url(), "the store is closed");
        self.runtime.as_ref().ok_or_else(closed)
    }
}

impl ObjectStore for S3Store {
    fn url(&self) -> &str {
        self.bucket.config.url()
    }

    fn list(&self, context: &RequestContext) -> Result<Vec<ObjectInfo>, StorageError> {
        let (bucket, listed) = (Arc::clone(&self.bucket), self.listed.clone());
        let listing = async move {
            let mut out = DirectoryListing::default();
            for dir in &listed {
                list::all(&bucket, dir, &mut out).await?;
            }
            Ok(out.objects)
        };
        wait_for(self.runtime()?, self.url(), context, listing)
    }

    fn list_directory(&self, dir: &str, context: &RequestContext) -> Result<DirectoryListing, StorageError> {
        let (bucket, dir) = (Arc::clone(&self.bucket), dir.to_owned());
        let listing = async move {
            let mut out = DirectoryListing::default();
            list::all(&bucket, &dir, &mut out).await?;
            for object in &mut out.objects {
                object.name = object.name.strip_prefix(&*dir).unwrap_or(&object.name).into();
            }
            Ok(out)
        };
        wait_for(self.runtime()?, self.url(), context, listing)
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
        Ok(Box::new(S3Stream::open(Arc::clone(&self.bucket), handle, object.clone(), range, context.clone())?))
    }

    fn traffic(&self) -> Traffic {
        self.bucket.counters.get()
    }

    fn bucket(&self) -> Option<BucketLocation> {
        let config = &self.bucket.config;
        Some(BucketLocation {
            bucket: config.bucket().to_owned(),
            prefix: config.prefix().to_owned(),
            endpoint: config.service_url().map(str::to_owned),
            region: self.bucket.client().region.clone(),
        })
    }
}

impl Drop for S3Store {
    fn drop(&mut self) {
        // Does not wait: a request to an unreachable network would delay the unmount.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
