//! One object of a store.

use std::sync::Arc;

/// One object of a store, as a listing describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectInfo {
    /// The object's name relative to the root of the repository, unchanged. Names that are not UTF-8 are never
    /// duplicity's and must not be listed.
    pub name: Arc<str>,
    /// Size in bytes.
    pub size: u64,
    /// An identifier of this state of the object: an ETag, or the inode, size and times of a file. A replaced object
    /// has another one.
    pub version: Arc<str>,
    /// The name of its storage class, if the store has such and names it.
    pub class: Option<Arc<str>>,
    /// The name of the storage class if the object is archived: it must be restored before it can be read.
    pub archived: Option<Arc<str>>,
}
