//! Concatenated bzip2 streams. Blocks are found by the magic at their beginning and decoded separately, each as a stream of
//! its own made for the library, in advance of the reader on all processors.
//!
//! The start of a block is only a guess, as a magic may occur inside a block by chance or on purpose. A block counts if
//! the library decodes it to its very last bit and its checksum is right; a wrong guess makes that fail, and
//! decoding is retried up to later guesses. The checksum over all blocks is compared at the stream's end.

use std::collections::VecDeque;
use std::sync::Arc;

use ::bzip2::{Decompress, Status};

use super::byte_source::ByteSource;
use super::bzip2_bits::{BLOCK_MAGIC, BitWriter, BlockMark, END_MAGIC, MAGIC_BITS, MarkScanner, bits_at};
use super::decode_context::DecodeContext;
use super::decode_workers::{DecodeTask, DecodeWorkers};
use super::decoder_input::DecoderInput;
use super::error::UnpackError;
use super::stream_decoder::{ByteFields, StreamDecoder, bad_point};
use dupfs_base::{CancelToken, RequestContext, Stopped, clamp_len};

/// Upper bound of the bytes of a compressed block: 900,000 symbols of at most 20 bits, and its tables.
const LONGEST: u64 = 2_400_000;
/// Upper bound of the guesses at the end of one block.
const GUESSES: usize = 64;
/// Size of a usual block when it is decoded.
const USUAL: usize = 920_000;
/// A block that decodes to more is decoded in pieces.
const LONG: usize = 4 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SectionKind {
    /// The header of the first stream, or nothing, where decoding starts at a block.
    Start,
    Block,
    /// The end of a stream, and the next one's header.
    End,
}

/// The input between two marks.
struct InputSection {
    kind: SectionKind,
    start: u64,
    end: u64,
    /// The bytes that hold bits `start` to `end`.
    bytes: Arc<[u8]>,
    task: Option<Arc<DecodeTask<DecodedBlock>>>,
}

enum DecodedBlock {
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

pub(super) struct BzipDecoder {
    input: DecoderInput,
    scanner: MarkScanner,
    workers: Arc<DecodeWorkers>,
    /// The stored file, whose share of the processors its blocks take.
    flow: u64,
    /// Pieces whose end is known, in order.
    queue: VecDeque<InputSection>,
    /// The piece whose end is not known yet.
    kind: SectionKind,
    start: u64,
    open: Vec<u8>,
    /// Marks before this bit do not count.
    from: u64,
    input_ended: bool,
    combined: u32,
    long: Option<(Decompress, Vec<u8>)>,
    ended: bool,
    /// Pieces that were taken: the first do not wait for work on later ones.
    taken: usize,
    #[cfg(test)]
    false_marks: Vec<BlockMark>,
    /// The start of the next piece, if the bytes given so far end there.
    boundary: Option<u64>,
    /// Cancelled when the decoder is dropped: the queued blocks are no longer needed.
    wanted: CancelToken,
}

impl BzipDecoder {
    pub(super) fn new(source: Arc<dyn ByteSource>, workers: Arc<DecodeWorkers>) -> Self {
        Self::from_bit(source, workers, 0, 0)
    }

    /// A decoder from a seek point on.
    pub(super) fn at(
        source: Arc<dyn ByteSource>,
        workers: Arc<DecodeWorkers>,
        input: u64,
        state: &[u8],
    ) -> Result<Self, UnpackError> {
        let bad = || bad_point(&source.name(), input);
        let mut fields = ByteFields(state);
        let bit = fields.u8().filter(|&bit| bit < 8).ok_or_else(bad)?;
        let combined = fields.u32().ok_or_else(bad)?;
        let bit = input.checked_mul(8).and_then(|bits| bits.checked_add(u64::from(bit))).ok_or_else(bad)?;
        Ok(Self::from_bit(Arc::clone(&source), workers, bit, combined))
    }

    fn from_bit(source: Arc<dyn ByteSource>, workers: Arc<DecodeWorkers>, bit: u64, combined: u32) -> Self {
        let flow = source.origin().flow;
        Self {
            input: DecoderInput::new(source, bit / 8),
            scanner: MarkScanner::new(bit / 8),
            workers,
            flow,
            queue: VecDeque::new(),
            kind: SectionKind::Start,
            start: bit,
            open: Vec::new(),
            from: bit,
            input_ended: false,
            combined,
            long: None,
            ended: false,
            taken: 0,
            #[cfg(test)]
            false_marks: Vec::new(),
            boundary: None,
            wanted: CancelToken::new(),
        }
    }

    /// Reads until `count` pieces are in the queue.
    fn pump(&mut self, count: usize, context: &DecodeContext<'_>) -> Result<(), UnpackError> {
        let mut marks = Vec::new();
        while self.queue.len() < count && !self.input_ended {
            self.input.peek(context)?;
            self.input.work(context)?;
            let chunk = self.input.buffered();
            if chunk.is_empty() {
                self.input_ended = true;
                let end = self.start / 8 * 8 + self.open.len() as u64 * 8;
                self.close(end, None);
                break;
            }
            self.scanner.scan(chunk, &mut marks);
            self.open.extend_from_slice(chunk);
            let len = chunk.len();
            self.input.consume(len);
            #[cfg(test)]
            self.add_false_marks(&mut marks);
            for mark in marks.drain(..) {
                if mark.bit >= self.from {
                    self.close(mark.bit, Some(mark));
                }
            }
            if self.open.len() as u64 > LONGEST {
                // No block is that long: the data is damaged, and its reader gets an error.
                self.input_ended = true;
                self.close(self.start / 8 * 8 + self.open.len() as u64 * 8, None);
            }
        }
        Ok(())
    }

    /// Ends the open piece at bit `end`, where the next one begins at `mark`.
    fn close(&mut self, end: u64, mark: Option<BlockMark>) {
        let bytes: Arc<[u8]> = self.open.get(..self.open_before(end.div_ceil(8))).unwrap_or(&[]).into();
        let (start, kind) = (self.start, self.kind);
        let task = (kind == SectionKind::Block).then(|| {
            let (bytes, wanted) = (Arc::clone(&bytes), self.wanted.clone());
            self.workers.submit(self.flow, move || {
                decode(&bytes, start, end, &RequestContext::new(None, wanted)).unwrap_or(DecodedBlock::Bad)
            })
        });
        self.queue.push_back(InputSection { kind, start, end, bytes, task });
        if let Some(mark) = mark {
            self.open.drain(..self.open_before(end / 8));
            self.kind = if mark.end { SectionKind::End } else { SectionKind::Block };
            self.start = end;
        }
    }

    /// Number of the open piece's bytes before byte `end` of the input; all of them if that is not within the piece.
    fn open_before(&self, end: u64) -> usize {
        let len = end.checked_sub(self.start / 8).and_then(|len| usize::try_from(len).ok());
        len.filter(|len| *len <= self.open.len()).unwrap_or(self.open.len())
    }

    fn fault(&self, bit: u64, what: &str) -> UnpackError {
        UnpackError::damaged(&self.input.name(), bit / 8, what)
    }

    /// A block, possibly joined with the data after it that seemed to be another block.
    fn block(&mut self, piece: &InputSection, context: &DecodeContext<'_>) -> Result<DecodedBlock, UnpackError> {
        let name = self.input.name();
        let stopped = |reason: Stopped| UnpackError::stopped(&name, reason);
        let first = match &piece.task {
            Some(task) => task.finish(context.wait()).map_err(stopped)?.unwrap_or(DecodedBlock::Bad),
            None => DecodedBlock::Bad,
        };
        if !matches!(first, DecodedBlock::Bad) {
            self.boundary = Some(piece.end);
            return Ok(first);
        }
        let (start, mut bytes, mut end) = (piece.start, piece.bytes.to_vec(), piece.end);
        for used in 0..GUESSES {
            self.pump(used + 1, context)?;
            let Some(next) = self.queue.get(used) else { break };
            // Both have the byte in which one ends and the other begins.
            bytes.extend_from_slice(next.bytes.get(usize::from(next.start % 8 != 0)..).unwrap_or(&[]));
            end = next.end;
            if end - start > LONGEST * 8 {
                break;
            }
            self.input.work(context)?;
            let decoded = decode(&bytes, start, end, context.request()).map_err(stopped)?;
            if !matches!(decoded, DecodedBlock::Bad) {
                self.queue.drain(..=used);
                self.boundary = Some(end);
                return Ok(decoded);
            }
        }
        let what =
            if self.input_ended && end - start <= LONGEST * 8 { "damaged or truncated block" } else { "damaged block" };
        Err(self.fault(start, what))
    }

    /// Reads the end of a stream. Returns true if the input ends there too.
    fn end_of_stream(&mut self, piece: &InputSection) -> Result<bool, UnpackError> {
        let offset = piece.start % 8;
        let crc = bits_at(&piece.bytes, offset + MAGIC_BITS, 32).filter(|_| piece.end - piece.start >= MAGIC_BITS + 32);
        let crc = crc.ok_or_else(|| self.fault(piece.start, "truncated within the checksum"))?;
        if crc != u64::from(self.combined) {
            return Err(self.fault(
                piece.start,
                "checksum mismatch of the stream: a block is missing or belongs to another stream",
            ));
        }
        self.combined = 0;
        let after = (offset + MAGIC_BITS + 32).div_ceil(8);
        let rest = piece.bytes.get(clamp_len(after, piece.bytes.len())..).unwrap_or(&[]);
        let last = self.queue.is_empty() && self.input_ended;
        // Tapes pad with zeros.
        if last && rest.iter().all(|&b| b == 0) {
            if rest.len() as u64 > LONGEST {
                // As bunzip2, which ignores data that is not bzip2 and everything after it.
                log::warn!("{}: zeros follow the bzip2 data; bytes after them are ignored", self.input.name());
            }
            return Ok(true);
        }
        self.header(rest, piece.end)?;
        Ok(false)
    }

    fn header(&self, bytes: &[u8], end: u64) -> Result<(), UnpackError> {
        match bytes {
            [b'B', b'Z', b'h', b'1'..=b'9']
                if end.is_multiple_of(8) && !(self.queue.is_empty() && self.input_ended) =>
            {
                Ok(())
            }
            [b'B', b'Z', b'h', ..] => Err(self.fault(end, "no block after the stream header")),
            _ => Err(self.fault(end, "garbage instead of a bzip2 header")),
        }
    }

    fn add(&mut self, crc: u32) {
        self.combined = self.combined.rotate_left(1) ^ crc;
    }

    /// The next piece of a long block.
    fn long_piece(&mut self) -> Result<Option<Vec<u8>>, UnpackError> {
        let Some((library, packed)) = &mut self.long else { return Ok(None) };
        let mut out = Vec::with_capacity(1 << 20);
        let status = library.decompress_vec(unread(packed, library.total_in()), &mut out);
        let ended = matches!(status, Ok(Status::StreamEnd));
        if status.is_err() || (out.is_empty() && !ended) {
            // The end of the block, which was set when its checks were verified.
            let bit = self.boundary.unwrap_or(self.start);
            return Err(self.fault(bit, "damaged block"));
        }
        if ended {
            self.long = None;
        }
        Ok(Some(out).filter(|out| !out.is_empty()))
    }
}

impl StreamDecoder for BzipDecoder {
    fn next(&mut self, context: &DecodeContext<'_>) -> Result<Option<Vec<u8>>, UnpackError> {
        loop {
            if self.long.is_some() {
                self.input.work(context)?;
            }
            if let Some(out) = self.long_piece()? {
                return Ok(Some(out));
            }
            if self.ended {
                return Ok(None);
            }
            self.boundary = None;
            self.taken = self.taken.saturating_add(1);
            self.pump(self.taken.min(self.workers.width() + 2), context)?;
            let Some(piece) = self.queue.pop_front() else {
                return Err(self.fault(self.start, "truncated bzip2 data"));
            };
            match piece.kind {
                SectionKind::Start if piece.start == piece.end && !(self.queue.is_empty() && self.input_ended) => {}
                SectionKind::Start if piece.start == 0 => self.header(&piece.bytes, piece.end)?,
                SectionKind::Start => return Err(bad_point(&self.input.name(), piece.start / 8)),
                SectionKind::End => self.ended = self.end_of_stream(&piece)?,
                SectionKind::Block => match self.block(&piece, context) {
                    Err(error) => {
                        // The position stays: the next call continues.
                        self.queue.push_front(piece);
                        return Err(error);
                    }
                    Ok(DecodedBlock::Block { bytes, crc }) => {
                        self.add(crc);
                        if !bytes.is_empty() {
                            return Ok(Some(bytes));
                        }
                    }
                    Ok(DecodedBlock::Long { packed, crc }) => {
                        self.add(crc);
                        self.long = Some((Decompress::new(false), packed));
                    }
                    Ok(DecodedBlock::Bad) => {}
                },
            }
        }
    }

    fn resume(&self) -> Option<(u64, Vec<u8>)> {
        let bit = self.boundary.filter(|_| self.long.is_none())?;
        let mut state = vec![u8::try_from(bit % 8).ok()?];
        state.extend_from_slice(&self.combined.to_be_bytes());
        Some((bit / 8, state))
    }

    fn taken(&self) -> u64 {
        self.input.offset()
    }

    /// The number of blocks that are decoded in advance of the reader, or are being decoded.
    fn memory_bytes(&mut self) -> u64 {
        let ahead = |piece: &InputSection| piece.bytes.len() + if piece.task.is_some() { USUAL } else { 0 };
        let long = self.long.as_ref().map_or(0, |(_, packed)| packed.len() + USUAL);
        (self.queue.iter().map(ahead).sum::<usize>() + self.open.capacity() + long) as u64 + self.input.memory_bytes()
    }
}

impl Drop for BzipDecoder {
    fn drop(&mut self) {
        self.wanted.cancel();
    }
}

#[cfg(test)]
impl BzipDecoder {
    /// Treats these bits as the start of blocks, as if they had a magic.
    pub(super) fn split_at_false_marks(&mut self, bits: &[u64]) {
        self.false_marks = bits.iter().map(|&bit| BlockMark { bit, end: bit % 2 == 1 }).collect();
    }

    fn add_false_marks(&mut self, marks: &mut Vec<BlockMark>) {
        let reach = self.input.offset() * 8;
        let (now, later) = self.false_marks.iter().partition(|mark| mark.bit < reach);
        self.false_marks = later;
        marks.extend::<Vec<BlockMark>>(now);
        marks.sort_by_key(|mark| mark.bit);
    }
}

/// The part of `packed` after the `read` bytes that the library has consumed.
fn unread(packed: &[u8], read: u64) -> &[u8] {
    usize::try_from(read).ok().and_then(|read| packed.get(read..)).unwrap_or(&[])
}

/// Decodes the block in bits `start` to `end` of the input, of which `bytes` are those from the byte of `start` on.
///
/// # Errors
/// [`Stopped`] if the request ends meanwhile.
fn decode(bytes: &[u8], start: u64, end: u64, context: &RequestContext) -> Result<DecodedBlock, Stopped> {
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
