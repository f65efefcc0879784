//! A store in memory, for tests.

use std::collections::BTreeMap;
use std::io::{Cursor, Read};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::{BucketLocation, ObjectInfo, ObjectStore, StorageError, Traffic};
use dupfs_base::sync::lock;
use dupfs_base::{ByteRange, RequestContext};

/// A map from names to bytes. Each `put` makes a new version.
#[derive(Debug, Default)]
pub struct MemoryStore {
    objects: Mutex<BTreeMap<Arc<str>, MemoryObject>>,
    versions: AtomicU64,
}

#[derive(Debug, Clone)]
struct MemoryObject {
    bytes: Arc<[u8]>,
    version: Arc<str>,
    archived: Option<Arc<str>>,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// Stores `bytes` as `name`; replaces an earlier object.
    pub fn put(&self, name: &str, bytes: impl Into<Arc<[u8]>>) {
        self.store(name, bytes.into(), None);
    }

    /// As [`MemoryStore::put`], in the archive storage class `class`: the object is listed but cannot be read.
    pub fn put_archived(&self, name: &str, bytes: impl Into<Arc<[u8]>>, class: &str) {
        self.store(name, bytes.into(), Some(class.into()));
    }

    /// Removes `name` if it is there.
    pub fn remove(&self, name: &str) {
        lock(&self.objects).remove(name);
    }

    /// The bytes stored as `name`.
    pub fn bytes(&self, name: &str) -> Option<Arc<[u8]>> {
        lock(&self.objects).get(name).map(|stored| Arc::clone(&stored.bytes))
    }

    fn store(&self, name: &str, bytes: Arc<[u8]>, archived: Option<Arc<str>>) {
        let version = self.versions.fetch_add(1, Ordering::Relaxed).to_string().into();
        lock(&self.objects).insert(name.into(), MemoryObject { bytes, version, archived });
    }
}

impl ObjectStore for MemoryStore {
    fn traffic(&self) -> Traffic {
        Traffic::default()
    }

    fn bucket(&self) -> Option<BucketLocation> {
        None
    }

    fn url(&self) -> &str {
        "memory:"
    }

    fn list(&self, _: &RequestContext) -> Result<Vec<ObjectInfo>, StorageError> {
        let objects = lock(&self.objects);
        let info = |(name, stored): (&Arc<str>, &MemoryObject)| ObjectInfo {
            name: Arc::clone(name),
            size: stored.bytes.len() as u64,
            version: Arc::clone(&stored.version),
            class: stored.archived.clone(),
            archived: stored.archived.clone(),
        };
        Ok(objects.iter().map(info).collect())
    }

    fn open(
        &self,
        object: &ObjectInfo,
        range: ByteRange,
        _: &RequestContext,
    ) -> Result<Box<dyn Read + Send>, StorageError> {
        let stored = lock(&self.objects).get(&object.name).cloned().ok_or_else(|| StorageError::missing(object))?;
        if stored.version != object.version {
            return Err(StorageError::replaced(object));
        }
        if let Some(class) = &stored.archived {
            return Err(StorageError::archived(object, class));
        }
        let mut cursor = Cursor::new(stored.bytes);
        cursor.set_position(range.start);
        Ok(Box::new(cursor.take(range.len())))
    }
}
