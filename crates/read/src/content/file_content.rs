//! The content of an open file.

use std::sync::OnceLock;

use super::content_resolver::ContentResolver;
use super::error::ContentError;
use super::file_beginning::FileBeginning;
use super::file_ref::FileRef;
use super::sized_content::SizedContent;
use crate::volume::Volumes;
use dupfs_base::ByteRange;

/// The content of an open file.
#[derive(Debug)]
pub struct FileContent {
    /// The part that can be read before the size is known.
    beginning: Option<FileBeginning>,
    sized: OnceLock<SizedContent>,
}

impl FileContent {
    /// Opens `file` with its exact size.
    ///
    /// # Errors
    /// [`ContentError`] when the size, a delta or the base of a chain cannot be found or read.
    pub fn open(resolver: &ContentResolver, volumes: &dyn Volumes, file: &FileRef) -> Result<Self, ContentError> {
        let sized = SizedContent::open(resolver, volumes, file)?;
        Ok(Self { beginning: None, sized: OnceLock::from(sized) })
    }

    /// Opens `file` without its size, if it can be read in order until the size is needed: the volume with its end is then not
    /// fetched before the others. Fetches no volume. `None` if that is not possible.
    ///
    /// # Errors
    /// [`ContentError`] when the manifest or the sums of the file cannot be read.
    pub fn open_unsized(volumes: &dyn Volumes, file: &FileRef) -> Result<Option<Self>, ContentError> {
        let beginning = FileBeginning::of(volumes, file)?;
        Ok(beginning.map(|beginning| Self { beginning: Some(beginning), sized: OnceLock::new() }))
    }

    /// The file's size in bytes, if it is known.
    pub fn known_size(&self) -> Option<u64> {
        self.sized.get().map(SizedContent::size)
    }

    /// Appends the bytes `range` (cut at the end of the file) of `file` to `out`. Bytes of a volume that is still being read are
    /// appended if the signature archive proves them.
    ///
    /// # Errors
    /// [`ContentError`] when a byte of it cannot be read.
    pub fn read(
        &self,
        resolver: &ContentResolver,
        volumes: &dyn Volumes,
        file: &FileRef,
        range: ByteRange,
        out: &mut Vec<u8>,
    ) -> Result<(), ContentError> {
        if let Some(sized) = self.sized.get() {
            return sized.read(resolver, volumes, file, range, out);
        }
        if let Some(beginning) = &self.beginning
            && beginning.read(volumes, file, range, out)?
        {
            return Ok(());
        }
        let sized = SizedContent::open(resolver, volumes, file)?;
        self.sized.get_or_init(|| sized).read(resolver, volumes, file, range, out)
    }
}
