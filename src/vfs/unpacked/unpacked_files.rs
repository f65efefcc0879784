//! Files below `unpacked/`: which of them are unpacked, their attributes, and reading them.

use std::sync::Arc;
use std::time::Duration;

use super::super::error::FsError;
use super::super::ops::{Attr, FileSystem, Ino, NodeKind, Opened};
use super::candidate::UnpackCandidate;
use super::candidate_map::CandidateMap;
use super::inode_spaces::InodeTarget;
use super::open_handles::{OpenHandles, UnpackedHandle};
use super::source_opener::SourceOpener;
use super::unpacked_attrs::{UnpackedAttrs, sized};
use dupfs_base::RequestContext;
use dupfs_unpack::{ByteSource, DecompressedStream, EntryNumber, NodeKey, UnpackError, UnpackKind, suffix_hint};

/// Lifetime of attributes that never change.
const FOREVER: Duration = Duration::from_secs(24 * 3600);
/// A compressed file of at most this number of bytes is decompressed when it is opened, so that its size is known.
const MAX_DECOMPRESSED_AT_OPEN: u64 = 1 << 20;

/// The files below `unpacked/`.
pub(super) struct UnpackedFiles {
    below: Arc<dyn FileSystem>,
    pub(super) sources: SourceOpener,
    pub(super) attrs: UnpackedAttrs,
    pub(super) candidates: CandidateMap,
    handles: OpenHandles,
}

/// The file of the file system below that `handle` has open; `None` if the handle is of this layer.
fn below_of(target: &InodeTarget, handle: u64) -> Option<Ino> {
    match target {
        InodeTarget::Mirror(below) if !OpenHandles::is_own(handle) => Some(*below),
        _ => None,
    }
}

impl UnpackedFiles {
    /// No file was checked yet; those that are not unpacked are read in `below`.
    pub(super) fn new(below: Arc<dyn FileSystem>, sources: SourceOpener, attrs: UnpackedAttrs) -> Self {
        Self { below, sources, attrs, candidates: CandidateMap::default(), handles: OpenHandles::new() }
    }

    /// The candidate of that number, checked again if another entry has replaced it since.
    pub(super) fn current_candidate(
        &self,
        ino: Ino,
        target: &InodeTarget,
        context: &RequestContext,
    ) -> Result<Option<Arc<UnpackCandidate>>, FsError> {
        let Some(known) = self.candidates.get(ino) else { return Ok(None) };
        let InodeTarget::Member(slot, key) = target else { return Ok(Some(known)) };
        let Some(open) = slot.live() else { return Ok(Some(known)) };
        let entry = open.archive.entry_number(*key);
        if entry.is_none() || entry == known.entry {
            return Ok(Some(known));
        }
        if !context.may_block() {
            return Err(FsError::WouldBlock);
        }
        let attr = self.attrs.member(slot, &open, *key, context)?;
        if attr.kind != NodeKind::File {
            return Ok(None);
        }
        let looked_up = UnpackCandidate::of(known.kind, &known.name, entry, attr);
        let candidate = self.candidates.update(ino, looked_up, context)?;
        self.sources.matches_hint(ino, &candidate, context)?;
        Ok(Some(candidate))
    }

    /// Attributes of a decompressed file with its exact size, which needs a pass over it once.
    pub(super) fn exact_attr(
        &self,
        ino: Ino,
        candidate: &UnpackCandidate,
        context: &RequestContext,
    ) -> Result<Attr, FsError> {
        if candidate.entry.is_none() {
            // Records the size that a reader has found meanwhile.
            candidate.known_size();
        }
        if let Some(&size) = candidate.content.size.get() {
            return Ok(sized(ino, candidate.attr, Some(size)));
        }
        if !context.may_block() {
            return Err(FsError::WouldBlock);
        }
        let (stream, link) = self.sources.stream(ino, candidate, context)?;
        let size = stream.len(context)?;
        if let Some(link) = link {
            link.content_matches(context)?;
        }
        let size = *candidate.content.size.get_or_init(|| size);
        let stored = Attr { entry_ttl: FOREVER, ..candidate.attr };
        Ok(sized(ino, stored, Some(size)))
    }

    pub(super) fn open(&self, ino: Ino, target: InodeTarget, context: &RequestContext) -> Result<Opened, FsError> {
        let known = self.current_candidate(ino, &target, context)?;
        let candidate = known.as_ref().filter(|c| c.is_confirmed());
        match (&target, candidate) {
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
                    Some(candidate) => self.sources.stored_entry(ino, candidate.entry, context)?,
                    None => self.sources.stored(ino, context)?,
                };
                let size = source.known_len();
                (source, link, size)
            }
            Some(candidate) => {
                let (stream, link) = self.sources.stream(ino, candidate, context)?;
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
        Ok(self.handles.open(source, link, size))
    }

    pub(super) fn read(
        &self,
        ino: Ino,
        target: InodeTarget,
        handle: u64,
        (offset, size): (u64, usize),
        context: &RequestContext,
    ) -> Result<Vec<u8>, FsError> {
        if let Some(below) = below_of(&target, handle) {
            return self.below.read(below, handle, offset, size, context);
        }
        let open = self.open_file(ino, target, handle, context)?;
        Self::read_open(&open, (offset, size), context)
    }

    /// See [`FileSystem::read_page`].
    pub(super) fn read_page(
        &self,
        ino: Ino,
        target: InodeTarget,
        handle: u64,
        (offset, size): (u64, usize),
        context: &RequestContext,
    ) -> Result<Vec<u8>, FsError> {
        if let Some(below) = below_of(&target, handle) {
            return self.below.read_page(below, handle, offset, size, context);
        }
        let open = self.open_file(ino, target, handle, context)?;
        if let Some(link) = &open.member {
            // The pages are those of all readers of this number, also of readers of a member that replaces this one.
            link.content_matches(context)?;
        }
        let bytes = Self::read_open(&open, (offset, size), context)?;
        if bytes.is_empty() && size > 0 && open.source.len(context)? < offset {
            return Err(FsError::BeyondEnd);
        }
        Ok(bytes)
    }

    /// The open file of `handle`, for a read that may block.
    fn open_file(
        &self,
        ino: Ino,
        target: InodeTarget,
        handle: u64,
        context: &RequestContext,
    ) -> Result<Arc<UnpackedHandle>, FsError> {
        if !context.may_block() {
            return Err(FsError::WouldBlock);
        }
        let open = if OpenHandles::is_own(handle) { self.handles.get(handle) } else { None };
        match open {
            Some(open) => Ok(open),
            None => {
                // A handle for this read only, for a kernel that opens no files.
                let opened = self.open(ino, target, context)?.handle;
                self.handles.close(opened).ok_or_else(FsError::not_found)
            }
        }
    }

    fn read_open(
        open: &UnpackedHandle,
        (offset, size): (u64, usize),
        context: &RequestContext,
    ) -> Result<Vec<u8>, FsError> {
        let bytes = open.source.read_at(offset, size, context)?;
        let end = offset.saturating_add(bytes.len() as u64);
        let ended = bytes.len() < size || open.source.known_len().is_some_and(|len| end >= len);
        if let Some(link) = open.member.as_ref().filter(|_| ended) {
            // The end is given only once it is known to be the end of the right file.
            link.content_matches(context)?;
        }
        Ok(bytes)
    }

    pub(super) fn release(&self, target: InodeTarget, handle: u64) {
        match below_of(&target, handle) {
            Some(below) => self.below.release(below, handle),
            // No other handle is among these.
            None => drop(self.handles.close(handle)),
        }
    }

    /// The inode of the stored file that reads of the open handle `handle` fetch.
    pub(super) fn stored_ino(&self, target: InodeTarget, handle: u64) -> Option<Ino> {
        match target {
            _ if OpenHandles::is_own(handle) => Some(self.handles.get(handle)?.source.origin().flow),
            InodeTarget::Mirror(below) => Some(below),
            _ => None,
        }
    }

    /// Attributes of a file that is shown unpacked: a directory, or a file whose size may not be known.
    pub(super) fn unpacked_attr(
        &self,
        ino: Ino,
        candidate: &UnpackCandidate,
        context: &RequestContext,
    ) -> Result<Attr, FsError> {
        let stored = candidate.attr;
        match candidate.kind {
            UnpackKind::Archive(container) => {
                let slot = self.sources.slot(ino, container, candidate)?;
                match slot.live() {
                    Some(open) => Ok(Attr {
                        entry_ttl: stored.entry_ttl,
                        ..self.attrs.member(&slot, &open, NodeKey::ROOT, context)?
                    }),
                    None => Ok(self.attrs.closed(ino, stored)),
                }
            }
            UnpackKind::Compressed(_) => {
                let attr = sized(ino, stored, candidate.known_size());
                let may_be_replaced = candidate.entry.is_some() && !stored.exact;
                Ok(Attr { exact: attr.exact && !may_be_replaced, ..attr })
            }
        }
    }

    /// The kind and name that a stored object, its number and that of its entry, is listed with: as its name promises until
    /// its content was checked.
    pub(super) fn listed(
        &self,
        (ino, entry): (Ino, Option<EntryNumber>),
        kind: NodeKind,
        name: Vec<u8>,
        shown: impl FnOnce(&[u8]) -> Vec<u8>,
    ) -> (NodeKind, Vec<u8>) {
        let Some(shape) = suffix_hint(&name).filter(|_| kind == NodeKind::File) else { return (kind, name) };
        let known = self.candidates.get(ino).filter(|candidate| candidate.entry == entry);
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
}

/// The size of a small file's content, found now. A failure is left to the read that reaches it.
fn small_size(stream: &DecompressedStream, context: &RequestContext) -> Result<Option<u64>, FsError> {
    if stream.packed_len().is_none_or(|len| len > MAX_DECOMPRESSED_AT_OPEN) {
        return Ok(None);
    }
    match stream.len(context) {
        Err(error @ UnpackError::Stopped { .. }) => Err(error.into()),
        found => Ok(found.ok()),
    }
}
