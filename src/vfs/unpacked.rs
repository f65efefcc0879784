//! `unpacked/`: the trees of `snapshots/` once more, with archives as directories and compressed files as plain files.
//!
//! It is a layer over another file system and uses only its operations. Nothing is unpacked before it is accessed.
//! Requests that need an archive or decompression are answered from threads that may wait.

mod archive_slot;
mod candidate;
mod candidate_map;
mod inode_number;
mod inode_spaces;
mod member_dirs;
mod open_archive;
mod open_handles;
mod recently_used;
mod serve;
mod shown_names;
mod source_opener;
mod stored_file;
mod unpacked_attrs;
mod unpacked_files;

use std::cell::RefCell;
use std::sync::Arc;

use super::error::FsError;
use super::ops::{Attr, DirEntry, FileSystem, Ino, NodeKind, ROOT_INO};
use super::owners::OwnerOptions;
use dupfs_base::{ErrorKind, RequestContext};
use dupfs_unpack::{NodeKey, Unpacker, suffix_hint};

use archive_slot::ArchiveSlot;
use candidate::UnpackCandidate;
use inode_number::TOP_INO;
use inode_spaces::{InodeSpaces, InodeTarget};
use shown_names::NameMeaning;
use source_opener::SourceOpener;
use unpacked_attrs::UnpackedAttrs;
use unpacked_files::UnpackedFiles;

/// Its name at the root.
const NAME: &[u8] = b"unpacked";
/// Its position in the listing of the root: after everything else.
const ROOT_OFFSET: u64 = 1 << 32;
/// Entries taken from the file system below at a time.
const BATCH: usize = 256;

/// A file system with `unpacked/` at its root. See [`FileSystem`].
pub struct UnpackedFs {
    below: Arc<dyn FileSystem>,
    spaces: Arc<InodeSpaces>,
    files: UnpackedFiles,
}

impl std::fmt::Debug for UnpackedFs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UnpackedFs").field("spaces", &self.spaces).finish_non_exhaustive()
    }
}

impl UnpackedFs {
    /// `below`, whose root has `snapshots` and `latest`, with `unpacked` beside them. Owners of members are shown as
    /// `owners` says.
    pub fn new(below: Arc<dyn FileSystem>, unpacker: Arc<Unpacker>, owners: OwnerOptions) -> Self {
        let spaces = Arc::new(InodeSpaces::new());
        let sources = SourceOpener::new(Arc::clone(&below), unpacker, Arc::clone(&spaces));
        let files = UnpackedFiles::new(Arc::clone(&below), sources, UnpackedAttrs::new(owners));
        Self { below, spaces, files }
    }

    fn target_of(&self, ino: Ino) -> Result<Option<InodeTarget>, FsError> {
        if !InodeSpaces::is_ours(ino) {
            return Ok(None);
        }
        self.spaces.resolve(ino).map(Some).ok_or_else(FsError::not_found)
    }

    /// The attributes of an inode below, under its number here.
    fn mirrored(&self, attr: Attr) -> Result<Attr, FsError> {
        Ok(Attr { ino: self.mirror(attr.ino)?, ..attr })
    }

    fn mirror(&self, below: Ino) -> Result<Ino, FsError> {
        let full = || FsError::failed(ErrorKind::Unsupported, "too many snapshots and archives were entered");
        self.spaces.mirror(below).ok_or_else(full)
    }

    fn snapshots(&self, context: &RequestContext) -> Result<Ino, FsError> {
        Ok(self.below.lookup(ROOT_INO, b"snapshots", context)?.ino)
    }

    /// Attributes of `unpacked/` itself: those of `snapshots/`.
    fn top_attr(&self, context: &RequestContext) -> Result<Attr, FsError> {
        let attr = self.below.lookup(ROOT_INO, b"snapshots", context)?;
        Ok(Attr { ino: TOP_INO, ..attr })
    }

    /// The target of `unpacked/latest` while it mirrors the link `below`.
    fn latest_target(&self, below: Ino, context: &RequestContext) -> Result<Vec<u8>, FsError> {
        let target = self.below.readlink(below, context)?;
        Ok(target.strip_prefix(b"snapshots/").map_or_else(|| target.clone(), <[u8]>::to_vec))
    }

    fn latest_attr(&self, context: &RequestContext) -> Result<Attr, FsError> {
        self.link_attr(self.below.lookup(ROOT_INO, b"latest", context)?, context)
    }

    fn link_attr(&self, below: Attr, context: &RequestContext) -> Result<Attr, FsError> {
        let size = self.latest_target(below.ino, context)?.len() as u64;
        Ok(Attr { ino: self.spaces.latest(below.ino), size, ..below })
    }

    /// A name in a directory of a snapshot.
    fn look_up_mirror(&self, dir: Ino, name: &[u8], context: &RequestContext) -> Result<Attr, FsError> {
        let names = StoredNames::new(&*self.below, dir, context);
        let found = shown_names::resolve(name, &|n| names.has(n));
        names.check()?;
        let found = found.ok_or_else(FsError::not_found)?;
        let stored = match &found {
            NameMeaning::Unpacked(stored) => stored.as_slice(),
            NameMeaning::Itself | NameMeaning::StoredFile => name,
        };
        let stored_attr = self.below.lookup(dir, stored, context)?;
        let attr = self.mirrored(stored_attr)?;
        let Some(shape) = suffix_hint(stored).filter(|_| attr.kind == NodeKind::File) else { return Ok(attr) };
        let looked_up = UnpackCandidate::of(shape.kind, name, None, attr);
        let candidate = self.files.candidates.update(attr.ino, looked_up, context)?;
        match (self.files.sources.matches_hint(attr.ino, &candidate, context)?, found) {
            // The same inode as in `snapshots/`: links in the backup lead to it by this name.
            (true, NameMeaning::StoredFile) => Ok(stored_attr),
            (true, _) => self.files.unpacked_attr(attr.ino, &candidate, context),
            (false, _) => Ok(attr),
        }
    }

    /// Lists a directory of a snapshot.
    fn list_mirror(
        &self,
        dir: Ino,
        mut offset: u64,
        context: &RequestContext,
        emit: &mut dyn FnMut(DirEntry<'_>) -> bool,
    ) -> Result<(), FsError> {
        loop {
            let mut batch: Vec<(Ino, NodeKind, u64, Vec<u8>)> = Vec::new();
            let listed = self.below.readdir(dir, offset, context, &mut |entry| {
                batch.push((entry.ino, entry.kind, entry.next_offset, entry.name.to_vec()));
                batch.len() < BATCH
            });
            let full = batch.len() >= BATCH;
            for (below, kind, next_offset, name) in batch {
                let ino = self.mirror(below)?;
                let names = StoredNames::new(&*self.below, dir, context);
                let shown = |name: &[u8]| {
                    suffix_hint(name)
                        .map_or_else(|| name.to_vec(), |shape| shown_names::shown(&shape, &|n| names.has(n)))
                };
                let (kind, name) = self.files.listed((ino, None), kind, name, shown);
                names.check()?;
                offset = next_offset;
                if !emit(DirEntry { ino, kind, next_offset, name: &name }) {
                    return Ok(());
                }
            }
            listed?;
            if !full {
                return Ok(());
            }
        }
    }

    fn list_top(
        &self,
        offset: u64,
        context: &RequestContext,
        emit: &mut dyn FnMut(DirEntry<'_>) -> bool,
    ) -> Result<(), FsError> {
        if offset == 0
            && let Ok(link) = self.below.lookup(ROOT_INO, b"latest", context)
        {
            let latest = DirEntry {
                ino: self.spaces.latest(link.ino),
                kind: NodeKind::Symlink,
                next_offset: 1,
                name: b"latest",
            };
            if !emit(latest) {
                return Ok(());
            }
        }
        let dir = self.snapshots(context)?;
        self.list_mirror(dir, offset.saturating_sub(1), context, &mut |entry| {
            emit(DirEntry { next_offset: entry.next_offset.saturating_add(1), ..entry })
        })
    }

    fn list_root(
        &self,
        offset: u64,
        context: &RequestContext,
        emit: &mut dyn FnMut(DirEntry<'_>) -> bool,
    ) -> Result<(), FsError> {
        if offset >= ROOT_OFFSET {
            return Ok(());
        }
        let mut stopped = false;
        self.below.readdir(ROOT_INO, offset, context, &mut |entry| {
            stopped = !emit(entry);
            !stopped
        })?;
        if !stopped {
            emit(DirEntry { ino: TOP_INO, kind: NodeKind::Dir, next_offset: ROOT_OFFSET, name: NAME });
        }
        Ok(())
    }

    fn get_attr(
        &self,
        ino: Ino,
        target: InodeTarget,
        end: AwaitEnd,
        context: &RequestContext,
    ) -> Result<Attr, FsError> {
        let unpacked = self.files.current_candidate(ino, &target, context)?.filter(|c| c.is_confirmed());
        match (target, unpacked) {
            (InodeTarget::Top, _) => self.top_attr(context),
            (InodeTarget::Latest(below), _) => self.link_attr(self.below.getattr(below, context)?, context),
            (_, Some(candidate)) if candidate.is_unpacked() && end == AwaitEnd::Yes => {
                self.files.exact_attr(ino, &candidate, context)
            }
            (_, Some(candidate)) => {
                let attr = self.files.unpacked_attr(ino, &candidate, context)?;
                let is_unknown = candidate.is_unpacked() && !attr.exact && candidate.known_size().is_none();
                Ok(if is_unknown { Attr { size: 0, blocks: 0, ..attr } } else { attr })
            }
            (InodeTarget::Mirror(below), None) => self.mirrored(self.below.getattr(below, context)?),
            (InodeTarget::Member(slot, key) | InodeTarget::StoredMember(slot, key), None) => {
                let open = self.files.sources.open_archive(&slot, context)?;
                let is_dir = open.archive.with_table(|table| table.is_dir(key));
                if !is_dir && end == AwaitEnd::Yes && !open.is_complete() {
                    // A later member of the same name would have another size.
                    if !context.may_block() {
                        return Err(FsError::WouldBlock);
                    }
                    open.wait_for_passes(context)?;
                }
                if context.may_block() {
                    // A table that was dropped is read again up to this node at least.
                    let known = open.archive.find(context, |table| table.node(key).map(|_| ()));
                    known?.ok_or_else(FsError::not_found)?;
                } else if open.archive.with_table(|table| table.node(key).is_none()) {
                    return Err(FsError::WouldBlock);
                }
                Ok(Attr { ino, ..self.files.attrs.member(&slot, &open, key, context)? })
            }
        }
    }

    /// The directory that a target is: a stored directory, or a node of an archive.
    fn as_dir(&self, ino: Ino, target: InodeTarget, context: &RequestContext) -> Result<DirTarget, FsError> {
        let archive = self.files.current_candidate(ino, &target, context)?.and_then(|c| Some((c.archive_format()?, c)));
        Ok(match (target, archive) {
            (InodeTarget::Top, _) => DirTarget::Top,
            (InodeTarget::Latest(_), _) => return Err(FsError::NotDir),
            (_, Some((container, candidate))) => {
                DirTarget::Members(self.files.sources.slot(ino, container, &candidate)?, NodeKey::ROOT)
            }
            (InodeTarget::Mirror(below), None) => DirTarget::Mirror(below),
            (InodeTarget::Member(slot, key), None) => DirTarget::Members(slot, key),
            (InodeTarget::StoredMember(..), None) => return Err(FsError::NotDir),
        })
    }
}

/// A request for attributes waits for a size or an end of a file that is not known yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AwaitEnd {
    Yes,
    No,
}

/// A directory below `unpacked/`.
enum DirTarget {
    Top,
    Mirror(Ino),
    Members(Arc<ArchiveSlot>, NodeKey),
}

/// The stored names of a directory below, as [`shown_names`] requests them. The first failure is stored for [`Self::check`].
struct StoredNames<'a> {
    below: &'a dyn FileSystem,
    dir: Ino,
    context: &'a RequestContext,
    failure: RefCell<Option<FsError>>,
}

impl<'a> StoredNames<'a> {
    fn new(below: &'a dyn FileSystem, dir: Ino, context: &'a RequestContext) -> Self {
        Self { below, dir, context, failure: RefCell::default() }
    }

    fn has(&self, name: &[u8]) -> Option<bool> {
        match self.below.lookup(self.dir, name, self.context) {
            Ok(attr) => Some(attr.kind == NodeKind::File),
            Err(FsError::Failed { kind: ErrorKind::NotFound, .. }) => None,
            Err(error) => {
                self.failure.borrow_mut().get_or_insert(error);
                None
            }
        }
    }

    fn check(&self) -> Result<(), FsError> {
        self.failure.take().map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests;
