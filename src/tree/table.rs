//! The table of versions per path: one for a line of sets, shared by all its snapshots.
//!
//! Its size is paths + changes, never paths x snapshots. Nodes are added set by set in the order of the signature
//! archives, so a node's number is the same at every mount of the same backup, however many sets are loaded; inode
//! numbers rest on that.

use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};

use hashbrown::{DefaultHashBuilder, HashTable};

use super::TreeError;
use super::gap::Gap;
use super::side::{Packed, Side};
use crate::format::sigtar::SizeBounds;
use crate::types::{ArchivePath, EntryMeta};

/// A path's number in a [`Table`]. The root is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub u32);

impl NodeId {
    /// The backup's root.
    pub const ROOT: Self = Self(0);
}

/// A version's number in a [`Table`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct VersionId(pub u32);

pub(super) const NONE: u32 = u32::MAX;
const SIZE_UNKNOWN: u64 = u64::MAX;

/// What one set says of one path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The object exists with this metadata; for regular files, the bounds of its size if a signature gave them.
    Present(EntryMeta, Option<SizeBounds>),
    /// The object no longer exists.
    Deleted,
}

#[derive(Debug)]
struct Node {
    parent: u32,
    name_start: u64,
    name_len: u16,
    first_child: u32,
    last_child: u32,
    next_sibling: u32,
    newest: u32,
}

#[derive(Debug)]
struct Version {
    position: u32,
    older: u32,
    node: u32,
    owner: u32,
    mode: u16,
    kind: Packed,
    mtime: i64,
    /// Bounds of the size; `max == SIZE_UNKNOWN` where no signature was at hand.
    min: u64,
    max: u64,
    exact: AtomicU64,
}

/// One regular-file version of a path, as the content layer needs it.
#[derive(Clone, Copy, Debug)]
pub struct FileVersion {
    /// The version's number.
    pub id: VersionId,
    /// Position of its set in the line.
    pub position: u32,
    /// Bounds of the size, if a signature gave them.
    pub bounds: Option<SizeBounds>,
    /// Modification time in the signature archive.
    pub mtime: i64,
}

/// The table. See the module's documentation.
#[derive(Debug)]
pub struct Table {
    nodes: Vec<Node>,
    names: Vec<u8>,
    versions: Vec<Version>,
    /// `set_starts[i]` is the first version of the set at position i; versions of one set are in archive order.
    set_starts: Vec<u32>,
    by_name: HashTable<u32>,
    hasher: DefaultHashBuilder,
    side: Side,
    pub(super) gaps: Vec<Gap>,
    /// Positions of sets whose entries are from their volumes.
    pub(super) rebuilt: Vec<u32>,
}

impl Default for Table {
    fn default() -> Self {
        let root = Node {
            parent: NONE,
            name_start: 0,
            name_len: 0,
            first_child: NONE,
            last_child: NONE,
            next_sibling: NONE,
            newest: NONE,
        };
        Self {
            nodes: vec![root],
            names: Vec::new(),
            versions: Vec::new(),
            set_starts: Vec::new(),
            by_name: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            side: Side::default(),
            gaps: Vec::new(),
            rebuilt: Vec::new(),
        }
    }
}

pub(super) fn index(of: u32) -> usize {
    of as usize
}

pub(super) fn number(len: usize) -> Result<u32, TreeError> {
    u32::try_from(len).ok().filter(|&n| n < NONE).ok_or(TreeError::TooLarge)
}

impl Table {
    /// Number of sets loaded.
    pub fn depth(&self) -> u32 {
        u32::try_from(self.set_starts.len()).unwrap_or(NONE)
    }

    /// Number of paths.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether no set was loaded.
    pub fn is_empty(&self) -> bool {
        self.set_starts.is_empty()
    }

    /// Begins the next set of the line; entries pushed from now on belong to it.
    ///
    /// # Errors
    /// [`TreeError::TooLarge`] beyond 2^32 versions.
    pub fn begin_set(&mut self) -> Result<(), TreeError> {
        self.set_starts.push(number(self.versions.len())?);
        Ok(())
    }

    /// Records what the current set says of `path`.
    ///
    /// # Errors
    /// [`TreeError::TooLarge`] beyond 2^32 paths or versions.
    pub fn push(&mut self, path: &ArchivePath, change: Change) -> Result<(), TreeError> {
        let node = self.intern_path(path)?;
        let position = self.depth().saturating_sub(1);
        let (meta, bounds) = match change {
            Change::Deleted => (None, None),
            Change::Present(meta, bounds) => (Some(meta), bounds),
        };
        let (owner, mode, mtime, kind) = match meta {
            None => (NONE, 0, 0, Packed::Deleted),
            Some(meta) => {
                let (mode, mtime) = (meta.mode, meta.mtime);
                let (owner, kind) = self.side.pack(meta)?;
                (owner, mode, mtime, kind)
            }
        };
        let (min, max) = bounds.map_or((0, SIZE_UNKNOWN), |b| (b.min, b.max));
        let exact = AtomicU64::new(bounds.and_then(|b| b.exact()).unwrap_or(SIZE_UNKNOWN));
        let id = number(self.versions.len())?;
        let Some(slot) = self.nodes.get_mut(index(node)) else { return Err(TreeError::TooLarge) };
        let older = std::mem::replace(&mut slot.newest, id);
        self.versions.push(Version { position, older, node, owner, mode, kind, mtime, min, max, exact });
        Ok(())
    }

    /// Whether the set at `position` says anything of `node`.
    pub(super) fn is_named(&self, node: NodeId, position: u32) -> bool {
        self.version_chain(node, position.saturating_add(1)).any(|(_, v)| v.position == position)
    }

    /// The child of `parent` called `name`, whether or not it exists at some snapshot.
    pub fn child(&self, parent: NodeId, name: &[u8]) -> Option<NodeId> {
        let hash = self.hash(parent.0, name);
        self.by_name.find(hash, |&id| self.is_called(id, parent.0, name)).map(|&id| NodeId(id))
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
        self.nodes.get(index(node.0)).map_or(&[], |n| self.name_of(n))
    }

    /// The node's path.
    pub fn path(&self, node: NodeId) -> ArchivePath {
        let mut names = Vec::new();
        let mut at = node.0;
        while let Some(n) = self.nodes.get(index(at)) {
            if n.parent == NONE {
                break;
            }
            names.push(self.name_of(n));
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
        self.version_chain(node, depth).next().filter(|(_, v)| v.kind != Packed::Deleted).map(|(id, _)| id)
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
            .take_while(|(_, v)| v.kind == Packed::File)
            .map(|(id, v)| FileVersion { id, position: v.position, bounds: v.bounds(), mtime: v.mtime })
            .collect()
    }

    /// What all sets that are loaded say of `node`, newest first, deletions too.
    pub fn versions_of(&self, node: NodeId) -> impl Iterator<Item = VersionId> + '_ {
        self.version_chain(node, NONE).map(|(id, _)| id)
    }

    /// Metadata of a version; `None` for deletions.
    pub fn meta(&self, id: VersionId) -> Option<EntryMeta> {
        let v = self.versions.get(index(id.0))?;
        self.side.unpack(v.owner, v.kind, v.mode, v.mtime)
    }

    /// Whether a version is a directory.
    pub fn is_dir(&self, id: VersionId) -> bool {
        self.versions.get(index(id.0)).is_some_and(|v| v.kind == Packed::Dir)
    }

    /// Bounds of a version's size, if a signature gave them.
    pub fn bounds(&self, id: VersionId) -> Option<SizeBounds> {
        self.versions.get(index(id.0)).and_then(Version::bounds)
    }

    /// Position in the line of the set that wrote a version.
    pub fn position(&self, id: VersionId) -> Option<u32> {
        self.versions.get(index(id.0)).map(|v| v.position)
    }

    /// The exact size of a version in bytes, once it was learnt.
    pub fn exact_size(&self, id: VersionId) -> Option<u64> {
        let size = self.versions.get(index(id.0))?.exact.load(Ordering::Acquire);
        (size != SIZE_UNKNOWN).then_some(size)
    }

    /// Keeps the exact size of a version.
    pub fn learn_size(&self, id: VersionId, size: u64) {
        if let Some(v) = self.versions.get(index(id.0)) {
            v.exact.store(size, Ordering::Release);
        }
    }

    /// The paths that the set at `position` names, in archive order, with whether they are present.
    pub fn set_entries(&self, position: u32) -> impl Iterator<Item = (NodeId, bool)> + '_ {
        let start = self.set_starts.get(index(position)).map_or(self.versions.len(), |&s| index(s));
        let end = self.set_starts.get(index(position).saturating_add(1)).map_or(self.versions.len(), |&s| index(s));
        let range = self.versions.get(start..end).unwrap_or(&[]);
        range.iter().map(|v| (NodeId(v.node), v.kind != Packed::Deleted))
    }

    fn version_chain(&self, node: NodeId, depth: u32) -> impl Iterator<Item = (VersionId, &Version)> {
        let mut next = self.nodes.get(index(node.0)).map_or(NONE, |n| n.newest);
        std::iter::from_fn(move || {
            let version = self.versions.get(index(next))?;
            let id = VersionId(next);
            next = version.older;
            Some((id, version))
        })
        .skip_while(move |(_, v)| v.position >= depth)
    }

    fn intern_path(&mut self, path: &ArchivePath) -> Result<u32, TreeError> {
        let mut node = NodeId::ROOT.0;
        for name in path.components() {
            node = match self.child(NodeId(node), name) {
                Some(child) => child.0,
                None => self.add_child(node, name)?,
            };
        }
        Ok(node)
    }

    fn add_child(&mut self, parent: u32, name: &[u8]) -> Result<u32, TreeError> {
        let id = number(self.nodes.len())?;
        let name_len = u16::try_from(name.len()).map_err(|_| TreeError::TooLarge)?;
        let name_start = self.names.len() as u64;
        self.names.extend_from_slice(name);
        self.nodes.push(Node {
            parent,
            name_start,
            name_len,
            first_child: NONE,
            last_child: NONE,
            next_sibling: NONE,
            newest: NONE,
        });
        let last = self.nodes.get_mut(index(parent)).map(|p| {
            if p.first_child == NONE {
                p.first_child = id;
            }
            std::mem::replace(&mut p.last_child, id)
        });
        if let Some(sibling) = last.filter(|&l| l != NONE).and_then(|l| self.nodes.get_mut(index(l))) {
            sibling.next_sibling = id;
        }
        let hash = self.hash(parent, name);
        let (nodes, names, hasher) = (&self.nodes, &self.names, &self.hasher);
        self.by_name.insert_unique(hash, id, |&other| {
            nodes.get(index(other)).map_or(0, |n| hash_of(hasher, n.parent, slice_of(names, n)))
        });
        Ok(id)
    }

    fn hash(&self, parent: u32, name: &[u8]) -> u64 {
        hash_of(&self.hasher, parent, name)
    }

    fn is_called(&self, id: u32, parent: u32, name: &[u8]) -> bool {
        self.nodes.get(index(id)).is_some_and(|n| n.parent == parent && self.name_of(n) == name)
    }

    fn name_of(&self, node: &Node) -> &[u8] {
        slice_of(&self.names, node)
    }
}

impl Version {
    fn bounds(&self) -> Option<SizeBounds> {
        (self.max != SIZE_UNKNOWN).then_some(SizeBounds { blocks: 0, min: self.min, max: self.max })
    }
}

fn slice_of<'a>(names: &'a [u8], node: &Node) -> &'a [u8] {
    let start = usize::try_from(node.name_start).unwrap_or(usize::MAX);
    names.get(start..start.saturating_add(usize::from(node.name_len))).unwrap_or(&[])
}

fn hash_of(hasher: &DefaultHashBuilder, parent: u32, name: &[u8]) -> u64 {
    let mut h = hasher.build_hasher();
    h.write_u32(parent);
    h.write(name);
    h.finish()
}
