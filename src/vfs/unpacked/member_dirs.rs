//! Directories in archives: lookups and listings.

use std::sync::Arc;
use std::time::Duration;

use super::super::attr::kind_of;
use super::super::error::FsError;
use super::super::ops::{Attr, DirEntry, Ino, NodeKind};
use super::archive_slot::ArchiveSlot;
use super::candidate::UnpackCandidate;
use super::open_archive::OpenArchive;
use super::shown_names::{self, NameMeaning, has, shown_in};
use super::unpacked_files::UnpackedFiles;
use dupfs_base::RequestContext;
use dupfs_unpack::{ArchiveTable, EntryNumber, NodeKey, PassProgress, suffix_hint};

/// Entries taken from a table at a time.
const BATCH: usize = 256;

/// The directories in archives; files in them are `files`.
pub(super) struct MemberDirs<'a> {
    pub(super) files: &'a UnpackedFiles,
}

impl MemberDirs<'_> {
    /// The attributes of `name` in `dir` of an archive: as soon as the pass over it has reached the name.
    pub(super) fn look_up(
        &self,
        slot: &Arc<ArchiveSlot>,
        dir: NodeKey,
        name: &[u8],
        context: &RequestContext,
    ) -> Result<Attr, FsError> {
        let open = self.files.sources.open_archive(slot, context)?;
        let complete = open.is_complete();
        if !context.may_block() && !complete {
            return Err(FsError::WouldBlock);
        }
        if let Some(attr) = self.try_look_up(slot, &open, (dir, name), context, complete)? {
            return Ok(attr);
        }
        open.wait_for_passes(context)?;
        let found = self.try_look_up(slot, &open, (dir, name), context, true);
        if !matches!(found, Ok(Some(_))) {
            // Damage around it may have touched its names.
            open.confirm_outer(context)?;
        }
        found?.ok_or_else(FsError::not_found)
    }

    /// The number of the directory that node `key` of an archive is in.
    ///
    /// # Errors
    /// [`FsError`] if the archive has no such node, or cannot be read again.
    pub(super) fn parent(
        &self,
        slot: &Arc<ArchiveSlot>,
        key: NodeKey,
        context: &RequestContext,
    ) -> Result<Ino, FsError> {
        let open = self.files.sources.open_archive(slot, context)?;
        let known = |table: &ArchiveTable| table.node(key).map(|node| node.parent);
        // A table that was dropped is read again up to this node.
        let parent = match open.archive.with_table(known) {
            None if !context.may_block() => return Err(FsError::WouldBlock),
            None => open.archive.find(context, known)?,
            found => found,
        };
        Ok(slot.number(parent.ok_or_else(FsError::not_found)?))
    }

    /// As [`Self::look_up`]; `None` for answers that depend on the rest of the pass, unless the pass has ended (`last`).
    fn try_look_up(
        &self,
        slot: &Arc<ArchiveSlot>,
        open: &Arc<OpenArchive>,
        (dir, name): (NodeKey, &[u8]),
        context: &RequestContext,
        last: bool,
    ) -> Result<Option<Attr>, FsError> {
        let archive = &open.archive;
        // Requested before the table: an answer from the table may be cached only if nothing can change it from here
        // on.
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
        let Some((found, key, entry, kind, shown)) = archive.find(context, ask)? else {
            return if last { Err(FsError::not_found()) } else { Ok(None) };
        };
        if kind == NodeKind::Symlink && !last {
            // The kernel follows it at once, caches its target, and cuts the target to the size that is reported here.
            return Ok(None);
        }
        let attr = self.files.attrs.member(slot, open, key, context)?;
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
        let candidate = self.files.candidates.update(attr.ino, looked_up, context)?;
        let matches = self.files.sources.matches_hint(attr.ino, &candidate, context);
        match (matches, found) {
            // The entry that was examined does not have the name, or a later member may have the name that it is shown
            // under.
            (Err(_), _) if !last && !same() => Ok(None),
            (Ok(false), NameMeaning::Unpacked(_)) if !last => Ok(None),
            (Ok(true), NameMeaning::StoredFile) => Ok(Some(Attr { ino: slot.stored_number(key), ..attr })),
            (Ok(true), _) => self.files.unpacked_attr(attr.ino, &candidate, context).map(Some),
            (Ok(false), _) => Ok(Some(attr)),
            (Err(error), _) => Err(error),
        }
    }

    pub(super) fn list(
        &self,
        slot: &Arc<ArchiveSlot>,
        dir: NodeKey,
        offset: u64,
        context: &RequestContext,
        emit: &mut dyn FnMut(DirEntry<'_>) -> bool,
    ) -> Result<(), FsError> {
        let open = self.files.sources.open_archive(slot, context)?;
        let archive = &open.archive;
        if !context.may_block() && !open.is_complete() {
            return Err(FsError::WouldBlock);
        }
        let progress = open.wait_for_passes(context)?;
        if archive.with_table(|table| table.node(dir).is_none()) {
            return match progress {
                PassProgress::Failed(error) => Err(error.into()),
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
                let (kind, name) = self.files.listed((slot.number(key), entry), kind, name, |name| {
                    archive.with_table(|table| shown_in(table, dir, name))
                });
                let next_offset = u64::from(key.0).saturating_add(1);
                if !emit(DirEntry { ino: slot.number(key), kind, next_offset, name: &name }) {
                    return Ok(());
                }
            }
        }
        match progress {
            // The known names were listed; an error at the end shows that they are not all.
            PassProgress::Failed(error) => Err(error.into()),
            PassProgress::Done | PassProgress::Idle | PassProgress::Running => Ok(open.confirm_outer(context)?),
        }
    }
}

/// Nodes after `last` in a directory: number, entry, name and kind.
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
