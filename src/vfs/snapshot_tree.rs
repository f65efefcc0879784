//! The tree of one snapshot: its branch's version table at the snapshot's depth.

use std::sync::Arc;

use super::attr::{implied_dir, kind_of};
use super::error::FsError;
use super::ops::NodeKind;
use super::pagination::{MAX_BATCH, emit_batches};
use dupfs_base::ErrorKind;
use dupfs_format::{ArchivePath, BackupTime, EntryKind, EntryMeta, SetIndex};
use dupfs_read::content::{FileRef, MAX_FILE_BYTES};
use dupfs_read::tree::{Branch, NodeId, Uncertainty, VersionId, VersionTable};

/// Nodes that are counted under one lock.
const COUNT_BATCH: u32 = 1 << 16;

/// The state of a node in a snapshot, as the version table has it.
pub(super) struct NodeState {
    /// The version; `None` if no set describes the node.
    pub(super) version: Option<VersionId>,
    pub(super) meta: EntryMeta,
    /// The exact size of a regular file, if it is known.
    pub(super) exact: Option<u64>,
    /// Upper bound of the size of a regular file.
    pub(super) bound: u64,
    /// True if `bound` comes from a signature.
    pub(super) is_bounded: bool,
}

impl NodeState {
    /// The state of a directory without a version.
    pub(super) fn of_dir(meta: EntryMeta) -> Self {
        Self { version: None, meta, exact: None, bound: 0, is_bounded: true }
    }
}

/// The tree of a snapshot whose sets are loaded.
#[derive(Clone, Debug)]
pub(super) struct SnapshotTree {
    branch: Arc<Branch>,
    /// The number of the branch's sets that the snapshot consists of.
    depth: u32,
    time: BackupTime,
    name: Arc<str>,
}

impl SnapshotTree {
    pub(super) fn new(branch: Arc<Branch>, depth: u32, time: BackupTime, name: Arc<str>) -> Self {
        Self { branch, depth, time, name }
    }

    /// The state of `node`.
    ///
    /// # Errors
    /// NotFound if it does not exist in the snapshot; the reason if a newer state may be missing.
    pub(super) fn state(&self, node: NodeId) -> Result<NodeState, FsError> {
        let table = self.branch.table();
        let Some(version) = table.version(node, self.depth) else {
            if node != NodeId::ROOT && !table.is_implied_dir(node, self.depth) {
                return Err(FsError::not_found());
            }
            return Ok(NodeState::of_dir(implied_dir(self.time.0)));
        };
        let meta = table.meta(version).ok_or_else(FsError::not_found)?;
        // A directory is shown in its last known state: its readable entries must be reachable.
        if meta.kind != EntryKind::Dir {
            check_certain(&table, node, version, self.depth)?;
        }
        let exact = table.exact_size(version);
        // Without a signature nothing bounds the size; the kernel requests it again before it uses this one.
        let known = exact.or_else(|| table.bounds(version).map(|bounds| bounds.max));
        let bound = known.unwrap_or(MAX_FILE_BYTES).min(MAX_FILE_BYTES);
        Ok(NodeState { version: Some(version), meta, exact, bound, is_bounded: known.is_some() })
    }

    /// The child `name` of directory `dir`.
    ///
    /// # Errors
    /// NotFound; the reason if it may be among lost data.
    pub(super) fn child(&self, dir: NodeId, name: &[u8]) -> Result<NodeId, FsError> {
        let (table, depth) = (self.branch.table(), self.depth);
        let exists = |&node: &NodeId| table.version(node, depth).is_some() || table.is_implied_dir(node, depth);
        let child = table.child(dir, name).filter(exists);
        if child.is_none() && table.has_missing_ranges(depth) {
            let path = table.path(dir).join(name);
            if let Some(range) = path.as_ref().and_then(|path| table.missing_range_at(path, false, depth)) {
                let message = format!("existence unknown: {}", range.reason);
                return Err(FsError::failed(range.kind, message));
            }
        }
        child.ok_or_else(FsError::not_found)
    }

    /// Emits the children of directory `dir` after `last`, until `emit` returns false.
    ///
    /// # Errors
    /// NotDir; at the end of a listing the reason why names may be missing in it.
    pub(super) fn list(
        &self,
        dir: NodeId,
        last: Option<NodeId>,
        mut emit: impl FnMut(NodeId, NodeKind, &[u8]) -> bool,
    ) -> Result<(), FsError> {
        if self.state(dir)?.meta.kind != EntryKind::Dir {
            return Err(FsError::NotDir);
        }
        if !emit_batches(last, |last, max| self.children(dir, last, max), |node, (kind, name)| emit(node, kind, &name))
        {
            return Ok(());
        }
        let table = self.branch.table();
        match table.missing_range_at(&table.path(dir), true, self.depth) {
            // The known names were listed; the error at the end marks the listing as incomplete.
            Some(range) => Err(FsError::failed(range.kind, format!("the listing may lack names: {}", range.reason))),
            None => Ok(()),
        }
    }

    /// Up to `max` children of `dir` after `last`.
    fn children(&self, dir: NodeId, last: Option<NodeId>, max: usize) -> Vec<(NodeId, (NodeKind, Vec<u8>))> {
        let table = self.branch.table();
        let first = match last {
            None => table.first_child(dir),
            Some(node) => table.next_sibling(node),
        };
        let nodes = std::iter::successors(first, |node| table.next_sibling(*node));
        let entries = nodes.filter_map(|node| {
            let kind = match table.version(node, self.depth) {
                Some(version) => table.meta(version).map(|meta| kind_of(&meta.kind)),
                None => table.is_implied_dir(node, self.depth).then_some(NodeKind::Dir),
            };
            Some((node, (kind?, table.name(node).to_vec())))
        });
        let mut batch = Vec::with_capacity(if first.is_some() { max } else { 0 });
        batch.extend(entries.take(max));
        batch
    }

    /// The number of objects at `node` and below it. Reads the table once in its order, and no names.
    pub(super) fn count_below(&self, node: NodeId) -> u64 {
        let (mut count, mut first) = (0u64, node);
        // A node follows its parent. True for those below `node`; empty for the root, which all are below.
        let mut is_below: Vec<bool> = Vec::new();
        loop {
            // Readers of the table wait for the lock no longer than for a batch.
            let table = self.branch.table();
            let len = u32::try_from(table.len()).unwrap_or(u32::MAX);
            let end = first.0.saturating_add(COUNT_BATCH).min(len);
            for number in first.0..end {
                let child = NodeId(number);
                let own = child == node
                    || node == NodeId::ROOT
                    || table.parent(child).and_then(|parent| parent.0.checked_sub(node.0)).is_some_and(|place| {
                        usize::try_from(place).is_ok_and(|place| is_below.get(place) == Some(&true))
                    });
                let exists = || table.version(child, self.depth).is_some() || table.is_implied_dir(child, self.depth);
                count = count.saturating_add(u64::from(own && exists()));
                if node != NodeId::ROOT {
                    is_below.push(own);
                }
            }
            if end >= len {
                return count;
            }
            first = NodeId(end);
        }
    }

    /// The number of directories in `dir`.
    pub(super) fn count_subdirs(&self, dir: NodeId) -> u32 {
        let table = self.branch.table();
        let children = std::iter::successors(table.first_child(dir), |child| table.next_sibling(*child));
        let is_dir = |node: &NodeId| match table.version(*node, self.depth) {
            Some(version) => table.is_dir(version),
            None => table.is_implied_dir(*node, self.depth),
        };
        // Nodes are numbered by u32, so the count of some of them fits.
        u32::try_from(children.filter(is_dir).count()).unwrap_or(u32::MAX)
    }

    /// The node at `path`, and true if it is a directory.
    ///
    /// # Errors
    /// NotFound; the reason if it may be among lost data.
    pub(super) fn find(&self, path: &ArchivePath) -> Result<(NodeId, bool), FsError> {
        let table = self.branch.table();
        let missing = || match table.missing_range_at(path, false, self.depth) {
            Some(range) => FsError::failed(range.kind, format!("{path}: cannot be looked up: {}", range.reason)),
            None => FsError::failed(
                ErrorKind::NotFound,
                format!("{path}: no such path in snapshot {}; list it with dupfs ls", self.name),
            ),
        };
        let node = table.find(path).ok_or_else(missing)?;
        match table.version(node, self.depth) {
            Some(version) => Ok((node, table.is_dir(version))),
            None if node == NodeId::ROOT || table.is_implied_dir(node, self.depth) => Ok((node, true)),
            None => Err(missing()),
        }
    }

    /// The regular file at `node`.
    ///
    /// # Errors
    /// Invalid if it is not one; the reason if a newer state may be missing.
    pub(super) fn file(&self, node: NodeId) -> Result<FileRef, FsError> {
        {
            let table = self.branch.table();
            if let Some(version) = table.version(node, self.depth) {
                check_certain(&table, node, version, self.depth)?;
            }
        }
        self.find_file(node).ok_or_else(|| {
            let path = self.path(node);
            FsError::failed(ErrorKind::Invalid, format!("{path}: not a regular file in this snapshot"))
        })
    }

    /// The regular file at `node`, if it is one.
    pub(super) fn find_file(&self, node: NodeId) -> Option<FileRef> {
        FileRef::at(&self.branch, node, self.depth)
    }

    /// The number of regular files that the snapshot's own set stores, and those of them whose exact size is not known, in
    /// stored order.
    pub(super) fn unmeasured_files(&self) -> (usize, Vec<NodeId>) {
        let table = self.branch.table();
        let Some(position) = self.depth.checked_sub(1) else { return (0, Vec::new()) };
        let own_file = |(node, is_present): (NodeId, bool)| {
            let version = table.version(node, self.depth).filter(|_| is_present)?;
            let is_file = table.meta(version).is_some_and(|meta| meta.kind == EntryKind::File);
            (is_file && table.position(version) == Some(position)).then_some((node, version))
        };
        let files: Vec<_> = table.set_entries(position).filter_map(own_file).collect();
        let unmeasured = files.iter().filter(|(_, version)| table.exact_size(*version).is_none());
        (files.len(), unmeasured.map(|(node, _)| *node).collect())
    }

    /// Returns true if `node` is one of the next entries after `before` in their directory.
    pub(super) fn is_listed_after(&self, before: NodeId, node: NodeId) -> bool {
        let table = self.branch.table();
        let following = std::iter::successors(table.next_sibling(before), |sibling| table.next_sibling(*sibling));
        following.take(MAX_BATCH).any(|sibling| sibling == node)
    }

    /// The regular files after `node` in its directory whose exact sizes are not known, in the order of listings, of the next
    /// `max` entries.
    pub(super) fn unmeasured_after(&self, node: NodeId, max: usize) -> Vec<NodeId> {
        let table = self.branch.table();
        let following = std::iter::successors(table.next_sibling(node), |sibling| table.next_sibling(*sibling));
        let is_unmeasured = |sibling: &NodeId| {
            let version = table.version(*sibling, self.depth);
            version.is_some_and(|version| {
                let is_file = table.meta(version).is_some_and(|meta| meta.kind == EntryKind::File);
                is_file && table.exact_size(version).is_none()
            })
        };
        following.take(max).filter(is_unmeasured).collect()
    }

    /// The parent of `node`.
    pub(super) fn parent(&self, node: NodeId) -> Result<NodeId, FsError> {
        self.branch.table().parent(node).ok_or_else(FsError::not_found)
    }

    /// The path of `node`.
    pub(super) fn path(&self, node: NodeId) -> ArchivePath {
        self.branch.table().path(node)
    }

    /// The name of `node`.
    pub(super) fn node_name(&self, node: NodeId) -> Vec<u8> {
        self.branch.table().name(node).to_vec()
    }

    /// The bounds of the size that the signature of `version` gives, in bytes, both included.
    pub(super) fn size_bounds(&self, version: VersionId) -> Option<(u64, u64)> {
        self.branch.table().bounds(version).map(|bounds| (bounds.min, bounds.max))
    }

    /// The index of `version` among the versions of its set, which is the same on every branch; `None` if the set had to be
    /// rebuilt from its volumes.
    pub(super) fn index_in_set(&self, version: VersionId) -> Option<u32> {
        Some(self.branch.table().index_in_set(version)?.1)
    }

    /// The set that `version` is from.
    pub(super) fn set_of(&self, version: VersionId) -> Option<SetIndex> {
        let position = self.branch.table().position(version)?;
        self.branch.set_at(position)
    }
}

/// Fails if a newer state of `node` than `version` may be among the data that a set of the first `depth` lost.
fn check_certain(table: &VersionTable, node: NodeId, version: VersionId, depth: u32) -> Result<(), FsError> {
    let Some(position) = table.position(version).filter(|&p| p.saturating_add(1) < depth) else { return Ok(()) };
    if !table.has_uncertainty() {
        return Ok(());
    }
    let path = table.path(node);
    match table.uncertainty(&path, position, depth) {
        None => Ok(()),
        Some(Uncertainty { reason, kind }) => {
            let message = format!("{path}: its state in this snapshot is unknown, see older snapshots: {reason}");
            Err(FsError::failed(kind, message))
        }
    }
}
