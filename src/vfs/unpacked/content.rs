//! Opening and reading below `unpacked/`.

use std::sync::Arc;

use super::super::error::FsError;
use super::super::ops::{Attr, Ino, NodeKind, Opened};
use super::archive_slot::{ArchiveSlot, meta_of};
use super::candidate::UnpackCandidate;
use super::inode_spaces::InodeTarget;
use super::open_archive::{MemberRef, OpenArchive};
use super::open_handles::OpenHandles;
use super::stored_file::{StoredFile, failed};
use super::{FOREVER, UnpackedFs};
use dupfs_base::sync::lock;
use dupfs_base::{ErrorKind, RequestContext};
use dupfs_unpack::{
    Archive, ArchiveFormat, ByteSource, DecompressedStream, EntryNumber, UnpackError, UnpackKind, content_matches,
};

/// A compressed file of at most so many bytes is decompressed when it is opened, so that its size is known.
const MAX_DECOMPRESSED_AT_OPEN: u64 = 1 << 20;

impl UnpackedFs {
    /// The stored bytes of a file, and the member it is, if it is one.
    pub(super) fn stored(
        &self,
        ino: Ino,
        context: &RequestContext,
    ) -> Result<(Arc<dyn ByteSource>, Option<MemberRef>), FsError> {
        match self.spaces.resolve(ino).ok_or_else(FsError::not_found)? {
            InodeTarget::Top | InodeTarget::Latest(_) => Err(FsError::IsDir),
            InodeTarget::Mirror(below) => Ok((Arc::new(StoredFile::open(&self.below, below, context)?), None)),
            InodeTarget::Member(slot, key) | InodeTarget::StoredMember(slot, key) => {
                let open = self.open_archive(&slot, context)?;
                let known = open.archive.find(context, |table| table.node(key).map(|_| ()));
                known.map_err(|e| failed(&e))?.ok_or_else(FsError::not_found)?;
                let (source, entry) = open.archive.open(key, context).map_err(|e| failed(&e))?;
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
        // A pass that begins again meets the entries first that others replace.
        link.parent.wait_for_passes(context).map_err(|e| failed(&e))?;
        let again = self.stored(ino, context)?;
        if again.1.as_ref().is_some_and(|link| Some(link.entry) == entry) {
            return Ok(again);
        }
        Err(failed(&UnpackError::Replaced { object: link.parent.archive.path(link.key) }))
    }

    /// The candidate of that number, looked at again if another entry has replaced it since.
    pub(super) fn current_candidate(
        &self,
        ino: Ino,
        place: &InodeTarget,
        context: &RequestContext,
    ) -> Result<Option<Arc<UnpackCandidate>>, FsError> {
        let Some(known) = self.known_candidate(ino) else { return Ok(None) };
        let InodeTarget::Member(slot, key) = place else { return Ok(Some(known)) };
        let Some(open) = slot.live() else { return Ok(Some(known)) };
        let entry = open.archive.entry_number(*key);
        if entry.is_none() || entry == known.entry {
            return Ok(Some(known));
        }
        if !context.may_block() {
            return Err(FsError::WouldBlock);
        }
        let attr = self.member_attr(slot, &open, *key, context)?;
        if attr.kind != NodeKind::File {
            return Ok(None);
        }
        let looked_up = UnpackCandidate::of(known.kind, &known.name, entry, attr);
        let candidate = self.candidates.update(ino, looked_up, context)?;
        self.matches_hint(ino, &candidate, context)?;
        Ok(Some(candidate))
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
        let mut confirmed = content_matches(&*source, candidate.kind, context).map_err(|e| failed(&e))?;
        if let (true, UnpackKind::Archive(container)) = (confirmed, candidate.kind) {
            let slot = self.slot(ino, container, candidate)?;
            let archive = Archive::new(&self.unpacker, source, container);
            confirmed = archive.begins(context).map_err(|e| failed(&e))?;
            // What it decompressed for that is what comes first now.
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
        let full = || FsError::failed(ErrorKind::Unsupported, "too many snapshots and archives were looked into");
        self.spaces.slot((ino, entry), make).ok_or_else(full)
    }

    /// The decompressed content of a file.
    fn stream(
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

    /// Attributes of a decompressed file with its exact size, which costs a pass over it once.
    pub(super) fn exact_attr(
        &self,
        ino: Ino,
        candidate: &UnpackCandidate,
        context: &RequestContext,
    ) -> Result<Attr, FsError> {
        if candidate.entry.is_none() {
            // Notes what a reader has found meanwhile.
            candidate.known_size();
        }
        if let Some(&size) = candidate.content.size.get() {
            return Ok(self.sized(ino, candidate.attr, Some(size)));
        }
        if !context.may_block() {
            return Err(FsError::WouldBlock);
        }
        let (stream, link) = self.stream(ino, candidate, context)?;
        let size = stream.len(context).map_err(|e| failed(&e))?;
        if let Some(link) = link {
            link.content_matches(context).map_err(|e| failed(&e))?;
        }
        let size = *candidate.content.size.get_or_init(|| size);
        let stored = Attr { entry_ttl: FOREVER, ..candidate.attr };
        Ok(self.sized(ino, stored, Some(size)))
    }

    pub(super) fn open_place(&self, ino: Ino, place: InodeTarget, context: &RequestContext) -> Result<Opened, FsError> {
        let known = self.current_candidate(ino, &place, context)?;
        let candidate = known.as_ref().filter(|c| c.is_confirmed());
        match (&place, candidate) {
            (InodeTarget::Top | InodeTarget::Latest(_), _) => return Err(FsError::IsDir),
            (InodeTarget::Mirror(below), None) => return self.below.open(*below, context),
            _ => {}
        }
        if !context.may_block() {
            return Err(FsError::WouldBlock);
        }
        let (source, link, size) = match candidate {
            None => {
                let (source, link) = match &known {
                    Some(candidate) => self.stored_entry(ino, candidate.entry, context)?,
                    None => self.stored(ino, context)?,
                };
                let size = source.known_len();
                (source, link, size)
            }
            Some(candidate) => {
                let (stream, link) = self.stream(ino, candidate, context)?;
                let size = match candidate.known_size() {
                    None => small_size(&stream, context)?,
                    known => known,
                };
                (stream as Arc<dyn ByteSource>, link, size)
            }
        };
        let link = link.filter(|link| !link.is_complete());
        if let (Some(candidate), Some(size), None) = (candidate, size, &link) {
            candidate.content.size.get_or_init(|| size);
        }
        Ok(self.handles.open(ino, source, link, size))
    }

    pub(super) fn read_place(
        &self,
        ino: Ino,
        place: InodeTarget,
        handle: u64,
        (offset, size): (u64, usize),
        context: &RequestContext,
    ) -> Result<Vec<u8>, FsError> {
        let open = if OpenHandles::is_own(handle) { self.handles.get(handle) } else { None };
        let open = match (open, place) {
            (Some(open), _) => open,
            (None, InodeTarget::Mirror(below)) if !OpenHandles::is_own(handle) => {
                return self.below.read(below, handle, offset, size, context);
            }
            (None, _) if !context.may_block() => return Err(FsError::WouldBlock),
            (None, place) => {
                // A handle of nobody's, as row F of a kernel that opens nothing would use: for this one read.
                let opened = self.open_place(ino, place, context)?.handle;
                self.handles.close(ino, opened).ok_or_else(FsError::not_found)?
            }
        };
        if !context.may_block() {
            return Err(FsError::WouldBlock);
        }
        let bytes = open.source.read_at(offset, size, context).map_err(|e| failed(&e))?;
        let end = offset.saturating_add(bytes.len() as u64);
        let ended = bytes.len() < size || open.source.known_len().is_some_and(|len| end >= len);
        if let Some(link) = open.member.as_ref().filter(|_| ended) {
            // The end is given only once it is known to be the end of the right file.
            link.content_matches(context).map_err(|e| failed(&e))?;
        }
        Ok(bytes)
    }

    pub(super) fn release_place(&self, ino: Ino, place: InodeTarget, handle: u64) {
        if !OpenHandles::is_own(handle) {
            if let InodeTarget::Mirror(below) = place {
                self.below.release(below, handle);
            }
            return;
        }
        let open = self.handles.close(ino, handle);
        drop(open);
    }
}

/// The size of a small file's content, found now. A failure is left to the read that comes to it.
fn small_size(stream: &DecompressedStream, context: &RequestContext) -> Result<Option<u64>, FsError> {
    if stream.packed_len().is_none_or(|len| len > MAX_DECOMPRESSED_AT_OPEN) {
        return Ok(None);
    }
    match stream.len(context) {
        Err(error @ UnpackError::Stopped { .. }) => Err(failed(&error)),
        found => Ok(found.ok()),
    }
}
