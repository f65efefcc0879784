//! Building a [`VersionTable`]: sets are begun, filled with what they say of each path, and published.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::AtomicU64;

use hashbrown::DefaultHashBuilder;

use super::attributes::VersionKind;
use super::error::TreeError;
use super::ids::{NONE, NodeId, index, number};
use super::version_table::{Change, EXACT, PathNode, UNBOUNDED, UNKNOWN, VersionRecord, VersionTable};
use dupfs_format::ArchivePath;
use dupfs_format::sigtar::SizeBounds;

/// What building remembers from one path to the next; nothing that a reader needs.
#[derive(Debug, Default)]
pub(super) struct InsertCursor {
    /// The directories of the last path: where each ends in it, and its node.
    dirs: Vec<(usize, u32)>,
    path: Vec<u8>,
    /// The last child of directories that got one.
    last_children: HashMap<u32, u32>,
}

impl VersionTable {
    /// Begins the next set of the branch; entries pushed from now on belong to it. They are seen once it is published.
    ///
    /// # Errors
    /// [`TreeError::TooLarge`] beyond 2^32 versions.
    pub fn begin_set(&mut self) -> Result<(), TreeError> {
        self.set_starts.push(number(self.versions.len())?);
        self.node_starts.push(number(self.nodes.len())?);
        Ok(())
    }

    /// Shows the set that was begun to readers.
    pub fn publish_set(&mut self) {
        self.published = u32::try_from(self.set_starts.len()).unwrap_or(NONE);
    }

    /// Gives back what only building needs; a set that is begun later finds it again.
    pub fn settle(&mut self) {
        self.cursor = InsertCursor::default();
    }

    /// Records what the current set says of `path`.
    ///
    /// # Errors
    /// [`TreeError::TooLarge`] beyond 2^32 paths or versions.
    pub fn push(&mut self, path: &ArchivePath, change: Change) -> Result<(), TreeError> {
        let node = self.intern_path(path)?;
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
        let (size, aux) = if kind == VersionKind::File { packed_size(bounds) } else { (UNKNOWN, aux) };
        self.add_version(VersionRecord { size: AtomicU64::new(size), mtime, older: NONE, node, owner, aux, mode, kind })
    }

    /// Adds a version as the newest of its node.
    pub(super) fn add_version(&mut self, mut version: VersionRecord) -> Result<(), TreeError> {
        let id = number(self.versions.len())?;
        let Some(slot) = self.nodes.get_mut(index(version.node)) else { return Err(TreeError::TooLarge) };
        version.older = std::mem::replace(&mut slot.newest, id);
        self.versions.push(version);
        Ok(())
    }

    /// The node of `path`. Consecutive paths share directories, which are not looked up again.
    fn intern_path(&mut self, path: &ArchivePath) -> Result<u32, TreeError> {
        let bytes = path.as_bytes();
        let same = self.cursor.path.iter().zip(bytes).take_while(|(a, b)| a == b).count();
        let shared = |&&(end, _): &&(usize, u32)| end <= same && matches!(bytes.get(end), None | Some(b'/'));
        let known = self.cursor.dirs.iter().take_while(shared).count();
        self.cursor.dirs.truncate(known);
        let (mut from, mut node) =
            self.cursor.dirs.last().map_or((0, NodeId::ROOT.0), |&(end, node)| (end.saturating_add(1), node));
        while let Some(rest) = bytes.get(from..).filter(|rest| !rest.is_empty()) {
            let name = rest.split(|&b| b == b'/').next().unwrap_or(rest);
            node = match self.child(NodeId(node), name) {
                Some(child) => child.0,
                None => self.add_child(node, name)?,
            };
            let end = from.saturating_add(name.len());
            self.cursor.dirs.push((end, node));
            from = end.saturating_add(1);
        }
        self.cursor.path.clear();
        self.cursor.path.extend_from_slice(bytes);
        Ok(node)
    }

    fn add_child(&mut self, parent: u32, name: &[u8]) -> Result<u32, TreeError> {
        let id = number(self.nodes.len())?;
        let name_start = number(self.names.len())?;
        number(self.names.len().saturating_add(name.len()))?;
        self.names.extend_from_slice(name);
        let last = match self.cursor.last_children.get(&parent) {
            Some(&last) => last,
            None => self.last_child(parent),
        };
        let slot = match last {
            NONE => self.nodes.get_mut(index(parent)).map(|dir| &mut dir.first_child),
            last => self.nodes.get_mut(index(last)).map(|sibling| &mut sibling.next_sibling),
        };
        if let Some(slot) = slot {
            *slot = id;
        }
        self.cursor.last_children.insert(parent, id);
        self.nodes.push(PathNode { parent, name_start, first_child: NONE, next_sibling: NONE, newest: NONE });
        self.enter_name(id);
        Ok(id)
    }

    fn last_child(&self, parent: u32) -> u32 {
        let mut last = NONE;
        let mut child = self.first_child(NodeId(parent));
        while let Some(id) = child {
            last = id.0;
            child = self.next_sibling(id);
        }
        last
    }

    /// Makes node `id` found by its name.
    pub(super) fn enter_name(&mut self, id: u32) {
        let Some(parent) = self.nodes.get(index(id)).map(|n| n.parent) else { return };
        let hash = self.hash(parent, self.name(NodeId(id)));
        let (nodes, names, hasher) = (&self.nodes, &self.names, &self.hasher);
        self.by_name.insert_unique(hash, id, |&other| {
            let (at, next) = (nodes.get(index(other)), nodes.get(index(other).saturating_add(1)));
            let end = next.map_or(names.len(), |next| index(next.name_start));
            at.map_or(0, |n| hash_of(hasher, n.parent, names.get(index(n.name_start)..end).unwrap_or(&[])))
        });
    }

    pub(super) fn hash(&self, parent: u32, name: &[u8]) -> u64 {
        hash_of(&self.hasher, parent, name)
    }

    pub(super) fn is_called(&self, id: u32, parent: u32, name: &[u8]) -> bool {
        self.nodes.get(index(id)).is_some_and(|n| n.parent == parent && self.name(NodeId(id)) == name)
    }
}

/// A file's size as a version keeps it: the number and the difference of its bounds.
fn packed_size(bounds: Option<SizeBounds>) -> (u64, u32) {
    let Some(SizeBounds { min, max, .. }) = bounds else { return (UNKNOWN, UNBOUNDED) };
    match u32::try_from(max.saturating_sub(min)) {
        Ok(0) if max < UNKNOWN => (max | EXACT, 0),
        Ok(span) if span != UNBOUNDED && max < UNKNOWN => (max, span),
        // No signature has such blocks; without bounds the size is found all the same.
        _ => (UNKNOWN, UNBOUNDED),
    }
}

fn hash_of(hasher: &DefaultHashBuilder, parent: u32, name: &[u8]) -> u64 {
    let mut h = hasher.build_hasher();
    h.write_u32(parent);
    h.write(name);
    h.finish()
}
