//! Lookups, listings and attributes in archives.

use dupfs_base::RequestContext;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::super::attr::{IMMUTABLE_TTL, NodeSize, kind_of};
use super::super::error::FsError;
use super::super::ops::{Attr, DirEntry, Ino, NodeKind};
use super::entered::{Candidate, Entered, Gate, failed};
use super::names::{self, Found};
use super::{UnpackedFs, not_at_hand};
use dupfs_format::EntryKind;
use dupfs_unpack::{Kind, NodeKey, Progress, Table, shape_of};

/// Entries taken from a table at a time.
const BATCH: usize = 256;

/// The name that the stored member `name` of `dir` is shown under.
pub(super) fn shown_in(table: &Table, dir: NodeKey, name: &[u8]) -> Vec<u8> {
    match shape_of(name) {
        Some(shape) if matches!(shape.kind, Kind::Compressed(_)) => names::shown(&shape, &|n| has(table, dir, n)),
        _ => name.to_vec(),
    }
}

fn has(table: &Table, dir: NodeKey, name: &[u8]) -> Option<bool> {
    let key = table.child(dir, name)?;
    Some(table.entry(key).is_some_and(|entry| entry.meta.kind == EntryKind::File))
}

impl UnpackedFs {
    /// The attributes of `name` in `dir` of an archive: as soon as the pass over it has met the name.
    pub(super) fn look_up_member(
        &self,
        gate: &Arc<Gate>,
        dir: NodeKey,
        name: &[u8],
        context: &RequestContext,
    ) -> Result<Attr, FsError> {
        let entered = self.entered(gate, context)?;
        let settled = entered.is_settled();
        if !context.may_block() && !settled {
            return Err(FsError::WouldBlock);
        }
        if let Some(attr) = self.try_look_up(gate, &entered, (dir, name), context, settled)? {
            return Ok(attr);
        }
        entered.settle(context).map_err(|e| failed(&e))?;
        let found = self.try_look_up(gate, &entered, (dir, name), context, true);
        if !matches!(found, Ok(Some(_))) {
            // Damage around it may have touched its names.
            entered.confirm_outer(context).map_err(|e| failed(&e))?;
        }
        found?.ok_or_else(FsError::not_found)
    }

    /// As [`Self::look_up_member`]; `None` for what only the end of the pass can tell, unless that has come (`last`).
    fn try_look_up(
        &self,
        gate: &Arc<Gate>,
        entered: &Arc<Entered>,
        (dir, name): (NodeKey, &[u8]),
        context: &RequestContext,
        last: bool,
    ) -> Result<Option<Attr>, FsError> {
        let archive = &entered.archive;
        // Asked before the table: what is answered from it may be kept only if nothing could change it from here on.
        let settled = entered.is_settled();
        let ask = |table: &Table| {
            let found = names::resolve(name, &|n| has(table, dir, n))?;
            let stored = match &found {
                Found::Unpacked(stored) => stored,
                Found::Itself | Found::Stored => name,
            };
            let key = table.child(dir, stored)?;
            let kind = table.entry(key).map_or(NodeKind::Dir, |entry| kind_of(&entry.meta.kind));
            let shown = shown_in(table, dir, stored);
            Some((found, key, table.node(key)?.entry, kind, shown))
        };
        let Some((found, key, entry, kind, shown)) = archive.find(context, ask).map_err(|e| failed(&e))? else {
            return if last { Err(FsError::not_found()) } else { Ok(None) };
        };
        if kind == NodeKind::Symlink && !last {
            // The kernel follows it at once, keeps its target, and cuts that to the size that it is told here.
            return Ok(None);
        }
        let attr = self.member_attr(gate, entered, key, context)?;
        let ttl = if settled { attr.entry_ttl } else { Duration::ZERO };
        let attr = Attr { attr_ttl: ttl, entry_ttl: ttl, ..attr };
        let same = || archive.entry_number(key) == entry;
        if !last && !same() {
            return Ok(None);
        }
        let stored = match &found {
            Found::Unpacked(stored) => stored.as_slice(),
            Found::Itself | Found::Stored => name,
        };
        let Some(shape) = shape_of(stored).filter(|_| kind == NodeKind::File) else { return Ok(Some(attr)) };
        let met = Candidate::of(shape.kind, &shown, entry, attr);
        let candidate = self.candidates.meet(attr.ino, met, context)?;
        let kept = self.is_kept(attr.ino, &candidate, context);
        match (kept, found) {
            // What it was asked of is not what has the name, or a later member may have the name that it is shown under.
            (Err(_), _) if !last && !same() => Ok(None),
            (Ok(false), Found::Unpacked(_)) if !last => Ok(None),
            (Ok(true), Found::Stored) => Ok(Some(Attr { ino: gate.stored_number(key), ..attr })),
            (Ok(true), _) => self.unpacked_attr(attr.ino, &candidate, context).map(Some),
            (Ok(false), _) => Ok(Some(attr)),
            (Err(error), _) => Err(error),
        }
    }

    /// Attributes of a member as it is stored.
    pub(super) fn member_attr(
        &self,
        gate: &Gate,
        entered: &Entered,
        key: NodeKey,
        context: &RequestContext,
    ) -> Result<Attr, FsError> {
        let archive = &entered.archive;
        // Before anything is taken from the table, which the pass may change until then.
        let settled = entered.is_settled();
        if settled {
            gate.settled.store(true, Ordering::Relaxed);
        }
        let meta = archive.meta(key, &gate.own).ok_or_else(FsError::not_found)?;
        let size = match &meta.kind {
            EntryKind::Symlink(_) => match archive.link_target(key, context) {
                Ok(target) => target.map_or(0, |target| target.len() as u64),
                Err(error) => return Err(failed(&error)),
            },
            _ => archive.size(key).unwrap_or(0),
        };
        let subdirs = archive.with_table(|table| table.node(key).map_or(0, |node| node.subdirs));
        let nlink = match &meta.kind {
            // File systems that do not count subdirectories, or not yet, return 1.
            EntryKind::Dir if settled => subdirs.saturating_add(2),
            _ => 1,
        };
        let owner = self.owners.ids(&meta, context).map_err(|_| FsError::WouldBlock)?;
        let perm = self.owners.mode(meta.mode);
        let ttl = if settled { IMMUTABLE_TTL } else { Duration::ZERO };
        Ok(Attr::of(gate.number(key), &meta, (owner, perm), NodeSize::exact(size), nlink, ttl))
    }

    pub(super) fn list_members(
        &self,
        gate: &Arc<Gate>,
        dir: NodeKey,
        offset: u64,
        context: &RequestContext,
        emit: &mut dyn FnMut(DirEntry<'_>) -> bool,
    ) -> Result<(), FsError> {
        let entered = self.entered(gate, context)?;
        let archive = &entered.archive;
        if !context.may_block() && !entered.is_settled() {
            return Err(FsError::WouldBlock);
        }
        let progress = entered.settle(context).map_err(|e| failed(&e))?;
        if archive.with_table(|table| table.node(dir).is_none()) {
            return match progress {
                Progress::Failed(error) => Err(failed(&error)),
                Progress::Done | Progress::Idle | Progress::Running => Err(FsError::not_found()),
            };
        }
        if !archive.with_table(|table| table.is_dir(dir)) {
            return Err(FsError::NotDir);
        }
        let mut last = offset.checked_sub(1).and_then(|n| u32::try_from(n).ok()).map(NodeKey);
        loop {
            let batch = archive.with_table(|table| next_batch(table, dir, last));
            if batch.is_empty() {
                break;
            }
            for (key, entry, name, kind) in batch {
                last = Some(key);
                let (kind, name) = self.listed((gate.number(key), entry), kind, name, |name| {
                    archive.with_table(|table| shown_in(table, dir, name))
                });
                let next_offset = u64::from(key.0).saturating_add(1);
                if !emit(DirEntry { ino: gate.number(key), kind, next_offset, name: &name }) {
                    return Ok(());
                }
            }
        }
        match progress {
            // The names that are known were listed; an error at the end keeps anybody from taking them for all.
            Progress::Failed(error) => Err(failed(&error)),
            Progress::Done | Progress::Idle | Progress::Running => {
                entered.confirm_outer(context).map_err(|e| failed(&e))
            }
        }
    }

    /// The kind and name that a stored object, its number and that of its entry, is listed with: as its name promises until
    /// its content was looked at.
    pub(super) fn listed(
        &self,
        (ino, entry): (Ino, Option<u32>),
        kind: NodeKind,
        name: Vec<u8>,
        shown: impl FnOnce(&[u8]) -> Vec<u8>,
    ) -> (NodeKind, Vec<u8>) {
        let Some(shape) = shape_of(&name).filter(|_| kind == NodeKind::File) else { return (kind, name) };
        let known = self.known_candidate(ino).filter(|candidate| candidate.entry == entry);
        let known = known.and_then(|candidate| candidate.content.confirmed.get().copied());
        match (shape.kind, known) {
            (_, Some(false)) => (kind, name),
            (Kind::Archive(_), _) => (NodeKind::Dir, name),
            (Kind::Compressed(_), _) => {
                let shown = shown(&name);
                (kind, shown)
            }
        }
    }

    /// The archive behind `gate`, opened again if it was dropped.
    pub(super) fn entered(&self, gate: &Arc<Gate>, context: &RequestContext) -> Result<Arc<Entered>, FsError> {
        let entered = match gate.live() {
            Some(entered) => entered,
            None if !context.may_block() => return Err(not_at_hand()),
            None => {
                let (file, outer) = self.stored_entry(gate.file, gate.entry, context)?;
                let archive = dupfs_unpack::Archive::new(&self.unpacker, file, gate.container);
                let entered = gate.enter(Entered { archive, outer });
                self.keep_archive(&entered);
                entered
            }
        };
        if gate.settled.load(Ordering::Relaxed) && !entered.archive.is_settled() {
            // The kernel keeps what it was told of the complete table: one that is learnt again meets the entries first that
            // others replace.
            if !context.may_block() {
                return Err(not_at_hand());
            }
            if let Progress::Failed(error) = entered.archive.settle(context).map_err(|e| failed(&e))? {
                return Err(failed(&error));
            }
        }
        Ok(entered)
    }

    pub(super) fn member_parent(&self, gate: &Gate, key: NodeKey) -> Result<Ino, FsError> {
        let parent = gate.live().map(|entered| {
            let parent = entered.archive.with_table(|table| table.node(key).map(|node| node.parent));
            parent.ok_or_else(FsError::not_found)
        });
        // Of an archive whose table was dropped the root stands for it: nobody but a listing of `..` asks.
        Ok(gate.number(parent.transpose()?.unwrap_or(NodeKey::ROOT)))
    }
}

/// Nodes behind `last` in a directory: number, entry, name and kind.
type Batch = Vec<(NodeKey, Option<u32>, Vec<u8>, NodeKind)>;

fn next_batch(table: &Table, dir: NodeKey, last: Option<NodeKey>) -> Batch {
    let first = match last {
        None => table.first_child(dir),
        Some(key) => table.next_sibling(key),
    };
    let nodes = std::iter::successors(first, |key| table.next_sibling(*key)).take(BATCH);
    let row = |key: NodeKey| {
        let kind = table.entry(key).map_or(NodeKind::Dir, |entry| kind_of(&entry.meta.kind));
        let node = table.node(key)?;
        Some((key, node.entry, node.name.to_vec(), kind))
    };
    nodes.filter_map(row).collect()
}
