//! The interface of the decoders of all forms.

use std::sync::Arc;

use super::decode_context::DecodeContext;
use super::error::UnpackError;

/// The fault of data whose checksum does not match, near the byte after the data.
pub(super) const CHECKSUM_MISMATCH: &str = "checksum mismatch: the data before this byte is damaged";
/// The fault of data of another length than its trailer or directory states.
pub(super) const LENGTH_MISMATCH: &str = "length mismatch: the decompressed data does not have the stated length";

/// A position in a decompressed stream where decoding can start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SeekPoint {
    /// Offset in the decompressed bytes.
    pub(super) out: u64,
    /// Offset in the compressed bytes.
    pub(super) input: u64,
    /// Other state that the decoder of the form needs.
    pub(super) state: Arc<[u8]>,
}

/// A live decoder somewhere in a stream.
pub(super) trait StreamDecoder: Send {
    /// The next decompressed bytes, never empty; `None` at the end, once all checks of the form were right. A failure to read
    /// the source, or the end of the request, does not change the decoder: the next call continues.
    ///
    /// # Errors
    /// [`UnpackError`] of the source, or for damaged data.
    fn next(&mut self, context: &DecodeContext<'_>) -> Result<Option<Vec<u8>>, UnpackError>;

    /// The input offset and the state from which decoding can start for the bytes after those returned so far, if it
    /// can start there.
    fn resume(&self) -> Option<(u64, Vec<u8>)>;

    /// Offset of the input read so far.
    fn taken(&self) -> u64;
}

/// Reads the fields of a [`SeekPoint`]'s state.
#[derive(Debug)]
pub(super) struct ByteFields<'a>(pub(super) &'a [u8]);

impl ByteFields<'_> {
    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, tail) = self.0.split_first_chunk::<N>()?;
        self.0 = tail;
        Some(*head)
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.array().map(|[b]| b)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }
}

/// Appends `len` in the form that [`ByteFields::u32`] reads; `None` if it has none.
pub(super) fn put_len(out: &mut Vec<u8>, len: usize) -> Option<()> {
    out.extend_from_slice(&u32::try_from(len).ok()?.to_be_bytes());
    Some(())
}

/// The error for a seek point that does not match the stream.
pub(super) fn bad_point(name: &Arc<str>, at: u64) -> UnpackError {
    UnpackError::damaged(name, at, "a stored seek point does not match the data; delete the index")
}
