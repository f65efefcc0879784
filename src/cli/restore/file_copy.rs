//! The content of a restored file, written from the backup.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::cli::call_limits::CallLimits;
use crate::cli::file_chunks::{CHUNK, FileChunks};
use crate::cli::local_content::read_full;
use crate::vfs::{FileSystem, FsError, Ino};

/// Zeros are left out of a file in pieces of this size, aligned to it.
const HOLE: usize = 4096;

/// A failure to copy a file.
#[derive(Debug)]
pub(super) enum CopyError {
    /// The backup cannot be read.
    Backup(FsError),
    /// The destination cannot be written.
    Destination(io::Error),
}

/// Writes the content of `ino` from `start` on to `file`, which has only zeros there, with holes for zeros, and adds to `copied`.
/// Returns its size.
pub(super) fn copy(
    fs: &dyn FileSystem,
    ino: Ino,
    file: &File,
    start: u64,
    (limits, copied): (&CallLimits, &AtomicU64),
) -> Result<u64, CopyError> {
    let mut chunks = FileChunks::open_at(fs, ino, start, || limits.start()).map_err(CopyError::Backup)?;
    let mut written = start;
    while let Some(bytes) = chunks.next().map_err(CopyError::Backup)? {
        write_sparse(file, &bytes, written).map_err(CopyError::Destination)?;
        written = chunks.offset();
        copied.fetch_add(bytes.len() as u64, Ordering::Relaxed);
    }
    // The end may be a hole.
    file.set_len(written).map_err(CopyError::Destination)?;
    Ok(written)
}

/// The offset at which a copy into `file`, which an interrupted run left, continues: its length in whole chunks, if the last of
/// them is that of `ino`; else 0. Only a comparison of the whole proves the part before.
pub(super) fn continued_at(fs: &dyn FileSystem, ino: Ino, file: &File, limits: &CallLimits) -> Result<u64, CopyError> {
    let len = file.metadata().map_err(CopyError::Destination)?.len();
    let end = len - len % CHUNK as u64;
    let Some(start) = end.checked_sub(CHUNK as u64) else { return Ok(0) };
    let mut written = vec![0; CHUNK];
    read_full(file, &mut written, start).map_err(CopyError::Destination)?;
    let mut chunks = FileChunks::open_at(fs, ino, start, || limits.start()).map_err(CopyError::Backup)?;
    let wanted = chunks.next().map_err(CopyError::Backup)?;
    Ok(if wanted.is_some_and(|wanted| wanted == written) { end } else { 0 })
}

/// Writes `bytes` at `offset`, a multiple of [`HOLE`], without the pieces that are zero.
fn write_sparse(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    let is_hole = |piece: &[u8]| piece.len() == HOLE && piece.iter().all(|&byte| byte == 0);
    let mut at = offset;
    for run in bytes.chunks(HOLE).collect::<Vec<_>>().chunk_by(|a, b| is_hole(a) == is_hole(b)) {
        let len: usize = run.iter().map(|piece| piece.len()).sum();
        if !run.first().is_some_and(|first| is_hole(first)) {
            let start = usize::try_from(at.saturating_sub(offset)).unwrap_or(usize::MAX);
            let data = bytes.get(start..start.saturating_add(len)).unwrap_or_default();
            file.write_all_at(data, at)?;
        }
        at = at.saturating_add(len as u64);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn zeros_become_holes_and_every_byte_is_right() {
        let mut bytes = vec![0u8; 40 * HOLE + 17];
        bytes[HOLE] = 1;
        bytes[20 * HOLE + 5] = 2;
        let file = tempfile::tempfile().unwrap();
        write_sparse(&file, &bytes, 0).unwrap();
        write_sparse(&file, &[7; 10], 48 * HOLE as u64).unwrap();
        bytes.resize(48 * HOLE, 0);
        bytes.extend([7; 10]);
        let mut written = vec![1; bytes.len() + 1];
        assert_eq!(read_full(&file, &mut written, 0).unwrap(), bytes.len());
        assert!(written[..bytes.len()] == bytes);
        assert!(file.metadata().unwrap().blocks() * 512 <= 8 * HOLE as u64);
    }
}
