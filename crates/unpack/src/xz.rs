//! xz streams one after the other. Seek points are blocks, which the index at a stream's end lists; a block is decoded as a
//! separate stream that is made for the library.

use std::sync::Arc;

use liblzma::stream::{Action, CONCATENATED, Error, Status, Stream, TELL_UNSUPPORTED_CHECK};

use super::byte_source::ByteSource;
use super::decode_context::DecodeContext;
use super::decoder_input::DecoderInput;
use super::error::UnpackError;
use super::limits::{PADDING, UnpackLimits, ZeroPadding};
use super::member_source::MemberSource;
use super::stream_decoder::{ByteFields, StreamDecoder, bad_point};
use dupfs_base::{RequestContext, clamp_len};

/// Bytes decoded at a time.
const STEP: usize = 256 << 10;
/// Most bytes of an index.
const INDEX: u64 = 8 << 20;
const HEADER: u64 = 12;
/// Bytes before the data of a zip member that is compressed by LZMA.
const LZMA_HEADER: usize = 9;
/// Memory of a decoder until its header is read.
const UNREAD: u64 = 256 << 10;
/// The accuracy to which the memory of a decoder is determined, in bytes.
const LEAST: u64 = 64 << 10;
/// Most blocks of a file that are seek points, which takes 5 MiB. xz makes them of 1 MiB at its fastest and of 24 MiB
/// by default. In a file of more than that, 128 GiB at least, a jump back decodes from the start.
const BLOCKS: usize = 1 << 17;
/// Most streams of a file whose blocks are looked for.
const STREAMS: usize = 4096;
/// Padding is read in pieces of this number of bytes.
const PIECE: u64 = 64 << 10;

/// A block of an xz file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct XzBlock {
    /// Its offset in the file.
    pub(super) at: u64,
    /// Its length without padding.
    unpadded: u64,
    /// Offset of its content.
    pub(super) out: u64,
    /// Length of its content.
    len: u64,
    /// The flags of its stream's header: which checksum it has.
    flags: [u8; 2],
}

impl XzBlock {
    /// The block of a record in an index, whose offset is not known yet; `None` if no block has that length.
    fn recorded(unpadded: u64, len: u64) -> Option<Self> {
        // Padding must not overflow, here and in the sums over all blocks.
        let is_possible = unpadded >= 5 && unpadded.checked_next_multiple_of(4).is_some();
        is_possible.then_some(Self { at: 0, unpadded, out: 0, len, flags: [0; 2] })
    }

    /// End of its content (exclusive).
    pub(super) fn end(&self) -> u64 {
        self.out.saturating_add(self.len)
    }

    /// Its end in the file (exclusive).
    pub(super) fn packed_end(&self) -> u64 {
        self.at.saturating_add(self.unpadded)
    }
}

/// The rest of a file: it, its blocks, and the number of the next.
type RestOfBlocks = (Arc<dyn ByteSource>, Arc<[XzBlock]>, usize);

pub(super) struct XzDecoder {
    input: DecoderInput,
    /// The offset of that in the file: a block if it is decoded alone.
    base: u64,
    library: Stream,
    ended: bool,
    /// After the last byte of this decoder's input: the rest of the file, where it decodes a single block.
    rest: Option<RestOfBlocks>,
    limits: UnpackLimits,
    /// Bytes that the library gets before and after the input.
    head: Vec<u8>,
    tail: Vec<u8>,
    padding: ZeroPadding,
}

impl XzDecoder {
    pub(super) fn new(source: Arc<dyn ByteSource>, limits: UnpackLimits) -> Result<Self, UnpackError> {
        let library = library(&source.name())?;
        let (input, padding) = (DecoderInput::new(source, 0), ZeroPadding::default());
        let (head, tail) = (Vec::new(), Vec::new());
        Ok(Self { input, base: 0, library, ended: false, rest: None, limits, head, tail, padding })
    }

    /// A decoder of a zip member that is compressed by LZMA: two bytes of version and two of length precede the properties
    /// of the coder, and its length, `size`, in the directory.
    pub(super) fn lzma(
        source: Arc<dyn ByteSource>,
        size: u64,
        limits: UnpackLimits,
        request: &RequestContext,
    ) -> Result<Self, UnpackError> {
        let name = source.name();
        let head = source.read_at(0, LZMA_HEADER, request)?;
        let Some(&[_, _, 5, 0, coder, d0, d1, d2, d3]) = head.first_chunk::<LZMA_HEADER>() else {
            return Err(UnpackError::damaged(&name, 0, "unknown LZMA header"));
        };
        let library =
            Stream::new_lzma_decoder(UNREAD).map_err(|e| UnpackError::unsupported(&name, format!("LZMA: {e}")))?;
        // The header of a file of the older form, which the library reads once it has room for output.
        let mut head = vec![coder, d0, d1, d2, d3];
        head.extend_from_slice(&size.to_le_bytes());
        let input = DecoderInput::new(source, LZMA_HEADER as u64);
        let (tail, padding) = (Vec::new(), ZeroPadding::default());
        Ok(Self { input, base: 0, library, ended: false, rest: None, limits, head, tail, padding })
    }

    /// A decoder from block `index` of `blocks` on.
    pub(super) fn at(
        source: Arc<dyn ByteSource>,
        blocks: Arc<[XzBlock]>,
        index: usize,
        limits: UnpackLimits,
    ) -> Result<Self, UnpackError> {
        let name = source.name();
        let block = blocks.get(index).ok_or_else(|| bad_point(&name, 0))?;
        let padded = block.unpadded.next_multiple_of(4);
        let body = MemberSource::range(Arc::clone(&name), Arc::clone(&source), block.at, padded);
        let mut library = library(&name)?;
        let mut head = b"\xfd7zXZ\0".to_vec();
        head.extend_from_slice(&block.flags);
        head.extend_from_slice(&crc32fast::hash(&block.flags).to_le_bytes());
        library
            .process(&head, &mut [], Action::Run)
            .map_err(|e| UnpackError::damaged(&name, block.at, e.to_string()))?;
        let tail = footer(block);
        Ok(Self {
            input: DecoderInput::new(Arc::new(body), 0),
            base: block.at,
            library,
            ended: false,
            rest: Some((source, blocks, index)),
            limits,
            head: Vec::new(),
            tail,
            padding: ZeroPadding::default(),
        })
    }

    fn damaged(&self, what: &str) -> UnpackError {
        UnpackError::damaged(&self.input.name(), self.taken(), what)
    }

    fn too_much(&self) -> UnpackError {
        let limit = self.limits.memory;
        UnpackError::limit(&self.input.name(), format!("decoding needs more than {limit} bytes of memory"))
    }

    /// Lets the library allocate what the header of the data requires, to within a sixteenth: the least limit that the
    /// library accepts.
    fn allow_needed(&mut self, context: &DecodeContext<'_>) -> Result<(), UnpackError> {
        let (mut too_little, mut enough) = (0, self.limits.memory);
        if self.library.set_memlimit(enough).is_err() {
            return Err(self.too_much());
        }
        while enough - too_little > enough / 16 + LEAST {
            let middle = too_little + (enough - too_little) / 2;
            if self.library.set_memlimit(middle).is_ok() {
                enough = middle;
            } else {
                too_little = middle;
            }
        }
        context.check_memory(&self.input.name(), enough)
    }

    fn refuse(&self, error: &Error) -> UnpackError {
        let name = self.input.name();
        match error {
            Error::MemLimit | Error::Mem => self.too_much(),
            Error::Options | Error::UnsupportedCheck => {
                UnpackError::unsupported(&name, "an xz variant that liblzma does not support")
            }
            Error::Format => self.damaged("not xz or LZMA data, or trailing garbage"),
            _ => self.damaged("invalid xz data or checksum mismatch"),
        }
    }
}

fn library(name: &Arc<str>) -> Result<Stream, UnpackError> {
    Stream::new_stream_decoder(UNREAD, CONCATENATED | TELL_UNSUPPORTED_CHECK)
        .map_err(|e| UnpackError::unsupported(name, format!("xz: {e}")))
}

impl StreamDecoder for XzDecoder {
    fn next(&mut self, context: &DecodeContext<'_>) -> Result<Option<Vec<u8>>, UnpackError> {
        let mut out = Vec::with_capacity(STEP);
        while out.is_empty() {
            if self.ended {
                let Some((source, blocks, index)) = self.rest.take() else { return Ok(None) };
                if index + 1 >= blocks.len() {
                    return Ok(None);
                }
                *self = Self::at(source, blocks, index + 1, self.limits)?;
            }
            let head = !self.head.is_empty();
            let tail = !head && self.input.at_end(context)? && !self.tail.is_empty();
            self.input.work(context)?;
            let bytes = match (head, tail) {
                (true, _) => self.head.as_slice(),
                (false, true) => self.tail.as_slice(),
                (false, false) => self.input.buffered(),
            };
            let empty = bytes.is_empty();
            // The library gets the end without further bytes, so that it distinguishes a truncated file from a complete
            // one.
            let action = if empty { Action::Finish } else { Action::Run };
            let before = self.library.total_in();
            let status = self.library.process_vec(bytes, &mut out, action);
            let taken = clamp_len(self.library.total_in().saturating_sub(before), bytes.len());
            let zeros = out.is_empty() && bytes.get(..taken).is_some_and(|taken| taken.iter().all(|&b| b == 0));
            if head {
                self.head.drain(..taken.min(self.head.len()));
            } else if tail {
                self.tail.drain(..taken.min(self.tail.len()));
            } else {
                self.input.consume(taken);
            }
            if zeros {
                self.padding.add(&self.input.name(), taken as u64, self.taken())?;
            }
            match status {
                Ok(Status::StreamEnd) => self.ended = true,
                Ok(Status::Ok | Status::GetCheck) => {}
                Ok(Status::MemNeeded) if empty => return Err(self.damaged("truncated xz or LZMA data")),
                Ok(Status::MemNeeded) => {}
                // The output before the header is given first: the next call gets here again.
                Err(Error::MemLimit) if !out.is_empty() => {}
                Err(Error::MemLimit) => self.allow_needed(context)?,
                Err(error) => return Err(self.refuse(&error)),
            }
        }
        Ok(Some(out))
    }

    fn resume(&self) -> Option<(u64, Vec<u8>)> {
        None
    }

    /// Counted from the file's start, as the decoded bytes are.
    fn taken(&self) -> u64 {
        self.base.saturating_add(self.input.offset())
    }
}

/// Index and footer of a stream whose only block is `block`.
fn footer(block: &XzBlock) -> Vec<u8> {
    let mut out = vec![0, 1];
    put_number(&mut out, block.unpadded);
    put_number(&mut out, block.len);
    out.resize(out.len().next_multiple_of(4), 0);
    let crc = crc32fast::hash(&out);
    out.extend_from_slice(&crc.to_le_bytes());
    // The size of the index in words of four bytes, less one: it has two numbers of at most nine bytes, and a checksum.
    let [w0, w1, w2, w3, ..] = ((out.len() / 4).saturating_sub(1) as u64).to_le_bytes();
    let mut tail = vec![w0, w1, w2, w3];
    tail.extend_from_slice(&block.flags);
    out.extend_from_slice(&crc32fast::hash(&tail).to_le_bytes());
    out.extend_from_slice(&tail);
    out.extend_from_slice(b"YZ");
    out
}

/// The blocks of an xz file by the indexes at its streams' ends; `None` if they contradict the rest of the file:
/// then it has to be decoded from the start, which finds the damage. Also `None` if there are more blocks, streams or
/// padding than any file needs.
pub(super) fn blocks(
    source: &dyn ByteSource,
    len: u64,
    context: &RequestContext,
) -> Result<Option<Vec<XzBlock>>, UnpackError> {
    blocks_within(source, len, BLOCKS, context)
}

/// The blocks of a file that has no more than `max_blocks`.
fn blocks_within(
    source: &dyn ByteSource,
    len: u64,
    max_blocks: usize,
    context: &RequestContext,
) -> Result<Option<Vec<XzBlock>>, UnpackError> {
    let mut streams = Vec::new();
    let (mut end, mut count, mut padding) = (len, 0_usize, PADDING);
    while end > 0 {
        let Some(footer_end) = before_padding(source, end, &mut padding, context)? else { return Ok(None) };
        let Some((start, blocks)) = stream_before(source, footer_end, context)? else { return Ok(None) };
        count = count.saturating_add(blocks.len());
        streams.push(blocks);
        end = start;
        if streams.len() > STREAMS || count > max_blocks {
            return Ok(None);
        }
    }
    if streams.is_empty() {
        return Ok(None);
    }
    let mut out = Vec::with_capacity(count);
    let mut at = 0_u64;
    for mut block in streams.into_iter().rev().flatten() {
        block.out = at;
        let Some(next) = at.checked_add(block.len) else { return Ok(None) };
        at = next;
        out.push(block);
    }
    Ok(Some(out))
}

/// The start of the zeros before `end`, a multiple of four of them; no more than `left`, which is less by them then.
fn before_padding(
    source: &dyn ByteSource,
    end: u64,
    left: &mut u64,
    context: &RequestContext,
) -> Result<Option<u64>, UnpackError> {
    // Most streams have none: their footer is all that is read.
    let (mut at, mut step) = (end, 4);
    loop {
        let len = at.min(step);
        let bytes = source.read_at(at - len, to_usize(source, len)?, context)?;
        if bytes.len() as u64 != len {
            return Ok(None);
        }
        let zeros = bytes.iter().rev().take_while(|&&b| b == 0).count() as u64;
        let Some(less) = left.checked_sub(zeros) else { return Ok(None) };
        (*left, at, step) = (less, at - zeros, PIECE);
        if zeros < len || at == 0 {
            return Ok(Some(at).filter(|at| (end - at).is_multiple_of(4)));
        }
    }
}

/// The start of the stream that ends at `end`, and its blocks.
fn stream_before(
    source: &dyn ByteSource,
    end: u64,
    context: &RequestContext,
) -> Result<Option<(u64, Vec<XzBlock>)>, UnpackError> {
    let Some(at) = end.checked_sub(HEADER) else { return Ok(None) };
    let footer = source.read_at(at, 12, context)?;
    let [c0, c1, c2, c3, s0, s1, s2, s3, f0, f1, b'Y', b'Z'] = *footer else { return Ok(None) };
    if crc32fast::hash(&[s0, s1, s2, s3, f0, f1]) != u32::from_le_bytes([c0, c1, c2, c3]) {
        return Ok(None);
    }
    let size = (u64::from(u32::from_le_bytes([s0, s1, s2, s3])) + 1) * 4;
    let Some(index_at) = end.checked_sub(HEADER + size).filter(|_| size <= INDEX) else { return Ok(None) };
    let index = source.read_at(index_at, to_usize(source, size)?, context)?;
    let Some(mut records) = parse_index(&index) else { return Ok(None) };
    let total = records.iter().try_fold(0_u64, |sum, r| sum.checked_add(r.unpadded.checked_next_multiple_of(4)?));
    let Some(first) = total.and_then(|total| index_at.checked_sub(total)) else { return Ok(None) };
    let Some(start) = first.checked_sub(HEADER) else { return Ok(None) };
    let head = source.read_at(start, 12, context)?;
    if head.get(..8) != Some(&[0xfd, b'7', b'z', b'X', b'Z', 0, f0, f1]) {
        return Ok(None);
    }
    let mut at = first;
    for record in &mut records {
        record.at = at;
        record.flags = [f0, f1];
        at = at.saturating_add(record.unpadded.next_multiple_of(4));
    }
    Ok(Some((start, records)))
}

/// A length that was found to be small, as the length of a buffer.
fn to_usize(source: &dyn ByteSource, len: u64) -> Result<usize, UnpackError> {
    usize::try_from(len).map_err(|_| UnpackError::internal(&source.name(), "a length does not fit into memory"))
}

/// The records of an index, without offsets.
pub(super) fn parse_index(index: &[u8]) -> Option<Vec<XzBlock>> {
    let (body, crc) = index.split_last_chunk::<4>()?;
    if crc32fast::hash(body) != u32::from_le_bytes(*crc) {
        return None;
    }
    let mut fields = ByteFields(body);
    if fields.u8()? != 0 {
        return None;
    }
    let count = number(&mut fields)?;
    // A record has at least two bytes.
    if count > (body.len() as u64 / 2).min(BLOCKS as u64) {
        return None;
    }
    let mut out = Vec::new();
    for _ in 0..count {
        let (unpadded, len) = (number(&mut fields)?, number(&mut fields)?);
        out.push(XzBlock::recorded(unpadded, len)?);
    }
    (fields.0.len() < 4 && fields.0.iter().all(|&b| b == 0)).then_some(out)
}

/// A number of 7 bits a byte, the lowest first, at most 63 bits.
fn number(fields: &mut ByteFields<'_>) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..63).step_by(7) {
        let byte = fields.u8()?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return (byte != 0 || shift == 0).then_some(value);
        }
    }
    None
}

fn put_number(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        let [low, ..] = value.to_le_bytes();
        out.push(low | 0x80);
        value >>= 7;
    }
    let [low, ..] = value.to_le_bytes();
    out.push(low);
}

#[cfg(test)]
#[path = "xz/tests.rs"]
mod tests;
