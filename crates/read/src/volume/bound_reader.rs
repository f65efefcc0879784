//! A signature archive that is compared with the manifest of its set while it is read.

use std::io::{self, Read};

use super::error::VolumeError;
use dupfs_format::manifest::Manifest;
use dupfs_format::sigtar::SigtarParser;
use dupfs_format::{BindingMismatch, FormatError, SignatureBinding};

/// The plaintext of a signature archive, compared with a manifest as it is read.
pub(super) struct BoundReader<'r, 'm> {
    plain: &'r mut dyn Read,
    parser: SigtarParser,
    binding: SignatureBinding<'m>,
    failed: Option<FormatError>,
}

impl<'r, 'm> BoundReader<'r, 'm> {
    /// A reader of `plain`, the archive of the set of `manifest`, which is a full one if `is_full`.
    pub(super) fn new(plain: &'r mut dyn Read, manifest: &'m Manifest, is_full: bool) -> Self {
        let binding = SignatureBinding::new(manifest, is_full);
        Self { plain, parser: SigtarParser::default(), binding, failed: None }
    }

    /// Reads the rest of the archive `object` and returns the reason why it is not of the set of the manifest.
    ///
    /// # Errors
    /// [`VolumeError`] if it cannot be read or is no signature archive.
    pub(super) fn finish(mut self, object: &str) -> Result<Option<BindingMismatch>, VolumeError> {
        io::copy(&mut self, &mut io::sink()).map_err(|e| VolumeError::from_io(object, &e))?;
        let ended = self.failed.map_or_else(|| self.parser.finish(), Err);
        ended.map_err(|e| VolumeError::from_format(object, &e))?;
        Ok(self.binding.mismatch())
    }
}

impl Read for BoundReader<'_, '_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let len = self.plain.read(buf)?;
        if self.failed.is_none() {
            self.failed = self.parser.feed(buf.get(..len).unwrap_or(&[]), &mut self.binding).err();
        }
        Ok(len)
    }
}
