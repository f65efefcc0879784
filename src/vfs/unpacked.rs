//! `unpacked/`: the trees of `snapshots/` once more, with archives as directories and compressed files as plain files.
//!
//! It lies over another file system and knows it by its operations only. Nothing is unpacked before somebody looks inside.
//! Requests that need an archive or decompression are answered from threads that may wait.

mod archive_slot;
mod candidate;
mod candidate_map;
mod content;
mod inode_number;
mod inode_spaces;
mod members;
mod open_archive;
mod open_handles;
mod recently_used;
mod serve;
mod shown_names;
mod stored_file;

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use super::attr::DIR_SIZE;
use super::error::FsError;
use super::ops::{Attr, DirEntry, FileSystem, Ino, NodeKind, ROOT_INO};
use super::owners::{OwnerOptions, Owners};
use dupfs_base::{ErrorKind, RequestContext};
use dupfs_unpack::{NodeKey, UnpackKind, Unpacker, suffix_hint};

use archive_slot::ArchiveSlot;
use candidate::UnpackCandidate;
use candidate_map::CandidateMap;
use inode_number::TOP_INO;
use inode_spaces::{InodeSpaces, InodeTarget};
use open_handles::OpenHandles;
use recently_used::RecentlyUsed;
use shown_names::NameMeaning;
use stored_file::failed;

/// Its name at the root.
const NAME: &[u8] = b"unpacked";
/// Where its listing stands in the root's: behind everything else.
const ROOT_OFFSET: u64 = 1 << 32;
/// Lifetime of attributes that never change.
const FOREVER: Duration = Duration::from_secs(24 * 3600);
/// Entries taken from the file system below at a time.
const BATCH: usize = 256;

/// A file system with `unpacked/` at its root. See [`FileSystem`].
pub struct UnpackedFs {
    below: Arc<dyn FileSystem>,
    unpacker: Arc<Unpacker>,
    owners: Owners,
    spaces: InodeSpaces,
    candidates: CandidateMap,
    handles: OpenHandles,
    recently_used: RecentlyUsed,
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
        Self {
            below,
            unpacker,
            owners: Owners::new(owners),
            spaces: InodeSpaces::new(),
            candidates: CandidateMap::default(),
            handles: OpenHandles::new(),
            recently_used: RecentlyUsed::default(),
        }
    }

    fn place(&self, ino: Ino) -> Result<Option<InodeTarget>, FsError> {
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
        let full = || FsError::failed(ErrorKind::Unsupported, "too many snapshots and archives were looked into");
        self.spaces.mirror(below).ok_or_else(full)
    }

    fn known_candidate(&self, ino: Ino) -> Option<Arc<UnpackCandidate>> {
        self.candidates.get(ino)
    }

    fn snapshots(&self, context: &RequestContext) -> Result<Ino, FsError> {
        Ok(self.below.lookup(ROOT_INO, b"snapshots", context)?.ino)
    }

    /// Attributes of `unpacked/` itself: those of `snapshots/`.
    fn top_attr(&self, context: &RequestContext) -> Result<Attr, FsError> {
        let attr = self.below.lookup(ROOT_INO, b"snapshots", context)?;
        Ok(Attr { ino: TOP_INO, ..attr })
    }

    /// Where `unpacked/latest` leads while it mirrors the link `below`.
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
        let candidate = self.candidates.update(attr.ino, looked_up, context)?;
        match (self.matches_hint(attr.ino, &candidate, context)?, found) {
            // The same inode as in `snapshots/`: links in the backup lead to it by this name.
            (true, NameMeaning::StoredFile) => Ok(stored_attr),
            (true, _) => self.unpacked_attr(attr.ino, &candidate, context),
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
                let (kind, name) = self.listed((ino, None), kind, name, shown);
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

    /// Attributes of a file that is shown unpacked: a directory, or a file whose size may not be known.
    fn unpacked_attr(&self, ino: Ino, candidate: &UnpackCandidate, context: &RequestContext) -> Result<Attr, FsError> {
        let stored = candidate.attr;
        match candidate.kind {
            UnpackKind::Archive(container) => {
                let slot = self.slot(ino, container, candidate)?;
                match slot.live() {
                    Some(open) => Ok(Attr {
                        entry_ttl: stored.entry_ttl,
                        ..self.member_attr(&slot, &open, NodeKey::ROOT, context)?
                    }),
                    None => Ok(self.closed_attr(ino, stored)),
                }
            }
            UnpackKind::Compressed(_) => Ok(self.sized(ino, stored, candidate.known_size())),
        }
    }

    /// Attributes of an archive's root that nobody looked into: as its file tells them.
    fn closed_attr(&self, ino: Ino, stored: Attr) -> Attr {
        let perm = self.owners.mode(dupfs_unpack::dir_mode(stored.perm));
        let (size, blocks) = (DIR_SIZE, DIR_SIZE.div_ceil(512));
        Attr { ino, kind: NodeKind::Dir, perm, nlink: 1, size, blocks, exact: true, attr_ttl: Duration::ZERO, ..stored }
    }

    fn sized(&self, ino: Ino, stored: Attr, size: Option<u64>) -> Attr {
        let attr_ttl = if size.is_some() { stored.entry_ttl } else { Duration::ZERO };
        let (exact, size) = (size.is_some(), size.unwrap_or(0));
        Attr { ino, size, blocks: size.div_ceil(512), exact, attr_ttl, ..stored }
    }

    fn get_attr(&self, ino: Ino, place: InodeTarget, context: &RequestContext) -> Result<Attr, FsError> {
        let unpacked = self.current_candidate(ino, &place, context)?.filter(|c| c.is_confirmed());
        let streaming = self.handles.is_streaming(ino);
        match (place, unpacked) {
            (InodeTarget::Top, _) => self.top_attr(context),
            (InodeTarget::Latest(below), _) => self.link_attr(self.below.getattr(below, context)?, context),
            (_, Some(candidate)) if candidate.is_unpacked() && !streaming => self.exact_attr(ino, &candidate, context),
            (_, Some(candidate)) => self.unpacked_attr(ino, &candidate, context),
            (InodeTarget::Mirror(below), None) => self.mirrored(self.below.getattr(below, context)?),
            (InodeTarget::Member(slot, key) | InodeTarget::StoredMember(slot, key), None) => {
                let open = self.open_archive(&slot, context)?;
                let is_dir = open.archive.with_table(|table| table.is_dir(key));
                if !is_dir && !streaming && !open.is_complete() {
                    // A later member of the same name would have another size.
                    if !context.may_block() {
                        return Err(FsError::WouldBlock);
                    }
                    open.wait_for_passes(context).map_err(|e| failed(&e))?;
                }
                if context.may_block() {
                    // A table that was dropped is read again up to this node at least.
                    let known = open.archive.find(context, |table| table.node(key).map(|_| ()));
                    known.map_err(|e| failed(&e))?.ok_or_else(FsError::not_found)?;
                } else if open.archive.with_table(|table| table.node(key).is_none()) {
                    return Err(FsError::WouldBlock);
                }
                Ok(Attr { ino, ..self.member_attr(&slot, &open, key, context)? })
            }
        }
    }

    /// The number of the stored directory, or the archive's node, that a place is as a directory.
    fn as_dir(&self, ino: Ino, place: InodeTarget, context: &RequestContext) -> Result<DirTarget, FsError> {
        let archive = self.current_candidate(ino, &place, context)?.and_then(|c| Some((c.archive_format()?, c)));
        Ok(match (place, archive) {
            (InodeTarget::Top, _) => DirTarget::Top,
            (InodeTarget::Latest(_), _) => return Err(FsError::NotDir),
            (_, Some((container, candidate))) => {
                DirTarget::Members(self.slot(ino, container, &candidate)?, NodeKey::ROOT)
            }
            (InodeTarget::Mirror(below), None) => DirTarget::Mirror(below),
            (InodeTarget::Member(slot, key), None) => DirTarget::Members(slot, key),
            (InodeTarget::StoredMember(..), None) => return Err(FsError::NotDir),
        })
    }
}

/// A directory below `unpacked/`.
enum DirTarget {
    Top,
    Mirror(Ino),
    Members(Arc<ArchiveSlot>, NodeKey),
}

/// The stored names of a directory below, as [`shown_names`] asks for them. The first failure is stored for [`Self::check`].
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
