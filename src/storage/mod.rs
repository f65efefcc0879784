//! Rank 1: where the objects of a backup are kept. One object-safe trait; the stores below it know nothing of duplicity.

use std::io::Read;
use std::sync::Arc;

use crate::types::{ByteRange, Classified, ErrorClass};

/// What a listing tells of one object.
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
    pub cold: Option<Arc<str>>,
}

/// A place that holds the objects of a backup. Implementations are shared by many threads.
pub trait ObjectStore: Send + Sync + std::fmt::Debug {
    /// The store's URL without secrets, for log lines and the mount table.
    fn url(&self) -> &str;

    /// All objects at the repository's root, in no particular order. Foreign names are the caller's to ignore.
    ///
    /// # Errors
    /// [`StorageError`] when the store cannot be listed completely: never a partial list.
    fn list(&self) -> Result<Vec<ObjectInfo>, StorageError>;

    /// The bytes `range` of `object` as a stream, cut at the object's end.
    ///
    /// The stream ends (`Ok(0)`) only after every byte of the range was delivered: a body cut short is an error.
    /// Errors while reading are [`std::io::Error`]s that carry a [`StorageError`] (see [`StorageError::into_io`]).
    /// The object must still be in the state `object.version` names; a replaced object is an error.
    ///
    /// # Errors
    /// [`StorageError`] when the object cannot be opened.
    fn open(&self, object: &ObjectInfo, range: ByteRange) -> Result<Box<dyn Read + Send>, StorageError>;
}

/// A failure of a store: what was attempted on which object, and why it failed.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{object}: {reason}")]
pub struct StorageError {
    /// What it means.
    pub class: ErrorClass,
    /// The object's name, or the store's URL.
    pub object: Arc<str>,
    /// Why it failed and, where there is one, the remedy: one line.
    pub reason: Arc<str>,
}

impl StorageError {
    /// A failure of `class` on `object`.
    pub fn new(class: ErrorClass, object: &str, reason: impl AsRef<str>) -> Self {
        Self { class, object: object.into(), reason: reason.as_ref().into() }
    }

    /// Wraps the error for a `Read` implementation.
    pub fn into_io(self) -> std::io::Error {
        std::io::Error::other(self)
    }
}

impl Classified for StorageError {
    fn class(&self) -> ErrorClass {
        self.class
    }
}
