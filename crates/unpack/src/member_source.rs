//! A member of an archive as a source: pieces of the archive, and zeros between them.

use std::sync::Arc;

use super::byte_source::{ByteSource, StoredOrigin};
use super::error::UnpackError;
use dupfs_base::{RequestContext, clamp_len};

/// A piece of a [`MemberSource`]: `len` bytes of it from `start` are at `at` in the source below.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MemberPiece {
    pub(super) start: u64,
    pub(super) len: u64,
    pub(super) at: u64,
}

/// Pieces of another source, and zeros between them: a member of an archive.
#[derive(Debug)]
pub(super) struct MemberSource {
    name: Arc<str>,
    below: Arc<dyn ByteSource>,
    /// In order, not overlapping, within `size`.
    pieces: Box<[MemberPiece]>,
    size: u64,
}

impl MemberSource {
    pub(super) fn new(name: Arc<str>, below: Arc<dyn ByteSource>, pieces: Box<[MemberPiece]>, size: u64) -> Self {
        Self { name, below, pieces, size }
    }

    /// `len` bytes from `at`.
    pub(super) fn range(name: Arc<str>, below: Arc<dyn ByteSource>, at: u64, len: u64) -> Self {
        Self::new(name, below, Box::new([MemberPiece { start: 0, len, at }]), len)
    }

    fn read_piece(
        &self,
        piece: &MemberPiece,
        from: u64,
        out: &mut Vec<u8>,
        want: usize,
        context: &RequestContext,
    ) -> Result<(), UnpackError> {
        let at = piece.at.saturating_add(from.saturating_sub(piece.start));
        let bytes = self.below.read_at(at, want, context)?;
        if bytes.len() < want {
            let end = at.saturating_add(bytes.len() as u64);
            return Err(UnpackError::damaged(&self.below.name(), end, "truncated within a member"));
        }
        if out.is_empty() {
            *out = bytes;
        } else {
            out.extend_from_slice(&bytes);
        }
        Ok(())
    }
}

impl ByteSource for MemberSource {
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
                // No more than the request, as both ends are within it.
                out.resize(out.len().saturating_add(clamp_len(zeros, len)), 0);
                at = at.saturating_add(zeros);
                continue;
            }
            let Some(piece) = piece else { break };
            let until = piece.start.saturating_add(piece.len).min(end);
            let want = clamp_len(until.saturating_sub(at), len);
            self.read_piece(piece, at, &mut out, want, context)?;
            at = until;
            next += 1;
        }
        Ok(out)
    }

    fn origin(&self) -> StoredOrigin {
        self.below.origin()
    }

    fn known_len(&self) -> Option<u64> {
        Some(self.size)
    }

    fn len(&self, _: &RequestContext) -> Result<u64, UnpackError> {
        Ok(self.size)
    }

    fn check_range(&self, from: u64, to: u64, next: Option<u64>, context: &RequestContext) -> Result<(), UnpackError> {
        let end = |piece: &MemberPiece| piece.start.saturating_add(piece.len);
        let offset_of = |piece: &MemberPiece, at: u64| piece.at.saturating_add(at.saturating_sub(piece.start));
        let holds = |piece: &&MemberPiece, at: u64| piece.start <= at && at < end(piece);
        let next = next.and_then(|at| Some(offset_of(self.pieces.iter().find(|piece| holds(piece, at))?, at)));
        let first = self.pieces.partition_point(|piece| end(piece) <= from);
        for piece in self.pieces.iter().skip(first).take_while(|piece| piece.start < to) {
            let (from, to) = (from.max(piece.start), to.min(end(piece)));
            self.below.check_range(offset_of(piece, from), offset_of(piece, to), next, context)?;
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
