//! Member tables in memory.

use std::sync::{Arc, Mutex};

use super::member_table::MemberTable;
use dupfs_base::sync::lock;
use dupfs_cache::ByteLru;
use dupfs_format::VolumeId;

/// The member tables used last, up to a number of bytes.
#[derive(Debug)]
pub(super) struct MemberTableCache {
    tables: Mutex<ByteLru<VolumeId, Arc<MemberTable>>>,
    /// The last table that is larger than the whole of `tables`. Without it, each lookup in a volume of very many small files
    /// would decode the volume.
    oversized: Mutex<Option<(VolumeId, Arc<MemberTable>)>>,
}

impl MemberTableCache {
    /// A cache of at most `max_bytes`, and one larger table.
    pub(super) fn new(max_bytes: u64) -> Self {
        Self { tables: Mutex::new(ByteLru::new(max_bytes)), oversized: Mutex::default() }
    }

    /// The table of volume `id`, if it is cached.
    pub(super) fn get(&self, id: VolumeId) -> Option<Arc<MemberTable>> {
        let cached = lock(&self.tables).get(&id).cloned();
        cached
            .or_else(|| lock(&self.oversized).as_ref().filter(|(of, _)| *of == id).map(|(_, table)| Arc::clone(table)))
    }

    /// Adds the table of volume `id`.
    pub(super) fn insert(&self, id: VolumeId, table: &Arc<MemberTable>) {
        let mut tables = lock(&self.tables);
        let evicted = tables.insert(id, Arc::clone(table), table.weight());
        let fits = tables.peek(&id).is_some();
        drop(tables);
        if !fits {
            *lock(&self.oversized) = Some((id, Arc::clone(table)));
        }
        // Tables are large: they are freed without the lock.
        drop(evicted);
    }

    /// Returns true if no table is cached.
    pub(super) fn is_empty(&self) -> bool {
        lock(&self.tables).is_empty() && lock(&self.oversized).is_none()
    }
}
