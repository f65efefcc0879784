//! Loads the trees of snapshots.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::error::FsError;
use super::snapshot_tree::SnapshotTree;
use super::snapshot_view::SnapshotView;
use dupfs_base::sync::lock;
use dupfs_base::{ErrorKind, HasKind, RequestContext};
use dupfs_format::{EntryKind, EntryMeta, SetIndex};
use dupfs_read::tree::{Branch, Branches, peek_root};
use dupfs_read::volume::Repository;

/// Archives whose beginnings are fetched for the roots of the snapshots that are listed next, and how many of them at a time.
const MAX_PEEKS: usize = 64;
const MAX_CONCURRENT_PEEKS: usize = 16;

/// A number of sets of a branch, as its tree counts them.
///
/// # Errors
/// Unsupported beyond 2^32.
pub(super) fn branch_depth(sets: usize) -> Result<u32, FsError> {
    u32::try_from(sets).map_err(|_| FsError::failed(ErrorKind::Unsupported, "a chain of more than 2^32 backup sets"))
}

/// The trees of a repository's snapshots, loaded on demand.
#[derive(Debug)]
pub(super) struct SnapshotTrees {
    repository: Arc<Repository>,
    branches: Branches,
    /// The root's metadata in sets whose tree is not loaded; `None` for a set that does not contain it.
    peeked_roots: Mutex<HashMap<SetIndex, Option<EntryMeta>>>,
    /// True once the list of snapshots was read.
    is_listed: AtomicBool,
}

impl SnapshotTrees {
    pub(super) fn new(repository: Arc<Repository>) -> Self {
        Self {
            repository,
            branches: Branches::default(),
            peeked_roots: Mutex::default(),
            is_listed: AtomicBool::new(false),
        }
    }

    /// The tree of a snapshot.
    ///
    /// # Errors
    /// WouldBlock if it is not loaded and the request may not block; any failure to load it.
    pub(super) fn load(
        &self,
        view: &SnapshotView,
        snapshot: usize,
        context: &RequestContext,
    ) -> Result<SnapshotTree, FsError> {
        let snapshot = view.snapshot(snapshot)?;
        let branch = self.branch(view, snapshot.branch)?;
        let depth = branch_depth(snapshot.depth)?;
        self.ensure(&branch, depth, &snapshot.name, context)?;
        Ok(SnapshotTree::new(branch, depth, snapshot.time, Arc::clone(&snapshot.name)))
    }

    /// Loads the first `depth` sets of `branch`; `name` is the snapshot that errors name.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub(super) fn ensure(
        &self,
        branch: &Arc<Branch>,
        depth: u32,
        name: &str,
        context: &RequestContext,
    ) -> Result<(), FsError> {
        if branch.is_loaded(depth) {
            return Ok(());
        }
        if !context.may_block() {
            return Err(FsError::WouldBlock);
        }
        let _waiting = context.awaiting(|| format!("the signature archives of snapshot {name}").into());
        let loaded = branch.ensure(&self.repository, depth, context);
        loaded.map_err(|error| FsError::failed(error.kind(), format!("snapshot {name}: {error}")))
    }

    /// A branch, as far as it is loaded.
    ///
    /// # Errors
    /// NotFound.
    pub(super) fn branch(&self, view: &SnapshotView, number: usize) -> Result<Arc<Branch>, FsError> {
        let sets = view.collection.branches().get(number).ok_or_else(FsError::not_found)?;
        Ok(self.branches.branch(number, sets))
    }

    /// Records that the list of snapshots was read.
    pub(super) fn record_listing(&self) {
        self.is_listed.store(true, Ordering::Relaxed);
    }

    /// The metadata of the root of a snapshot while its tree is not loaded, for a reader that goes through the list of snapshots:
    /// `ls -l snapshots` must not fetch the signature archives of all of them. The beginnings of the archives of the snapshots
    /// that follow are fetched at the same time. `None` if the tree is loaded, or has to be: for any other reader, or if the root
    /// is not a directory or is not in the archives whose beginnings are known.
    ///
    /// # Errors
    /// WouldBlock.
    pub(super) fn peek_root(
        &self,
        view: &SnapshotView,
        snapshot: usize,
        context: &RequestContext,
    ) -> Result<Option<EntryMeta>, FsError> {
        if self.load(view, snapshot, &RequestContext::cached_only()).is_ok() {
            return Ok(None);
        }
        let mut is_fetched = false;
        for set in view.snapshot(snapshot)?.lineage().iter().rev() {
            let known = || lock(&self.peeked_roots).get(set).cloned();
            let meta = match known() {
                Some(meta) => meta,
                None if is_fetched || !self.is_next_in_listing(view, snapshot) => return Ok(None),
                None if !context.may_block() => return Err(FsError::WouldBlock),
                None => {
                    self.peek_roots(view, snapshot, context);
                    is_fetched = true;
                    // An archive that cannot be read may have the root: the sets before are not asked.
                    let Some(meta) = known() else { return Ok(None) };
                    meta
                }
            };
            if let Some(meta) = meta {
                return Ok(Some(meta).filter(|meta| meta.kind == EntryKind::Dir));
            }
        }
        Ok(None)
    }

    /// Returns true if the snapshots were listed, and the root of the one before `snapshot` in the list is known, or there is
    /// none before it.
    fn is_next_in_listing(&self, view: &SnapshotView, snapshot: usize) -> bool {
        let mut before = view.listed().take_while(|(index, _)| *index < snapshot);
        let is_only = view.listed().nth(1).is_none();
        let follows = match before.by_ref().last() {
            Some((_, before)) => before.lineage().last().is_some_and(|set| lock(&self.peeked_roots).contains_key(set)),
            None => !is_only,
        };
        self.is_listed.load(Ordering::Relaxed) && follows
    }

    /// Fetches the roots of the snapshots in the list from `first` on, as far as they can be read.
    fn peek_roots(&self, view: &SnapshotView, first: usize, context: &RequestContext) {
        let sets = view.listed().filter(|(index, _)| *index >= first).take(MAX_PEEKS);
        let sets: Vec<SetIndex> = sets.filter_map(|(_, snapshot)| snapshot.lineage().last().copied()).collect();
        let next = AtomicUsize::new(0);
        let peek = || {
            while let Some(&set) = sets.get(next.fetch_add(1, Ordering::Relaxed)) {
                if lock(&self.peeked_roots).contains_key(&set) {
                    continue;
                }
                match peek_root(&self.repository, set, context) {
                    Ok(meta) => drop(lock(&self.peeked_roots).insert(set, meta)),
                    Err(error) if error.kind() == ErrorKind::Cancelled => return,
                    Err(_) => {}
                }
            }
        };
        std::thread::scope(|scope| {
            let workers = MAX_CONCURRENT_PEEKS.min(sets.len()).saturating_sub(1);
            for _ in 0..workers {
                // This thread does the work of one that cannot be started.
                let _ = std::thread::Builder::new().name("dupfs-peek".into()).spawn_scoped(scope, peek);
            }
            peek();
        });
    }

    /// The number of paths in all loaded trees.
    pub(super) fn path_count(&self) -> u64 {
        self.branches.paths()
    }

    /// Stores the loaded trees in the index, and waits for it.
    pub(super) fn finish(&self) {
        self.branches.finish();
    }
}
