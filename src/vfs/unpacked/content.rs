//! Opening and reading below `unpacked/`.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::super::error::FsError;
use super::super::ops::{Attr, Ino, NodeKind, Opened};
use super::entered::{Candidate, Entered, Gate, Link, Stored, failed, live_stream, meta_of};
use super::spaces::Place;
use super::{FOREVER, UnpackedFs};
use dupfs_base::sync::lock;
use dupfs_base::{ErrorKind, RequestContext};
use dupfs_unpack::{Archive, Container, Kind, PassInterest, Source, Stream, UnpackError, confirm};

/// Archives and streams kept open for who comes back to them.
const KEPT: usize = 32;
/// A compressed file of at most so many bytes is decompressed when it is opened, so that its size is known.
const SMALL: u64 = 1 << 20;
/// Bit of the handles of this layer; others are those of the file system below.
const OURS: u64 = 1 << 62;

/// What was used last, so that it stays.
#[derive(Debug, Default)]
pub(super) struct Kept {
    archives: VecDeque<Arc<Entered>>,
    streams: VecDeque<Arc<Stream>>,
}

/// An open file whose content is not that of a stored file as it is.
#[derive(Debug)]
pub(super) struct Open {
    source: Arc<dyn Source>,
    /// The member that it is or is in, where the archives around it were not known to their ends.
    link: Option<Link>,
    /// The end of the file waits for these passes.
    _passes: Vec<PassInterest>,
    /// Counted as streaming.
    streaming: bool,
}

impl Candidate {
    /// The exact size of the decompressed content, if it is known. Of a member it is that of its entry, which another may
    /// replace.
    pub(super) fn known_size(&self) -> Option<u64> {
        if let Some(&size) = self.content.size.get() {
            return Some(size);
        }
        let size = live_stream(self)?.known_len()?;
        if self.entry.is_none() {
            self.content.size.get_or_init(|| size);
        }
        Some(size)
    }
}

impl UnpackedFs {
    /// The stored bytes of a file, and the member it is, if it is one.
    pub(super) fn stored(
        &self,
        ino: Ino,
        context: &RequestContext,
    ) -> Result<(Arc<dyn Source>, Option<Link>), FsError> {
        match self.spaces.resolve(ino).ok_or_else(FsError::not_found)? {
            Place::Top | Place::Latest(_) => Err(FsError::IsDir),
            Place::Mirror(below) => Ok((Arc::new(Stored::open(&self.below, below, context)?), None)),
            Place::Member(gate, key) | Place::StoredMember(gate, key) => {
                let entered = self.entered(&gate, context)?;
                let known = entered.archive.find(context, |table| table.node(key).map(|_| ()));
                known.map_err(|e| failed(&e))?.ok_or_else(FsError::not_found)?;
                let (source, entry) = entered.archive.open(key, context).map_err(|e| failed(&e))?;
                Ok((source, Some(Link { entered, key, entry, shown: None })))
            }
        }
    }

    /// The stored bytes of a file whose entry is `entry`, `None` for one that is no member.
    pub(super) fn stored_entry(
        &self,
        ino: Ino,
        entry: Option<u32>,
        context: &RequestContext,
    ) -> Result<(Arc<dyn Source>, Option<Link>), FsError> {
        let found = self.stored(ino, context)?;
        let Some(link) = found.1.as_ref().filter(|link| Some(link.entry) != entry) else { return Ok(found) };
        // A table that is learnt again meets the entries first that others replace.
        link.entered.settle(context).map_err(|e| failed(&e))?;
        let again = self.stored(ino, context)?;
        if again.1.as_ref().is_some_and(|link| Some(link.entry) == entry) {
            return Ok(again);
        }
        Err(failed(&UnpackError::Replaced { object: link.entered.archive.path(link.key) }))
    }

    /// What is known of the file of that number: asked anew if another entry has taken its name since.
    pub(super) fn current_candidate(
        &self,
        ino: Ino,
        place: &Place,
        context: &RequestContext,
    ) -> Result<Option<Arc<Candidate>>, FsError> {
        let Some(known) = self.known_candidate(ino) else { return Ok(None) };
        let Place::Member(gate, key) = place else { return Ok(Some(known)) };
        let Some(entered) = gate.live() else { return Ok(Some(known)) };
        let entry = entered.archive.entry_number(*key);
        if entry.is_none() || entry == known.entry {
            return Ok(Some(known));
        }
        if !context.may_block() {
            return Err(FsError::WouldBlock);
        }
        let attr = self.member_attr(gate, &entered, *key, context)?;
        if attr.kind != NodeKind::File {
            return Ok(None);
        }
        let met = Candidate::of(known.kind, &known.name, entry, attr);
        let candidate = self.candidates.meet(ino, met, context)?;
        self.is_kept(ino, &candidate, context)?;
        Ok(Some(candidate))
    }

    /// Whether the file keeps what its name promises. Costs its first bytes, once.
    pub(super) fn is_kept(&self, ino: Ino, candidate: &Candidate, context: &RequestContext) -> Result<bool, FsError> {
        if let Some(&known) = candidate.content.confirmed.get() {
            return Ok(known);
        }
        if !context.may_block() {
            return Err(FsError::WouldBlock);
        }
        let (source, outer) = self.stored_entry(ino, candidate.entry, context)?;
        let mut confirmed = confirm(&*source, candidate.kind, context).map_err(|e| failed(&e))?;
        if let (true, Kind::Archive(container)) = (confirmed, candidate.kind) {
            let gate = self.gate(ino, container, candidate)?;
            let archive = Archive::new(&self.unpacker, source, container);
            confirmed = archive.begins(context).map_err(|e| failed(&e))?;
            // What it decompressed for that is what comes first now.
            self.keep_archive(&gate.enter(Entered { archive, outer }));
        }
        Ok(*candidate.content.confirmed.get_or_init(|| confirmed))
    }

    /// The gate of the archive in file `ino`.
    pub(super) fn gate(&self, ino: Ino, container: Container, candidate: &Candidate) -> Result<Arc<Gate>, FsError> {
        let outer = match self.spaces.resolve(ino) {
            Some(Place::Member(gate, _)) => gate.depth,
            _ => 0,
        };
        let (depth, most) = (outer.saturating_add(1), self.unpacker.limits().depth);
        if depth > most {
            let name = dupfs_base::escape_bytes(&candidate.name);
            let message = format!("{name}: not unpacked: archives within archives deeper than {most}");
            return Err(FsError::failed(ErrorKind::Unsupported, message));
        }
        let own = meta_of(&candidate.attr);
        let (entry, archive, settled) = (candidate.entry, Default::default(), Default::default());
        let make = |id| Gate { id, file: ino, entry, container, depth, own, archive, settled };
        let full = || FsError::failed(ErrorKind::Unsupported, "too many snapshots and archives were looked into");
        self.spaces.gate((ino, entry), make).ok_or_else(full)
    }

    pub(super) fn keep_archive(&self, entered: &Arc<Entered>) {
        let dropped = keep(&mut lock(&self.kept).archives, entered);
        drop(dropped);
    }

    /// The decompressed content of a file.
    fn stream(
        &self,
        ino: Ino,
        candidate: &Candidate,
        context: &RequestContext,
    ) -> Result<(Arc<Stream>, Option<Link>), FsError> {
        let Kind::Compressed(codec) = candidate.kind else { return Err(FsError::IsDir) };
        let (source, link) = self.stored_entry(ino, candidate.entry, context)?;
        let link = link.map(|link| Link { shown: Some(candidate.name.clone()), ..link });
        let stream = {
            let mut live = lock(&candidate.content.stream);
            match live.upgrade() {
                Some(stream) => stream,
                None => {
                    let stream = Stream::new(&self.unpacker, source, codec);
                    *live = Arc::downgrade(&stream);
                    stream
                }
            }
        };
        let dropped = keep(&mut lock(&self.kept).streams, &stream);
        drop(dropped);
        Ok((stream, link))
    }

    /// Attributes of a decompressed file with its exact size, which costs a pass over it once.
    pub(super) fn exact_attr(
        &self,
        ino: Ino,
        candidate: &Candidate,
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
            link.confirm(context).map_err(|e| failed(&e))?;
        }
        let size = *candidate.content.size.get_or_init(|| size);
        let stored = Attr { entry_ttl: FOREVER, ..candidate.attr };
        Ok(self.sized(ino, stored, Some(size)))
    }

    pub(super) fn open_place(&self, ino: Ino, place: Place, context: &RequestContext) -> Result<Opened, FsError> {
        let met = self.current_candidate(ino, &place, context)?;
        let candidate = met.as_ref().filter(|c| c.is_confirmed());
        match (&place, candidate) {
            (Place::Top | Place::Latest(_), _) => return Err(FsError::IsDir),
            (Place::Mirror(below), None) => return self.below.open(*below, context),
            _ => {}
        }
        if !context.may_block() {
            return Err(FsError::WouldBlock);
        }
        let (source, link, size) = match candidate {
            None => {
                let (source, link) = match &met {
                    Some(met) => self.stored_entry(ino, met.entry, context)?,
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
                (stream as Arc<dyn Source>, link, size)
            }
        };
        let link = link.filter(|link| !link.is_settled());
        if let (Some(candidate), Some(size), None) = (candidate, size, &link) {
            candidate.content.size.get_or_init(|| size);
        }
        let streaming = size.is_none() || link.is_some();
        if streaming {
            *lock(&self.streaming).entry(ino).or_insert(0) += 1;
        }
        let handle = OURS | self.next_handle.fetch_add(1, Ordering::Relaxed);
        let passes = link.as_ref().map(Link::join_passes).unwrap_or_default();
        lock(&self.handles).insert(handle, Arc::new(Open { source, link, _passes: passes, streaming }));
        Ok(Opened { handle, keep_cache: !streaming, direct_io: streaming })
    }

    pub(super) fn read_place(
        &self,
        ino: Ino,
        place: Place,
        handle: u64,
        (offset, size): (u64, usize),
        context: &RequestContext,
    ) -> Result<Vec<u8>, FsError> {
        let open = if handle & OURS == 0 { None } else { lock(&self.handles).get(&handle).map(Arc::clone) };
        let open = match (open, place) {
            (Some(open), _) => open,
            (None, Place::Mirror(below)) if handle & OURS == 0 => {
                return self.below.read(below, handle, offset, size, context);
            }
            (None, _) if !context.may_block() => return Err(FsError::WouldBlock),
            (None, place) => {
                // A handle of nobody's, as row F of a kernel that opens nothing would use: for this one read.
                let opened = self.open_place(ino, place, context)?.handle;
                let open = lock(&self.handles).remove(&opened).ok_or_else(FsError::not_found)?;
                self.stop_streaming(ino, &open);
                open
            }
        };
        if !context.may_block() {
            return Err(FsError::WouldBlock);
        }
        let bytes = open.source.read_at(offset, size, context).map_err(|e| failed(&e))?;
        let end = offset.saturating_add(bytes.len() as u64);
        let ended = bytes.len() < size || open.source.known_len().is_some_and(|len| end >= len);
        if let Some(link) = open.link.as_ref().filter(|_| ended) {
            // Nobody is told that this was all before it is known to be all of the right file.
            link.confirm(context).map_err(|e| failed(&e))?;
        }
        Ok(bytes)
    }

    pub(super) fn release_place(&self, ino: Ino, place: Place, handle: u64) {
        if handle & OURS == 0 {
            if let Place::Mirror(below) = place {
                self.below.release(below, handle);
            }
            return;
        }
        let open = lock(&self.handles).remove(&handle);
        if let Some(open) = open {
            self.stop_streaming(ino, &open);
        }
    }

    fn stop_streaming(&self, ino: Ino, open: &Open) {
        if !open.streaming {
            return;
        }
        let mut streaming = lock(&self.streaming);
        if let Some(count) = streaming.get_mut(&ino) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                streaming.remove(&ino);
            }
        }
    }
}

/// The size of a small file's content, found now. A failure is left to the read that meets it.
fn small_size(stream: &Stream, context: &RequestContext) -> Result<Option<u64>, FsError> {
    if stream.packed_len().is_none_or(|len| len > SMALL) {
        return Ok(None);
    }
    match stream.len(context) {
        Err(error @ UnpackError::Stopped { .. }) => Err(failed(&error)),
        found => Ok(found.ok()),
    }
}

/// Puts `item` in front and gives back what has to go.
fn keep<T>(kept: &mut VecDeque<Arc<T>>, item: &Arc<T>) -> Option<Arc<T>> {
    let known = kept.iter().position(|other| Arc::ptr_eq(other, item));
    if let Some(at) = known {
        kept.remove(at);
    }
    kept.push_front(Arc::clone(item));
    if kept.len() > KEPT { kept.pop_back() } else { None }
}
