//! The objects of a store, as a listing describes them.

use std::sync::Arc;

/// One object of a store, as a listing describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectInfo {
    /// The object's name relative to the repository's root, raw as the store has it. Local names that are not UTF-8
    /// cannot be duplicity's and are not listed.
    pub name: Arc<str>,
    /// Size in bytes.
    pub size: u64,
    /// What identifies this very state of the object (an ETag; for files: inode, size and times), so that a replaced
    /// object is an error and not a mixture.
    pub version: Arc<str>,
    /// Whether the object must be restored from cold storage before it can be read; the storage class's name if so.
    pub archived: Option<Arc<str>>,
}
