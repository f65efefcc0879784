//! The table of versions per path: one for a branch of sets, shared by all its snapshots.
//!
//! Its size is paths + changes, never paths x snapshots. Nodes are added set by set in the order of the signature
//! archives, so a node's number is the same at every mount of the same backup, however many sets are loaded; inode
//! numbers rest on that. A parent is numbered before its children, and siblings are linked in the order of their numbers.
//!
//! A set's versions may be added in pieces: nobody sees them before [`VersionTable::publish_set`].

use std::sync::atomic::{AtomicU64, Ordering};

use hashbrown::{DefaultHashBuilder, HashTable};

use super::attributes::{AttributeTable, VersionKind};
use super::ids::{NONE, NodeId, VersionId, index};
use super::missing_range::MissingRange;
use super::table_builder::InsertCursor;
use dupfs_format::sigtar::SizeBounds;
use dupfs_format::{ArchivePath, EntryMeta};

/// A size as one number: [`EXACT`] and the size, or the upper bound of it, or [`UNKNOWN`].
pub(super) const EXACT: u64 = 1 << 63;
pub(super) const UNKNOWN: u64 = EXACT - 1;
/// `aux` of a file without bounds; others have the difference of theirs.
pub(super) const UNBOUNDED: u32 = u32::MAX;

/// What one set says of one path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The object exists with this metadata; for regular files, the bounds of its size if a signature gave them.
    Present(EntryMeta, Option<SizeBounds>),
    /// The object no longer exists.
    Deleted,
}

/// A path. Its name ends where the next node's begins.
#[derive(Debug)]
pub(super) struct PathNode {
    pub(super) parent: u32,
    pub(super) name_start: u32,
    pub(super) first_child: u32,
    pub(super) next_sibling: u32,
    pub(super) newest: u32,
}

#[derive(Debug)]
pub(super) struct VersionRecord {
    pub(super) size: AtomicU64,
    pub(super) mtime: i64,
    pub(super) older: u32,
    pub(super) node: u32,
    pub(super) owner: u32,
    pub(super) aux: u32,
    pub(super) mode: u16,
    pub(super) kind: VersionKind,
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

/// The table. See the module's documentation.
#[derive(Debug)]
pub struct VersionTable {
    pub(super) nodes: Vec<PathNode>,
    pub(super) names: Vec<u8>,
    pub(super) versions: Vec<VersionRecord>,
    /// For each set that was begun, the first of its versions and of the nodes it added; versions of one set are in archive
    /// order.
    pub(super) set_starts: Vec<u32>,
    pub(super) node_starts: Vec<u32>,
    /// How many sets are published.
    pub(super) published: u32,
    pub(super) by_name: HashTable<u32>,
    pub(super) hasher: DefaultHashBuilder,
    pub(super) attributes: AttributeTable,
    pub(super) missing: Vec<MissingRange>,
    /// Positions of sets whose entries are from their volumes.
    pub(super) rebuilt: Vec<u32>,
    pub(super) cursor: InsertCursor,
}

impl Default for VersionTable {
    fn default() -> Self {
        let root = PathNode { parent: NONE, name_start: 0, first_child: NONE, next_sibling: NONE, newest: NONE };
        Self {
            nodes: vec![root],
            names: Vec::new(),
            versions: Vec::new(),
            set_starts: Vec::new(),
            node_starts: Vec::new(),
            published: 0,
            by_name: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            attributes: AttributeTable::default(),
            missing: Vec::new(),
            rebuilt: Vec::new(),
            cursor: InsertCursor::default(),
        }
    }
}

impl VersionTable {
    /// Number of sets loaded.
    pub fn depth(&self) -> u32 {
        self.published
    }

    /// Number of paths.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether no set was loaded.
    pub fn is_empty(&self) -> bool {
        self.published == 0
    }

    /// Whether the set at `position` says anything of `node`.
    pub(super) fn is_named(&self, node: NodeId, position: u32) -> bool {
        let since = self.set_starts.get(index(position)).copied().unwrap_or(NONE);
        self.version_chain(node, position.saturating_add(1)).next().is_some_and(|(id, _)| id.0 >= since)
    }

    /// The child of `parent` called `name`, whether or not it exists at some snapshot.
    pub fn child(&self, parent: NodeId, name: &[u8]) -> Option<NodeId> {
        self.by_name.find(self.hash(parent.0, name), |&id| self.is_called(id, parent.0, name)).map(|&id| NodeId(id))
    }

    /// The node of `path`, whether or not it exists at some snapshot.
    pub fn find(&self, path: &ArchivePath) -> Option<NodeId> {
        path.components().try_fold(NodeId::ROOT, |node, name| self.child(node, name))
    }

    /// The node's parent; the root's is itself.
    pub fn parent(&self, node: NodeId) -> Option<NodeId> {
        let parent = self.nodes.get(index(node.0))?.parent;
        Some(if parent == NONE { NodeId::ROOT } else { NodeId(parent) })
    }

    /// The last component of the node's path; empty for the root.
    pub fn name(&self, node: NodeId) -> &[u8] {
        let Some(start) = self.nodes.get(index(node.0)).map(|n| index(n.name_start)) else { return &[] };
        let end =
            self.nodes.get(index(node.0).saturating_add(1)).map_or(self.names.len(), |next| index(next.name_start));
        self.names.get(start..end).unwrap_or(&[])
    }

    /// The node's path.
    pub fn path(&self, node: NodeId) -> ArchivePath {
        let mut names = Vec::new();
        let mut at = node.0;
        while let Some(n) = self.nodes.get(index(at)) {
            if n.parent == NONE {
                break;
            }
            names.push(self.name(NodeId(at)));
            at = n.parent;
        }
        names.reverse();
        ArchivePath::parse(&names.join(&b'/')).unwrap_or_default()
    }

    /// The first child of `node`, in the order in which the sets named them.
    pub fn first_child(&self, node: NodeId) -> Option<NodeId> {
        self.nodes.get(index(node.0)).map(|n| n.first_child).filter(|&c| c != NONE).map(NodeId)
    }

    /// The child after `node` in its directory.
    pub fn next_sibling(&self, node: NodeId) -> Option<NodeId> {
        self.nodes.get(index(node.0)).map(|n| n.next_sibling).filter(|&c| c != NONE).map(NodeId)
    }

    /// The version of `node` that a snapshot of the first `depth` sets shows; `None` if the path does not exist there.
    pub fn version(&self, node: NodeId, depth: u32) -> Option<VersionId> {
        self.version_chain(node, depth).next().filter(|(_, v)| v.kind != VersionKind::Deleted).map(|(id, _)| id)
    }

    /// Whether `node` must be shown as a directory although no set describes it: something below it exists.
    pub fn is_implied_dir(&self, node: NodeId, depth: u32) -> bool {
        // Not recursive: a path can be deeper than a stack.
        let mut pending = vec![node];
        while let Some(dir) = pending.pop() {
            if self.version_chain(dir, depth).next().is_some() {
                continue;
            }
            let mut child = self.first_child(dir);
            while let Some(id) = child {
                if self.version(id, depth).is_some() {
                    return true;
                }
                pending.push(id);
                child = self.next_sibling(id);
            }
        }
        false
    }

    /// The versions of a regular file that its content at `depth` may rest on, newest first: from the version shown
    /// back to where the path was not a regular file.
    pub fn file_history(&self, node: NodeId, depth: u32) -> Vec<FileVersion> {
        self.version_chain(node, depth)
            .take_while(|(_, v)| v.kind == VersionKind::File)
            .map(|(id, v)| FileVersion { id, position: self.position_of(id), bounds: v.bounds(), mtime: v.mtime })
            .collect()
    }

    /// What each of the first `depth` sets says of `node`, newest first, deletions too.
    pub fn history(&self, node: NodeId, depth: u32) -> impl Iterator<Item = VersionId> + '_ {
        self.version_chain(node, depth).map(|(id, _)| id)
    }

    /// Metadata of a version; `None` for deletions.
    pub fn meta(&self, id: VersionId) -> Option<EntryMeta> {
        let v = self.versions.get(index(id.0))?;
        self.attributes.unpack(v.owner, (v.kind, v.aux), v.mode, v.mtime)
    }

    /// Whether a version is a directory.
    pub fn is_dir(&self, id: VersionId) -> bool {
        self.versions.get(index(id.0)).is_some_and(|v| v.kind == VersionKind::Dir)
    }

    /// Bounds of a version's size, if a signature gave them.
    pub fn bounds(&self, id: VersionId) -> Option<SizeBounds> {
        self.versions.get(index(id.0)).and_then(VersionRecord::bounds)
    }

    /// Position in the branch of the set that wrote a version.
    pub fn position(&self, id: VersionId) -> Option<u32> {
        self.versions.get(index(id.0)).map(|_| self.position_of(id))
    }

    /// The position of a version's set and its place among that set's versions, which is the same at every mount; `None` if
    /// the set had to be rebuilt from its volumes.
    pub fn index_in_set(&self, id: VersionId) -> Option<(u32, u32)> {
        let position = self.position(id).filter(|position| !self.rebuilt.contains(position))?;
        Some((position, id.0.checked_sub(*self.set_starts.get(index(position))?)?))
    }

    /// The exact size of a version in bytes, once it was learnt.
    pub fn exact_size(&self, id: VersionId) -> Option<u64> {
        let size = self.versions.get(index(id.0))?.size.load(Ordering::Acquire);
        (size & EXACT != 0).then_some(size & !EXACT)
    }

    /// Keeps the exact size of a version, which its bounds allow; false if it was known.
    pub fn set_exact_size(&self, id: VersionId, size: u64) -> bool {
        let Some(version) = self.versions.get(index(id.0)).filter(|v| v.kind == VersionKind::File && size < UNKNOWN)
        else {
            return false;
        };
        version.size.swap(size | EXACT, Ordering::AcqRel) != size | EXACT
    }

    /// The paths that the set at `position` names, in archive order, with whether they are present.
    pub fn set_entries(&self, position: u32) -> impl Iterator<Item = (NodeId, bool)> + '_ {
        let range = self.versions.get(self.versions_of(position)).unwrap_or(&[]);
        range.iter().map(|v| (NodeId(v.node), v.kind != VersionKind::Deleted))
    }

    /// The numbers of the versions of the set at `position`.
    pub(super) fn versions_of(&self, position: u32) -> std::ops::Range<usize> {
        let start = |position: usize| self.set_starts.get(position).map_or(self.versions.len(), |&s| index(s));
        start(index(position))..start(index(position).saturating_add(1))
    }

    fn position_of(&self, id: VersionId) -> u32 {
        let begun = self.set_starts.partition_point(|&start| start <= id.0);
        u32::try_from(begun.saturating_sub(1)).unwrap_or(NONE)
    }

    /// The versions of `node` that snapshots of the first `depth` sets may see, newest first.
    fn version_chain(&self, node: NodeId, depth: u32) -> impl Iterator<Item = (VersionId, &VersionRecord)> {
        let end = self.set_starts.get(index(depth.min(self.published))).copied().unwrap_or(NONE);
        let mut next = self.nodes.get(index(node.0)).map_or(NONE, |n| n.newest);
        std::iter::from_fn(move || {
            let version = self.versions.get(index(next))?;
            let id = VersionId(next);
            next = version.older;
            Some((id, version))
        })
        .skip_while(move |(id, _)| id.0 >= end)
    }
}

impl VersionRecord {
    /// The bounds of the size. A signature of n blocks of length b bounds it by (n-1)*b+1 and n*b, so that the exact size
    /// tells the bounds again.
    pub(super) fn bounds(&self) -> Option<SizeBounds> {
        if self.kind != VersionKind::File || self.aux == UNBOUNDED {
            return None;
        }
        let (size, span) = (self.size.load(Ordering::Acquire), u64::from(self.aux));
        let max = if size & EXACT == 0 { size } else { (size & !EXACT).next_multiple_of(span.saturating_add(1)) };
        Some(SizeBounds { blocks: 0, min: max.saturating_sub(span), max })
    }
}
