//! Loads the trees of snapshots.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use super::error::FsError;
use super::snapshot_tree::SnapshotTree;
use super::snapshot_view::SnapshotView;
use dupfs_base::sync::lock;
use dupfs_base::{ErrorKind, HasKind, RequestContext};
use dupfs_format::{EntryKind, EntryMeta, SetIndex};
use dupfs_read::tree::{Branch, Branches, peek_root};
use dupfs_read::volume::Repository;

/// Archives whose beginnings one request fetches, one after the other, to find the metadata of a root. Beyond that, the tree is
/// loaded, whose archives are fetched concurrently.
const MAX_PEEKS: usize = 2;

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
}

impl SnapshotTrees {
    pub(super) fn new(repository: Arc<Repository>) -> Self {
        Self { repository, branches: Branches::default(), peeked_roots: Mutex::default() }
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

    /// The metadata of a snapshot's root while its tree is not loaded: `ls -l snapshots` must not fetch the signature
    /// archives of all of them. `None` if the tree is loaded, or has to be: the root is not a directory, cannot be read
    /// separately, or is not in the sets whose archives one request looks at.
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
        let mut peeks = 0;
        for &set in view.snapshot(snapshot)?.lineage().iter().rev() {
            let known = lock(&self.peeked_roots).get(&set).cloned();
            let meta = match known {
                Some(meta) => meta,
                None if !context.may_block() => return Err(FsError::WouldBlock),
                None if peeks == MAX_PEEKS => return Ok(None),
                None => {
                    peeks += 1;
                    let Ok(meta) = peek_root(&self.repository, set, context) else { return Ok(None) };
                    lock(&self.peeked_roots).insert(set, meta.clone());
                    meta
                }
            };
            if let Some(meta) = meta {
                return Ok(Some(meta).filter(|meta| meta.kind == EntryKind::Dir));
            }
        }
        Ok(None)
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
