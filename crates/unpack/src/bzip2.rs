//! Concatenated bzip2 streams. Blocks are found by the magic at their beginning and decoded separately, each as a
//! separate stream for the library, in advance of the reader on all processors.
//!
//! The start of a block is only a guess, as a magic may occur inside a block by chance or on purpose. A block counts if
//! the library decodes it to its last bit and its checksum is right; a wrong guess makes that fail, and decoding is
//! retried up to later guesses. The checksum over all blocks is compared at the stream's end.

use std::sync::Arc;

use ::bzip2::{Decompress, Status};

use super::byte_source::ByteSource;
#[cfg(test)]
use super::bzip2_bits::BlockMark;
use super::bzip2_bits::{MAGIC_BITS, bits_at};
use super::bzip2_block::{DecodedBlock, LONGEST, decode, unread};
use super::bzip2_sections::{InputSection, SectionKind, SectionQueue};
use super::decode_context::DecodeContext;
use super::decode_workers::DecodeWorkers;
use super::error::UnpackError;
use super::stream_decoder::{ByteFields, StreamDecoder, bad_point};
use dupfs_base::{Stopped, clamp_len};

/// Upper bound of the guesses at the end of one block.
const GUESSES: usize = 64;
pub(super) struct BzipDecoder {
    sections: SectionQueue,
    /// The checksum of the stream so far.
    combined: u32,
    /// A long block, and its bytes for the library.
    long: Option<(Decompress, Vec<u8>)>,
    ended: bool,
    /// Sections that were taken: the first do not wait for work on later ones.
    taken: usize,
    /// The start of the next section, if the bytes given so far end there.
    boundary: Option<u64>,
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
        let sections = SectionQueue::new(source, workers, bit);
        Self { sections, combined, long: None, ended: false, taken: 0, boundary: None }
    }

    /// Treats these bits as the start of blocks, as if they had a magic.
    #[cfg(test)]
    pub(super) fn split_at_false_marks(&mut self, bits: &[u64]) {
        let marks = bits.iter().map(|&bit| BlockMark { bit, end: bit % 2 == 1 });
        self.sections.false_marks = marks.collect();
    }

    fn fault(&self, bit: u64, what: &str) -> UnpackError {
        UnpackError::damaged(&self.sections.input().name(), bit / 8, what)
    }

    /// A block, possibly joined with the data after it that seemed to be another block.
    fn block(&mut self, section: &InputSection, context: &DecodeContext<'_>) -> Result<DecodedBlock, UnpackError> {
        let name = self.sections.input().name();
        let stopped = |reason: Stopped| UnpackError::stopped(&name, reason);
        let first = match &section.task {
            Some(task) => task.finish(context.wait()).map_err(stopped)?.unwrap_or(DecodedBlock::Bad),
            None => DecodedBlock::Bad,
        };
        if !matches!(first, DecodedBlock::Bad) {
            self.boundary = Some(section.end);
            return Ok(first);
        }
        let (start, mut bytes, mut end) = (section.start, section.bytes.to_vec(), section.end);
        for used in 0..GUESSES {
            self.sections.fill(used + 1, context)?;
            let Some(next) = self.sections.get(used) else { break };
            // Both have the byte in which one ends and the other begins.
            bytes.extend_from_slice(next.bytes.get(usize::from(next.start % 8 != 0)..).unwrap_or(&[]));
            end = next.end;
            if end - start > LONGEST * 8 {
                break;
            }
            self.sections.work(context)?;
            let decoded = decode(&bytes, start, end, context.request()).map_err(stopped)?;
            if !matches!(decoded, DecodedBlock::Bad) {
                self.sections.drop_to(used);
                self.boundary = Some(end);
                return Ok(decoded);
            }
        }
        let what = if self.sections.input_ended() && end - start <= LONGEST * 8 {
            "damaged or truncated block"
        } else {
            "damaged block"
        };
        Err(self.fault(start, what))
    }

    /// Reads the end of a stream. Returns true if the input ends there too.
    fn end_of_stream(&mut self, section: &InputSection) -> Result<bool, UnpackError> {
        let offset = section.start % 8;
        let crc =
            bits_at(&section.bytes, offset + MAGIC_BITS, 32).filter(|_| section.end - section.start >= MAGIC_BITS + 32);
        let crc = crc.ok_or_else(|| self.fault(section.start, "truncated within the checksum"))?;
        if crc != u64::from(self.combined) {
            return Err(self.fault(
                section.start,
                "checksum mismatch of the stream: a block is missing or belongs to another stream",
            ));
        }
        self.combined = 0;
        let after = (offset + MAGIC_BITS + 32).div_ceil(8);
        let rest = section.bytes.get(clamp_len(after, section.bytes.len())..).unwrap_or(&[]);
        let last = self.sections.is_at_end();
        // Tapes pad with zeros.
        if last && rest.iter().all(|&b| b == 0) {
            if rest.len() as u64 > LONGEST {
                // As bunzip2, which ignores data that is not bzip2 and everything after it.
                log::warn!(
                    "{}: zeros follow the bzip2 data; bytes after them are ignored",
                    self.sections.input().name()
                );
            }
            return Ok(true);
        }
        self.header(rest, section.end)?;
        Ok(false)
    }

    fn header(&self, bytes: &[u8], end: u64) -> Result<(), UnpackError> {
        match bytes {
            [b'B', b'Z', b'h', b'1'..=b'9'] if end.is_multiple_of(8) && !self.sections.is_at_end() => Ok(()),
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
            let bit = self.boundary.unwrap_or(self.sections.open_start());
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
                self.sections.work(context)?;
            }
            if let Some(out) = self.long_piece()? {
                return Ok(Some(out));
            }
            if self.ended {
                return Ok(None);
            }
            self.boundary = None;
            self.taken = self.taken.saturating_add(1);
            self.sections.fill(self.taken.min(self.sections.width() + 2), context)?;
            let Some(section) = self.sections.pop() else {
                return Err(self.fault(self.sections.open_start(), "truncated bzip2 data"));
            };
            match section.kind {
                SectionKind::Start if section.start == section.end && !self.sections.is_at_end() => {}
                SectionKind::Start if section.start == 0 => self.header(&section.bytes, section.end)?,
                SectionKind::Start => return Err(bad_point(&self.sections.input().name(), section.start / 8)),
                SectionKind::End => self.ended = self.end_of_stream(&section)?,
                SectionKind::Block => match self.block(&section, context) {
                    Err(error) => {
                        // The position stays: the next call continues.
                        self.sections.put_back(section);
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
        self.sections.input().offset()
    }
}
