//! Proves the content of files by their signatures, where nothing else tells that it is the right one.
//!
//! The manifest of a set proves its volumes by their hashes. A set that has lost its manifest (`--rebuild`) has volumes that may
//! be left over from another run, and one may be missing; then the sums in the signature archive prove each file as a whole.

use super::error::ContentError;
use super::extent_map::ExtentMap;
use super::file_ref::{FileRef, set_label};
use super::stored_stream::StoredStream;
use crate::tree::FileVersion;
use crate::volume::Volumes;
use dupfs_base::ByteRange;
use dupfs_format::SetIndex;

/// Bytes that are read at a time, at least one block of the signature.
const CHUNK_BYTES: u64 = 1 << 20;

/// Returns true if what `stream` holds must be proved.
pub(super) fn is_needed(volumes: &dyn Volumes, stream: &StoredStream) -> bool {
    volumes.is_rebuilt(stream.set)
}

/// Proves that `extent_map`, which rests on what the set `doubtful` stores, is the content that was signed for `version` of
/// `file`. Reads all of it.
///
/// # Errors
/// [`ContentError::Unproven`] if it is not, or nothing was signed; the failure to read it.
pub(super) fn prove(
    volumes: &dyn Volumes,
    file: &FileRef,
    version: FileVersion,
    extent_map: &ExtentMap,
    doubtful: SetIndex,
) -> Result<(), ContentError> {
    let path = || file.path.clone();
    let unproven = |what: &str| {
        let detail = format!(
            "has lost its manifest, and {what}: copy the manifest back from another replica, or from the archive directory of \
             the machine that was backed up"
        );
        ContentError::Unproven { path: path(), set: set_label(volumes, doubtful), detail: detail.into() }
    };
    let set = file.branch.set_at(version.position).ok_or_else(|| ContentError::NotFile { path: path() })?;
    let signed = volumes.signed_content(set, &file.path);
    let signed = signed.map_err(|error| ContentError::Volume { path: path(), error })?;
    let signed = signed.ok_or_else(|| unproven("no signature proves the file"))?;
    let mut proof = signed.begin_proof();
    // Whole blocks, but for the last one.
    let chunk = CHUNK_BYTES.next_multiple_of(signed.block_len());
    let (mut at, mut bytes) = (0u64, Vec::new());
    while at < extent_map.size() {
        let end = at.saturating_add(chunk).min(extent_map.size());
        bytes.clear();
        extent_map.read(volumes, file, ByteRange { start: at, end }, &mut bytes)?;
        proof.take(&bytes);
        at = end;
    }
    if proof.holds() { Ok(()) } else { Err(unproven("what its volumes hold is not the file that was signed")) }
}
