//! The interface of stores.

use std::io::Read;
use std::sync::Arc;

use super::bucket_location::BucketLocation;
use super::storage_error::StorageError;
use super::traffic::Traffic;
use dupfs_base::{ByteRange, RequestContext, Secret};
use dupfs_format::ObjectInfo;

/// The content of one directory of a store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DirectoryListing {
    /// The objects in it.
    pub objects: Vec<ObjectInfo>,
    /// The names of the directories in it.
    pub directories: Vec<String>,
}

/// A copy of an object that a reader has rejected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RejectedCopy {
    /// The URL of the store with the copy, without secrets.
    pub store: String,
    /// The object, to be read from its other copies only. `None` if this was the last one.
    pub other: Option<ObjectInfo>,
}

/// A store of the objects of a backup. Implementations are shared by many threads.
pub trait ObjectStore: Send + Sync + std::fmt::Debug {
    /// The store's URL without secrets, for log lines and the mount table.
    fn url(&self) -> &str;

    /// A text that identifies the place, if its URL without secrets leaves out a part of it: several places have the same URL
    /// then. A store that wraps another one passes it on.
    fn url_with_secrets(&self) -> Option<Secret> {
        None
    }

    /// All objects at the root of the repository, in no particular order. The caller ignores foreign names.
    ///
    /// # Errors
    /// [`StorageError`] if the store cannot be listed completely: the list is never partial. The kind is Timeout or Cancelled if
    /// the request ends first.
    fn list(&self, context: &RequestContext) -> Result<Vec<ObjectInfo>, StorageError>;

    /// The objects and directories directly in `dir`, which is empty or ends with a slash. The names of the objects do not
    /// have `dir` in front. Used to find a backup that is not where it was expected.
    ///
    /// # Errors
    /// As [`Self::list`].
    fn list_directory(&self, dir: &str, context: &RequestContext) -> Result<DirectoryListing, StorageError> {
        let objects = if dir.is_empty() { self.list(context)? } else { Vec::new() };
        Ok(DirectoryListing { objects, directories: Vec::new() })
    }

    /// The bytes `range` of `object` as a stream. The range is cut at the end of the object.
    ///
    /// The stream ends (`Ok(0)`) only after every byte of the range was delivered: a body that is cut short is an error. The
    /// errors of reads are [`std::io::Error`]s that carry a [`StorageError`] (see [`StorageError::into_io`]). The object must
    /// still be in the state that `object.version` names: a replaced object is an error. The stream keeps to the limits of
    /// `context`: a read fails with the kind Timeout or Cancelled when the request ends.
    ///
    /// # Errors
    /// [`StorageError`] if the object cannot be opened.
    fn open(
        &self,
        object: &ObjectInfo,
        range: ByteRange,
        context: &RequestContext,
    ) -> Result<Box<dyn Read + Send>, StorageError>;

    /// Rejects the copy from which `object` was read last. The other copies are read by the object that is returned, which a reader
    /// may reject in turn: so it reads each copy once. If the copy `is_damaged`, other readers do not read it either while
    /// there is another one. `None` if the store has one copy of each object.
    fn reject_copy(&self, _object: &ObjectInfo, _is_damaged: bool) -> Option<RejectedCopy> {
        None
    }

    /// The requests and bytes so far; zero for stores that do not count. Without a default, so that no store that wraps another
    /// one forgets it.
    fn traffic(&self) -> Traffic;

    /// The bucket with the objects, if they are in one. Without a default, as [`ObjectStore::traffic`].
    fn bucket(&self) -> Option<BucketLocation>;
}

impl<T: ObjectStore + ?Sized> ObjectStore for Arc<T> {
    fn url(&self) -> &str {
        (**self).url()
    }

    fn url_with_secrets(&self) -> Option<Secret> {
        (**self).url_with_secrets()
    }

    fn list(&self, context: &RequestContext) -> Result<Vec<ObjectInfo>, StorageError> {
        (**self).list(context)
    }

    fn list_directory(&self, dir: &str, context: &RequestContext) -> Result<DirectoryListing, StorageError> {
        (**self).list_directory(dir, context)
    }

    fn open(
        &self,
        object: &ObjectInfo,
        range: ByteRange,
        context: &RequestContext,
    ) -> Result<Box<dyn Read + Send>, StorageError> {
        (**self).open(object, range, context)
    }

    fn reject_copy(&self, object: &ObjectInfo, is_damaged: bool) -> Option<RejectedCopy> {
        (**self).reject_copy(object, is_damaged)
    }

    fn traffic(&self) -> Traffic {
        (**self).traffic()
    }

    fn bucket(&self) -> Option<BucketLocation> {
        (**self).bucket()
    }
}
