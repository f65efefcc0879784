//! The content of a file whose size is known.

use std::sync::{Arc, OnceLock};

use super::content_resolver::ContentResolver;
use super::error::ContentError;
use super::extent_map::ExtentMap;
use super::file_ref::{FileRef, set_label};
use super::proved_read::{self, ProvedFile};
use crate::volume::{SignedBlocks, VolumeError, Volumes};
use dupfs_base::ByteRange;
use dupfs_format::SetIndex;

/// The content of a file whose size is known. A file that was opened before its volumes were verified is located again once they
/// are.
#[derive(Debug)]
pub(super) struct SizedContent {
    size: u64,
    /// The extents, which verified volumes have confirmed.
    extents: OnceLock<Arc<ExtentMap>>,
    /// The file as a pass has shown it.
    proved: Option<Arc<ProvedFile>>,
    /// The sums that prove single blocks, once they were requested.
    sums: OnceLock<SignedBlocks>,
}

impl SizedContent {
    /// Locates the content of `file`, unless its size is proved already: then the first read does.
    ///
    /// # Errors
    /// [`ContentError`] when the size, a delta or the base of a chain cannot be found or read.
    pub(super) fn open(
        resolver: &ContentResolver,
        volumes: &dyn Volumes,
        file: &FileRef,
    ) -> Result<Self, ContentError> {
        let (size, _) = resolver.stat(volumes, file)?;
        let proved = resolver.proved_file(file);
        let extents = OnceLock::new();
        if proved.is_none() {
            let located = resolver.extent_map(volumes, file)?;
            let size = located.size();
            return Ok(Self { size, extents: OnceLock::from(located), proved, sums: OnceLock::new() });
        }
        Ok(Self { size, extents, proved, sums: OnceLock::new() })
    }

    /// The file's size in bytes.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Appends the bytes `range` (cut at the end of the file) of `file` to `out`. Bytes of a volume that is still being read are
    /// appended if the signature archive proves them.
    ///
    /// # Errors
    /// [`ContentError`] when a byte of it cannot be read.
    pub(super) fn read(
        &self,
        resolver: &ContentResolver,
        volumes: &dyn Volumes,
        file: &FileRef,
        range: ByteRange,
        out: &mut Vec<u8>,
    ) -> Result<(), ContentError> {
        // It keeps the pass that it has found to be slow, until the request has its answer.
        let until_slow = volumes.until_slow();
        if let Some(until_slow) = &until_slow
            && self.read_until_slow(resolver, &**until_slow, file, range, out)?
        {
            return Ok(());
        }
        self.located_extents(resolver, volumes, file)?.read(volumes, file, range, out)
    }

    /// As [`Self::read`], with volumes that do not wait for slow passes. Returns false, with `out` as it was, if the request must
    /// wait.
    fn read_until_slow(
        &self,
        resolver: &ContentResolver,
        volumes: &dyn Volumes,
        file: &FileRef,
        range: ByteRange,
        out: &mut Vec<u8>,
    ) -> Result<bool, ContentError> {
        let before = out.len();
        let located = self.located_extents(resolver, volumes, file);
        let read = located.and_then(|extents| extents.read(volumes, file, range, out).map(|()| extents));
        let Err(error) = read else { return Ok(true) };
        out.truncate(before);
        match error {
            ContentError::Volume { error: VolumeError::Slow { .. }, .. } => {}
            // The pass has failed.
            error @ ContentError::Volume { .. } => return Err(error),
            _ => return Ok(false),
        }
        match (self.extents.get(), &self.proved) {
            (Some(extents), _) => match self.sums(volumes, file)? {
                Some(sums) => proved_read::read(volumes, file, (extents, sums), range, out),
                None => Ok(false),
            },
            (None, Some(proved)) => proved.read(volumes, file, range, out),
            (None, None) => Ok(false),
        }
    }

    /// The extents as verified volumes confirm them.
    fn located_extents(
        &self,
        resolver: &ContentResolver,
        volumes: &dyn Volumes,
        file: &FileRef,
    ) -> Result<&Arc<ExtentMap>, ContentError> {
        if let Some(extents) = self.extents.get() {
            return Ok(extents);
        }
        let extents = resolver.extent_map(volumes, file)?;
        if extents.size() != self.size {
            let set =
                set_label(volumes, file.version().and_then(|v| file.branch.set_at(v.position)).unwrap_or(SetIndex(0)));
            return Err(ContentError::Size { path: file.path.clone(), set, size: extents.size() });
        }
        Ok(self.extents.get_or_init(|| extents))
    }

    fn sums(&self, volumes: &dyn Volumes, file: &FileRef) -> Result<Option<&SignedBlocks>, ContentError> {
        if self.sums.get().is_none() {
            let stored_len = volumes.slow_volume().map_or(0, |running| running.stored_len());
            let Some(sums) = proved_read::sums(volumes, file, stored_len)? else { return Ok(None) };
            return Ok(Some(self.sums.get_or_init(|| sums)));
        }
        Ok(self.sums.get())
    }
}
