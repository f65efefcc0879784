//! The sums of the blocks of one file, as its set signed them, and the proof of content that is not verified yet.

use std::sync::Arc;

use super::block_store::BlockStore;
use super::block_sums::BlockSums;
use super::verified_blocks::DecodedObject;
use dupfs_base::ByteRange;
use dupfs_format::SetIndex;

/// Upper bound of the length of a block whose sums prove it before its volume ends: it is in memory as a whole. duplicity signs a
/// file of 16 TB in such blocks.
const MAX_BLOCK_BYTES: u64 = 4 << 20;
/// Least number of bytes of the sums of a block: a rolling sum and eight bytes of MD4.
const MIN_SUMS_BYTES: u64 = 12;

/// Content of which a part comes from a pass that has not ended. Only [`SignedBlocks::prove`] gives access to it.
#[derive(Debug, Default)]
pub(crate) struct Unverified {
    bytes: Vec<u8>,
    /// True if a volume with a part of it is encrypted: only an encrypted signature archive proves it.
    is_encrypted: bool,
}

impl Unverified {
    /// Appends what `append` does. Returns its result; if that is false, the content is as it was.
    pub(super) fn extend(&mut self, is_encrypted: bool, append: impl FnOnce(&mut Vec<u8>) -> bool) -> bool {
        let is_done = append(&mut self.bytes);
        self.is_encrypted |= is_done && is_encrypted;
        is_done
    }

    /// Appends bytes that are verified.
    pub(crate) fn extend_verified(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }
}

/// The sums of the blocks of one file, by the signature archive of a set, which was verified to its end.
#[derive(Clone, Debug)]
pub struct SignedBlocks {
    sums: BlockSums,
    /// Number of blocks.
    blocks: u64,
    /// The offset of the first sums in the plaintext of the archive.
    start: u64,
    set: SetIndex,
    is_encrypted: bool,
    store: Arc<BlockStore>,
}

/// The signature of a file in the plaintext of an archive.
#[derive(Clone, Copy, Debug)]
pub(super) struct SignatureLocation {
    pub(super) set: SetIndex,
    /// True if the archive is encrypted.
    pub(super) is_encrypted: bool,
    /// The offset after the header of the signature.
    pub(super) start: u64,
    /// Bytes of the signature without its header.
    pub(super) len: u64,
}

impl SignedBlocks {
    /// The sums of kind `sums` that are at `location`, in blocks of `store`. `None` if they cannot prove single blocks.
    pub(super) fn new(sums: BlockSums, location: SignatureLocation, store: Arc<BlockStore>) -> Option<Self> {
        let SignatureLocation { set, is_encrypted, start, len } = location;
        let each = sums.sums_len() as u64;
        let is_usable = each >= MIN_SUMS_BYTES && len % each == 0 && sums.block_len() as u64 <= MAX_BLOCK_BYTES;
        is_usable.then(|| Self { sums, blocks: len / each, start, set, is_encrypted, store })
    }

    /// Bytes of a block.
    pub(crate) fn block_len(&self) -> u64 {
        self.sums.block_len() as u64
    }

    /// Returns true if it may prove content of a volume that is encrypted if `is_encrypted`.
    pub(crate) fn covers(&self, is_encrypted: bool) -> bool {
        self.is_encrypted || !is_encrypted
    }

    /// Returns true if a file of `size` bytes has this number of blocks.
    pub(crate) fn allows(&self, size: u64) -> bool {
        size.div_ceil(self.block_len()) == self.blocks
    }

    /// The bytes of `content`, which is that of a file of `size` bytes from `start`, if each is in a block that was signed: `None`
    /// if a block is another one or is not there as a whole, or its sums are not available.
    pub(crate) fn prove(&self, start: u64, content: Unverified, size: u64) -> Option<Vec<u8>> {
        let Unverified { bytes, is_encrypted } = content;
        let (block, each) = (self.block_len(), self.sums.sums_len());
        let end = start.checked_add(bytes.len() as u64)?;
        let is_whole = start.is_multiple_of(block) && (end == size || (end < size && end.is_multiple_of(block)));
        if !is_whole || !self.allows(size) || !self.covers(is_encrypted) {
            return None;
        }
        let (first, last) = (start / block, end.div_ceil(block));
        let at = |index: u64| self.start.checked_add(index.checked_mul(each as u64)?);
        let range = ByteRange { start: at(first)?, end: at(last)? };
        let mut signed = Vec::new();
        if !self.store.get(DecodedObject::Signatures(self.set), range)?.append_to(range, &mut signed) {
            return None;
        }
        let chunks = bytes.chunks(self.sums.block_len());
        let is_signed = chunks.len() == signed.len() / each
            && chunks.zip(signed.chunks_exact(each)).all(|(chunk, sums)| self.sums.of(chunk) == sums);
        is_signed.then_some(bytes)
    }
}
