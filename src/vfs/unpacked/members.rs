//! Lookups, listings and attributes in archives.

use dupfs_base::RequestContext;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::super::attr::{IMMUTABLE_TTL, NodeSize, kind_of};
use super::super::error::FsError;
use super::super::ops::{Attr, DirEntry, Ino, NodeKind};
use super::UnpackedFs;
use super::archive_slot::ArchiveSlot;
use super::candidate::UnpackCandidate;
use super::open_archive::OpenArchive;
use super::shown_names::{self, NameMeaning, has, shown_in};
use super::stored_file::failed;
use dupfs_format::EntryKind;
use dupfs_unpack::{ArchiveTable, EntryNumber, NodeKey, PassProgress, UnpackKind, suffix_hint};

/// Entries taken from a table at a time.
const BATCH: usize = 256;

impl UnpackedFs {
    /// The attributes of `name` in `dir` of an archive: as soon as the pass over it has reached the name.
    pub(super) fn look_up_member(
        &self,
        slot: &Arc<ArchiveSlot>,
        dir: NodeKey,
        name: &[u8],
        context: &RequestContext,
    ) -> Result<Attr, FsError> {
        let open = self.open_archive(slot, context)?;
        let complete = open.is_complete();
        if !context.may_block() && !complete {
            return Err(FsError::WouldBlock);
        }
        if let Some(attr) = self.try_look_up(slot, &open, (dir, name), context, complete)? {
            return Ok(attr);
        }
        open.wait_for_passes(context).map_err(|e| failed(&e))?;
        let found = self.try_look_up(slot, &open, (dir, name), context, true);
        if !matches!(found, Ok(Some(_))) {
            // Damage around it may have touched its names.
            open.confirm_outer(context).map_err(|e| failed(&e))?;
        }
        found?.ok_or_else(FsError::not_found)
    }

    /// As [`Self::look_up_member`]; `None` for answers that depend on the rest of the pass, unless the pass has ended (`last`).
    fn try_look_up(
        &self,
        slot: &Arc<ArchiveSlot>,
        open: &Arc<OpenArchive>,
        (dir, name): (NodeKey, &[u8]),
        context: &RequestContext,
        last: bool,
    ) -> Result<Option<Attr>, FsError> {
        let archive = &open.archive;
        // Asked before the table: what is answered from it may be cached only if nothing could change it from here on.
        let complete = open.is_complete();
        let ask = |table: &ArchiveTable| {
            let found = shown_names::resolve(name, &|n| has(table, dir, n))?;
            let stored = match &found {
                NameMeaning::Unpacked(stored) => stored,
                NameMeaning::Itself | NameMeaning::StoredFile => name,
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
        let attr = self.member_attr(slot, open, key, context)?;
        let ttl = if complete { attr.entry_ttl } else { Duration::ZERO };
        let attr = Attr { attr_ttl: ttl, entry_ttl: ttl, ..attr };
        let same = || archive.entry_number(key) == entry;
        if !last && !same() {
            return Ok(None);
        }
        let stored = match &found {
            NameMeaning::Unpacked(stored) => stored.as_slice(),
            NameMeaning::Itself | NameMeaning::StoredFile => name,
        };
        let Some(shape) = suffix_hint(stored).filter(|_| kind == NodeKind::File) else { return Ok(Some(attr)) };
        let looked_up = UnpackCandidate::of(shape.kind, &shown, entry, attr);
        let candidate = self.candidates.update(attr.ino, looked_up, context)?;
        let matches = self.matches_hint(attr.ino, &candidate, context);
        match (matches, found) {
            // What it was asked of is not what has the name, or a later member may have the name that it is shown under.
            (Err(_), _) if !last && !same() => Ok(None),
            (Ok(false), NameMeaning::Unpacked(_)) if !last => Ok(None),
            (Ok(true), NameMeaning::StoredFile) => Ok(Some(Attr { ino: slot.stored_number(key), ..attr })),
            (Ok(true), _) => self.unpacked_attr(attr.ino, &candidate, context).map(Some),
            (Ok(false), _) => Ok(Some(attr)),
            (Err(error), _) => Err(error),
        }
    }

    /// Attributes of a member as it is stored.
    pub(super) fn member_attr(
        &self,
        slot: &ArchiveSlot,
        open: &OpenArchive,
        key: NodeKey,
        context: &RequestContext,
    ) -> Result<Attr, FsError> {
        let archive = &open.archive;
        // Before anything is taken from the table, which the pass may change until then.
        let complete = open.is_complete();
        if complete {
            slot.was_complete.store(true, Ordering::Relaxed);
        }
        let meta = archive.meta(key, &slot.own).ok_or_else(FsError::not_found)?;
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
            EntryKind::Dir if complete => subdirs.saturating_add(2),
            _ => 1,
        };
        let owner = self.owners.ids(&meta, context).map_err(|_| FsError::WouldBlock)?;
        let perm = self.owners.mode(meta.mode);
        let ttl = if complete { IMMUTABLE_TTL } else { Duration::ZERO };
        Ok(Attr::of(slot.number(key), &meta, (owner, perm), NodeSize::exact(size), nlink, ttl))
    }

    pub(super) fn list_members(
        &self,
        slot: &Arc<ArchiveSlot>,
        dir: NodeKey,
        offset: u64,
        context: &RequestContext,
        emit: &mut dyn FnMut(DirEntry<'_>) -> bool,
    ) -> Result<(), FsError> {
        let open = self.open_archive(slot, context)?;
        let archive = &open.archive;
        if !context.may_block() && !open.is_complete() {
            return Err(FsError::WouldBlock);
        }
        let progress = open.wait_for_passes(context).map_err(|e| failed(&e))?;
        if archive.with_table(|table| table.node(dir).is_none()) {
            return match progress {
                PassProgress::Failed(error) => Err(failed(&error)),
                PassProgress::Done | PassProgress::Idle | PassProgress::Running => Err(FsError::not_found()),
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
                let (kind, name) = self.listed((slot.number(key), entry), kind, name, |name| {
                    archive.with_table(|table| shown_in(table, dir, name))
                });
                let next_offset = u64::from(key.0).saturating_add(1);
                if !emit(DirEntry { ino: slot.number(key), kind, next_offset, name: &name }) {
                    return Ok(());
                }
            }
        }
        match progress {
            // The names that are known were listed; an error at the end keeps anybody from taking them for all.
            PassProgress::Failed(error) => Err(failed(&error)),
            PassProgress::Done | PassProgress::Idle | PassProgress::Running => {
                open.confirm_outer(context).map_err(|e| failed(&e))
            }
        }
    }

    /// The kind and name that a stored object, its number and that of its entry, is listed with: as its name promises until
    /// its content was looked at.
    pub(super) fn listed(
        &self,
        (ino, entry): (Ino, Option<EntryNumber>),
        kind: NodeKind,
        name: Vec<u8>,
        shown: impl FnOnce(&[u8]) -> Vec<u8>,
    ) -> (NodeKind, Vec<u8>) {
        let Some(shape) = suffix_hint(&name).filter(|_| kind == NodeKind::File) else { return (kind, name) };
        let known = self.known_candidate(ino).filter(|candidate| candidate.entry == entry);
        let known = known.and_then(|candidate| candidate.content.confirmed.get().copied());
        match (shape.kind, known) {
            (_, Some(false)) => (kind, name),
            (UnpackKind::Archive(_), _) => (NodeKind::Dir, name),
            (UnpackKind::Compressed(_), _) => {
                let shown = shown(&name);
                (kind, shown)
            }
        }
    }

    /// The open archive of `slot`, opened again if it was dropped.
    pub(super) fn open_archive(
        &self,
        slot: &Arc<ArchiveSlot>,
        context: &RequestContext,
    ) -> Result<Arc<OpenArchive>, FsError> {
        let open = match slot.live() {
            Some(open) => open,
            None if !context.may_block() => return Err(FsError::WouldBlock),
            None => {
                let (file, outer) = self.stored_entry(slot.file, slot.entry, context)?;
                let archive = dupfs_unpack::Archive::new(&self.unpacker, file, slot.container);
                let open = slot.get_or_open(OpenArchive { archive, outer });
                self.recently_used.use_archive(&open);
                open
            }
        };
        if slot.was_complete.load(Ordering::Relaxed) && !open.archive.is_complete() {
            // The kernel caches answers from the complete table: a pass that begins again meets the entries first that
            // others replace.
            if !context.may_block() {
                return Err(FsError::WouldBlock);
            }
            if let PassProgress::Failed(error) = open.archive.wait_for_pass(context).map_err(|e| failed(&e))? {
                return Err(failed(&error));
            }
        }
        Ok(open)
    }

    pub(super) fn member_parent(&self, slot: &ArchiveSlot, key: NodeKey) -> Result<Ino, FsError> {
        let parent = slot.live().map(|open| {
            let parent = open.archive.with_table(|table| table.node(key).map(|node| node.parent));
            parent.ok_or_else(FsError::not_found)
        });
        // Of an archive whose table was dropped the root stands for it: nobody but a listing of `..` asks.
        Ok(slot.number(parent.transpose()?.unwrap_or(NodeKey::ROOT)))
    }
}

/// Nodes behind `last` in a directory: number, entry, name and kind.
type MemberBatch = Vec<(NodeKey, Option<EntryNumber>, Vec<u8>, NodeKind)>;

fn next_batch(table: &ArchiveTable, dir: NodeKey, last: Option<NodeKey>) -> MemberBatch {
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
