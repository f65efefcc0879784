//! The state that is shown between two listings of the store: the collection, its snapshots' inode numbers, and the root.

use std::sync::{Arc, RwLock};

use super::error::FsError;
use super::inode::{Inode, InodeTags};
use super::ops::Ino;
use dupfs_base::sync::{read, write};
use dupfs_format::collection::{Collection, Snapshot};
use dupfs_read::tree::NodeId;

/// The root as it was found at mount.
#[derive(Clone, Debug)]
pub(super) enum RootInode {
    /// `latest`, `snapshots/`, `at/` and `versions/`.
    Overview,
    /// A directory of a snapshot.
    Dir(usize, NodeId),
    /// The root's path is not a directory: the root has it as its only entry, under this name.
    Single(usize, NodeId, Vec<u8>),
}

/// The state of one listing. Indices of snapshots and branches stay valid in every later one.
#[derive(Debug)]
pub(super) struct SnapshotView {
    pub(super) collection: Arc<Collection>,
    pub(super) root: RootInode,
    tags: InodeTags,
    branches: Vec<usize>,
}

impl SnapshotView {
    fn after(tags: &InodeTags, collection: Arc<Collection>, root: RootInode) -> Self {
        let tags = tags.extend(collection.snapshots());
        let mut view = Self { tags, collection, root, branches: Vec::new() };
        view.branches = view.listed().map(|(_, snapshot)| snapshot.branch).collect();
        view.branches.sort_unstable();
        view.branches.dedup();
        view
    }

    /// The branches, in order, that have a snapshot which is listed.
    pub(super) fn branches(&self) -> &[usize] {
        &self.branches
    }

    /// The index of the snapshot that `latest` leads to.
    pub(super) fn latest(&self) -> Option<usize> {
        let latest = self.collection.latest()?;
        self.collection.snapshot_position(latest.set)
    }

    pub(super) fn snapshot(&self, index: usize) -> Result<&Snapshot, FsError> {
        self.collection.snapshots().get(index).ok_or_else(FsError::not_found)
    }

    /// The snapshots that are listed, with their indices. Those that were deleted from the store are reachable only through
    /// inodes that are in use.
    pub(super) fn listed(&self) -> impl Iterator<Item = (usize, &Snapshot)> {
        let snapshots = self.collection.snapshots().iter().enumerate();
        snapshots.filter(|(_, snapshot)| !self.collection.is_removed(snapshot.set))
    }

    /// The inode number of `inode`; the root's where it is the mount's root.
    ///
    /// # Errors
    /// An internal error if it is of no snapshot of this view.
    pub(super) fn number(&self, inode: Inode) -> Result<Ino, FsError> {
        match (&self.root, inode) {
            (RootInode::Dir(snapshot, node), Inode::Node(s, n)) if *snapshot == s && *node == n => {
                self.tags.number(Inode::Root)
            }
            _ => self.tags.number(inode),
        }
    }

    /// Returns a function that gives the inode numbers of the entries of directories in `snapshot`. None of them is the mount's
    /// root.
    ///
    /// # Errors
    /// As [`Self::number`].
    pub(super) fn numbers_in(&self, snapshot: usize) -> Result<impl Fn(NodeId) -> Ino + use<>, FsError> {
        self.tags.numbers_in(snapshot)
    }

    /// The inode with number `ino`.
    pub(super) fn resolve(&self, ino: Ino) -> Result<Inode, FsError> {
        match (self.tags.resolve(ino).ok_or_else(FsError::not_found)?, &self.root) {
            (Inode::Root, RootInode::Dir(snapshot, node)) => Ok(Inode::Node(*snapshot, *node)),
            (inode, _) => Ok(inode),
        }
    }
}

/// The view that is shown now; replaced as a whole when the store is listed again.
#[derive(Debug)]
pub(super) struct CurrentView(RwLock<Arc<SnapshotView>>);

impl CurrentView {
    pub(super) fn new(collection: Arc<Collection>) -> Self {
        let view = SnapshotView::after(&InodeTags::default(), collection, RootInode::Overview);
        Self(RwLock::new(Arc::new(view)))
    }

    /// The view that is shown now. An operation that needs two facts takes both from one view.
    pub(super) fn get(&self) -> Arc<SnapshotView> {
        Arc::clone(&read(&self.0))
    }

    /// Shows the collection that `latest` returns, which contains all snapshots of the one before. It is called under the lock,
    /// so that the newest one is shown last.
    pub(super) fn replace(&self, latest: impl FnOnce() -> Arc<Collection>) {
        let mut view = write(&self.0);
        *view = Arc::new(SnapshotView::after(&view.tags, latest(), view.root.clone()));
    }

    /// Makes `root` the root.
    pub(super) fn set_root(&self, root: RootInode) {
        let mut view = write(&self.0);
        *view = Arc::new(SnapshotView::after(&view.tags, Arc::clone(&view.collection), root));
    }
}
