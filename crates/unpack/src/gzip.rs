//! Gzip members one after the other, and the bare deflate streams of zip. Seek points are ends of deflate blocks, with the
//! 32 KiB before them.

use std::sync::Arc;

use crc32fast::Hasher;
use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::inflate_flags::{TINFL_FLAG_HAS_MORE_INPUT, TINFL_FLAG_STOP_ON_BLOCK_BOUNDARY};
use miniz_oxide::inflate::core::{BlockBoundaryState, DecompressorOxide, decompress};

use super::byte_source::ByteSource;
use super::decode_context::DecodeContext;
use super::decoder_input::DecoderInput;
use super::error::UnpackError;
use super::limits::ZeroPadding;
use super::stream_decoder::{ByteFields, CHECKSUM_MISMATCH, LENGTH_MISMATCH, StreamDecoder, bad_point};
use dupfs_base::clamp_len;

/// The greatest distance from which a deflate stream copies.
const WINDOW: usize = 32 << 10;
/// The ring that is decoded into; a power of two.
const RING: usize = 256 << 10;
/// Decompressed bytes between two seek points, at least.
const SPACING: u64 = 1 << 20;
/// The error for a zip member whose directory states too short a length: a reader must not take that for the whole.
pub(super) const TOO_LONG: &str = "longer than the directory of the archive states";
/// Upper bound of the bytes of a name or comment in a member's header.
const FIELD: usize = 1 << 16;
/// Upper bound of the bytes of a member's header: fixed fields, an extra field, a name, a comment and a checksum.
const LONGEST_HEADER: usize = 10 + 2 + 3 * FIELD + 2;

/// The values that the end of a deflate stream is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DeflateWrapper {
    /// Gzip: header and trailer around each member, any number of members.
    Gzip,
    /// A zip member: the archive's directory has both.
    Zip { crc: u32, size: u64 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum InflatePhase {
    Header {
        first: bool,
    },
    Body,
    /// All of a member was decoded; its trailer was not compared yet.
    Trailer,
    Ended,
}

pub(super) struct DeflateDecoder {
    input: DecoderInput,
    wrapper: DeflateWrapper,
    phase: InflatePhase,
    state: Box<DecompressorOxide>,
    ring: OutputRing,
    crc: Hasher,
    /// Bytes of this member so far.
    len: u64,
    /// Bytes since the last seek point.
    since_point: u64,
    /// True at the end of a deflate block that is a seek point.
    boundary: bool,
    padding: ZeroPadding,
}

/// The ring that is decoded into. Bytes before `at` are decoded, and of those the ones before `given` were returned.
struct OutputRing {
    bytes: Box<[u8]>,
    at: usize,
    given: usize,
}

impl OutputRing {
    fn new() -> Self {
        Self { bytes: vec![0; RING].into(), at: 0, given: 0 }
    }

    /// A ring in which `window` was decoded and returned; `None` if it is too long.
    fn after(window: &[u8]) -> Option<Self> {
        let mut ring = Self::new();
        ring.at = window.len();
        ring.given = ring.at;
        ring.bytes.get_mut(..ring.at)?.copy_from_slice(window);
        Some(ring)
    }

    /// The decoded bytes that were not returned.
    fn pending(&self) -> &[u8] {
        self.bytes.get(self.given..self.at).unwrap_or(&[])
    }

    /// Takes the decoded bytes that were not returned.
    fn take(&mut self) -> Vec<u8> {
        let out = self.pending().to_vec();
        self.given = self.at;
        out
    }

    /// Continues at the start of the ring if its end is reached. All decoded bytes must have been taken.
    fn wrap(&mut self) {
        self.at %= RING;
        self.given = self.at;
    }

    /// The last `len` decoded bytes, at most as many as a deflate stream can copy from.
    fn window(&self, len: u64) -> Vec<u8> {
        let have = clamp_len(len, WINDOW);
        let (before, after) = self.bytes.split_at(self.at.min(self.bytes.len()));
        let from_before = have.min(before.len());
        let wrapped = after.get(after.len().saturating_sub(have - from_before)..).unwrap_or(&[]);
        let recent = before.get(before.len() - from_before..).unwrap_or(&[]);
        [wrapped, recent].concat()
    }
}

impl DeflateDecoder {
    pub(super) fn new(source: Arc<dyn ByteSource>, wrapper: DeflateWrapper) -> Self {
        let phase =
            if wrapper == DeflateWrapper::Gzip { InflatePhase::Header { first: true } } else { InflatePhase::Body };
        Self {
            input: DecoderInput::new(source, 0),
            wrapper,
            phase,
            state: Box::default(),
            ring: OutputRing::new(),
            crc: Hasher::new(),
            len: 0,
            since_point: 0,
            boundary: false,
            padding: ZeroPadding::default(),
        }
    }

    /// A decoder from a seek point on.
    pub(super) fn at(
        source: Arc<dyn ByteSource>,
        wrapper: DeflateWrapper,
        input: u64,
        state: &[u8],
    ) -> Result<Self, UnpackError> {
        let bad = || bad_point(&source.name(), input);
        let mut this = Self::new(Arc::clone(&source), wrapper);
        this.input = DecoderInput::new(Arc::clone(&source), input);
        let mut fields = ByteFields(state);
        if fields.u8().ok_or_else(bad)? == 0 {
            this.phase = InflatePhase::Header { first: false };
            return Ok(this);
        }
        this.phase = InflatePhase::Body;
        let (bits, buffer) = (fields.u8().ok_or_else(bad)?, fields.u8().ok_or_else(bad)?);
        let (crc, len) = (fields.u32().ok_or_else(bad)?, fields.u64().ok_or_else(bad)?);
        if bits > 7 || fields.0.len() > WINDOW {
            return Err(bad());
        }
        let boundary = BlockBoundaryState { num_bits: bits, bit_buf: buffer, ..BlockBoundaryState::default() };
        *this.state = DecompressorOxide::from_block_boundary_state(&boundary);
        this.crc = Hasher::new_with_initial_len(crc, len);
        this.len = len;
        this.ring = OutputRing::after(fields.0).ok_or_else(bad)?;
        Ok(this)
    }

    /// Reads a member's header; false if the stream ends instead.
    fn header(&mut self, first: bool, context: &DecodeContext<'_>) -> Result<bool, UnpackError> {
        if !first && self.rest_is_zeros(context)? {
            return Ok(false);
        }
        let short = "truncated within a gzip header";
        // All of it at once, so that an error of the source leaves nothing half read.
        self.input.fill(LONGEST_HEADER, context)?;
        let Some([magic, magic2, method, flags, ..]) = self.input.array::<10>(context)? else {
            return Err(self.input.damaged(if first { short } else { "trailing garbage after the gzip data" }));
        };
        if (magic, magic2) != (0x1f, 0x8b) {
            return Err(self.input.damaged(if first {
                "not a gzip file"
            } else {
                "trailing garbage after the gzip data"
            }));
        }
        if method != 8 || flags & 0xe0 != 0 {
            return Err(UnpackError::unsupported(&self.input.name(), "unknown gzip method or flags"));
        }
        if flags & 4 != 0 {
            let len = self.input.array::<2>(context)?.ok_or_else(|| self.input.damaged(short))?;
            let len = usize::from(u16::from_le_bytes(len));
            if self.input.fill(len, context)?.len() < len {
                return Err(self.input.damaged(short));
            }
            self.input.consume(len);
        }
        for flag in [8, 16] {
            if flags & flag != 0 {
                let end = self.input.fill(FIELD, context)?.iter().take(FIELD).position(|&b| b == 0);
                let end = end.ok_or_else(|| self.input.damaged("unterminated name in a gzip header"))?;
                self.input.consume(end + 1);
            }
        }
        if flags & 2 != 0 && self.input.array::<2>(context)?.is_none() {
            return Err(self.input.damaged(short));
        }
        self.state.init();
        self.crc = Hasher::new();
        self.len = 0;
        Ok(true)
    }

    /// Returns true if only zeros follow, as on tapes; takes them.
    fn rest_is_zeros(&mut self, context: &DecodeContext<'_>) -> Result<bool, UnpackError> {
        loop {
            let bytes = self.input.peek(context)?;
            let zeros = bytes.iter().take_while(|&&b| b == 0).count();
            let all = zeros == bytes.len();
            if zeros == 0 {
                return Ok(all);
            }
            self.input.consume(zeros);
            self.padding.add(&self.input.name(), zeros as u64, self.input.offset())?;
        }
    }

    /// Compares the decoded bytes with the trailer or the directory.
    fn finish(&mut self, context: &DecodeContext<'_>) -> Result<(), UnpackError> {
        let crc = self.crc.clone().finalize();
        let (stored, same_size) = match self.wrapper {
            DeflateWrapper::Zip { crc, size } => (crc, size == self.len),
            DeflateWrapper::Gzip => {
                let trailer = self.input.array::<8>(context)?;
                let [a, b, c, d, sizes @ ..] =
                    trailer.ok_or_else(|| self.input.damaged("truncated before the checksum"))?;
                let size = u64::from(u32::from_le_bytes(sizes));
                (u32::from_le_bytes([a, b, c, d]), self.len & u64::from(u32::MAX) == size)
            }
        };
        if stored != crc {
            return Err(self.input.damaged(CHECKSUM_MISMATCH));
        }
        if !same_size {
            return Err(self.input.damaged(LENGTH_MISMATCH));
        }
        self.phase = if self.wrapper == DeflateWrapper::Gzip {
            InflatePhase::Header { first: false }
        } else {
            InflatePhase::Ended
        };
        Ok(())
    }

    /// Inflates until the ring's end, a block's end or the member's end.
    fn inflate(&mut self, context: &DecodeContext<'_>) -> Result<Vec<u8>, UnpackError> {
        loop {
            let name = self.input.name();
            let offset = self.input.offset();
            self.input.peek(context)?;
            self.input.work(context)?;
            let bytes = self.input.buffered();
            let empty = bytes.is_empty();
            let mut flags = TINFL_FLAG_STOP_ON_BLOCK_BOUNDARY;
            if !empty {
                flags |= TINFL_FLAG_HAS_MORE_INPUT;
            }
            let (status, taken, given) = decompress(&mut self.state, bytes, &mut self.ring.bytes, self.ring.at, flags);
            self.input.consume(taken);
            self.ring.at = self.ring.at.saturating_add(given);
            match status {
                TINFLStatus::Done => {
                    self.count()?;
                    self.phase = InflatePhase::Trailer;
                    return Ok(Vec::new());
                }
                TINFLStatus::BlockBoundary => {
                    let made = self.ring.pending().len() as u64;
                    if self.since_point.saturating_add(made) >= SPACING {
                        self.boundary = true;
                        self.count()?;
                        return Ok(self.give());
                    }
                }
                TINFLStatus::HasMoreOutput => {
                    self.count()?;
                    return Ok(self.give());
                }
                TINFLStatus::NeedsMoreInput if !empty => {}
                TINFLStatus::NeedsMoreInput | TINFLStatus::FailedCannotMakeProgress => {
                    return Err(UnpackError::damaged(&name, offset, "truncated deflate data"));
                }
                TINFLStatus::BadParam | TINFLStatus::Adler32Mismatch | TINFLStatus::Failed => {
                    return Err(UnpackError::damaged(&name, offset, "invalid deflate data"));
                }
                _ => return Err(UnpackError::damaged(&name, offset, "invalid deflate data")),
            }
        }
    }

    /// Counts the bytes that are returned next; an error if they exceed the maximum of a zip member.
    fn count(&mut self) -> Result<(), UnpackError> {
        let out = self.ring.pending();
        self.crc.update(out);
        self.len = self.len.saturating_add(out.len() as u64);
        self.since_point = self.since_point.saturating_add(out.len() as u64);
        match self.wrapper {
            DeflateWrapper::Zip { size, .. } if self.len > size => Err(self.input.damaged(TOO_LONG)),
            DeflateWrapper::Zip { .. } | DeflateWrapper::Gzip => Ok(()),
        }
    }

    /// Gives the bytes that were decoded and counted.
    fn give(&mut self) -> Vec<u8> {
        let out = self.ring.take();
        if !self.boundary {
            self.ring.wrap();
        }
        out
    }
}

impl StreamDecoder for DeflateDecoder {
    fn next(&mut self, context: &DecodeContext<'_>) -> Result<Option<Vec<u8>>, UnpackError> {
        if std::mem::take(&mut self.boundary) {
            self.since_point = 0;
            self.ring.wrap();
        }
        loop {
            match self.phase {
                InflatePhase::Ended => return Ok(None),
                InflatePhase::Header { first } => {
                    if !self.header(first, context)? {
                        self.phase = InflatePhase::Ended;
                        continue;
                    }
                    self.phase = InflatePhase::Body;
                }
                InflatePhase::Trailer => {
                    self.finish(context)?;
                    let out = self.give();
                    if !out.is_empty() {
                        return Ok(Some(out));
                    }
                }
                InflatePhase::Body => {
                    let out = self.inflate(context)?;
                    if !out.is_empty() {
                        return Ok(Some(out));
                    }
                }
            }
        }
    }

    fn resume(&self) -> Option<(u64, Vec<u8>)> {
        match self.phase {
            InflatePhase::Header { .. } => Some((self.input.offset(), vec![0])),
            InflatePhase::Body if self.boundary => {
                let state = self.state.block_boundary_state()?;
                let mut out = vec![1, state.num_bits, state.bit_buf];
                out.extend_from_slice(&self.crc.clone().finalize().to_be_bytes());
                out.extend_from_slice(&self.len.to_be_bytes());
                out.extend_from_slice(&self.ring.window(self.len));
                Some((self.input.offset(), out))
            }
            InflatePhase::Body | InflatePhase::Trailer | InflatePhase::Ended => None,
        }
    }

    fn taken(&self) -> u64 {
        self.input.offset()
    }
}

/// Bytes that are stored as they are, and a checksum over all of them: a member of a zip archive.
pub(super) struct StoredDecoder {
    input: DecoderInput,
    crc: Hasher,
    len: u64,
    expect: (u32, u64),
    since_point: u64,
}

impl StoredDecoder {
    pub(super) fn new(source: Arc<dyn ByteSource>, crc: u32, size: u64) -> Self {
        Self { input: DecoderInput::new(source, 0), crc: Hasher::new(), len: 0, expect: (crc, size), since_point: 0 }
    }

    pub(super) fn at(
        source: Arc<dyn ByteSource>,
        expect: (u32, u64),
        input: u64,
        state: &[u8],
    ) -> Result<Self, UnpackError> {
        let crc = ByteFields(state).u32().ok_or_else(|| bad_point(&source.name(), input))?;
        let crc = Hasher::new_with_initial_len(crc, input);
        Ok(Self { input: DecoderInput::new(source, input), crc, len: input, expect, since_point: 0 })
    }
}

impl StreamDecoder for StoredDecoder {
    fn next(&mut self, context: &DecodeContext<'_>) -> Result<Option<Vec<u8>>, UnpackError> {
        if self.since_point >= SPACING {
            self.since_point = 0;
        }
        self.input.peek(context)?;
        self.input.work(context)?;
        let out = self.input.buffered().to_vec();
        if out.is_empty() {
            if self.crc.clone().finalize() != self.expect.0 || self.len != self.expect.1 {
                return Err(self.input.damaged(CHECKSUM_MISMATCH));
            }
            return Ok(None);
        }
        self.input.consume(out.len());
        self.crc.update(&out);
        self.len = self.len.saturating_add(out.len() as u64);
        self.since_point = self.since_point.saturating_add(out.len() as u64);
        if self.len > self.expect.1 {
            return Err(self.input.damaged(TOO_LONG));
        }
        Ok(Some(out))
    }

    fn resume(&self) -> Option<(u64, Vec<u8>)> {
        (self.since_point >= SPACING).then(|| (self.len, self.crc.clone().finalize().to_be_bytes().to_vec()))
    }

    fn taken(&self) -> u64 {
        self.input.offset()
    }
}
