//! The plaintext of a signature archive, compared with the manifest of its set while it is read.

use std::fmt;
use std::io::{self, Read};

use super::error::VolumeError;
use super::plaintext::feed;
use dupfs_format::sigtar::{SigEntry, SigtarParser, SigtarSink};
use dupfs_format::{BindingMismatch, FormatError, SignatureBinding};

/// The plaintext of a signature archive. Its entries are compared with the manifest of the set if that is encrypted too.
///
/// A consumer either calls [`Self::parse`] or reads the bytes.
pub struct SignatureStream<'r, 'm> {
    object: &'r str,
    plain: &'r mut dyn Read,
    binding: Option<SignatureBinding<'m>>,
    /// Parses the bytes that a consumer reads, for the comparison. `None` once the consumer called [`Self::parse`].
    parser: Option<SigtarParser>,
    failed: Option<FormatError>,
}

impl fmt::Debug for SignatureStream<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignatureStream")
            .field("object", &self.object)
            .field("binding", &self.binding)
            .finish_non_exhaustive()
    }
}

impl<'r, 'm> SignatureStream<'r, 'm> {
    /// The archive `object`, whose plaintext is `plain`. `binding` compares it with the manifest.
    pub(super) fn new(object: &'r str, plain: &'r mut dyn Read, binding: Option<SignatureBinding<'m>>) -> Self {
        Self { object, plain, binding, parser: Some(SigtarParser::default()), failed: None }
    }

    /// The name of the archive.
    pub fn object(&self) -> &'r str {
        self.object
    }

    /// Passes all entries of the archive to `sink`. Nothing else may have been read of it.
    ///
    /// # Errors
    /// [`VolumeError`] if it cannot be read or is no signature archive, or for the error of `sink`.
    pub fn parse<S: SigtarSink + ?Sized>(&mut self, sink: &mut S) -> Result<(), VolumeError> {
        self.parser = None;
        let mut parser = SigtarParser::default();
        let mut entries = ComparedEntries { binding: self.binding.as_mut(), sink };
        feed(self.object, self.plain, &mut |chunk| parser.feed(chunk, &mut entries))?;
        parser.finish().map_err(|e| VolumeError::from_format(self.object, &e))
    }

    /// Reads the rest of the archive and returns the reason why it is not of the set of the manifest.
    ///
    /// # Errors
    /// [`VolumeError`] if it cannot be read or is no signature archive.
    pub(super) fn finish(mut self) -> Result<Option<BindingMismatch>, VolumeError> {
        if self.parser.is_some() && self.binding.is_some() {
            let object = self.object;
            io::copy(&mut self, &mut io::sink()).map_err(|e| VolumeError::from_io(object, &e))?;
            let ended = match (self.failed.take(), &mut self.parser) {
                (Some(failed), _) => Err(failed),
                (None, Some(parser)) => parser.finish(),
                (None, None) => Ok(()),
            };
            ended.map_err(|e| VolumeError::from_format(object, &e))?;
        }
        Ok(self.binding.and_then(SignatureBinding::mismatch))
    }
}

impl Read for SignatureStream<'_, '_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let len = self.plain.read(buf)?;
        if self.failed.is_none()
            && let (Some(parser), Some(binding)) = (&mut self.parser, &mut self.binding)
        {
            let mut entries = ComparedEntries { binding: Some(binding), sink: &mut NoEntries };
            self.failed = parser.feed(buf.get(..len).unwrap_or(&[]), &mut entries).err();
        }
        Ok(len)
    }
}

/// Compares the entries before `sink` takes them.
struct ComparedEntries<'a, 'm, S: ?Sized> {
    binding: Option<&'a mut SignatureBinding<'m>>,
    sink: &'a mut S,
}

impl<S: SigtarSink + ?Sized> SigtarSink for ComparedEntries<'_, '_, S> {
    fn entry(&mut self, entry: SigEntry) -> Result<(), FormatError> {
        if let Some(binding) = &mut self.binding {
            binding.add(entry.change, &entry.path);
        }
        self.sink.entry(entry)
    }

    fn problem(&mut self, problem: FormatError) -> Result<(), FormatError> {
        self.sink.problem(problem)
    }
}

/// Takes the entries of an archive whose consumer reads the bytes.
struct NoEntries;

impl SigtarSink for NoEntries {
    fn entry(&mut self, _entry: SigEntry) -> Result<(), FormatError> {
        Ok(())
    }

    fn problem(&mut self, problem: FormatError) -> Result<(), FormatError> {
        Err(problem)
    }
}
