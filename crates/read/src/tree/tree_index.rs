//! Trees in the index: loaded when a branch is first used, saved once it was read; and exact sizes of files.

use std::collections::HashSet;
use std::io::Write;
use std::sync::{Arc, PoisonError, RwLock};

use super::ids::{NodeId, VersionId, list_index};
use super::table_codec;
use super::version_table::VersionTable;
use crate::meta_encoding::{decode_meta, encode_meta};
use crate::volume::Repository;
use dupfs_base::RequestContext;
use dupfs_base::sync::Monitor;
use dupfs_cache::index::encoding::{RecordDecoder, RecordEncoder};
use dupfs_cache::index::{Identity, Index, IndexFileKind};
use dupfs_format::{EntryMeta, SetIndex};

/// Saves the tree of a branch in the index: in the background whenever all sets of the branch are loaded, otherwise when the
/// branch is closed. A tree is not written while sets are still loaded one by one.
#[derive(Debug)]
pub(super) struct TreeSaver {
    state: Arc<Monitor<TreeSaverState>>,
}

#[derive(Debug, Default)]
struct TreeSaverState {
    /// Sets of the tree that is in the index.
    saved: u32,
    /// True while a thread saves.
    is_saving: bool,
    /// The tree that the thread saves next.
    due: Option<SaveJob>,
    /// The tree that is saved when the branch is closed.
    deferred: Option<SaveJob>,
}

/// A tree to save.
#[derive(Clone, Debug)]
struct SaveJob {
    index: Arc<Index>,
    table: Arc<RwLock<VersionTable>>,
    /// Number of its sets.
    depth: u32,
    /// Of the first sets of the branch, one more each.
    chain: Arc<[Identity]>,
    roots: Arc<[Identity]>,
    groups: Arc<[u64]>,
    /// The identities of all possible trees.
    live: Arc<HashSet<Identity>>,
}

/// The identities of the trees of the first 1, 2, ... of `sets`, as far as all have signature archives.
fn chain_of(repository: &Repository, sets: &[SetIndex]) -> Vec<Identity> {
    let mut chain: Vec<Identity> = Vec::new();
    for &set in sets {
        let Some(own) = repository.index().tree_identity(set) else { break };
        chain.push(chain.last().map_or_else(|| Identity::of(&[b"bound tree", &own.0]), |last| last.with(&[&own.0])));
    }
    chain
}

impl Default for TreeSaver {
    fn default() -> Self {
        Self { state: Monitor::new(TreeSaverState::default()) }
    }
}

impl TreeSaver {
    /// The tree of the first sets of the branch, as many as the index has; `None` if the table is not `empty`. To be called
    /// before sets are loaded: from then on their identities are those of the objects that were listed until now.
    pub(super) fn load(&self, repository: &Repository, sets: &[SetIndex], empty: bool) -> Option<VersionTable> {
        let index = repository.index().on_disk()?;
        let chain = chain_of(repository, sets);
        if !empty {
            return None;
        }
        let found = chain.iter().enumerate().rev().find_map(|(shallower, identity)| {
            index.load_file(IndexFileKind::Tree, *identity, &mut |body, len| {
                table_codec::decode(body, len).filter(|table| list_index(table.depth()) == shallower.saturating_add(1))
            })
        })?;
        self.state.update(|state| state.saved = found.depth());
        log::debug!("the index has the tree of {} sets, {} paths", found.depth(), found.len());
        Some(found)
    }

    /// Records that sets were loaded into `table`. The tree of a whole branch is saved at once, in the background.
    pub(super) fn record_loaded(&self, repository: &Repository, sets: &[SetIndex], table: &Arc<RwLock<VersionTable>>) {
        let Some(index) = repository.index().on_disk() else { return };
        let depth = read(table).depth();
        if depth <= self.state.lock().saved {
            return;
        }
        let collection = repository.collection();
        let live = collection.branches().iter().flat_map(|sets| chain_of(repository, sets)).collect();
        let own = |set: &SetIndex| repository.index().tree_identity(*set);
        let job = SaveJob {
            index: Arc::clone(index),
            table: Arc::clone(table),
            depth,
            chain: chain_of(repository, sets).into(),
            roots: sets.iter().map_while(own).map(root_key).collect(),
            groups: sets.iter().map_while(|&set| repository.index().group(set)).collect(),
            live: Arc::new(live),
        };
        if list_index(depth) == sets.len() {
            self.save_in_background(job);
        } else {
            self.state.update(|state| state.deferred = Some(job));
        }
    }

    /// Saves `job` on a thread, after the save that may be in progress.
    fn save_in_background(&self, job: SaveJob) {
        let is_saving = self.state.update(|state| {
            state.deferred = None;
            state.due = Some(job);
            std::mem::replace(&mut state.is_saving, true)
        });
        if is_saving {
            return;
        }
        let thread = SaverThread { state: Arc::clone(&self.state), is_done: false };
        // Without a thread it is saved when the branch is closed.
        let _ = std::thread::Builder::new().name("dupfs-index".into()).spawn(move || thread.run());
    }

    /// Saves the tree as it is now, if it is not in the index, and waits for a save in progress.
    pub(super) fn finish(&self) {
        let idle = |state: &mut TreeSaverState| {
            // A deferred tree is newer than one that is due without a thread to save it.
            let (deferred, due) = (&mut state.deferred, &mut state.due);
            (!state.is_saving).then(|| deferred.take().or(due.take()))
        };
        // Without a limit, and the thread always ends: there is no error.
        let Ok(Some(job)) = self.state.wait_until(&RequestContext::unlimited(), idle) else { return };
        if job.depth > self.state.lock().saved && job.save() {
            self.state.update(|state| state.saved = job.depth);
        }
    }
}

/// The thread that saves trees until none is due.
struct SaverThread {
    state: Arc<Monitor<TreeSaverState>>,
    /// True when nothing is being saved.
    is_done: bool,
}

impl SaverThread {
    fn run(mut self) {
        let next = |state: &mut TreeSaverState| {
            state.is_saving = state.due.is_some();
            state.due.take()
        };
        while let Some(job) = self.state.update(next) {
            if job.save() {
                self.state.update(|state| state.saved = job.depth);
            }
        }
        self.is_done = true;
    }
}

impl Drop for SaverThread {
    /// Of a thread that panicked or could not be started: nothing is being saved.
    fn drop(&mut self) {
        if !self.is_done {
            self.state.update(|state| state.is_saving = false);
        }
    }
}

impl SaveJob {
    /// Writes the tree; false if it is not whole or cannot be written.
    fn save(&self) -> bool {
        let last = list_index(self.depth).checked_sub(1);
        let Some(identity) = last.and_then(|last| self.chain.get(last)) else { return false };
        if read(&self.table).has_uncertainty() {
            return false;
        }
        let mut fill = |out: &mut dyn Write| table_codec::encode(&self.table, self.depth, out);
        if !self.index.store_file(IndexFileKind::Tree, *identity, &mut fill) {
            return false;
        }
        let replaced = self.chain.iter().take(list_index(self.depth).saturating_sub(1)).copied().collect();
        self.index.remove_outdated_files(IndexFileKind::Tree, &replaced, &self.live);
        for ((position, key), group) in (0..self.depth).zip(self.roots.iter()).zip(self.groups.iter()) {
            let record = root_record(&read(&self.table), position);
            if self.index.load_record(*key).as_ref() != Some(&record) {
                self.index.store_record(*key, *group, record);
            }
        }
        true
    }
}

/// Enters the exact sizes that the index has of the sets at `positions`.
pub(super) fn load_exact_sizes(
    repository: &Repository,
    sets: &[SetIndex],
    table: &RwLock<VersionTable>,
    positions: std::ops::Range<u32>,
) {
    let Some(index) = repository.index().on_disk() else { return };
    for position in positions {
        let key = sets.get(list_index(position)).and_then(|&set| repository.index().sizes_key(set));
        let range = read(table).versions_of(position);
        let (Some(key), Ok(len)) = (key.filter(|_| !read(table).lost.is_rebuilt(position)), u32::try_from(range.len()))
        else {
            continue;
        };
        let mut known = Vec::new();
        index.load_numbers(key, len, &mut |at, size| known.push((at, size)));
        let table = read(table);
        for (at, size) in known {
            let version = u32::try_from(range.start).ok().and_then(|start| start.checked_add(at)).map(VersionId);
            let Some(version) = version.filter(|_| at < len) else { continue };
            if table.bounds(version).is_none_or(|bounds| bounds.contains(size)) {
                table.set_exact_size(version, size);
            }
        }
    }
}

fn read(table: &RwLock<VersionTable>) -> std::sync::RwLockReadGuard<'_, VersionTable> {
    table.read().unwrap_or_else(PoisonError::into_inner)
}

fn root_key(set: Identity) -> Identity {
    set.with(&[b"root"])
}

/// The record of the root in the set at `position`.
fn root_record(table: &VersionTable, position: u32) -> Vec<u8> {
    let version = table.version(NodeId::ROOT, position.saturating_add(1));
    let own = version.filter(|&version| table.position(version) == Some(position));
    let mut encoder = RecordEncoder::default();
    match own.and_then(|version| table.meta(version)) {
        None => encoder.byte(0),
        Some(meta) => {
            encoder.byte(1);
            encode_meta(&mut encoder, &meta);
        }
    }
    encoder.out
}

/// The root's metadata in `set` if the index has it; the inner is `None` if the set does not name the root.
pub(super) fn load_root(repository: &Repository, set: SetIndex) -> Option<Option<EntryMeta>> {
    let record = repository.index().on_disk()?.load_record(root_key(repository.index().tree_identity(set)?))?;
    let mut decoder = RecordDecoder::new(&record);
    let root = match decoder.byte()? {
        0 => None,
        1 => Some(decode_meta(&mut decoder)?),
        _ => return None,
    };
    decoder.is_at_end().then_some(root)
}
