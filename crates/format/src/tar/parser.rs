//! The push parser of tar streams.

use super::extension_headers::{ExtensionHeaders, ExtensionKind};
use super::fields::{self, BLOCK_LEN, TarBlock};
use super::header::{TarEntry, compose};
use super::sparse::{self, OwnedSparseMap};
use crate::FormatError;
use dupfs_base::clamp_len;

const FAILED_BEFORE: &str = "an earlier error ended the parsing";

/// Upper bound of an extension header that duplicity writes: two names of [`MAX_PATH_LEN`](crate::MAX_PATH_LEN) bytes,
/// which mangling may triple (docs/FORMAT.md section 4.3), and the names of two owners, with room for as much again.
const MAX_EXTENSION_LEN: u64 = 64 << 10;

/// The limits of a [`TarParser`].
#[derive(Clone, Copy, Debug)]
pub struct TarLimits {
    /// Upper bound of the bytes of an extension header: a GNU long name, or a set of PAX records.
    pub max_extension_len: u64,
    /// Accepts sparse files, which duplicity does not write.
    pub allow_sparse: bool,
}

impl Default for TarLimits {
    fn default() -> Self {
        Self { max_extension_len: MAX_EXTENSION_LEN, allow_sparse: false }
    }
}

/// A receiver of the entries of a tar stream. For each entry, in the order of the stream, [`TarSink::entry`] is called,
/// then [`TarSink::data`] for each piece of its data, then [`TarSink::end`]. An error that a sink returns ends the
/// parsing.
pub trait TarSink {
    /// Begins an entry. Its `header.size` bytes of data begin at `data_offset` in the stream.
    ///
    /// # Errors
    /// Any error of the sink. The parser passes it on.
    fn entry(&mut self, header: &TarEntry<'_>, data_offset: u64) -> Result<(), FormatError>;

    /// Takes the next piece of the entry's data, which is never empty.
    ///
    /// # Errors
    /// Any error of the sink. The parser passes it on.
    fn data(&mut self, bytes: &[u8]) -> Result<(), FormatError>;

    /// Ends an entry: all of its data was passed on.
    ///
    /// # Errors
    /// Any error of the sink. The parser passes it on.
    fn end(&mut self) -> Result<(), FormatError>;
}

/// A push parser of tar streams: it takes chunks of any size. It keeps one block and the extension headers of one entry
/// in memory.
#[derive(Debug)]
pub struct TarParser {
    limits: TarLimits,
    state: TarState,
    /// Number of bytes taken, up to the end of the stream.
    offset: u64,
    block: PartialBlock,
    /// Data of the extension header that is being read.
    extension: Vec<u8>,
    headers: ExtensionHeaders,
    /// The map of the old GNU sparse entry that is being read.
    map: OwnedSparseMap,
    /// The header of that entry and its offset, until the map is complete.
    sparse_header: Option<(Box<TarBlock>, u64)>,
    /// Buffer for a name that is split over two fields.
    joined: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
enum TarState {
    Header,
    Extension {
        kind: ExtensionKind,
        left: u64,
        padding: u64,
    },
    Data {
        left: u64,
        padding: u64,
    },
    Padding {
        left: u64,
    },
    /// The map of a sparse entry continues in the next block.
    SparseMap,
    Ended,
    Failed,
}

/// A block that arrives in pieces: the first `filled` bytes are there.
#[derive(Debug)]
struct PartialBlock {
    bytes: TarBlock,
    filled: usize,
}

impl PartialBlock {
    /// Number of missing bytes.
    fn missing(&self) -> u64 {
        BLOCK_LEN.saturating_sub(self.filled) as u64
    }

    /// Adds a piece of at most [`Self::missing`] bytes. Returns the block once it is complete, and then begins the next.
    fn add(&mut self, piece: &[u8]) -> Option<TarBlock> {
        let end = self.filled + piece.len();
        self.bytes.get_mut(self.filled..end)?.copy_from_slice(piece);
        self.filled = end % BLOCK_LEN;
        (end == BLOCK_LEN).then_some(self.bytes)
    }
}

impl TarParser {
    /// Creates a parser at the start of a stream.
    pub fn new(limits: TarLimits) -> Self {
        Self {
            limits,
            state: TarState::Header,
            offset: 0,
            block: PartialBlock { bytes: [0; BLOCK_LEN], filled: 0 },
            extension: Vec::new(),
            headers: ExtensionHeaders::default(),
            map: Vec::new(),
            sparse_header: None,
            joined: Vec::new(),
        }
    }

    /// Takes the next bytes and passes on what they complete to `sink`. Bytes after the end of the stream are ignored.
    ///
    /// # Errors
    /// [`FormatError::Tar`] for an invalid header, [`FormatError::TooLarge`] for extension headers beyond the limit,
    /// and the errors of the sink. After an error the parser refuses everything.
    pub fn feed<S: TarSink + ?Sized>(&mut self, bytes: &[u8], sink: &mut S) -> Result<(), FormatError> {
        let result = self.parse(bytes, sink);
        if result.is_err() {
            self.state = TarState::Failed;
        }
        result
    }

    /// Ends the stream.
    ///
    /// # Errors
    /// [`FormatError::Tar`] if the stream ends within an entry or a header, and after an earlier error.
    pub fn finish(&mut self) -> Result<(), FormatError> {
        let fault = |what| Err(FormatError::Tar { offset: self.offset, what });
        match self.state {
            TarState::Header if self.block.filled > 0 => fault("truncated within a header"),
            TarState::Header if self.headers.start().is_some() => {
                fault("truncated between an extension header and its entry")
            }
            TarState::Header | TarState::Ended => Ok(()),
            TarState::Extension { .. } => fault("truncated within an extension header"),
            TarState::Data { .. } | TarState::Padding { .. } | TarState::SparseMap => {
                fault("truncated within an entry")
            }
            TarState::Failed => fault(FAILED_BEFORE),
        }
    }

    /// Returns true after the zero block that ends the stream.
    pub fn is_ended(&self) -> bool {
        matches!(self.state, TarState::Ended)
    }

    /// Returns how many of the next bytes are data and padding of the current entry.
    pub fn data_left(&self) -> u64 {
        match self.state {
            TarState::Data { left, padding } => left.saturating_add(padding),
            TarState::Padding { left } => left,
            TarState::Header
            | TarState::Extension { .. }
            | TarState::SparseMap
            | TarState::Ended
            | TarState::Failed => 0,
        }
    }

    /// Skips [`Self::data_left`] bytes without passing them on to a sink. [`TarSink::end`] is not called for the entry.
    /// The caller must ensure that these bytes exist.
    pub fn skip_data(&mut self) {
        let left = self.data_left();
        if left > 0 {
            self.offset = self.offset.saturating_add(left);
            self.state = TarState::Header;
        }
    }

    /// Returns the number of bytes taken. After the end of the stream, this is the offset after its first zero block.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    fn parse<S: TarSink + ?Sized>(&mut self, mut bytes: &[u8], sink: &mut S) -> Result<(), FormatError> {
        while !bytes.is_empty() {
            match self.state {
                TarState::Header | TarState::SparseMap => {
                    if self.block.filled == 0
                        && let Some((block, rest)) = bytes.split_first_chunk::<BLOCK_LEN>()
                    {
                        bytes = rest;
                        self.offset += BLOCK_LEN as u64;
                        self.take_block(block, sink)?;
                    } else if let Some(block) = self.fill_block(&mut bytes) {
                        self.take_block(&block, sink)?;
                    }
                }
                TarState::Extension { kind, left, padding } => {
                    let piece = self.take(&mut bytes, left);
                    self.extension.extend_from_slice(piece);
                    self.state = TarState::Extension { kind, left: left - piece.len() as u64, padding };
                    if left == piece.len() as u64 {
                        self.end_extension(kind)?;
                        self.begin_padding(padding);
                    }
                }
                TarState::Data { left, padding } => {
                    let piece = self.take(&mut bytes, left);
                    sink.data(piece)?;
                    self.state = TarState::Data { left: left - piece.len() as u64, padding };
                    if left == piece.len() as u64 {
                        sink.end()?;
                        self.begin_padding(padding);
                    }
                }
                TarState::Padding { left } => {
                    let piece = self.take(&mut bytes, left);
                    self.begin_padding(left - piece.len() as u64);
                }
                TarState::Ended => return Ok(()),
                TarState::Failed => {
                    return Err(FormatError::Tar { offset: self.offset, what: FAILED_BEFORE });
                }
            }
        }
        Ok(())
    }

    /// Takes up to `max_len` bytes off the front of `bytes`.
    fn take<'a>(&mut self, bytes: &mut &'a [u8], max_len: u64) -> &'a [u8] {
        let len = clamp_len(max_len, bytes.len());
        let (piece, rest) = bytes.split_at_checked(len).unwrap_or((*bytes, &[]));
        *bytes = rest;
        self.offset += piece.len() as u64;
        piece
    }

    /// Adds bytes to a block that arrives in pieces. Returns the block once it is complete.
    fn fill_block(&mut self, bytes: &mut &[u8]) -> Option<TarBlock> {
        let piece = self.take(bytes, self.block.missing());
        self.block.add(piece)
    }

    fn begin_padding(&mut self, padding: u64) {
        self.state = if padding == 0 { TarState::Header } else { TarState::Padding { left: padding } };
    }

    /// Takes one complete block: a header, or more of the map of a sparse entry.
    fn take_block<S: TarSink + ?Sized>(&mut self, block: &TarBlock, sink: &mut S) -> Result<(), FormatError> {
        match (self.state, self.sparse_header.take()) {
            (TarState::SparseMap, Some((header, start))) => self.take_map_block(block, header, start, sink),
            _ => self.take_header(block, sink),
        }
    }

    /// Takes a block that continues the map of the old GNU sparse entry with the block `header`.
    fn take_map_block<S: TarSink + ?Sized>(
        &mut self,
        block: &TarBlock,
        header: Box<TarBlock>,
        start: u64,
        sink: &mut S,
    ) -> Result<(), FormatError> {
        let at = self.offset.saturating_sub(BLOCK_LEN as u64);
        let has_more =
            sparse::add_more_pieces(block, &mut self.map).map_err(|what| FormatError::Tar { offset: at, what })?;
        self.continue_sparse(has_more, header, start, sink)
    }

    /// Waits for the next block of the map if there is one. Otherwise begins the sparse entry.
    fn continue_sparse<S: TarSink + ?Sized>(
        &mut self,
        has_more: bool,
        header: Box<TarBlock>,
        start: u64,
        sink: &mut S,
    ) -> Result<(), FormatError> {
        if !has_more {
            return self.begin_entry(&header, start, sink);
        }
        let limit = self.limits.max_extension_len;
        if self.map.len() as u64 > limit / 16 {
            return Err(FormatError::TooLarge { offset: start, what: "a sparse file's map", limit });
        }
        self.sparse_header = Some((header, start));
        self.state = TarState::SparseMap;
        Ok(())
    }

    /// Takes one complete header block, which ends at `self.offset`.
    fn take_header<S: TarSink + ?Sized>(&mut self, block: &TarBlock, sink: &mut S) -> Result<(), FormatError> {
        let start = self.offset.saturating_sub(BLOCK_LEN as u64);
        if fields::is_zero(block) {
            if self.headers.start().is_some() {
                return Err(FormatError::Tar { offset: start, what: "an extension header has no entry" });
            }
            self.state = TarState::Ended;
            return Ok(());
        }
        let fault = |what| FormatError::Tar { offset: start, what };
        fields::verify_checksum(block).map_err(fault)?;
        let kind = match fields::type_flag(block) {
            b'L' => ExtensionKind::LongName,
            b'K' => ExtensionKind::LongLink,
            b'x' | b'X' => ExtensionKind::Local,
            b'g' => ExtensionKind::Global,
            b'S' if self.limits.allow_sparse => {
                self.map.clear();
                let has_more = sparse::add_header_pieces(block, &mut self.map).map_err(fault)?;
                return self.continue_sparse(has_more, Box::new(*block), start, sink);
            }
            _ => return self.begin_entry(block, start, sink),
        };
        let size = fields::size(block).map_err(fault)?;
        if size > self.limits.max_extension_len {
            let limit = self.limits.max_extension_len;
            return Err(FormatError::TooLarge { offset: start, what: "an extension header", limit });
        }
        self.headers.begin(start);
        self.extension.clear();
        if size == 0 {
            return self.end_extension(kind).map(|()| self.state = TarState::Header);
        }
        self.state = TarState::Extension { kind, left: size, padding: padding(size) };
        Ok(())
    }

    /// Stores a complete extension header, which ends at `self.offset`.
    fn end_extension(&mut self, kind: ExtensionKind) -> Result<(), FormatError> {
        let start = self.offset.saturating_sub(self.extension.len() as u64);
        self.headers.add(kind, &self.extension).map_err(|what| FormatError::Tar { offset: start, what })
    }

    /// Begins the entry with the header `block`.
    fn begin_entry<S: TarSink + ?Sized>(
        &mut self,
        block: &TarBlock,
        start: u64,
        sink: &mut S,
    ) -> Result<(), FormatError> {
        let extensions = self.headers.for_entry(self.limits.allow_sparse.then_some(self.map.as_slice()));
        let header_offset = self.headers.start().unwrap_or(start);
        let entry = compose(block, &extensions, &mut self.joined, header_offset)
            .map_err(|what| FormatError::Tar { offset: start, what })?;
        let size = entry.size;
        if self.offset.checked_add(size).is_none_or(|end| end > i64::MAX.unsigned_abs()) {
            return Err(FormatError::Tar { offset: start, what: "the size is out of range" });
        }
        sink.entry(&entry, self.offset)?;
        self.headers.end_entry();
        if size == 0 {
            self.state = TarState::Header;
            return sink.end();
        }
        self.state = TarState::Data { left: size, padding: padding(size) };
        Ok(())
    }
}

/// Returns the number of bytes from the end of `size` bytes of data to the next block.
fn padding(size: u64) -> u64 {
    size.wrapping_neg() % BLOCK_LEN as u64
}
