//! The beginning of a large file, which is served before the size of the file is known.
//!
//! duplicity stores no sizes, so the size costs the volume with the end of the file. A program that reads a file in order needs it
//! last. Until then the file is read as its signature archive says it is: every block must agree with its sums, also in volumes
//! that are verified, because nothing else shows that the parts are where they are assumed to be.

use std::sync::OnceLock;

use super::error::ContentError;
use super::extent_map::ExtentMap;
use super::file_ref::FileRef;
use super::part_finder::PartFinder;
use super::part_layout::{PART_BYTES, PartLayout};
use super::proof::Doubt;
use super::proved_read;
use super::stored_stream::StoredStream;
use crate::volume::{SignedBlocks, Volumes};
use dupfs_base::ByteRange;
use dupfs_format::VolumeId;
use dupfs_format::manifest::PartSelector;

/// Files with fewer bytes are opened with their sizes: their ends come soon after their beginnings.
const MIN_BYTES: u64 = 1 << 20;

/// A large file that is stored whole, as far as it has bytes for certain.
#[derive(Debug)]
pub(super) struct FileBeginning {
    extents: ExtentMap,
    sums: SignedBlocks,
    /// The number of bytes in the parts that are not the last one.
    len: u64,
    /// True if the first read met a slow pass, and false if not: then the end of the file comes soon too.
    is_slow: OnceLock<bool>,
}

impl FileBeginning {
    /// The beginning of `file`, of which no volume is fetched. `None` if its newest set may store a delta, if the file is not large,
    /// or if there are no sums that prove single blocks.
    ///
    /// # Errors
    /// [`ContentError`] when the manifest or the sums cannot be read.
    pub(super) fn of(volumes: &dyn Volumes, file: &FileRef) -> Result<Option<Self>, ContentError> {
        // The oldest version is no delta.
        let [version] = file.history.as_slice() else { return Ok(None) };
        let Some(stream) = StoredStream::assume_base(file, version.position) else { return Ok(None) };
        let PartLayout::Assumed { sure } = stream.layout else { return Ok(None) };
        let len = sure.saturating_mul(PART_BYTES);
        if len < MIN_BYTES || volumes.until_slow().is_none() || Doubt::about(volumes, &stream).is_some() {
            return Ok(None);
        }
        let finder = PartFinder::new(volumes, file, version.position)?;
        let Some(first) = finder.manifest.volume_of(&file.path, PartSelector::Number(1)) else { return Ok(None) };
        let stored_len = volumes.stored_len(VolumeId { set: finder.set, number: first }).unwrap_or(0);
        let Some(sums) = proved_read::sums(volumes, file, stored_len)? else { return Ok(None) };
        let extents = ExtentMap::of_stream(stream.into());
        Ok(Some(Self { extents, sums, len, is_slow: OnceLock::new() }))
    }

    /// Appends the bytes `range` of `file` to `out`. Returns false, with `out` as it was, if that needs the size of the file, if the
    /// sums do not prove them, or if the volumes are not slow.
    ///
    /// # Errors
    /// [`ContentError`] if a volume cannot be read, or for the end of the request.
    pub(super) fn read(
        &self,
        volumes: &dyn Volumes,
        file: &FileRef,
        range: ByteRange,
        out: &mut Vec<u8>,
    ) -> Result<bool, ContentError> {
        if range.end > self.len || self.is_slow.get() == Some(&false) {
            return Ok(false);
        }
        let mut ended = None;
        loop {
            // It keeps the pass that it has found to be slow, until the request has its answer.
            let Some(until_slow) = volumes.until_slow() else { return Ok(false) };
            if proved_read::read(&*until_slow, file, (&self.extents, &self.sums), range, out)? {
                self.is_slow.get_or_init(|| until_slow.slow_volume().is_some());
                return Ok(true);
            }
            // A pass that has ended meanwhile has not answered. The volume is verified now, and is read so.
            let newly = until_slow.slow_volume().filter(|running| running.is_ended()).map(|running| running.id());
            if newly.is_none() || newly == ended {
                return Ok(false);
            }
            ended = newly;
        }
    }
}
