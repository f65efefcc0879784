//! Rank 1: where the objects of a backup are kept. One object-safe trait; the stores below it know nothing of duplicity.

mod counting;
mod errors;
mod faulty;
mod local;
mod memory;
mod options;
#[cfg(feature = "s3")]
mod s3;
mod traffic;
mod url;

use std::io::Read;
use std::sync::Arc;

pub use dupfs_format::ObjectInfo;

pub use counting::{CountingStore, ReadCount};
pub use faulty::{Effect, Fault, FaultyStore, Nth, Target};
pub use local::LocalStore;
pub use memory::MemoryStore;
pub use options::{S3Addressing, S3Credentials, StoreOptions, open};
#[cfg(feature = "s3")]
pub use s3::S3Store;
pub use traffic::Traffic;
pub use url::{Location, S3Location, S3UrlStyle, UrlOptions, parse_url, parse_url_with};

use dupfs_base::{ByteRange, ErrorKind, HasKind, RequestContext};

/// A place that holds the objects of a backup. Implementations are shared by many threads.
pub trait ObjectStore: Send + Sync + std::fmt::Debug {
    /// The store's URL without secrets, for log lines and the mount table.
    fn url(&self) -> &str;

    /// All objects at the repository's root, in no particular order. Foreign names are the caller's to ignore.
    ///
    /// # Errors
    /// [`StorageError`] when the store cannot be listed completely: never a partial list. Of kind Timeout or Cancelled when
    /// `context` ends first.
    fn list(&self, context: &RequestContext) -> Result<Vec<ObjectInfo>, StorageError>;

    /// The bytes `range` of `object` as a stream, cut at the object's end.
    ///
    /// The stream ends (`Ok(0)`) only after every byte of the range was delivered: a body cut short is an error.
    /// Errors while reading are [`std::io::Error`]s that carry a [`StorageError`] (see [`StorageError::into_io`]).
    /// The object must still be in the state `object.version` names; a replaced object is an error. The stream keeps to the
    /// limits of `context`: a read fails with kind Timeout or Cancelled when it ends.
    ///
    /// # Errors
    /// [`StorageError`] when the object cannot be opened.
    fn open(
        &self,
        object: &ObjectInfo,
        range: ByteRange,
        context: &RequestContext,
    ) -> Result<Box<dyn Read + Send>, StorageError>;

    /// What was asked of the store so far; nothing for stores that do not count.
    fn traffic(&self) -> Traffic {
        Traffic::default()
    }
}

/// A failure of a store: what was attempted on which object, and why it failed.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{object}: {reason}")]
pub struct StorageError {
    /// What it means.
    pub kind: ErrorKind,
    /// The object's name, or the store's URL.
    pub object: Arc<str>,
    /// Why it failed and, where there is one, the remedy: one line.
    pub reason: Arc<str>,
}

impl StorageError {
    /// A failure of `kind` on `object`.
    pub fn new(kind: ErrorKind, object: &str, reason: impl AsRef<str>) -> Self {
        Self { kind, object: object.into(), reason: reason.as_ref().into() }
    }

    /// Wraps the error for a `Read` implementation.
    pub fn into_io(self) -> std::io::Error {
        std::io::Error::other(self)
    }
}

impl HasKind for StorageError {
    fn kind(&self) -> ErrorKind {
        self.kind
    }
}

/// The store is shared: many layers hold it.
impl<T: ObjectStore + ?Sized> ObjectStore for Arc<T> {
    fn url(&self) -> &str {
        (**self).url()
    }

    fn list(&self, context: &RequestContext) -> Result<Vec<ObjectInfo>, StorageError> {
        (**self).list(context)
    }

    fn open(
        &self,
        object: &ObjectInfo,
        range: ByteRange,
        context: &RequestContext,
    ) -> Result<Box<dyn Read + Send>, StorageError> {
        (**self).open(object, range, context)
    }

    fn traffic(&self) -> Traffic {
        (**self).traffic()
    }
}

/// The directories that have to be listed for objects with these file prefixes: the root (empty), and what the prefixes
/// name up to their last `/`, with that slash. duplicity's `--file-prefix` may hold slashes.
fn listed_dirs<S: AsRef<str>>(prefixes: &[S]) -> Result<Vec<String>, StorageError> {
    let mut dirs = vec![String::new()];
    for prefix in prefixes.iter().map(AsRef::as_ref) {
        let Some((dir, _)) = prefix.rsplit_once('/') else { continue };
        if dir.split('/').any(|part| matches!(part, "" | "." | "..")) {
            let reason = "the file prefix leads out of the backup's place or has empty parts";
            return Err(StorageError::new(ErrorKind::Invalid, prefix, reason));
        }
        let dir = format!("{dir}/");
        if !dirs.contains(&dir) {
            dirs.push(dir);
        }
    }
    Ok(dirs)
}
