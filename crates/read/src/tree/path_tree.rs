//! The paths of a backup as a tree of names.
//!
//! Nodes are numbered in the order in which they are added. A parent is numbered before its children, and siblings are linked
//! in the order of their numbers.

use std::hash::{BuildHasher, Hasher};

use hashbrown::hash_table::Entry;
use hashbrown::{DefaultHashBuilder, HashMap, HashTable};

use super::error::TreeError;
use super::ids::{NONE, NodeId, checked_number, list_index};
use dupfs_base::common_prefix_len;
use dupfs_format::ArchivePath;

/// A path. Its name ends where the next node's begins.
#[derive(Debug)]
struct PathNode {
    parent: u32,
    name_start: u32,
    first_child: u32,
    next_sibling: u32,
}

/// The state of insertion from one path to the next; readers do not need it.
#[derive(Debug, Default)]
struct InsertPosition {
    /// The directories of the last path: the end of each in it, and its node.
    dirs: Vec<(usize, u32)>,
    path: Vec<u8>,
    /// The last child of directories that got one.
    last_children: HashMap<u32, u32>,
}

/// The nodes and their names.
#[derive(Debug)]
pub(super) struct PathTree {
    nodes: Vec<PathNode>,
    names: Vec<u8>,
    by_name: HashTable<u32>,
    hasher: DefaultHashBuilder,
    insert: InsertPosition,
}

impl Default for PathTree {
    fn default() -> Self {
        let root = PathNode { parent: NONE, name_start: 0, first_child: NONE, next_sibling: NONE };
        Self {
            nodes: vec![root],
            names: Vec::new(),
            by_name: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            insert: InsertPosition::default(),
        }
    }
}

impl PathTree {
    /// Number of nodes.
    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Bytes of the names of the first `nodes` nodes.
    pub(super) fn names_len(&self, nodes: usize) -> usize {
        self.nodes.get(nodes).map_or(self.names.len(), |next| list_index(next.name_start))
    }

    /// The nodes of a range as [`PathTreeBuilder::push`] takes them.
    pub(super) fn raw_nodes(&self, range: std::ops::Range<usize>) -> impl Iterator<Item = (u32, u32)> + '_ {
        self.nodes.get(range).unwrap_or(&[]).iter().map(|node| (node.parent, node.name_start))
    }

    /// The bytes of a range of all names.
    pub(super) fn raw_names(&self, range: std::ops::Range<usize>) -> &[u8] {
        self.names.get(range).unwrap_or(&[])
    }

    /// The child of `parent` called `name`.
    pub(super) fn child(&self, parent: NodeId, name: &[u8]) -> Option<NodeId> {
        self.by_name.find(self.hash(parent.0, name), |&id| self.has_name(id, parent.0, name)).map(|&id| NodeId(id))
    }

    /// The node of `path`.
    pub(super) fn find(&self, path: &ArchivePath) -> Option<NodeId> {
        path.components().try_fold(NodeId::ROOT, |node, name| self.child(node, name))
    }

    /// The node's parent; the root's is itself.
    pub(super) fn parent(&self, node: NodeId) -> Option<NodeId> {
        let parent = self.nodes.get(node.index())?.parent;
        Some(if parent == NONE { NodeId::ROOT } else { NodeId(parent) })
    }

    /// The last component of the node's path; empty for the root.
    pub(super) fn name(&self, node: NodeId) -> &[u8] {
        let Some(start) = self.nodes.get(node.index()).map(|n| list_index(n.name_start)) else { return &[] };
        self.raw_names(start..self.names_len(node.index().saturating_add(1)))
    }

    /// The node's path.
    pub(super) fn path(&self, node: NodeId) -> ArchivePath {
        let mut names = Vec::new();
        let mut at = node.0;
        while let Some(n) = self.nodes.get(list_index(at)) {
            if n.parent == NONE {
                break;
            }
            names.push(self.name(NodeId(at)));
            at = n.parent;
        }
        names.reverse();
        ArchivePath::parse(&names.join(&b'/')).unwrap_or_default()
    }

    /// The first child of `node`.
    pub(super) fn first_child(&self, node: NodeId) -> Option<NodeId> {
        self.nodes.get(node.index()).map(|n| n.first_child).filter(|&c| c != NONE).map(NodeId)
    }

    /// The child after `node` in its directory.
    pub(super) fn next_sibling(&self, node: NodeId) -> Option<NodeId> {
        self.nodes.get(node.index()).map(|n| n.next_sibling).filter(|&c| c != NONE).map(NodeId)
    }

    /// The children of `node`, in the order of their numbers.
    pub(super) fn children(&self, node: NodeId) -> impl Iterator<Item = NodeId> + '_ {
        std::iter::successors(self.first_child(node), |child| self.next_sibling(*child))
    }

    /// The node of `path`, which is added with its directories if it is new. Consecutive paths share directories, which are
    /// not looked up again.
    ///
    /// # Errors
    /// [`TreeError::TooLarge`] beyond 2^32 nodes or bytes of names.
    pub(super) fn insert(&mut self, path: &ArchivePath) -> Result<NodeId, TreeError> {
        let bytes = path.as_bytes();
        let same = common_prefix_len(&self.insert.path, bytes);
        let shared = |&&(end, _): &&(usize, u32)| end <= same && matches!(bytes.get(end), None | Some(b'/'));
        let known = self.insert.dirs.iter().take_while(shared).count();
        self.insert.dirs.truncate(known);
        let (mut from, mut node) =
            self.insert.dirs.last().map_or((0, NodeId::ROOT.0), |&(end, node)| (end.saturating_add(1), node));
        while let Some(rest) = bytes.get(from..).filter(|rest| !rest.is_empty()) {
            let name = rest.split(|&b| b == b'/').next().unwrap_or(rest);
            node = match self.child(NodeId(node), name) {
                Some(child) => child.0,
                None => self.add_child(node, name)?,
            };
            let end = from.saturating_add(name.len());
            self.insert.dirs.push((end, node));
            from = end.saturating_add(1);
        }
        self.insert.path.clear();
        self.insert.path.extend_from_slice(bytes);
        Ok(NodeId(node))
    }

    /// Frees the memory that only insertion needs; a later insertion rebuilds it.
    pub(super) fn finish_inserting(&mut self) {
        self.insert = InsertPosition::default();
    }

    fn add_child(&mut self, parent: u32, name: &[u8]) -> Result<u32, TreeError> {
        let id = checked_number(self.nodes.len())?;
        let name_start = checked_number(self.names.len())?;
        checked_number(self.names.len().saturating_add(name.len()))?;
        self.names.extend_from_slice(name);
        let last = match self.insert.last_children.get(&parent) {
            Some(&last) => last,
            None => self.children(NodeId(parent)).last().map_or(NONE, |last| last.0),
        };
        let slot = match last {
            NONE => self.nodes.get_mut(list_index(parent)).map(|dir| &mut dir.first_child),
            last => self.nodes.get_mut(list_index(last)).map(|sibling| &mut sibling.next_sibling),
        };
        if let Some(slot) = slot {
            *slot = id;
        }
        self.insert.last_children.insert(parent, id);
        self.nodes.push(PathNode { parent, name_start, first_child: NONE, next_sibling: NONE });
        self.index_name(id);
        Ok(id)
    }

    /// Makes node `id`, the last one, found by its name.
    fn index_name(&mut self, id: u32) {
        let Some(parent) = self.nodes.get(list_index(id)).map(|n| n.parent) else { return };
        let hash = self.hash(parent, self.name(NodeId(id)));
        let (nodes, names, hasher) = (&self.nodes, &self.names, &self.hasher);
        self.by_name.insert_unique(hash, id, |&other| {
            let (at, next) = (nodes.get(list_index(other)), nodes.get(list_index(other).saturating_add(1)));
            let end = next.map_or(names.len(), |next| list_index(next.name_start));
            at.map_or(0, |n| hash_of(hasher, n.parent, names.get(list_index(n.name_start)..end).unwrap_or(&[])))
        });
    }

    /// Makes all nodes found by their names; `None` if a name is invalid or a directory has it twice.
    fn index_names(&mut self) -> Option<()> {
        let count = self.nodes.len();
        let mut by_name = HashTable::with_capacity(count);
        for id in 1..u32::try_from(count).ok()? {
            let (parent, name) = (self.nodes.get(list_index(id))?.parent, self.name(NodeId(id)));
            if matches!(name, b"." | b"..") || name.iter().any(|byte| matches!(byte, 0 | b'/')) {
                return None;
            }
            let hash_again =
                |id: u32| self.nodes.get(list_index(id)).map_or(0, |n| self.hash(n.parent, self.name(NodeId(id))));
            let equal = |&other: &u32| self.has_name(other, parent, name);
            match by_name.entry(self.hash(parent, name), equal, |&id| hash_again(id)) {
                Entry::Occupied(_) => return None,
                Entry::Vacant(slot) => slot.insert(id),
            };
        }
        self.by_name = by_name;
        Some(())
    }

    /// Links siblings in the order of their numbers, as insertion does.
    fn link_children(&mut self) -> Option<()> {
        for id in (1..self.nodes.len()).rev() {
            let parent = self.nodes.get(id)?.parent;
            let number = u32::try_from(id).ok()?;
            let after = std::mem::replace(&mut self.nodes.get_mut(list_index(parent))?.first_child, number);
            self.nodes.get_mut(id)?.next_sibling = after;
        }
        Some(())
    }

    fn hash(&self, parent: u32, name: &[u8]) -> u64 {
        hash_of(&self.hasher, parent, name)
    }

    fn has_name(&self, id: u32, parent: u32, name: &[u8]) -> bool {
        self.nodes.get(list_index(id)).is_some_and(|n| n.parent == parent && self.name(NodeId(id)) == name)
    }
}

/// Builds a [`PathTree`] of nodes in the order of their numbers, as [`PathTree::raw_nodes`] gives them. Others are
/// refused.
#[derive(Debug)]
pub(super) struct PathTreeBuilder {
    nodes: Vec<PathNode>,
    names_len: usize,
    last_start: u32,
}

impl PathTreeBuilder {
    /// A builder of a tree of `nodes` nodes with `names_len` bytes of names.
    pub(super) fn new(nodes: usize, names_len: usize) -> Self {
        Self { nodes: Vec::with_capacity(nodes), names_len, last_start: 0 }
    }

    /// Adds a node. `None` if it does not fit those before it.
    pub(super) fn push(&mut self, parent: u32, name_start: u32) -> Option<()> {
        // A parent comes before its children, so that there is no cycle. Only the root has no name.
        let (id, start) = (self.nodes.len(), list_index(name_start));
        let fits = if id == 0 { parent == NONE && name_start == 0 } else { list_index(parent) < id };
        let named = if id < 2 { name_start == 0 } else { name_start > self.last_start };
        if !fits || !named || start > self.names_len || (id > 0 && start == self.names_len) {
            return None;
        }
        self.last_start = name_start;
        self.nodes.push(PathNode { parent, name_start, first_child: NONE, next_sibling: NONE });
        Some(())
    }

    /// The tree with these names. `None` if a name is invalid or a directory has it twice.
    pub(super) fn finish(self, names: Vec<u8>) -> Option<PathTree> {
        let Self { nodes, names_len, .. } = self;
        let named = nodes.len() > 1 || names_len == 0;
        if nodes.is_empty() || !named || names.len() != names_len {
            return None;
        }
        let mut tree = PathTree { nodes, names, ..PathTree::default() };
        tree.link_children()?;
        tree.index_names()?;
        Some(tree)
    }
}

fn hash_of(hasher: &DefaultHashBuilder, parent: u32, name: &[u8]) -> u64 {
    let mut h = hasher.build_hasher();
    h.write_u32(parent);
    h.write(name);
    h.finish()
}
