//! The trees of all snapshots as signature archives record them, for commands that compare snapshots. No volume is read.

use std::sync::Arc;

use super::error::FsError;
use super::inode::Inode;
use super::ops::{Attr, Ino};
use super::recorded_branch::RecordedBranch;
use super::snapshot_nodes::SnapshotNodes;
use super::snapshot_tree::SnapshotTree;
use super::snapshot_view::SnapshotView;
use super::tree_fs::TreeFs;
use dupfs_base::{ErrorKind, HasKind, RequestContext};
use dupfs_format::collection::CollectionError;
use dupfs_format::{ArchivePath, BackupTime, EntryKind, EntryMeta, SetIndex};
use dupfs_read::tree::{NodeId, VersionId};
use dupfs_read::volume::SignedContent;

/// A snapshot that is shown.
#[derive(Clone, Debug)]
pub struct ListedSnapshot {
    /// The index by which [`RecordedTrees`] has it.
    pub index: usize,
    /// The name of its directory in `snapshots/`.
    pub name: Arc<str>,
    /// Its time.
    pub time: BackupTime,
    /// The branch of sets that it is on. If the tree of one of its snapshots cannot be loaded, nor can those after it.
    pub branch: usize,
    /// Its position on the branch.
    pub position: u32,
    /// True if that is a full set.
    pub is_full: bool,
    /// The index of the snapshot before it: that of the set on which an increment builds, or of the newest set before a full
    /// one. `None` for the first.
    pub before: Option<usize>,
}

/// An object as the trees have it at one snapshot.
#[derive(Clone, Debug)]
pub struct RecordedObject {
    /// The archived metadata.
    pub meta: EntryMeta,
    /// Bounds of the size of a regular file in bytes, both included; equal if the size is known.
    pub size: (u64, u64),
    /// The record of it; `None` for a directory that no set describes.
    pub record: Option<ObjectRecord>,
}

impl RecordedObject {
    /// Returns true if it is a directory.
    pub fn is_dir(&self) -> bool {
        self.meta.kind == EntryKind::Dir
    }

    /// Returns true if both are the same record of a set, and not only equal.
    pub fn is_same_record(&self, other: &Self) -> bool {
        match (self.record, other.record) {
            (Some(a), Some(b)) => {
                let of_set = |record: ObjectRecord| Some((record.set, record.index_in_set?));
                (a.branch, a.version) == (b.branch, b.version) || of_set(a).is_some_and(|own| Some(own) == of_set(b))
            }
            (None, None) => true,
            _ => false,
        }
    }

    /// The target of a symbolic link.
    pub fn target(&self) -> Option<&[u8]> {
        match &self.meta.kind {
            EntryKind::Symlink(target) => Some(target),
            EntryKind::File
            | EntryKind::Dir
            | EntryKind::Fifo
            | EntryKind::CharDevice(..)
            | EntryKind::BlockDevice(..) => None,
        }
    }
}

/// The record of an object in a signature archive.
#[derive(Clone, Copy, Debug)]
pub struct ObjectRecord {
    /// The set that stored the object.
    pub set: SetIndex,
    branch: usize,
    version: VersionId,
    /// Identifies the record also on another branch that begins with the set.
    index_in_set: Option<u32>,
}

/// The trees of all snapshots.
#[derive(Debug)]
pub struct RecordedTrees<'a> {
    fs: &'a TreeFs,
    view: Arc<SnapshotView>,
}

impl<'a> RecordedTrees<'a> {
    /// The trees that `fs` shows now.
    pub fn of(fs: &'a TreeFs) -> Self {
        Self { fs, view: fs.nodes.view() }
    }

    /// The snapshots, the oldest first.
    pub fn snapshots(&self) -> Vec<ListedSnapshot> {
        let mut listed: Vec<_> = self.view.listed().collect();
        listed.sort_by_key(|(index, snapshot)| (snapshot.time, *index));
        let mut newest = None;
        let mut snapshots = Vec::with_capacity(listed.len());
        for (index, snapshot) in listed {
            let base = snapshot.lineage().iter().rev().nth(1);
            let before = match base {
                Some(&base) => self.view.collection.snapshot_position(base),
                None => newest,
            };
            newest = Some(index);
            snapshots.push(ListedSnapshot {
                index,
                name: Arc::clone(&snapshot.name),
                time: snapshot.time,
                branch: snapshot.branch,
                position: u32::try_from(snapshot.depth.saturating_sub(1)).unwrap_or(u32::MAX),
                is_full: base.is_none(),
                before,
            });
        }
        snapshots
    }

    /// The index of the snapshot that `latest` leads to.
    pub fn latest(&self) -> Option<usize> {
        self.view.latest()
    }

    /// The index of the snapshot that duplicity would restore for `time`.
    ///
    /// # Errors
    /// As [`Collection::select`](dupfs_format::collection::Collection::select).
    pub fn select(&self, time: BackupTime) -> Result<Option<usize>, CollectionError> {
        Ok(self.view.collection.snapshot_position(self.view.collection.select(time)?.set))
    }

    /// The directory that was backed up in the latest snapshot, as it was typed then, if its manifest names it.
    pub fn source_directory(&self, context: &RequestContext) -> Option<Vec<u8>> {
        self.fs.source_of(self.view.latest()?, context)
    }

    /// The tree of the snapshot with this index. Loads what is not loaded yet.
    ///
    /// # Errors
    /// [`FsError`] when it cannot be loaded.
    pub fn tree(&self, snapshot: usize, context: &RequestContext) -> Result<RecordedTree<'a>, FsError> {
        let nodes = &self.fs.nodes;
        let tree = nodes.trees.load(&self.view, snapshot, context)?;
        let branch = self.view.snapshot(snapshot)?.branch;
        Ok(RecordedTree { nodes, snapshot, branch, tree })
    }

    /// The branch of `snapshots`, which are all that are on it, in one piece; `None` if it cannot be loaded completely, or data was
    /// lost that may hide states of paths. Then each of its snapshots has a tree of its own, or an error.
    pub fn branch(&self, snapshots: &[&ListedSnapshot], context: &RequestContext) -> Option<RecordedBranch> {
        let deepest = snapshots.iter().max_by_key(|snapshot| snapshot.position)?;
        let trees = &self.fs.nodes.trees;
        trees.load(&self.view, deepest.index, context).ok()?;
        RecordedBranch::of(trees.branch(&self.view, deepest.branch).ok()?, deepest.position.saturating_add(1))
    }

    /// The inode of a snapshot's root.
    ///
    /// # Errors
    /// An internal error.
    pub fn root_ino(&self, snapshot: &ListedSnapshot) -> Result<Ino, FsError> {
        self.view.number(Inode::Node(snapshot.index, NodeId::ROOT))
    }

    /// The content of the file at `path` as `set` signed it; `None` if the set has no signature of it that can be used.
    ///
    /// # Errors
    /// [`FsError`] when the signature archive cannot be read.
    pub fn signed_content(
        &self,
        set: SetIndex,
        path: &ArchivePath,
        context: &RequestContext,
    ) -> Result<Option<SignedContent>, FsError> {
        let signed = self.fs.repository().signed_content(set, path, context);
        signed.map_err(|error| FsError::failed(error.kind(), error.to_string()))
    }
}

/// The tree of one snapshot.
#[derive(Debug)]
pub struct RecordedTree<'a> {
    nodes: &'a SnapshotNodes,
    snapshot: usize,
    branch: usize,
    tree: SnapshotTree,
}

impl RecordedTree<'_> {
    /// The node at `path`; `None` if there is no object.
    ///
    /// # Errors
    /// [`FsError`] if an object may be among lost data.
    pub fn find(&self, path: &ArchivePath) -> Result<Option<NodeId>, FsError> {
        match self.tree.find(path) {
            Ok((node, _)) => Ok(Some(node)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The object at a node that exists.
    ///
    /// # Errors
    /// [`FsError`] if a newer state may be among lost data.
    pub fn object(&self, node: NodeId) -> Result<RecordedObject, FsError> {
        let state = self.tree.state(node)?;
        let size = match (state.exact, state.version.and_then(|version| self.tree.size_bounds(version))) {
            (Some(exact), _) => (exact, exact),
            (None, Some(bounds)) => bounds,
            (None, None) => (0, u64::MAX),
        };
        let record = state.version.and_then(|version| {
            let set = self.tree.set_of(version)?;
            Some(ObjectRecord { set, branch: self.branch, version, index_in_set: self.tree.index_in_set(version) })
        });
        Ok(RecordedObject { meta: state.meta, size, record })
    }

    /// The entries of directory `dir`, sorted by name, and the reason why some may be missing.
    pub fn children(&self, dir: NodeId) -> (Vec<(Vec<u8>, NodeId)>, Option<FsError>) {
        let mut children = Vec::new();
        let listed = self.tree.list(dir, None, |node, _, name| {
            children.push((name.to_vec(), node));
            true
        });
        children.sort();
        (children, listed.err())
    }

    /// The path of a node.
    pub fn path(&self, node: NodeId) -> ArchivePath {
        self.tree.path(node)
    }

    /// The attributes of a node as a mount shows them. The size may be an upper bound.
    ///
    /// # Errors
    /// As [`Self::object`].
    pub fn attr(&self, node: NodeId, context: &RequestContext) -> Result<Attr, FsError> {
        self.nodes.provisional_attr(self.snapshot, node, context)
    }

    /// The inode of a node in a mount of all snapshots.
    ///
    /// # Errors
    /// An internal error.
    pub fn ino(&self, node: NodeId) -> Result<Ino, FsError> {
        self.nodes.view().number(Inode::Node(self.snapshot, node))
    }
}
