//! The sources below `unpacked/`: stored files, members, archives and decompressed streams by their inode numbers.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::super::error::FsError;
use super::super::ops::{FileSystem, Ino};
use super::archive_slot::{ArchiveSlot, meta_of};
use super::candidate::UnpackCandidate;
use super::inode_spaces::{InodeSpaces, InodeTarget};
use super::open_archive::{MemberRef, OpenArchive};
use super::recently_used::RecentlyUsed;
use super::stored_file::{LastStoredRead, StoredFile};
use dupfs_base::sync::lock;
use dupfs_base::{ErrorKind, RequestContext};
use dupfs_unpack::{
    Archive, ArchiveFormat, ByteSource, DecompressedStream, EntryNumber, PassProgress, UnpackError, UnpackKind,
    Unpacker, content_matches,
};

/// Opens the objects of inode numbers below `unpacked/`, and keeps recently used ones open.
pub(super) struct SourceOpener {
    below: Arc<dyn FileSystem>,
    unpacker: Arc<Unpacker>,
    spaces: Arc<InodeSpaces>,
    recently_used: RecentlyUsed,
    last_read: Arc<LastStoredRead>,
}

impl SourceOpener {
    /// Opens files of `below` and the archives and streams in them.
    pub(super) fn new(below: Arc<dyn FileSystem>, unpacker: Arc<Unpacker>, spaces: Arc<InodeSpaces>) -> Self {
        Self { below, unpacker, spaces, recently_used: RecentlyUsed::default(), last_read: Arc::default() }
    }

    /// Closes what no reader uses.
    #[cfg(test)]
    pub(super) fn close_unused(&self) {
        self.recently_used.clear();
    }

    /// Bytes that were read of the stored file that is being unpacked now, and its size.
    pub(super) fn unpacking(&self) -> Option<(u64, u64)> {
        self.last_read.recent()
    }

    /// The stored bytes of a file, and the member it is, if it is one.
    pub(super) fn stored(
        &self,
        ino: Ino,
        context: &RequestContext,
    ) -> Result<(Arc<dyn ByteSource>, Option<MemberRef>), FsError> {
        match self.spaces.resolve(ino).ok_or_else(FsError::not_found)? {
            InodeTarget::Top | InodeTarget::Latest(_) => Err(FsError::IsDir),
            InodeTarget::Mirror(below) => {
                let file = StoredFile::open(&self.below, below, &self.last_read, context)?;
                Ok((Arc::new(file), None))
            }
            InodeTarget::Member(slot, key) | InodeTarget::StoredMember(slot, key) => {
                let open = self.open_archive(&slot, context)?;
                let known = open.archive.find(context, |table| table.node(key).map(|_| ()));
                known?.ok_or_else(FsError::not_found)?;
                let (source, entry) = open.archive.open(key, context)?;
                Ok((source, Some(MemberRef { parent: open, key, entry, shown: None })))
            }
        }
    }

    /// The stored bytes of a file whose entry is `entry`, `None` for one that is no member.
    pub(super) fn stored_entry(
        &self,
        ino: Ino,
        entry: Option<EntryNumber>,
        context: &RequestContext,
    ) -> Result<(Arc<dyn ByteSource>, Option<MemberRef>), FsError> {
        let found = self.stored(ino, context)?;
        let Some(link) = found.1.as_ref().filter(|link| Some(link.entry) != entry) else { return Ok(found) };
        // A pass that begins again reaches the replaced entries first.
        link.parent.wait_for_passes(context)?;
        let again = self.stored(ino, context)?;
        if again.1.as_ref().is_some_and(|link| Some(link.entry) == entry) {
            return Ok(again);
        }
        Err(UnpackError::Replaced { object: link.parent.archive.path(link.key) }.into())
    }

    /// Returns true if the content of the file is of the form that its suffix hints at. Costs its first bytes, once.
    pub(super) fn matches_hint(
        &self,
        ino: Ino,
        candidate: &UnpackCandidate,
        context: &RequestContext,
    ) -> Result<bool, FsError> {
        if let Some(&known) = candidate.content.confirmed.get() {
            return Ok(known);
        }
        if !context.may_block() {
            return Err(FsError::WouldBlock);
        }
        let (source, outer) = self.stored_entry(ino, candidate.entry, context)?;
        let mut confirmed = content_matches(&*source, candidate.kind, context)?;
        if let (true, UnpackKind::Archive(container)) = (confirmed, candidate.kind) {
            let slot = self.slot(ino, container, candidate)?;
            let archive = Archive::new(&self.unpacker, source, container);
            confirmed = archive.begins(context)?;
            // The blocks that were decompressed for that are read first now.
            self.recently_used.use_archive(&slot.get_or_open(OpenArchive { archive, outer }));
        }
        Ok(*candidate.content.confirmed.get_or_init(|| confirmed))
    }

    /// The slot of the archive in file `ino`.
    pub(super) fn slot(
        &self,
        ino: Ino,
        container: ArchiveFormat,
        candidate: &UnpackCandidate,
    ) -> Result<Arc<ArchiveSlot>, FsError> {
        let outer = match self.spaces.resolve(ino) {
            Some(InodeTarget::Member(slot, _)) => slot.depth,
            _ => 0,
        };
        let (depth, max_depth) = (outer.saturating_add(1), self.unpacker.limits().depth);
        if depth > max_depth {
            let name = dupfs_base::escape_bytes(&candidate.name);
            let message = format!("{name}: not unpacked: archives within archives deeper than {max_depth}");
            return Err(FsError::failed(ErrorKind::Unsupported, message));
        }
        let own = meta_of(&candidate.attr);
        let (entry, archive, was_complete) = (candidate.entry, Default::default(), Default::default());
        let make = |id| ArchiveSlot { id, file: ino, entry, container, depth, own, archive, was_complete };
        let full = || FsError::failed(ErrorKind::Unsupported, "too many snapshots and archives were entered");
        self.spaces.slot((ino, entry), make).ok_or_else(full)
    }

    /// The decompressed content of a file.
    pub(super) fn stream(
        &self,
        ino: Ino,
        candidate: &UnpackCandidate,
        context: &RequestContext,
    ) -> Result<(Arc<DecompressedStream>, Option<MemberRef>), FsError> {
        let UnpackKind::Compressed(codec) = candidate.kind else { return Err(FsError::IsDir) };
        let (source, link) = self.stored_entry(ino, candidate.entry, context)?;
        let link = link.map(|link| MemberRef { shown: Some(candidate.name.clone()), ..link });
        let stream = {
            let mut live = lock(&candidate.content.stream);
            match live.upgrade() {
                Some(stream) => stream,
                None => {
                    let stream = DecompressedStream::new(&self.unpacker, source, codec);
                    *live = Arc::downgrade(&stream);
                    stream
                }
            }
        };
        self.recently_used.use_stream(&stream);
        Ok((stream, link))
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
                let archive = Archive::new(&self.unpacker, file, slot.container);
                let open = slot.get_or_open(OpenArchive { archive, outer });
                self.recently_used.use_archive(&open);
                open
            }
        };
        if slot.was_complete.load(Ordering::Relaxed) && !open.archive.is_complete() {
            // The kernel caches answers from the complete table: a pass that begins again reaches the entries first that
            // others replace.
            if !context.may_block() {
                return Err(FsError::WouldBlock);
            }
            if let PassProgress::Failed(error) = open.archive.wait_for_pass(context)? {
                return Err(error.into());
            }
        }
        Ok(open)
    }
}
