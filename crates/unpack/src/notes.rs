//! Where what was learnt is kept: sizes, seek points and tables of members.

use std::fmt::Debug;
use std::sync::{Arc, Mutex};

use dupfs_base::sync::lock;
use dupfs_cache::ByteLru;
use dupfs_cache::index::{Identity, Index};

/// Keeps what was learnt, by key; the same key has the same value for good. It holds names and places, never content, so it
/// may go to the disk as trees do. What comes back is not trusted: it is decoded
/// within bounds, and what does not decode is learnt anew.
pub trait Notes: Send + Sync + Debug {
    /// What was put under `key`, if it is still there.
    fn get(&self, key: &[u8]) -> Option<Vec<u8>>;

    /// Keeps `value` under `key`, if there is room. Failing to is nobody's error.
    fn put(&self, key: &[u8], value: &[u8]);
}

/// Longer notes are not kept on disk.
const MOST_KEPT: usize = 16 << 20;

/// Notes in the index on disk. A key begins with the eight bytes of the group that its record goes with.
#[derive(Debug)]
pub struct IndexNotes(pub Arc<Index>);

impl Notes for IndexNotes {
    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.0.get(identity_of(key))
    }

    fn put(&self, key: &[u8], value: &[u8]) {
        if let Some(group) = key.first_chunk().filter(|_| value.len() <= MOST_KEPT) {
            self.0.put(identity_of(key), u64::from_le_bytes(*group), value.to_vec());
        }
    }
}

fn identity_of(key: &[u8]) -> Identity {
    Identity::of(&[b"unpacked", key])
}

type NotesByKey = ByteLru<Box<[u8]>, Box<[u8]>>;

/// Notes in memory, the least recently used forgotten first.
#[derive(Debug)]
pub struct MemoryNotes {
    notes: Mutex<NotesByKey>,
}

impl MemoryNotes {
    /// Room for `bytes`.
    pub fn new(bytes: u64) -> Self {
        Self { notes: Mutex::new(ByteLru::new(bytes)) }
    }
}

impl Notes for MemoryNotes {
    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        lock(&self.notes).get(&Box::from(key)).map(|value| value.to_vec())
    }

    fn put(&self, key: &[u8], value: &[u8]) {
        let weight = key.len().saturating_add(value.len()) as u64;
        let evicted = lock(&self.notes).insert(key.into(), value.into(), weight);
        drop(evicted);
    }
}
