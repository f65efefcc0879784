//! Plaintext streams cut into chunks.

use std::io::{self, Read};

use super::error::VolumeError;
use dupfs_cache::BLOCK_BYTES;
use dupfs_format::FormatError;

/// Passes the plaintext of `object` to `parse` in chunks of one block, up to its end.
///
/// # Errors
/// [`VolumeError`] if it cannot be read, or for the error of `parse`.
pub(crate) fn feed(
    object: &str,
    plain: &mut dyn Read,
    parse: &mut dyn FnMut(&[u8]) -> Result<(), FormatError>,
) -> Result<(), VolumeError> {
    let mut chunk = vec![0; BLOCK_BYTES];
    loop {
        let filled = fill(plain, &mut chunk).map_err(|e| VolumeError::from_io(object, &e))?;
        parse(chunk.get(..filled).unwrap_or(&[])).map_err(|e| VolumeError::from_format(object, &e))?;
        if filled < BLOCK_BYTES {
            return Ok(());
        }
    }
}

/// Fills `buf` from `input`. Returns fewer bytes only at the end of the stream.
pub(super) fn fill(input: &mut dyn Read, buf: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buf.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match input.read(rest) {
            Ok(0) => break,
            Ok(n) => filled = filled.saturating_add(n),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(filled)
}
