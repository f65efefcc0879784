//! The interface of stores.

use std::io::Read;
use std::sync::Arc;

use super::storage_error::StorageError;
use super::traffic::Traffic;
use dupfs_base::{ByteRange, RequestContext};
use dupfs_format::ObjectInfo;

/// A store of the objects of a backup. Implementations are shared by many threads.
pub trait ObjectStore: Send + Sync + std::fmt::Debug {
    /// The store's URL without secrets, for log lines and the mount table.
    fn url(&self) -> &str;

    /// All objects at the root of the repository, in no particular order. The caller ignores foreign names.
    ///
    /// # Errors
    /// [`StorageError`] if the store cannot be listed completely: the list is never partial. The kind is Timeout or Cancelled if
    /// the request ends first.
    fn list(&self, context: &RequestContext) -> Result<Vec<ObjectInfo>, StorageError>;

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

    /// The requests and bytes so far; zero for stores that do not count.
    fn traffic(&self) -> Traffic {
        Traffic::default()
    }
}

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
