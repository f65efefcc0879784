//! The members of an archive as a tree: the result of extracting it into an empty directory, except that nothing is
//! hidden. If extracting would fail or lose something, a name gets a suffix.

mod encode;
pub(crate) mod member;
pub(crate) mod names;

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};

use dupfs_format::EntryKind;
use member::{ArchiveEntry, ArchiveMember, EntryNumber, MemberData};
use names::{broken_link, components, shorten, string_bytes, with_valid_target};

/// Number of a node in a [`ArchiveTable`]; the root is 0. The same for the same archive at every time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeKey(pub u32);

impl NodeKey {
    /// The archive itself, as a directory.
    pub const ROOT: Self = Self(0);
}

/// A name in an archive.
#[derive(Debug)]
pub struct ArchiveNode {
    /// The directory it is in; the root is its own.
    pub parent: NodeKey,
    /// The last component of its path; empty for the root.
    pub name: Box<[u8]>,
    /// Number of its entry; `None` for a directory that only paths below it imply.
    pub entry: Option<EntryNumber>,
    /// Directories in it.
    pub subdirs: u32,
    children: u32,
    first_child: Option<u32>,
    last_child: Option<u32>,
    next_sibling: Option<u32>,
}

/// The bound that a table would exceed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TableFull {
    Members,
    Names,
}

/// The tree of an archive's members.
#[derive(Debug)]
pub struct ArchiveTable {
    nodes: Vec<ArchiveNode>,
    entries: Vec<ArchiveEntry>,
    index: HashTable<u32>,
    hasher: DefaultHashBuilder,
    max_members: usize,
    max_names: usize,
    /// Bytes of all strings: names, targets of links, owners, reasons.
    names: usize,
    extents: usize,
    shortened: usize,
}

/// Symbolic links followed for one member's path.
const FOLLOWED: usize = 40;

impl ArchiveTable {
    pub(super) fn new(max_members: usize, max_names: usize) -> Self {
        let root = ArchiveNode::new(0, Box::default());
        Self {
            nodes: vec![root],
            entries: Vec::new(),
            index: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            max_members,
            max_names,
            names: 0,
            extents: 0,
            shortened: 0,
        }
    }

    /// The node of that number.
    pub fn node(&self, key: NodeKey) -> Option<&ArchiveNode> {
        self.nodes.get(key.0 as usize)
    }

    /// The entry of `key`; `None` for an implied directory.
    pub fn entry(&self, key: NodeKey) -> Option<&ArchiveEntry> {
        self.node(key)?.entry.and_then(|entry| self.entries.get(entry.index()))
    }

    /// Returns true if `key` is a directory.
    pub fn is_dir(&self, key: NodeKey) -> bool {
        self.entry(key).is_none_or(|entry| entry.meta.kind == EntryKind::Dir)
    }

    /// The child of `dir` called `name`.
    pub fn child(&self, dir: NodeKey, name: &[u8]) -> Option<NodeKey> {
        let found = self.index.find(self.hash(dir.0, name), |&n| self.is_named(n, dir.0, name));
        found.map(|&n| NodeKey(n))
    }

    /// The first child of `dir`.
    pub fn first_child(&self, dir: NodeKey) -> Option<NodeKey> {
        self.node(dir)?.first_child.map(NodeKey)
    }

    /// The child of the same directory after `key`.
    pub fn next_sibling(&self, key: NodeKey) -> Option<NodeKey> {
        self.node(key)?.next_sibling.map(NodeKey)
    }

    /// Names from the root to `key`.
    pub fn path(&self, key: NodeKey) -> Vec<&[u8]> {
        let mut names = Vec::new();
        let mut at = key;
        while let Some(node) = self.node(at).filter(|_| at != NodeKey::ROOT) {
            names.push(&*node.name);
            at = node.parent;
        }
        names.reverse();
        names
    }

    /// Number of nodes.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Returns true if there is no member.
    pub fn is_empty(&self) -> bool {
        self.nodes.len() <= 1 && self.entries.is_empty()
    }

    /// Number of names that are too long to be shown unchanged.
    pub(super) fn shortened(&self) -> usize {
        self.shortened
    }

    fn hash(&self, dir: u32, name: &[u8]) -> u64 {
        self.hasher.hash_one((dir, name))
    }

    fn is_named(&self, node: u32, dir: u32, name: &[u8]) -> bool {
        let node = self.nodes.get(node as usize);
        node.is_some_and(|node| node.parent.0 == dir && *node.name == *name)
    }

    /// Adds a member; a later one of the same path replaces it.
    pub(super) fn insert(&mut self, member: ArchiveMember<'_>) -> Result<(), TableFull> {
        if self.entries.len() >= self.max_members || self.extents >= self.max_members.saturating_mul(4) {
            return Err(TableFull::Members);
        }
        let target = member.hard_link.and_then(|target| self.find(&components(target)));
        let linked = target.and_then(|found| self.linkable(found));
        let new = match (member.hard_link, linked) {
            (Some(path), None) => broken_link(member.entry, path),
            _ => with_valid_target(member.entry),
        };
        if linked.is_none() {
            // Before it has a name: a table that is full has no names without entries.
            self.charge(string_bytes(&new))?;
        }
        let is_dir = new.meta.kind == EntryKind::Dir;
        let names = components(member.path);
        let Some((leaf, dirs)) = names.split_last() else {
            if is_dir {
                let entry = self.push_entry(new)?;
                self.set_entry(0, entry);
            }
            return Ok(());
        };
        let (mut dir, mut left) = (0, FOLLOWED);
        for name in dirs {
            dir = self.descend(dir, name, &mut left)?;
        }
        let node = self.node_at(dir, leaf, is_dir)?;
        if target == Some(node) {
            return Ok(());
        }
        let entry = match linked {
            Some(entry) => entry,
            None => self.push_entry(new)?,
        };
        self.set_entry(node, entry);
        Ok(())
    }

    /// The entry of `node`, if a hard link can lead to it.
    fn linkable(&self, node: u32) -> Option<EntryNumber> {
        let entry = self.nodes.get(node as usize)?.entry?;
        self.entries.get(entry.index()).filter(|e| e.meta.kind != EntryKind::Dir).map(|_| entry)
    }

    /// Counts `bytes` of strings.
    fn charge(&mut self, bytes: usize) -> Result<(), TableFull> {
        self.names = self.names.saturating_add(bytes);
        if self.names > self.max_names { Err(TableFull::Names) } else { Ok(()) }
    }

    fn push_entry(&mut self, entry: ArchiveEntry) -> Result<EntryNumber, TableFull> {
        let number = EntryNumber::new(self.entries.len()).ok_or(TableFull::Members)?;
        if let MemberData::Pieces { pieces, .. } = &entry.data {
            self.extents = self.extents.saturating_add(pieces.len());
        }
        self.entries.push(entry);
        Ok(number)
    }

    fn set_entry(&mut self, node: u32, entry: EntryNumber) {
        let was_dir = self.is_dir(NodeKey(node));
        if let Some(node) = self.nodes.get_mut(node as usize) {
            node.entry = Some(entry);
        }
        let is_dir = self.is_dir(NodeKey(node));
        self.count_dir(node, was_dir, is_dir);
    }

    fn count_dir(&mut self, node: u32, was: bool, is: bool) {
        let parent = self.nodes.get(node as usize).map_or(0, |n| n.parent.0);
        if node != 0
            && let Some(parent) = self.nodes.get_mut(parent as usize)
        {
            parent.subdirs = parent.subdirs.saturating_add(u32::from(is)).saturating_sub(u32::from(was));
        }
    }

    /// The directory `name` in `dir` that a member's path goes through.
    fn descend(&mut self, dir: u32, name: &[u8], left: &mut usize) -> Result<u32, TableFull> {
        let Some(NodeKey(found)) = self.named(dir, name) else { return self.add(dir, name) };
        if self.is_dir(NodeKey(found)) {
            return Ok(found);
        }
        if let Some(target) = self.follow(found, left) {
            return Ok(target);
        }
        self.node_with_suffix(dir, name, true)
    }

    /// The node for a member called `name` in `dir`.
    fn node_at(&mut self, dir: u32, name: &[u8], is_dir: bool) -> Result<u32, TableFull> {
        let Some(NodeKey(found)) = self.named(dir, name) else { return self.add(dir, name) };
        let filled = self.nodes.get(found as usize).is_some_and(|n| n.children > 0);
        if is_dir || !self.is_dir(NodeKey(found)) || !filled {
            return Ok(found);
        }
        self.node_with_suffix(dir, name, false)
    }

    /// A node with a suffix, where `name` itself is taken by something else.
    fn node_with_suffix(&mut self, dir: u32, name: &[u8], for_dir: bool) -> Result<u32, TableFull> {
        for n in 1..=self.nodes.len() {
            let other = [name, format!("~{n}").as_bytes()].concat();
            match self.named(dir, &other) {
                None => return self.add(dir, &other),
                Some(NodeKey(found)) if self.is_dir(NodeKey(found)) == for_dir => return Ok(found),
                Some(_) => {}
            }
        }
        Err(TableFull::Members)
    }

    /// The directory that the symbolic link `link` leads to, if extracting would go through it: its target is relative,
    /// without `..`, and no more than `left` links are on the way.
    fn follow(&self, link: u32, left: &mut usize) -> Option<u32> {
        let EntryKind::Symlink(target) = &self.entry(NodeKey(link))?.meta.kind else { return None };
        *left = left.checked_sub(1).filter(|_| target.first() != Some(&b'/'))?;
        let mut at = self.nodes.get(link as usize)?.parent.0;
        for name in target.split(|&b| b == b'/').filter(|name| !matches!(*name, b"" | b".")) {
            let next = self.named(at, name).filter(|_| name != b"..")?;
            at = if self.is_dir(next) { next.0 } else { self.follow(next.0, left)? };
        }
        Some(at)
    }

    /// The node that a path of names leads to without creating anything; links on the way are followed as in a member's path.
    fn find(&self, names: &[&[u8]]) -> Option<u32> {
        let (leaf, dirs) = names.split_last()?;
        let (mut at, mut left) = (0, FOLLOWED);
        for name in dirs {
            let next = self.named(at, name)?;
            at = if self.is_dir(next) { next.0 } else { self.follow(next.0, &mut left)? };
        }
        self.named(at, leaf).map(|key| key.0)
    }

    /// The child of `dir` that the archive calls `name`.
    fn named(&self, dir: u32, name: &[u8]) -> Option<NodeKey> {
        self.child(NodeKey(dir), &shorten(name))
    }

    fn add(&mut self, dir: u32, name: &[u8]) -> Result<u32, TableFull> {
        let shown = shorten(name);
        self.shortened = self.shortened.saturating_add(usize::from(shown.len() < name.len()));
        let name = &*shown;
        self.charge(name.len())?;
        // Implied directories count too: a member may have thousands.
        let number = u32::try_from(self.nodes.len()).ok().filter(|&n| n < u32::MAX).ok_or(TableFull::Members)?;
        if self.nodes.len() > self.max_members.saturating_mul(2) {
            return Err(TableFull::Members);
        }
        self.nodes.push(ArchiveNode::new(dir, name.into()));
        let hash = self.hash(dir, name);
        let (nodes, hasher) = (&self.nodes, &self.hasher);
        self.index.insert_unique(hash, number, |&n| {
            nodes.get(n as usize).map_or(0, |node| hasher.hash_one((node.parent.0, &*node.name)))
        });
        let last = self.nodes.get_mut(dir as usize).and_then(|parent| {
            parent.children += 1;
            parent.first_child.get_or_insert(number);
            parent.last_child.replace(number)
        });
        if let Some(last) = last.and_then(|last| self.nodes.get_mut(last as usize)) {
            last.next_sibling = Some(number);
        }
        self.count_dir(number, false, true);
        Ok(number)
    }
}

impl ArchiveNode {
    fn new(parent: u32, name: Box<[u8]>) -> Self {
        Self {
            parent: NodeKey(parent),
            name,
            entry: None,
            subdirs: 0,
            children: 0,
            first_child: None,
            last_child: None,
            next_sibling: None,
        }
    }
}

#[cfg(test)]
#[path = "archive_table/tests.rs"]
mod tests;
