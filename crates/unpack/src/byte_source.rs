//! Random access to bytes: the input and the output of unpacking.

use std::fmt::Debug;
use std::sync::Arc;

use super::error::UnpackError;
use dupfs_base::RequestContext;

/// The stored file that bytes come from, through any number of archives and compressed files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredOrigin {
    /// Number of the file. All decoding of its content shares one part of the processors' time.
    pub flow: u64,
    /// Its bytes in the backup. They bound everything that is decoded from it, through all levels.
    pub len: u64,
    /// Number of decoders between the file and the bytes.
    pub decoders: u32,
    /// Bytes of memory that these need together, as far as it is known.
    pub decoder_bytes: u64,
}

impl StoredOrigin {
    /// The origin of the bytes of a stored file of `len` bytes, whose number is `flow`.
    pub fn file(flow: u64, len: u64) -> Self {
        Self { flow, len, decoders: 0, decoder_bytes: 0 }
    }
}

/// Random access to immutable bytes. May be used from many threads at once; no lock is held while it reads.
pub trait ByteSource: Send + Sync + Debug {
    /// Its path, for errors.
    fn name(&self) -> Arc<str>;

    /// Up to `len` bytes from `offset`; fewer only at the end.
    ///
    /// # Errors
    /// [`UnpackError`] when one of them cannot be read.
    fn read_at(&self, offset: u64, len: usize, context: &RequestContext) -> Result<Vec<u8>, UnpackError>;

    /// The stored file that it comes from: itself, unless it is decoded from another source or a part of one.
    fn origin(&self) -> StoredOrigin;

    /// The number of bytes, if it is known without work.
    fn known_len(&self) -> Option<u64>;

    /// The number of bytes. May need a pass over all of them.
    ///
    /// # Errors
    /// [`UnpackError`] when it cannot be determined.
    fn len(&self, context: &RequestContext) -> Result<u64, UnpackError>;

    /// Returns true if there are no bytes. May need to decode the first one.
    ///
    /// # Errors
    /// [`UnpackError`] when that cannot be determined.
    fn is_empty(&self, context: &RequestContext) -> Result<bool, UnpackError> {
        Ok(self.read_at(0, 1, context)?.is_empty())
    }

    /// Verifies the checks after all its parts with bytes from `from` to before `to`, if parts have separate checks;
    /// not those of a part that also has the byte at `next`, where the caller continues. Other sources are verified at
    /// their end.
    ///
    /// # Errors
    /// [`UnpackError`] when one of them is wrong or cannot be reached.
    fn check_range(&self, from: u64, to: u64, next: Option<u64>, context: &RequestContext) -> Result<(), UnpackError> {
        let _ = (from, to, next, context);
        Ok(())
    }

    /// Verifies the checks at its end. May need a pass over all of it.
    ///
    /// # Errors
    /// [`UnpackError`] when one of them is wrong or cannot be reached.
    fn check_end(&self, context: &RequestContext) -> Result<(), UnpackError> {
        self.len(context).map(drop)
    }

    /// Bytes that identify this content permanently, also after a remount; `None` if nothing does. The identity of a
    /// stored file begins with its group in the index, and the identities of all that is decoded from it begin with
    /// that.
    fn identity(&self) -> Option<Arc<[u8]>>;

    /// Returns true if every byte is verified before it is served; else only the end proves that all of them are right.
    fn verified_early(&self) -> bool;
}
