//! The contents of files of this machine, compared with signatures and with each other.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use dupfs_read::volume::SignedContent;

use super::call_limits::CallLimits;
use super::file_chunks::CHUNK;

/// Returns true if `file` has the content that was signed. `None` if the user has interrupted the command.
pub(super) fn is_signed(file: &File, signed: SignedContent, limits: &CallLimits) -> io::Result<Option<bool>> {
    let mut proof = signed.begin_proof();
    let block = usize::try_from(signed.block_len()).unwrap_or(CHUNK).max(1);
    // Whole blocks, but for the last one.
    let mut buffer = vec![0; CHUNK.next_multiple_of(block)];
    let mut offset = 0u64;
    loop {
        if limits.is_over() {
            return Ok(None);
        }
        let len = read_full(file, &mut buffer, offset)?;
        proof.take(buffer.get(..len).unwrap_or_default());
        offset = offset.saturating_add(len as u64);
        if len < buffer.len() {
            return Ok(Some(proof.holds()));
        }
    }
}

/// Returns true if both files have the same content.
pub(super) fn is_same(one: &File, other: &File) -> io::Result<bool> {
    let (mut a, mut b, mut offset) = (vec![0; CHUNK], vec![0; CHUNK], 0u64);
    loop {
        let (in_one, in_other) = (read_full(one, &mut a, offset)?, read_full(other, &mut b, offset)?);
        if a.get(..in_one) != b.get(..in_other) {
            return Ok(false);
        }
        if in_one < CHUNK {
            return Ok(true);
        }
        offset = offset.saturating_add(in_one as u64);
    }
}

/// Fills `buffer` from `offset`; fewer bytes only at the end of the file.
pub(super) fn read_full(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut len = 0usize;
    while let Some(rest) = buffer.get_mut(len..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset.saturating_add(len as u64)) {
            Ok(0) => break,
            Ok(more) => len = len.saturating_add(more),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_differ_in_a_byte_or_in_length_are_not_the_same() {
        let with = |bytes: &[u8]| {
            let file = tempfile::tempfile().unwrap();
            file.write_all_at(bytes, 0).unwrap();
            file
        };
        let long = vec![3u8; CHUNK + 5];
        let mut other = long.clone();
        other[CHUNK + 4] = 4;
        assert!(is_same(&with(&long), &with(&long)).unwrap());
        assert!(!is_same(&with(&long), &with(&other)).unwrap());
        assert!(!is_same(&with(&long), &with(&long[..CHUNK])).unwrap());
        assert!(is_same(&with(b""), &with(b"")).unwrap());
    }
}
