//! Bytes of objects that came for requests that were interrupted: a later request does not fetch them again.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use crate::storage::ObjectInfo;
use dupfs_base::ByteRange;
use dupfs_base::sync::lock;

/// Consecutive bytes of an object, as the chunks in which they came.
#[derive(Debug)]
pub(super) struct KeptPiece {
    pub(super) range: ByteRange,
    pub(super) chunks: Vec<Vec<u8>>,
}

/// Bytes that a stream received, in ascending order.
#[derive(Debug, Default)]
pub(super) struct KeptPieces(VecDeque<KeptPiece>);

impl KeptPieces {
    /// Adds a chunk that begins at `start`, after all others.
    pub(super) fn push(&mut self, start: u64, chunk: Vec<u8>) {
        let end = start.saturating_add(chunk.len() as u64);
        match self.0.back_mut() {
            _ if chunk.is_empty() => {}
            Some(last) if last.range.end == start => {
                last.range.end = end;
                last.chunks.push(chunk);
            }
            _ => self.0.push_back(KeptPiece { range: ByteRange { start, end }, chunks: vec![chunk] }),
        }
    }

    /// Number of bytes.
    pub(super) fn len(&self) -> u64 {
        self.0.iter().map(|piece| piece.range.len()).fold(0, u64::saturating_add)
    }

    /// Takes the piece that has the byte at `start`, from there and up to `end`. Pieces before it are dropped.
    pub(super) fn take_at(&mut self, start: u64, end: u64) -> Option<KeptPiece> {
        while self.0.front().is_some_and(|piece| piece.range.end <= start) {
            self.0.pop_front();
        }
        self.0.front().filter(|piece| piece.range.start <= start)?;
        let piece = self.0.pop_front()?;
        let mut out = KeptPieces::default();
        let mut at = piece.range.start;
        for mut chunk in piece.chunks {
            let chunk_end = at.saturating_add(chunk.len() as u64);
            let within = |offset: u64| usize::try_from(offset.saturating_sub(at)).unwrap_or(usize::MAX);
            chunk.truncate(within(end));
            let head = within(start).min(chunk.len());
            chunk.drain(..head);
            out.push(at.max(start), chunk);
            at = chunk_end;
        }
        out.0.pop_front()
    }

    /// Takes the first piece.
    pub(super) fn pop(&mut self) -> Option<KeptPiece> {
        self.0.pop_front()
    }

    /// The start of the first piece after `start`.
    pub(super) fn next_start(&self, start: u64) -> Option<u64> {
        self.0.iter().map(|piece| piece.range.start).find(|&next| next > start)
    }
}

/// The bytes that are kept, within a bound. Those of the stream that was interrupted first are dropped first.
#[derive(Debug)]
pub(super) struct KeptBytes {
    max_bytes: u64,
    state: Mutex<KeptState>,
}

#[derive(Debug, Default)]
struct KeptState {
    /// Bytes that are kept, and those that running streams retain for the case that they are interrupted.
    bytes: u64,
    objects: VecDeque<(ObjectInfo, KeptPieces)>,
}

impl KeptBytes {
    /// At most `max_bytes` are kept.
    pub(super) fn new(max_bytes: u64) -> Arc<Self> {
        Arc::new(Self { max_bytes, state: Mutex::default() })
    }

    /// Reserves room for `bytes` of a running stream; returns false if there is none. Older bytes make room.
    pub(super) fn reserve(&self, bytes: u64) -> bool {
        let mut dropped = Vec::new();
        let mut state = lock(&self.state);
        while state.bytes.saturating_add(bytes) > self.max_bytes {
            let Some((_, pieces)) = state.objects.pop_front() else { return false };
            state.bytes = state.bytes.saturating_sub(pieces.len());
            dropped.push(pieces);
        }
        state.bytes = state.bytes.saturating_add(bytes);
        drop(state);
        true
    }

    /// Returns the room that a stream has reserved.
    pub(super) fn release(&self, bytes: u64) {
        let mut state = lock(&self.state);
        state.bytes = state.bytes.saturating_sub(bytes);
    }

    /// Keeps `pieces` of `object`, for which room is reserved.
    pub(super) fn keep(&self, object: &ObjectInfo, pieces: KeptPieces) {
        if pieces.len() > 0 {
            lock(&self.state).objects.push_back((object.clone(), pieces));
        }
    }

    /// Takes the kept bytes of `object` in this state. Their room stays reserved until it is released.
    pub(super) fn take(&self, object: &ObjectInfo) -> KeptPieces {
        let mut state = lock(&self.state);
        let Some(at) = state.objects.iter().rposition(|(kept, _)| kept == object) else { return KeptPieces::default() };
        let (_, pieces) = state.objects.remove(at).unwrap_or_else(|| (object.clone(), KeptPieces::default()));
        pieces
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(version: &str) -> ObjectInfo {
        ObjectInfo { name: "volume".into(), size: 100, version: version.into(), class: None, archived: None }
    }

    fn pieces(starts: &[(u64, &[u8])]) -> KeptPieces {
        let mut pieces = KeptPieces::default();
        starts.iter().for_each(|(start, bytes)| pieces.push(*start, bytes.to_vec()));
        pieces
    }

    fn taken(pieces: &mut KeptPieces, start: u64, end: u64) -> Option<(ByteRange, Vec<u8>)> {
        pieces.take_at(start, end).map(|piece| (piece.range, piece.chunks.concat()))
    }

    #[test]
    fn a_piece_is_taken_from_any_byte_of_it() {
        let all: &[(u64, &[u8])] = &[(10, b"abc"), (13, b"def"), (20, b"gh")];
        let range = |start, end| ByteRange { start, end };
        assert_eq!(pieces(all).len(), 8);
        assert_eq!(taken(&mut pieces(all), 10, 100), Some((range(10, 16), b"abcdef".to_vec())));
        assert_eq!(taken(&mut pieces(all), 12, 15), Some((range(12, 15), b"cde".to_vec())));
        assert_eq!(taken(&mut pieces(all), 14, 100), Some((range(14, 16), b"ef".to_vec())));
        let mut rest = pieces(all);
        assert_eq!((taken(&mut rest, 16, 100), rest.next_start(16)), (None, Some(20)));
        assert_eq!(taken(&mut rest, 20, 21), Some((range(20, 21), b"g".to_vec())));
        assert_eq!((taken(&mut rest, 22, 100), rest.next_start(22)), (None, None));
    }

    #[test]
    fn bytes_are_given_for_the_same_state_of_the_object_once() {
        let kept = KeptBytes::new(100);
        assert!(kept.reserve(3));
        kept.keep(&object("1"), pieces(&[(0, b"abc")]));
        assert_eq!(kept.take(&object("2")).len(), 0, "it was replaced");
        assert_eq!(kept.take(&object("1")).len(), 3);
        assert_eq!(kept.take(&object("1")).len(), 0);
        assert!(!kept.reserve(98), "it is in use");
        kept.release(3);
        assert!(kept.reserve(100), "its room is free again");
    }

    #[test]
    fn the_oldest_bytes_make_room_and_running_streams_do_not() {
        let kept = KeptBytes::new(10);
        for version in ["1", "2"] {
            assert!(kept.reserve(4));
            kept.keep(&object(version), pieces(&[(0, b"abcd")]));
        }
        assert!(kept.reserve(4));
        assert_eq!((kept.take(&object("1")).len(), kept.take(&object("2")).len()), (0, 4));
        assert!(!kept.reserve(3), "both are in use");
        kept.release(8);
        assert!(kept.reserve(10));
    }
}
