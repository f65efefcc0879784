//! Proves the content of files by their signatures, where nothing else proves it.
//!
//! The manifest of a set proves its volumes by their hashes. A set that has lost its manifest (`--rebuild`) has volumes that may
//! be left over from another run, and one may be missing. A set whose source had names in two encodings may store several
//! objects under one name. In both cases the sums in the signature archive prove a file as a whole.

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

/// The reason why a content must be proved.
#[derive(Clone, Copy)]
pub(super) enum Doubt {
    LostManifest,
    RepeatedName,
}

impl Doubt {
    /// The doubt about the content of `stream`, if there is one.
    pub(super) fn about(volumes: &dyn Volumes, stream: &StoredStream) -> Option<Self> {
        let lost = || volumes.is_rebuilt(stream.set).then_some(Self::LostManifest);
        stream.is_ambiguous.then_some(Self::RepeatedName).or_else(lost)
    }

    fn describe(self, finding: &str) -> String {
        match self {
            Self::LostManifest => format!(
                "has lost its manifest, and {finding}: copy the manifest back from another replica, or from the archive \
                 directory of the machine that was backed up"
            ),
            Self::RepeatedName => format!(
                "stores several objects under this name, because its source had names in two encodings, and {finding}; try \
                 another snapshot"
            ),
        }
    }
}

/// Proves that `extent_map`, which depends on a doubtful set, is the content that was signed for `version` of `file`.
/// Reads all of it.
///
/// # Errors
/// [`ContentError::Unproven`] if it is not, or nothing was signed; the failure to read it.
pub(super) fn prove(
    volumes: &dyn Volumes,
    file: &FileRef,
    version: FileVersion,
    extent_map: &ExtentMap,
    (doubtful, doubt): (SetIndex, Doubt),
) -> Result<(), ContentError> {
    let path = || file.path.clone();
    let unproven = |finding: &str| {
        let detail = doubt.describe(finding).into();
        ContentError::Unproven { path: path(), set: set_label(volumes, doubtful), detail }
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
    if proof.holds() { Ok(()) } else { Err(unproven("the content of its volumes is not the signed file")) }
}
