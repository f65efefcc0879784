//! A parsed delta: the origin of the bytes of one version, in terms of the version before it.

use super::delta_memory::{DeltaMemory, OP_BYTES};
use super::error::ContentError;
use super::file_ref::{FileRef, set_label};
use super::stored_stream::StoredStream;
use crate::volume::Volumes;
use dupfs_base::ByteRange;
use dupfs_format::SetIndex;
use dupfs_format::delta::{self, DeltaCommand};

/// Bytes of content that a delta has for each of its ops, at least and on average, beyond [`FREE_OPS`]. librsync copies whole
/// blocks of the signature, which have 512 bytes or more, and merges neighbours; between two copies is one literal.
const MIN_BYTES_PER_OP: u64 = 64;
/// Ops that any delta may have.
const FREE_OPS: u64 = 1024;

/// Upper bound of the size of a file: no system that was backed up has longer ones, and the kernel shows none.
pub const MAX_FILE_BYTES: u64 = i64::MAX.unsigned_abs();

/// One op of a delta.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DeltaOp {
    /// `len` bytes that are in the delta itself at `at`.
    Literal { at: u64, len: u64 },
    /// `len` bytes of the base at `offset`.
    Copy { offset: u64, len: u64 },
}

const _: () = assert!(size_of::<DeltaOp>() <= OP_BYTES, "the memory of ops is underestimated");

/// The size that a delta may have.
#[derive(Clone, Copy, Debug)]
pub(super) enum DeltaSize<'a> {
    /// A small delta: several are read at the same time.
    Small(&'a DeltaMemory),
    /// Any size that memory has room for.
    Any(&'a DeltaMemory),
}

impl DeltaSize<'_> {
    fn max_ops(self) -> usize {
        match self {
            Self::Small(memory) => memory.max_small,
            Self::Any(memory) => memory.max_ops,
        }
    }
}

/// A delta's ops, in order of the output.
#[derive(Debug)]
pub(super) struct ParsedDelta {
    pub(super) ops: Box<[DeltaOp]>,
    /// Length of the output.
    pub(super) out_len: u64,
}

impl ParsedDelta {
    /// Reads the ops of `stream`, skipping over its literals. A large delta waits for its permit.
    ///
    /// # Errors
    /// [`ContentError`] when the delta cannot be read or is not one, or has more ops than memory has room for.
    pub(super) fn read(
        volumes: &dyn Volumes,
        file: &FileRef,
        stream: &StoredStream,
        size: DeltaSize<'_>,
    ) -> Result<Self, ContentError> {
        let mut window = DeltaWindow { volumes, file, stream, window: Vec::new(), window_at: 0 };
        let mut at = delta::MAGIC.len() as u64;
        delta::check_magic(window.head(0)?).map_err(|e| damaged(volumes, file, stream, &e.to_string()))?;
        let mut ops = Vec::new();
        let mut out_len = 0u64;
        let mut permit = None;
        loop {
            let count = ops.len();
            if count as u64 > FREE_OPS.saturating_add(out_len / MIN_BYTES_PER_OP) {
                let detail =
                    format!("it makes {out_len} bytes of {count} pieces, which are smaller than any of librsync");
                return Err(window.damaged(&detail));
            }
            permit =
                match (permit, size) {
                    (None, DeltaSize::Any(memory)) if count > memory.max_small => {
                        let acquired = memory.large.acquire(1, volumes.context());
                        Some(acquired.map_err(|stopped| ContentError::Volume {
                            path: file.path.clone(),
                            error: stopped.into(),
                        })?)
                    }
                    (permit, _) => permit,
                };
            if count > size.max_ops() {
                return Err(too_many(volumes, file, stream.set, size.max_ops()));
            }
            let head = window.head(at)?;
            match delta::parse_command(head).map_err(|e| damaged(volumes, file, stream, &e.at(at).to_string()))? {
                None => return Err(window.damaged("truncated: it has no end mark")),
                Some(DeltaCommand::End) => break,
                Some(DeltaCommand::Literal { header_len, len }) => {
                    let start = at.saturating_add(header_len as u64);
                    let end = start.checked_add(len).filter(|&end| end < stream.len);
                    at = end.ok_or_else(|| window.damaged("a literal runs beyond its end"))?;
                    out_len = out_len.saturating_add(len);
                    ops.push(DeltaOp::Literal { at: start, len });
                }
                Some(DeltaCommand::Copy { header_len, offset, len }) => {
                    at = at.saturating_add(header_len as u64);
                    out_len = out_len.saturating_add(len);
                    push_copy(&mut ops, offset, len);
                }
            }
        }
        if out_len > MAX_FILE_BYTES {
            return Err(
                window.damaged(&format!("it makes a file of {out_len} bytes or more, which no file system supports"))
            );
        }
        Ok(Self { ops: ops.into(), out_len })
    }

    /// Bytes of memory it takes.
    pub(super) fn weight(&self) -> u64 {
        (size_of_val(&*self.ops) + size_of::<Self>()) as u64
    }

    /// Returns true if any byte comes from the base.
    pub(super) fn has_copies(&self) -> bool {
        self.ops.iter().any(|op| matches!(op, DeltaOp::Copy { len, .. } if *len > 0))
    }
}

/// The error that the version that `set` makes of `file` has too many pieces.
pub(super) fn too_many(volumes: &dyn Volumes, file: &FileRef, set: SetIndex, limit: usize) -> ContentError {
    ContentError::Pieces { path: file.path.clone(), set: set_label(volumes, set), limit }
}

fn push_copy(ops: &mut Vec<DeltaOp>, offset: u64, len: u64) {
    if let Some(DeltaOp::Copy { offset: last, len: last_len }) = ops.last_mut()
        && last.checked_add(*last_len) == Some(offset)
    {
        *last_len = last_len.saturating_add(len);
        return;
    }
    ops.push(DeltaOp::Copy { offset, len });
}

/// Reads the heads of ops through a small window.
struct DeltaWindow<'a> {
    volumes: &'a dyn Volumes,
    file: &'a FileRef,
    stream: &'a StoredStream,
    window: Vec<u8>,
    window_at: u64,
}

/// Bytes read at a time while looking for op heads.
const WINDOW: u64 = 4096;
/// An op's head is at most this long.
const HEAD: u64 = 17;

impl DeltaWindow<'_> {
    /// The bytes from `at`: at least an op's head, or all that are left.
    fn head(&mut self, at: u64) -> Result<&[u8], ContentError> {
        let needed = at.saturating_add(HEAD).min(self.stream.len);
        let window_end = self.window_at.saturating_add(self.window.len() as u64);
        if at < self.window_at || needed > window_end {
            self.window.clear();
            let end = at.saturating_add(WINDOW).min(self.stream.len);
            self.stream.read(self.volumes, self.file, ByteRange { start: at, end }, false, &mut self.window)?;
            self.window_at = at;
        }
        let from = usize::try_from(at.saturating_sub(self.window_at)).ok();
        Ok(from.and_then(|from| self.window.get(from..)).unwrap_or(&[]))
    }

    fn damaged(&self, detail: &str) -> ContentError {
        damaged(self.volumes, self.file, self.stream, detail)
    }
}

fn damaged(volumes: &dyn Volumes, file: &FileRef, stream: &StoredStream, detail: &str) -> ContentError {
    ContentError::Delta { path: file.path.clone(), set: set_label(volumes, stream.set), detail: detail.into() }
}
