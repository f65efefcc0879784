//! A store that wraps the streams of another store. Tests delay, stop and count reads with it.

use std::fmt;
use std::io::Read;

use super::{BucketLocation, ObjectInfo, ObjectStore, RejectedCopy, StorageError, Traffic};
use dupfs_base::{ByteRange, RequestContext, Secret};

/// A stream of a store.
type ObjectStream = Box<dyn Read + Send>;

/// A store whose streams are wrapped.
pub struct WrappingStore<S, W> {
    inner: S,
    wrap: W,
}

impl<S: ObjectStore, W: Fn(&ObjectInfo, ObjectStream) -> ObjectStream + Send + Sync> WrappingStore<S, W> {
    /// `inner`, whose opened streams are passed through `wrap`.
    pub fn new(inner: S, wrap: W) -> Self {
        Self { inner, wrap }
    }
}

impl<S: fmt::Debug, W> fmt::Debug for WrappingStore<S, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WrappingStore").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl<S: ObjectStore, W: Fn(&ObjectInfo, ObjectStream) -> ObjectStream + Send + Sync> ObjectStore
    for WrappingStore<S, W>
{
    fn traffic(&self) -> Traffic {
        self.inner.traffic()
    }

    fn reject_copy(&self, object: &ObjectInfo, is_damaged: bool) -> Option<RejectedCopy> {
        self.inner.reject_copy(object, is_damaged)
    }

    fn bucket(&self) -> Option<BucketLocation> {
        self.inner.bucket()
    }

    fn url(&self) -> &str {
        self.inner.url()
    }

    fn url_with_secrets(&self) -> Option<Secret> {
        self.inner.url_with_secrets()
    }

    fn list(&self, context: &RequestContext) -> Result<Vec<ObjectInfo>, StorageError> {
        self.inner.list(context)
    }

    fn open(
        &self,
        object: &ObjectInfo,
        range: ByteRange,
        context: &RequestContext,
    ) -> Result<Box<dyn Read + Send>, StorageError> {
        Ok((self.wrap)(object, self.inner.open(object, range, context)?))
    }
}
