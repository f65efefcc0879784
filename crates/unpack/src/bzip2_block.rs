//! One block of bzip2 data, decoded as a separate stream that is made for the library.

use ::bzip2::{Decompress, Status};

use super::bzip2_bits::{BLOCK_MAGIC, BitWriter, END_MAGIC, MAGIC_BITS, bits_at};
use dupfs_base::{RequestContext, Stopped};

/// Upper bound of the bytes of a compressed block: 900,000 symbols of at most 20 bits, and its tables.
pub(super) const LONGEST: u64 = 2_400_000;
/// Size of a usual block when it is decoded.
pub(super) const USUAL: usize = 920_000;
/// A block that decodes to more is decoded in pieces.
const LONG: usize = 4 << 20;

/// The outcome of decoding a block.
pub(super) enum DecodedBlock {
    Block {
        bytes: Vec<u8>,
        crc: u32,
    },
    /// A good block that decodes to more than [`LONG`].
    Long {
        packed: Vec<u8>,
        crc: u32,
    },
    Bad,
}

/// Decodes the block in bits `start` to `end` of the input, of which `bytes` are those from the byte of `start` on.
///
/// # Errors
/// [`Stopped`] if the request ends meanwhile.
pub(super) fn decode(bytes: &[u8], start: u64, end: u64, context: &RequestContext) -> Result<DecodedBlock, Stopped> {
    let offset = start % 8;
    let Some(crc) = bits_at(bytes, offset + MAGIC_BITS, 32).and_then(|crc| u32::try_from(crc).ok()) else {
        return Ok(DecodedBlock::Bad);
    };
    if bits_at(bytes, offset, MAGIC_BITS) != Some(BLOCK_MAGIC) {
        return Ok(DecodedBlock::Bad);
    }
    let mut packed = BitWriter::new(Vec::with_capacity(bytes.len() + 16));
    packed.bytes.extend_from_slice(b"BZh9");
    if packed.copy(bytes, offset, offset + (end - start)).is_none() {
        return Ok(DecodedBlock::Bad);
    }
    packed.push(END_MAGIC, 48);
    packed.push(u64::from(crc), 32);
    let packed = packed.bytes;
    let mut library = Decompress::new(false);
    let mut out = Vec::with_capacity(USUAL);
    let mut long = false;
    loop {
        context.check()?;
        let (before, made) = (library.total_in(), library.total_out());
        match library.decompress_vec(unread(&packed, before), &mut out) {
            Ok(Status::StreamEnd) if library.total_in() == packed.len() as u64 => break,
            Ok(Status::Ok) if library.total_out() > made || library.total_in() > before => {}
            Ok(_) | Err(_) => return Ok(DecodedBlock::Bad),
        }
        if out.len() == out.capacity() {
            long |= out.len() >= LONG;
            if long {
                out.clear();
            } else {
                out.reserve(out.len());
            }
        }
    }
    Ok(if long { DecodedBlock::Long { packed, crc } } else { DecodedBlock::Block { bytes: out, crc } })
}

/// The part of `packed` after the `read` bytes that the library has consumed.
pub(super) fn unread(packed: &[u8], read: u64) -> &[u8] {
    usize::try_from(read).ok().and_then(|read| packed.get(read..)).unwrap_or(&[])
}
