//! Stores of stream lengths and seek points.

use std::fmt::Debug;
use std::sync::{Arc, Mutex};

use dupfs_base::sync::lock;
use dupfs_cache::ByteLru;
use dupfs_cache::index::{Identity, Index};

/// Stores lengths and seek points of streams by key; the value of a key never changes.
///
/// A value may be written to the disk unencrypted. It contains numbers only: lengths, offsets and checksums, never content, and
/// no name of anything inside an archive. A loaded value is untrusted: it is decoded within bounds, and one that does not
/// decode counts as absent.
pub trait PointStore: Send + Sync + Debug {
    /// Returns the value of `key`, if it is still there.
    fn load(&self, key: &[u8]) -> Option<Vec<u8>>;

    /// Stores `value` under `key`, if there is room.
    fn store(&self, key: &[u8], value: &[u8]);
}

/// Upper bound of a value in the index on disk, in bytes.
const MAX_VALUE: usize = 16 << 20;

/// Persists seek points in the index on disk. A key begins with the eight bytes of the group that its record goes with.
#[derive(Debug)]
pub struct IndexPointStore(pub Arc<Index>);

impl PointStore for IndexPointStore {
    fn load(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.0.load_record(identity_of(key))
    }

    fn store(&self, key: &[u8], value: &[u8]) {
        if let Some(group) = key.first_chunk().filter(|_| value.len() <= MAX_VALUE) {
            self.0.store_record(identity_of(key), u64::from_le_bytes(*group), value.to_vec());
        }
    }
}

fn identity_of(key: &[u8]) -> Identity {
    Identity::of(&[b"unpacked", key])
}

type ValuesByKey = ByteLru<Box<[u8]>, Box<[u8]>>;

/// Stores seek points in memory and evicts the least recently used.
#[derive(Debug)]
pub struct MemoryPointStore {
    values: Mutex<ValuesByKey>,
}

impl MemoryPointStore {
    /// Returns an empty store with room for `bytes`.
    pub fn new(bytes: u64) -> Self {
        Self { values: Mutex::new(ByteLru::new(bytes)) }
    }
}

impl PointStore for MemoryPointStore {
    fn load(&self, key: &[u8]) -> Option<Vec<u8>> {
        lock(&self.values).get(&Box::from(key)).map(|value| value.to_vec())
    }

    fn store(&self, key: &[u8], value: &[u8]) {
        let weight = key.len().saturating_add(value.len()) as u64;
        let evicted = lock(&self.values).insert(key.into(), value.into(), weight);
        drop(evicted);
    }
}
