//! Trees in the index: recalled when a branch is first looked into, kept once it was read, and what was learnt of sizes.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;

use super::ids::{NodeId, VersionId, list_index};
use super::table_codec;
use super::version_table::VersionTable;
use crate::meta_encoding::{decode_meta, encode_meta};
use crate::volume::Repository;
use dupfs_base::sync::lock;
use dupfs_cache::index::encoding::{RecordDecoder, RecordEncoder};
use dupfs_cache::index::{Identity, Index, IndexFileKind};
use dupfs_format::{EntryMeta, SetIndex};

/// Keeps a branch's tree.
#[derive(Debug, Default)]
pub(super) struct TreeSaver {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Sets of the tree that is in the index.
    kept: u32,
    saving: Option<JoinHandle<()>>,
    /// How to save what was loaded since.
    work: Option<Work>,
}

#[derive(Clone, Debug)]
struct Work {
    index: Arc<Index>,
    table: Arc<RwLock<VersionTable>>,
    /// Of the first sets of the branch, one more each.
    chain: Arc<[Identity]>,
    roots: Arc<[Identity]>,
    groups: Arc<[u64]>,
    /// Of all trees that there may be.
    live: Arc<HashSet<Identity>>,
}

/// The identities of the trees of the first 1, 2, ... of `sets`, as far as all have signature archives.
fn chain_of(repository: &Repository, sets: &[SetIndex]) -> Vec<Identity> {
    let mut chain: Vec<Identity> = Vec::new();
    for &set in sets {
        let Some(own) = repository.index().tree_identity(set) else { break };
        chain.push(chain.last().map_or_else(|| Identity::of(&[b"tree", &own.0]), |last| last.with(&[&own.0])));
    }
    chain
}

impl TreeSaver {
    /// The tree of the first sets of the branch, as many as the index has; nothing if the table is not `empty`. To be called
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
        lock(&self.state).kept = found.depth();
        log::debug!("the index has the tree of {} sets, {} paths", found.depth(), found.len());
        Some(found)
    }

    /// Takes note that sets were loaded into `table`. The tree of a whole branch is saved at once, in the background.
    pub(super) fn note_loaded(&self, repository: &Repository, sets: &[SetIndex], table: &Arc<RwLock<VersionTable>>) {
        let Some(index) = repository.index().on_disk() else { return };
        let depth = read(table).depth();
        let mut state = lock(&self.state);
        if depth <= state.kept {
            return;
        }
        let collection = repository.collection();
        let live = collection.branches().iter().flat_map(|sets| chain_of(repository, sets)).collect();
        let own = |set: &SetIndex| repository.index().tree_identity(*set);
        let work = Work {
            index: Arc::clone(index),
            table: Arc::clone(table),
            chain: chain_of(repository, sets).into(),
            roots: sets.iter().map_while(own).map(root_key).collect(),
            groups: sets.iter().map(|&set| repository.index().group(set)).collect(),
            live: Arc::new(live),
        };
        state.work = Some(work.clone());
        if list_index(depth) == sets.len() && state.saving.is_none() {
            let saving = std::thread::Builder::new().name("dupfs-index".into()).spawn(move || work.save());
            if let Ok(saving) = saving {
                state.kept = depth;
                state.saving = Some(saving);
            }
        }
    }

    /// Saves what was not saved yet, and waits for what is being saved.
    pub(super) fn finish(&self) {
        let (saving, work) = {
            let mut state = lock(&self.state);
            (state.saving.take(), state.work.take())
        };
        if saving.is_some_and(|saving| saving.join().is_err()) {
            log::debug!("saving a tree ended early");
        }
        let Some(work) = work else { return };
        let depth = read(&work.table).depth();
        if depth > lock(&self.state).kept {
            work.save();
            lock(&self.state).kept = depth;
        }
    }
}

impl Work {
    fn save(&self) {
        let (depth, whole) = {
            let table = read(&self.table);
            (table.depth(), !table.has_uncertainty())
        };
        let Some(identity) = list_index(depth).checked_sub(1).and_then(|last| self.chain.get(last)).filter(|_| whole)
        else {
            return;
        };
        if !self.index.store_file(IndexFileKind::Tree, *identity, &mut |out| table_codec::encode(&self.table, out)) {
            return;
        }
        let replaced = self.chain.iter().take(list_index(depth).saturating_sub(1)).copied().collect();
        self.index.remove_outdated_files(IndexFileKind::Tree, &replaced, &self.live);
        for ((position, key), group) in (0..depth).zip(self.roots.iter()).zip(self.groups.iter()) {
            let record = root_record(&read(&self.table), position);
            if self.index.load_record(*key).as_ref() != Some(&record) {
                self.index.store_record(*key, *group, record);
            }
        }
    }
}

/// Enters the sizes that were learnt of the sets at `positions`.
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

/// What the set at `position` says of the root.
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

/// The root's metadata in `set` if the index knows it; the inner is `None` if the set does not name the root.
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
