//! The table of versions per path: one for a branch, shared by all its snapshots.
//!
//! Its size is paths + changes, never paths x snapshots. Nodes are added set by set in the order of the signature
//! archives, so a node's number is the same at every mount of the same backup, for any number of loaded sets. Inode
//! numbers depend on that.
//!
//! A set's versions may be added in pieces: readers do not see them before [`VersionTable::publish_set`].

use std::ops::Range;
use std::sync::atomic::AtomicU64;

use super::attributes::{AttributeTable, VersionKind};
use super::error::TreeError;
use super::ids::{NONE, NodeId, VersionId, checked_number, list_index};
use super::missing_range::{LostRecords, MissingRange, Uncertainty};
use super::path_tree::PathTree;
use super::version_record::{UNKNOWN, VersionRecord, pack_bounds};
use crate::volume::TableAllowance;
use dupfs_format::sigtar::SizeBounds;
use dupfs_format::{ArchivePath, EntryMeta};

/// The record of one path in one set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The object exists with this metadata; for regular files, the bounds of its size if a signature gave them.
    Present(EntryMeta, Option<SizeBounds>),
    /// The object no longer exists.
    Deleted,
}

/// One regular-file version of a path, as the content layer needs it.
#[derive(Clone, Copy, Debug)]
pub struct FileVersion {
    /// The version's number.
    pub id: VersionId,
    /// Position of its set in the branch.
    pub position: u32,
    /// Bounds of the size, if a signature gave them.
    pub bounds: Option<SizeBounds>,
    /// Modification time in the signature archive.
    pub mtime: i64,
}

/// The first version and the first new node of a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SetStart {
    pub(super) version: u32,
    pub(super) node: u32,
}

/// The table. See the module's documentation.
#[derive(Debug, Default)]
pub struct VersionTable {
    pub(super) paths: PathTree,
    /// In the order of the sets, and within a set in archive order.
    pub(super) versions: Vec<VersionRecord>,
    /// The newest version of each node that has one, by node.
    newest: Vec<u32>,
    /// For each set that was begun.
    pub(super) starts: Vec<SetStart>,
    /// Number of published sets.
    pub(super) published: u32,
    pub(super) attributes: AttributeTable,
    pub(super) lost: LostRecords,
    /// Paths that a set names again.
    repeated: RepeatedPaths,
    /// The shares of memory that the sets have, as long as the table exists.
    allowances: Vec<TableAllowance>,
}

/// Paths that one set names more than once.
#[derive(Debug, Default)]
struct RepeatedPaths {
    count: u32,
    /// The position of a set, and a node that it names again.
    example: Option<(u32, NodeId)>,
}

impl VersionTable {
    /// A table of published sets whose `versions` versions are yet to be added; `None` if there are too many sets.
    pub(super) fn with_sets(
        paths: PathTree,
        attributes: AttributeTable,
        starts: Vec<SetStart>,
        versions: usize,
    ) -> Option<Self> {
        let published = checked_number(starts.len()).ok()?;
        let newest = vec![NONE; paths.len()];
        let versions = Vec::with_capacity(versions);
        let (lost, repeated, allowances) = Default::default();
        Some(Self { paths, versions, newest, starts, published, attributes, lost, repeated, allowances })
    }

    /// Number of sets loaded.
    pub fn depth(&self) -> u32 {
        self.published
    }

    /// Number of paths.
    pub fn len(&self) -> usize {
        self.paths.len()
    }

    /// Returns true if no set was loaded.
    pub fn is_empty(&self) -> bool {
        self.published == 0
    }

    /// The child of `parent` called `name`, at whichever snapshot it exists.
    pub fn child(&self, parent: NodeId, name: &[u8]) -> Option<NodeId> {
        self.paths.child(parent, name)
    }

    /// The node of `path`, at whichever snapshot it exists.
    pub fn find(&self, path: &ArchivePath) -> Option<NodeId> {
        self.paths.find(path)
    }

    /// The node's parent; the root's is itself.
    pub fn parent(&self, node: NodeId) -> Option<NodeId> {
        self.paths.parent(node)
    }

    /// The last component of the node's path; empty for the root.
    pub fn name(&self, node: NodeId) -> &[u8] {
        self.paths.name(node)
    }

    /// The node's path.
    pub fn path(&self, node: NodeId) -> ArchivePath {
        self.paths.path(node)
    }

    /// The first child of `node`, in the order in which the sets named them.
    pub fn first_child(&self, node: NodeId) -> Option<NodeId> {
        self.paths.first_child(node)
    }

    /// The child after `node` in its directory.
    pub fn next_sibling(&self, node: NodeId) -> Option<NodeId> {
        self.paths.next_sibling(node)
    }

    /// The version of `node` that a snapshot of the first `depth` sets shows; `None` if the path does not exist there.
    pub fn version(&self, node: NodeId, depth: u32) -> Option<VersionId> {
        self.version_chain(node, depth).next().filter(|(_, v)| v.is_present()).map(|(id, _)| id)
    }

    /// Returns true if `node` must be shown as a directory although no set describes it: something below it exists.
    ///
    /// A directory that only later sets have is recognised by its number. Of others, only what the first `depth` sets
    /// name below it is examined, which matters where they do not describe the directory itself.
    pub fn is_implied_dir(&self, node: NodeId, depth: u32) -> bool {
        let end = self.nodes_end(depth);
        // Not recursive: a path can be deeper than a stack.
        let mut pending = Vec::new();
        let mut next = Some(node).filter(|node| node.0 < end);
        while let Some(dir) = next {
            if self.version_chain(dir, depth).next().is_none() {
                for child in self.paths.children(dir).take_while(|child| child.0 < end) {
                    if self.version(child, depth).is_some() {
                        return true;
                    }
                    pending.push(child);
                }
            }
            next = pending.pop();
        }
        false
    }

    /// Returns true if any of the first `depth` sets had an object at `node` or below it.
    pub fn existed(&self, node: NodeId, depth: u32) -> bool {
        let end = self.nodes_end(depth);
        // Not recursive: a path can be deeper than a stack.
        let mut pending = Vec::new();
        let mut next = Some(node).filter(|node| node.0 < end);
        while let Some(node) = next {
            if self.version_chain(node, depth).any(|(_, version)| version.is_present()) {
                return true;
            }
            pending.extend(self.paths.children(node).take_while(|child| child.0 < end));
            next = pending.pop();
        }
        false
    }

    /// The first number of a node that the first `depth` sets do not have. A node is numbered when a set first names it or
    /// something below it, so no version of theirs is at or below a node with this number or a higher one; siblings are in
    /// the order of their numbers.
    fn nodes_end(&self, depth: u32) -> u32 {
        self.starts.get(list_index(depth.min(self.published))).map_or(NONE, |start| start.node)
    }

    /// The versions of a regular file that its content at `depth` may depend on, newest first: from the version shown
    /// back to where the path was not a regular file. Of a set that names the path twice, the version that it shows.
    pub fn file_history(&self, node: NodeId, depth: u32) -> Vec<FileVersion> {
        let files = self.version_chain(node, depth).take_while(|(_, v)| v.kind == VersionKind::File);
        let mut history: Vec<FileVersion> = files
            .filter_map(|(id, v)| {
                Some(FileVersion { id, position: self.position(id)?, bounds: v.bounds(), mtime: v.mtime })
            })
            .collect();
        history.dedup_by_key(|version| version.position);
        history
    }

    /// The versions that the first `depth` sets have of `node`, newest first, deletions too.
    pub fn history(&self, node: NodeId, depth: u32) -> impl Iterator<Item = VersionId> + '_ {
        self.version_chain(node, depth).map(|(id, _)| id)
    }

    /// Returns true if a version is not a deletion.
    pub(super) fn is_present(&self, id: VersionId) -> bool {
        self.versions.get(id.index()).is_some_and(VersionRecord::is_present)
    }

    /// Metadata of a version; `None` for deletions.
    pub fn meta(&self, id: VersionId) -> Option<EntryMeta> {
        let v = self.versions.get(id.index())?;
        self.attributes.unpack(v.owner, (v.kind, v.aux), v.mode, v.mtime)
    }

    /// Returns true if a version is a directory.
    pub fn is_dir(&self, id: VersionId) -> bool {
        self.versions.get(id.index()).is_some_and(|v| v.kind == VersionKind::Dir)
    }

    /// Bounds of a version's size, if a signature gave them.
    pub fn bounds(&self, id: VersionId) -> Option<SizeBounds> {
        self.versions.get(id.index()).and_then(VersionRecord::bounds)
    }

    /// Position in the branch of the set that wrote a version.
    pub fn position(&self, id: VersionId) -> Option<u32> {
        self.versions.get(id.index())?;
        let begun = self.starts.partition_point(|start| start.version <= id.0);
        u32::try_from(begun.checked_sub(1)?).ok()
    }

    /// The position of a version's set and the index of the version among that set's versions, which is the same at every
    /// mount; `None` if the set had to be rebuilt from its volumes.
    pub fn index_in_set(&self, id: VersionId) -> Option<(u32, u32)> {
        let position = self.position(id).filter(|&position| !self.lost.is_rebuilt(position))?;
        Some((position, id.0.checked_sub(self.starts.get(list_index(position))?.version)?))
    }

    /// The exact size of a version in bytes, once it is known.
    pub fn exact_size(&self, id: VersionId) -> Option<u64> {
        self.versions.get(id.index())?.exact_size()
    }

    /// Records the exact size of a version, which its bounds allow; false if it was known.
    pub fn set_exact_size(&self, id: VersionId, size: u64) -> bool {
        self.versions.get(id.index()).is_some_and(|version| version.set_exact_size(size))
    }

    /// The paths that the set at `position` names, in archive order, each with true if it is present.
    pub fn set_entries(&self, position: u32) -> impl Iterator<Item = (NodeId, bool)> + '_ {
        let range = self.versions.get(self.versions_of(position)).unwrap_or(&[]);
        range.iter().map(|v| (NodeId(v.node), v.is_present()))
    }

    /// The numbers of the versions of the set at `position`.
    pub(super) fn versions_of(&self, position: u32) -> Range<usize> {
        let start = |position: usize| self.starts.get(position).map_or(self.versions.len(), |s| list_index(s.version));
        start(list_index(position))..start(list_index(position).saturating_add(1))
    }

    /// The missing range that may hide an object at `path` (or, with `below`, anything below it) from a snapshot of `depth`
    /// sets.
    pub fn missing_range_at(&self, path: &ArchivePath, below: bool, depth: u32) -> Option<&MissingRange> {
        self.lost.range_at(path, below, depth)
    }

    /// Returns true if any part of the first `depth` sets could not be read.
    pub fn has_missing_ranges(&self, depth: u32) -> bool {
        self.lost.has_ranges(depth)
    }

    /// The reason why it is not known whether a set between those at `after` and `until` (neither included) changed `path`;
    /// `None` if it is known. Both ends are positions of sets in the branch.
    ///
    /// A set whose records were lost may have changed it, as may one whose tree was rebuilt from its volumes and that names it
    /// in a mangled form (FORMAT.md 4.3).
    pub fn uncertainty(&self, path: &ArchivePath, after: u32, until: u32) -> Option<Uncertainty> {
        let is_named =
            |path: &ArchivePath, position: u32| self.find(path).is_some_and(|node| self.is_named(node, position));
        self.lost.uncertainty(path, after, until, is_named)
    }

    /// Returns true if [`Self::uncertainty`] may have an answer for some path.
    pub fn has_uncertainty(&self) -> bool {
        !self.lost.is_empty()
    }

    /// Returns true if the set at `position` names `node`.
    pub(super) fn is_named(&self, node: NodeId, position: u32) -> bool {
        let since = self.starts.get(list_index(position)).map_or(NONE, |start| start.version);
        self.version_chain(node, position.saturating_add(1)).next().is_some_and(|(id, _)| id.0 >= since)
    }

    /// Begins the next set of the branch; entries pushed from now on belong to it. Readers see them once it is published.
    ///
    /// # Errors
    /// [`TreeError::TooLarge`] beyond 2^32 sets, paths or versions.
    pub fn begin_set(&mut self) -> Result<(), TreeError> {
        checked_number(self.starts.len().saturating_add(1))?;
        let (version, node) = (checked_number(self.versions.len())?, checked_number(self.paths.len())?);
        self.starts.push(SetStart { version, node });
        Ok(())
    }

    /// Shows the set that was begun to readers.
    ///
    /// # Errors
    /// [`TreeError::TooLarge`] beyond 2^32 sets.
    pub fn publish_set(&mut self) -> Result<(), TreeError> {
        self.published = checked_number(self.starts.len())?;
        Ok(())
    }

    /// Frees the memory that only building needs; a set that is begun later allocates it again.
    pub fn finish_building(&mut self) {
        self.paths.finish_inserting();
    }

    /// Keeps the share of memory of a set as long as the table exists.
    pub(super) fn set_allowance(&mut self, allowance: TableAllowance) {
        self.allowances.push(allowance);
    }

    /// Records that part of the set that was begun could not be read.
    pub fn push_missing_range(&mut self, range: MissingRange) {
        self.lost.push_range(range);
    }

    /// Records that the entries of the set that was begun are from its volumes, whose names may be mangled.
    pub fn mark_rebuilt(&mut self) {
        self.lost.push_rebuilt(self.published);
    }

    /// Records a change of `path` in the set that was begun.
    ///
    /// # Errors
    /// [`TreeError::TooLarge`] beyond 2^32 paths or versions.
    pub fn push(&mut self, path: &ArchivePath, change: Change) -> Result<(), TreeError> {
        let node = self.paths.insert(path)?.0;
        let (meta, bounds) = match change {
            Change::Deleted => (None, None),
            Change::Present(meta, bounds) => (Some(meta), bounds),
        };
        let (owner, mode, mtime, kind, aux) = match meta {
            None => (NONE, 0, 0, VersionKind::Deleted, 0),
            Some(meta) => {
                let (mode, mtime) = (meta.mode, meta.mtime);
                let (owner, kind, aux) = self.attributes.pack(meta)?;
                (owner, mode, mtime, kind, aux)
            }
        };
        if let Some(position) = self.position_if_named(node) {
            self.repeated.count = self.repeated.count.saturating_add(1);
            self.repeated.example.get_or_insert((position, NodeId(node)));
        }
        let (size, aux) = if kind == VersionKind::File { pack_bounds(bounds) } else { (UNKNOWN, aux) };
        self.add_version(VersionRecord { size: AtomicU64::new(size), mtime, older: NONE, node, owner, aux, mode, kind })
    }

    /// The position of the set that was begun last, if it has a version of `node`.
    fn position_if_named(&self, node: u32) -> Option<u32> {
        let since = self.starts.last()?.version;
        let newest = self.newest.get(list_index(node)).copied().filter(|&newest| newest != NONE);
        newest.filter(|&newest| newest >= since)?;
        u32::try_from(self.starts.len()).ok()?.checked_sub(1)
    }

    /// The number of paths that sets name again, one such set and one of its paths; `None` if there are none. This call
    /// removes them. Sets that were rebuilt from their volumes do not count, whose names may be mangled.
    pub(super) fn take_repeated(&mut self) -> Option<(u32, u32, ArchivePath)> {
        let RepeatedPaths { count, example } = std::mem::take(&mut self.repeated);
        let (position, node) = example.filter(|&(position, _)| !self.lost.is_rebuilt(position))?;
        Some((count, position, self.path(node)))
    }

    /// Adds a version as the newest of its node. A deletion does not replace an object of the same set: such a set has names
    /// in two encodings, and duplicity restores the object too.
    ///
    /// # Errors
    /// [`TreeError::TooLarge`] beyond 2^32 versions; [`TreeError::Internal`] if there is no such node.
    pub(super) fn add_version(&mut self, mut version: VersionRecord) -> Result<(), TreeError> {
        let id = checked_number(self.versions.len())?;
        let node = list_index(version.node);
        if node >= self.paths.len() {
            return Err(TreeError::Internal);
        }
        if node >= self.newest.len() {
            self.newest.resize(node.saturating_add(1), NONE);
        }
        let since = self.starts.partition_point(|start| start.version <= id);
        let since = since.checked_sub(1).and_then(|set| self.starts.get(set)).map_or(NONE, |start| start.version);
        let hides_own_object = version.kind == VersionKind::Deleted
            && self.newest.get(node).is_some_and(|&newest| {
                newest >= since && self.versions.get(list_index(newest)).is_some_and(VersionRecord::is_present)
            });
        if hides_own_object {
            self.versions.push(version);
            return Ok(());
        }
        if let Some(newest) = self.newest.get_mut(node) {
            version.older = std::mem::replace(newest, id);
        }
        self.versions.push(version);
        Ok(())
    }

    /// The versions of `node` that snapshots of the first `depth` sets may see, newest first.
    fn version_chain(&self, node: NodeId, depth: u32) -> impl Iterator<Item = (VersionId, &VersionRecord)> {
        let end = self.starts.get(list_index(depth.min(self.published))).map_or(NONE, |start| start.version);
        let mut next = self.newest.get(node.index()).copied().unwrap_or(NONE);
        std::iter::from_fn(move || {
            let version = self.versions.get(list_index(next))?;
            let id = VersionId(next);
            next = version.older;
            Some((id, version))
        })
        .skip_while(move |(id, _)| id.0 >= end)
    }
}
