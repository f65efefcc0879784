//! Random access to bytes: what is unpacked, and what unpacking gives.

use std::fmt::Debug;
use std::sync::Arc;

use super::error::UnpackError;
use dupfs_base::RequestContext;

/// Random access to immutable bytes. May be used from many threads at once; no lock is held while it reads.
pub trait Source: Send + Sync + Debug {
    /// What people call it, for errors: a path.
    fn name(&self) -> Arc<str>;

    /// Up to `len` bytes from `offset`; fewer only at the end.
    ///
    /// # Errors
    /// [`UnpackError`] when one of them cannot be had.
    fn read_at(&self, offset: u64, len: usize, context: &RequestContext) -> Result<Vec<u8>, UnpackError>;

    /// The number of bytes, if it is known without work.
    fn known_len(&self) -> Option<u64>;

    /// The number of bytes. May cost a pass over all of them.
    ///
    /// # Errors
    /// [`UnpackError`] when it cannot be found.
    fn len(&self, context: &RequestContext) -> Result<u64, UnpackError>;

    /// Whether there are no bytes. May cost decoding the first.
    ///
    /// # Errors
    /// [`UnpackError`] when that cannot be found.
    fn is_empty(&self, context: &RequestContext) -> Result<bool, UnpackError> {
        Ok(self.read_at(0, 1, context)?.is_empty())
    }

    /// Meets the checks behind all parts of it that hold bytes from `from` to before `to`, where parts have checks of their own;
    /// not those of a part that holds the byte at `next` too, where the caller goes on. Elsewhere the end of the source tells.
    ///
    /// # Errors
    /// [`UnpackError`] when one of them is wrong or cannot be met.
    fn check_range(&self, from: u64, to: u64, next: Option<u64>, context: &RequestContext) -> Result<(), UnpackError> {
        let _ = (from, to, next, context);
        Ok(())
    }

    /// Meets the checks at its end. May cost a pass over all of it.
    ///
    /// # Errors
    /// [`UnpackError`] when one of them is wrong or cannot be met.
    fn check_end(&self, context: &RequestContext) -> Result<(), UnpackError> {
        self.len(context).map(drop)
    }

    /// What names this content for good, also after a remount; `None` if nothing does. That of a stored file begins with its
    /// group in the index, and all that is made of it with that.
    fn identity(&self) -> Option<Arc<[u8]>>;

    /// Whether every byte is verified before it is served; else only its end tells that all of them were right.
    fn verified_early(&self) -> bool;
}

/// Bytes in memory.
#[derive(Clone, Debug)]
pub struct MemorySource {
    name: Arc<str>,
    bytes: Arc<[u8]>,
}

impl MemorySource {
    /// `bytes` under a name.
    pub fn new(name: &str, bytes: impl Into<Arc<[u8]>>) -> Self {
        Self { name: name.into(), bytes: bytes.into() }
    }
}

impl Source for MemorySource {
    fn name(&self) -> Arc<str> {
        Arc::clone(&self.name)
    }

    fn read_at(&self, offset: u64, len: usize, _: &RequestContext) -> Result<Vec<u8>, UnpackError> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(self.bytes.len());
        let end = start.saturating_add(len).min(self.bytes.len());
        Ok(self.bytes.get(start..end).unwrap_or(&[]).to_vec())
    }

    fn known_len(&self) -> Option<u64> {
        Some(self.bytes.len() as u64)
    }

    fn len(&self, _: &RequestContext) -> Result<u64, UnpackError> {
        Ok(self.bytes.len() as u64)
    }

    fn identity(&self) -> Option<Arc<[u8]>> {
        None
    }

    fn verified_early(&self) -> bool {
        true
    }
}

/// A piece of a [`Pieces`]: `len` bytes of it from `start` stand at `at` in the source below.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) start: u64,
    pub(super) len: u64,
    pub(super) at: u64,
}

/// Pieces of another source, and zeros between them: a member of an archive.
#[derive(Debug)]
pub(super) struct Pieces {
    name: Arc<str>,
    below: Arc<dyn Source>,
    /// In order, not overlapping, within `size`.
    pieces: Box<[Piece]>,
    size: u64,
}

impl Pieces {
    pub(super) fn new(name: Arc<str>, below: Arc<dyn Source>, pieces: Box<[Piece]>, size: u64) -> Self {
        Self { name, below, pieces, size }
    }

    /// `len` bytes from `at`.
    pub(super) fn range(name: Arc<str>, below: Arc<dyn Source>, at: u64, len: u64) -> Self {
        Self::new(name, below, Box::new([Piece { start: 0, len, at }]), len)
    }

    fn read_piece(
        &self,
        piece: &Piece,
        from: u64,
        out: &mut Vec<u8>,
        want: usize,
        context: &RequestContext,
    ) -> Result<(), UnpackError> {
        let at = piece.at.saturating_add(from.saturating_sub(piece.start));
        let bytes = self.below.read_at(at, want, context)?;
        if bytes.len() < want {
            let end = at.saturating_add(bytes.len() as u64);
            return Err(UnpackError::damaged(&self.below.name(), end, "it ends within a member"));
        }
        if out.is_empty() {
            *out = bytes;
        } else {
            out.extend_from_slice(&bytes);
        }
        Ok(())
    }
}

impl Source for Pieces {
    fn name(&self) -> Arc<str> {
        Arc::clone(&self.name)
    }

    fn read_at(&self, offset: u64, len: usize, context: &RequestContext) -> Result<Vec<u8>, UnpackError> {
        let end = offset.saturating_add(len as u64).min(self.size);
        let (mut at, mut out) = (offset, Vec::new());
        let mut next = self.pieces.partition_point(|p| p.start.saturating_add(p.len) <= offset);
        while at < end {
            let piece = self.pieces.get(next);
            let zeros = piece.map_or(end, |p| p.start).min(end).saturating_sub(at);
            if zeros > 0 {
                out.resize(out.len().saturating_add(usize::try_from(zeros).unwrap_or(0)), 0);
                at = at.saturating_add(zeros);
                continue;
            }
            let Some(piece) = piece else { break };
            let until = piece.start.saturating_add(piece.len).min(end);
            let want = usize::try_from(until.saturating_sub(at)).unwrap_or(0);
            self.read_piece(piece, at, &mut out, want, context)?;
            at = until;
            next += 1;
        }
        Ok(out)
    }

    fn known_len(&self) -> Option<u64> {
        Some(self.size)
    }

    fn len(&self, _: &RequestContext) -> Result<u64, UnpackError> {
        Ok(self.size)
    }

    fn check_range(&self, from: u64, to: u64, next: Option<u64>, context: &RequestContext) -> Result<(), UnpackError> {
        let end = |piece: &Piece| piece.start.saturating_add(piece.len);
        let place = |piece: &Piece, at: u64| piece.at.saturating_add(at.saturating_sub(piece.start));
        let holds = |piece: &&Piece, at: u64| piece.start <= at && at < end(piece);
        let next = next.and_then(|at| Some(place(self.pieces.iter().find(|piece| holds(piece, at))?, at)));
        let first = self.pieces.partition_point(|piece| end(piece) <= from);
        for piece in self.pieces.iter().skip(first).take_while(|piece| piece.start < to) {
            let (from, to) = (from.max(piece.start), to.min(end(piece)));
            self.below.check_range(place(piece, from), place(piece, to), next, context)?;
        }
        Ok(())
    }

    fn identity(&self) -> Option<Arc<[u8]>> {
        let first = self.pieces.first().map_or(0, |p| p.at);
        let below = self.below.identity()?;
        Some([&below[..], b"\0member", &first.to_be_bytes(), &self.size.to_be_bytes()].concat().into())
    }

    fn verified_early(&self) -> bool {
        self.below.verified_early()
    }
}
