//! The index on disk as one request may use it.

use super::repository_index::RepositoryIndex;
use dupfs_cache::index::Identity;
use dupfs_format::SetIndex;

/// Loads and stores records of the content layer.
#[derive(Clone, Copy, Debug)]
pub struct RequestIndex<'a> {
    index: &'a RepositoryIndex,
    /// True if the request may read the disk.
    may_read_disk: bool,
}

impl<'a> RequestIndex<'a> {
    pub(super) fn new(index: &'a RepositoryIndex, may_read_disk: bool) -> Self {
        Self { index, may_read_disk }
    }

    /// Returns true if there is an index to store records in.
    pub fn is_enabled(&self) -> bool {
        self.index.on_disk().is_some()
    }

    /// Returns true if this request may load records.
    pub fn may_load(&self) -> bool {
        self.may_read_disk && self.is_enabled()
    }

    /// The identity of all objects of `set`.
    pub fn identity(&self, set: SetIndex) -> Option<Identity> {
        self.index.stored_identity(set)
    }

    /// The record of `key`; `None` also if this request may not load it.
    pub fn load(&self, key: Identity) -> Option<Vec<u8>> {
        self.index.on_disk().filter(|_| self.may_read_disk)?.load_record(key)
    }

    /// Stores a record that is valid as long as `set` exists.
    pub fn store(&self, key: Identity, set: SetIndex, record: Vec<u8>) {
        if let (Some(index), Some(group)) = (self.index.on_disk(), self.index.group(set)) {
            index.store_record(key, group, record);
        }
    }

    /// Stores the exact size of the file at `position` in the signature archive of `set`.
    pub fn store_size(&self, set: SetIndex, position: u32, size: u64) {
        if let Some(index) = self.index.on_disk()
            && let Some(key) = self.index.sizes_key(set)
            && let Some(group) = self.index.group(set)
        {
            index.store_number(key, group, position, size);
        }
    }
}
