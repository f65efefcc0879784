//! Directory listings. An offset is a child's node number plus one, so that a listing continues where it stopped
//! without counting from the start.

use dupfs_base::RequestContext;
use std::collections::HashMap;
use std::sync::{MutexGuard, PoisonError};

use super::error::FsError;
use super::inode::Inode;
use super::ops::{DirEntry, Ino, NodeKind};
use super::tree_fs::{RootNode, TreeFs};
use dupfs_format::{EntryKind, EntryMeta, SetIndex};
use dupfs_read::tree::{Branch, NodeId};

/// Entries taken from the table at a time, so that its lock is not held while they are emitted.
const BATCH: usize = 256;

struct Listed {
    node: NodeId,
    kind: NodeKind,
    name: Vec<u8>,
}

impl TreeFs {
    pub(super) fn list(
        &self,
        dir: Inode,
        offset: u64,
        context: &RequestContext,
        emit: &mut dyn FnMut(DirEntry<'_>) -> bool,
    ) -> Result<(), FsError> {
        match dir {
            Inode::Latest(_) | Inode::AtLink(_) => Err(FsError::NotDir),
            // Every time string is there; nobody could list them.
            Inode::At => Ok(()),
            Inode::Versions | Inode::History(..) => self.list_history(dir, offset, context, emit),
            Inode::Root => self.list_root(offset, context, emit),
            Inode::Snapshots => {
                let start = usize::try_from(offset).unwrap_or(usize::MAX);
                for (index, snapshot) in self.view().listed().filter(|(index, _)| *index >= start) {
                    let ino = self.number(Inode::Node(index, NodeId::ROOT));
                    let next_offset = (index as u64).saturating_add(1);
                    let kind = self.known_root_kind(index);
                    if !emit(DirEntry { ino, kind, next_offset, name: snapshot.name.as_bytes() }) {
                        break;
                    }
                }
                Ok(())
            }
            Inode::Node(snapshot, node) => self.list_node(snapshot, node, offset, context, emit),
        }
    }

    fn list_root(
        &self,
        offset: u64,
        context: &RequestContext,
        emit: &mut dyn FnMut(DirEntry<'_>) -> bool,
    ) -> Result<(), FsError> {
        let entries: Vec<(Inode, NodeKind, &[u8])> = match &self.root {
            RootNode::Single(snapshot, node, name) => {
                let kind = kind_of(&self.find(*snapshot, *node, context)?.meta.kind);
                vec![(Inode::Node(*snapshot, *node), kind, name)]
            }
            RootNode::Overview | RootNode::Dir(..) => {
                let latest =
                    self.view().latest().map(|latest| (Inode::Latest(latest), NodeKind::Symlink, &b"latest"[..]));
                let dirs = [(Inode::Snapshots, &b"snapshots"[..]), (Inode::At, b"at"), (Inode::Versions, b"versions")];
                latest.into_iter().chain(dirs.map(|(inode, name)| (inode, NodeKind::Dir, name))).collect()
            }
        };
        for (next_offset, (inode, kind, name)) in (1u64..).zip(entries) {
            let wanted = next_offset > offset;
            if wanted && !emit(DirEntry { ino: self.number(inode), kind, next_offset, name }) {
                break;
            }
        }
        Ok(())
    }

    fn list_node(
        &self,
        snapshot: usize,
        node: NodeId,
        offset: u64,
        context: &RequestContext,
        emit: &mut dyn FnMut(DirEntry<'_>) -> bool,
    ) -> Result<(), FsError> {
        let (line, depth) = self.loaded_line(snapshot, context)?;
        if self.find(snapshot, node, context)?.meta.kind != EntryKind::Dir {
            return Err(FsError::NotDir);
        }
        let mut last = offset.checked_sub(1).and_then(|n| u32::try_from(n).ok()).map(NodeId);
        loop {
            let batch = next_batch(&line, node, depth, last);
            if batch.is_empty() {
                break;
            }
            for entry in &batch {
                last = Some(entry.node);
                let ino = self.number(Inode::Node(snapshot, entry.node));
                let next_offset = u64::from(entry.node.0).saturating_add(1);
                if !emit(DirEntry { ino, kind: entry.kind, next_offset, name: &entry.name }) {
                    return Ok(());
                }
            }
        }
        let table = line.table();
        match table.missing_range_at(&table.path(node), true, depth) {
            // The names that are known were listed; an error at the end keeps anybody from taking them for all.
            Some(gap) => Err(FsError::failed(gap.kind, format!("the listing may lack names: {}", gap.reason))),
            None => Ok(()),
        }
    }

    pub(super) fn parent_of(&self, dir: Inode) -> Result<Ino, FsError> {
        let parent = match dir {
            Inode::Root | Inode::Snapshots | Inode::At | Inode::Versions => Inode::Root,
            Inode::History(line, node) => self.history_parent(line, node)?,
            Inode::Latest(_) | Inode::AtLink(_) => return Err(FsError::NotDir),
            Inode::Node(..) if self.number(dir) == super::ops::ROOT_INO => return Ok(super::ops::ROOT_INO),
            Inode::Node(_, NodeId::ROOT) => Inode::Snapshots,
            Inode::Node(snapshot, node) => {
                let (line, _) = self.loaded_line(snapshot, &RequestContext::cached_only())?;
                let parent = line.table().parent(node).ok_or_else(FsError::not_found)?;
                Inode::Node(snapshot, parent)
            }
        };
        Ok(self.number(parent))
    }

    /// The type of a snapshot's root as far as it is known without reading its tree.
    fn known_root_kind(&self, snapshot: usize) -> NodeKind {
        let found = self.find(snapshot, NodeId::ROOT, &RequestContext::cached_only());
        found.map_or(NodeKind::Dir, |found| kind_of(&found.meta.kind))
    }

    pub(super) fn peeked(&self) -> MutexGuard<'_, HashMap<SetIndex, Option<EntryMeta>>> {
        self.peeked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn subdirs(&self) -> MutexGuard<'_, HashMap<(usize, NodeId), u32>> {
        self.subdirs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The children of `dir` after `last`.
fn next_batch(line: &Branch, dir: NodeId, depth: u32, last: Option<NodeId>) -> Vec<Listed> {
    let table = line.table();
    let mut child = match last {
        None => table.first_child(dir),
        Some(node) => table.next_sibling(node),
    };
    let mut batch = Vec::new();
    while let Some(node) = child {
        let kind = match table.version(node, depth) {
            Some(version) => table.meta(version).map(|meta| kind_of(&meta.kind)),
            None => table.is_implied_dir(node, depth).then_some(NodeKind::Dir),
        };
        if let Some(kind) = kind {
            batch.push(Listed { node, kind, name: table.name(node).to_vec() });
            if batch.len() == BATCH {
                break;
            }
        }
        child = table.next_sibling(node);
    }
    batch
}

pub(super) fn kind_of(kind: &EntryKind) -> NodeKind {
    match kind {
        EntryKind::File => NodeKind::File,
        EntryKind::Dir => NodeKind::Dir,
        EntryKind::Symlink(_) => NodeKind::Symlink,
        EntryKind::Fifo => NodeKind::Fifo,
        EntryKind::CharDevice(..) => NodeKind::CharDevice,
        EntryKind::BlockDevice(..) => NodeKind::BlockDevice,
    }
}
