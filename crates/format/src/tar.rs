//! Tar streams as duplicity writes them (FORMAT.md 3 and 4.1), pushed in by chunks of any size.
//!
//! The stream ends at the first all-zero header block, whatever follows, or at its last byte: volumes may have no
//! zero block at all, or a single one with garbage behind it. Archives of other programs may hold sparse files too
//! ([`TarLimits::sparse`]).

mod header;
mod pax;
mod sparse;
#[cfg(test)]
mod tests;

use super::FormatError;
use pax::Pax;

pub use header::TarEntry;
pub use sparse::{Sparse, SparseMap};

/// Size of a tar block.
const BLOCK: usize = 512;

/// What a walker accepts.
#[derive(Clone, Copy, Debug)]
pub struct TarLimits {
    /// Most bytes of an extension header: a GNU long name, or a set of PAX records.
    pub extension: u64,
    /// Accept sparse files, which duplicity does not write.
    pub sparse: bool,
}

impl Default for TarLimits {
    fn default() -> Self {
        Self { extension: 1 << 20, sparse: false }
    }
}

/// What is told of a tar stream, in its order: [`TarSink::entry`], then that entry's data in pieces, then
/// [`TarSink::end`]. An error that a sink returns ends the walk.
pub trait TarSink {
    /// An entry begins. Its `header.size` bytes of data begin at `data_offset` in the stream.
    ///
    /// # Errors
    /// The sink's, passed on.
    fn entry(&mut self, header: &TarEntry<'_>, data_offset: u64) -> Result<(), FormatError>;

    /// The next piece of the entry's data; never empty.
    ///
    /// # Errors
    /// The sink's, passed on.
    fn data(&mut self, bytes: &[u8]) -> Result<(), FormatError>;

    /// All of the entry's data was told.
    ///
    /// # Errors
    /// The sink's, passed on.
    fn end(&mut self) -> Result<(), FormatError>;
}

/// A push parser of tar streams. It keeps one block and the extension headers of one entry.
#[derive(Debug)]
pub struct TarWalker {
    limits: TarLimits,
    state: State,
    /// Bytes taken, up to the end of the stream.
    offset: u64,
    /// A header block of which `filled` bytes have come.
    block: [u8; BLOCK],
    filled: usize,
    /// Data of the extension header that is being read.
    extension: Vec<u8>,
    /// Where the first extension header of the coming entry began.
    entry_start: Option<u64>,
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
    local: Pax,
    global: Pax,
    /// Map of the old GNU sparse entry that is being read, and its header until the map is complete.
    map: Vec<(u64, u64)>,
    held: Option<(Box<[u8; BLOCK]>, u64)>,
    /// Where a name is put together from two fields.
    joined: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Header,
    Extension {
        kind: Extension,
        left: u64,
        padding: u64,
    },
    Member {
        left: u64,
        padding: u64,
    },
    Padding {
        left: u64,
    },
    /// A block that continues the map of a sparse entry.
    SparseMap,
    Ended,
    Broken,
}

#[derive(Clone, Copy, Debug)]
enum Extension {
    LongName,
    LongLink,
    Local,
    Global,
}

impl TarWalker {
    /// A walker at the start of a stream.
    pub fn new(limits: TarLimits) -> Self {
        Self {
            limits,
            state: State::Header,
            offset: 0,
            block: [0; BLOCK],
            filled: 0,
            extension: Vec::new(),
            entry_start: None,
            long_name: None,
            long_link: None,
            local: Pax::default(),
            global: Pax::default(),
            map: Vec::new(),
            held: None,
            joined: Vec::new(),
        }
    }

    /// Takes the next bytes and tells `sink` what they complete. Bytes behind the stream's end are ignored.
    ///
    /// # Errors
    /// [`FormatError::Tar`] for a header that is none, [`FormatError::TooLarge`] for extension headers beyond the limit,
    /// and the sink's errors. Afterwards the walker refuses everything.
    pub fn feed<S: TarSink + ?Sized>(&mut self, bytes: &[u8], sink: &mut S) -> Result<(), FormatError> {
        let result = self.walk(bytes, sink);
        if result.is_err() {
            self.state = State::Broken;
        }
        result
    }

    /// Ends the stream.
    ///
    /// # Errors
    /// [`FormatError::Tar`] if it ends within an entry or a header, or after an earlier error.
    pub fn finish(&mut self) -> Result<(), FormatError> {
        let fault = |what| Err(FormatError::Tar { offset: self.offset, what });
        match self.state {
            State::Header if self.filled > 0 => fault("it ends within a header"),
            State::Header if self.entry_start.is_some() => fault("it ends between an extension header and its entry"),
            State::Header | State::Ended => Ok(()),
            State::Extension { .. } => fault("it ends within an extension header"),
            State::Member { .. } | State::Padding { .. } | State::SparseMap => fault("it ends within an entry"),
            State::Broken => fault("an earlier error ended the walk"),
        }
    }

    /// Whether the zero block that ends the stream was seen.
    pub fn ended(&self) -> bool {
        matches!(self.state, State::Ended)
    }

    /// How many bytes from here on are data of the entry that was told last, and its padding.
    pub fn data_left(&self) -> u64 {
        match self.state {
            State::Member { left, padding } => left.saturating_add(padding),
            State::Padding { left } => left,
            State::Header | State::Extension { .. } | State::SparseMap | State::Ended | State::Broken => 0,
        }
    }

    /// Takes [`Self::data_left`] bytes as if they had been fed; the sink is not told of them nor of the entry's end. That
    /// they exist is for the caller to see to.
    pub fn skip_data(&mut self) {
        let left = self.data_left();
        if left > 0 {
            self.offset = self.offset.saturating_add(left);
            self.state = State::Header;
        }
    }

    /// Bytes taken so far; after the end of the stream, the offset behind its first zero block.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    fn walk<S: TarSink + ?Sized>(&mut self, mut bytes: &[u8], sink: &mut S) -> Result<(), FormatError> {
        while !bytes.is_empty() {
            match self.state {
                State::Header | State::SparseMap => {
                    if self.filled == 0
                        && let Some((block, rest)) = bytes.split_first_chunk::<BLOCK>()
                    {
                        bytes = rest;
                        self.offset += BLOCK as u64;
                        self.block(block, sink)?;
                    } else if let Some(block) = self.fill_block(&mut bytes) {
                        self.block(&block, sink)?;
                    }
                }
                State::Extension { kind, left, padding } => {
                    let piece = self.take(&mut bytes, left);
                    self.extension.extend_from_slice(piece);
                    self.state = State::Extension { kind, left: left - piece.len() as u64, padding };
                    if left == piece.len() as u64 {
                        self.end_extension(kind)?;
                        self.pad(padding);
                    }
                }
                State::Member { left, padding } => {
                    let piece = self.take(&mut bytes, left);
                    sink.data(piece)?;
                    self.state = State::Member { left: left - piece.len() as u64, padding };
                    if left == piece.len() as u64 {
                        sink.end()?;
                        self.pad(padding);
                    }
                }
                State::Padding { left } => {
                    let piece = self.take(&mut bytes, left);
                    self.pad(left - piece.len() as u64);
                }
                State::Ended => return Ok(()),
                State::Broken => {
                    return Err(FormatError::Tar { offset: self.offset, what: "an earlier error ended the walk" });
                }
            }
        }
        Ok(())
    }

    /// Takes up to `most` bytes off the front of `bytes`.
    fn take<'a>(&mut self, bytes: &mut &'a [u8], most: u64) -> &'a [u8] {
        let len = usize::try_from(most).unwrap_or(usize::MAX).min(bytes.len());
        let (piece, rest) = bytes.split_at_checked(len).unwrap_or((*bytes, &[]));
        *bytes = rest;
        self.offset += piece.len() as u64;
        piece
    }

    /// Adds bytes to a header that came in pieces; the block once it is complete.
    fn fill_block(&mut self, bytes: &mut &[u8]) -> Option<[u8; BLOCK]> {
        let piece = self.take(bytes, (BLOCK - self.filled) as u64);
        let end = self.filled + piece.len();
        self.block.get_mut(self.filled..end)?.copy_from_slice(piece);
        self.filled = end % BLOCK;
        (end == BLOCK).then_some(self.block)
    }

    fn pad(&mut self, padding: u64) {
        self.state = if padding == 0 { State::Header } else { State::Padding { left: padding } };
    }

    fn block<S: TarSink + ?Sized>(&mut self, block: &[u8; BLOCK], sink: &mut S) -> Result<(), FormatError> {
        match (self.state, self.held.take()) {
            (State::SparseMap, Some((held, start))) => self.sparse_block(block, held, start, sink),
            _ => self.header(block, sink),
        }
    }

    /// A block that continues the map of the old GNU sparse entry `held`.
    fn sparse_block<S: TarSink + ?Sized>(
        &mut self,
        block: &[u8; BLOCK],
        held: Box<[u8; BLOCK]>,
        start: u64,
        sink: &mut S,
    ) -> Result<(), FormatError> {
        let at = self.offset.saturating_sub(BLOCK as u64);
        let goes_on = sparse::continued(block, &mut self.map).map_err(|what| FormatError::Tar { offset: at, what })?;
        self.go_on_sparse(goes_on, held, start, sink)
    }

    fn go_on_sparse<S: TarSink + ?Sized>(
        &mut self,
        goes_on: bool,
        held: Box<[u8; BLOCK]>,
        start: u64,
        sink: &mut S,
    ) -> Result<(), FormatError> {
        if !goes_on {
            return self.member(&held, start, sink);
        }
        let limit = self.limits.extension;
        if self.map.len() as u64 > limit / 16 {
            return Err(FormatError::TooLarge { offset: start, what: "a sparse file's map", limit });
        }
        self.held = Some((held, start));
        self.state = State::SparseMap;
        Ok(())
    }

    /// One complete header block, which ends at `self.offset`.
    fn header<S: TarSink + ?Sized>(&mut self, block: &[u8; BLOCK], sink: &mut S) -> Result<(), FormatError> {
        let start = self.offset.saturating_sub(BLOCK as u64);
        if header::is_zero(block) {
            if self.entry_start.is_some() {
                return Err(FormatError::Tar { offset: start, what: "an extension header has no entry" });
            }
            self.state = State::Ended;
            return Ok(());
        }
        let fault = |what| FormatError::Tar { offset: start, what };
        header::verify_checksum(block).map_err(fault)?;
        let kind = match header::type_flag(block) {
            b'L' => Extension::LongName,
            b'K' => Extension::LongLink,
            b'x' | b'X' => Extension::Local,
            b'g' => Extension::Global,
            b'S' if self.limits.sparse => {
                self.map.clear();
                let goes_on = sparse::first(block, &mut self.map).map_err(fault)?;
                return self.go_on_sparse(goes_on, Box::new(*block), start, sink);
            }
            _ => return self.member(block, start, sink),
        };
        let size = header::size(block).map_err(fault)?;
        if size > self.limits.extension {
            let limit = self.limits.extension;
            return Err(FormatError::TooLarge { offset: start, what: "an extension header", limit });
        }
        self.entry_start.get_or_insert(start);
        self.extension.clear();
        if size == 0 {
            return self.end_extension(kind).map(|()| self.state = State::Header);
        }
        self.state = State::Extension { kind, left: size, padding: padding(size) };
        Ok(())
    }

    /// Files a complete extension header, which ends at `self.offset`.
    fn end_extension(&mut self, kind: Extension) -> Result<(), FormatError> {
        let data = &self.extension;
        let start = self.offset.saturating_sub(data.len() as u64);
        let fault = |what| FormatError::Tar { offset: start, what };
        match kind {
            Extension::LongName => self.long_name = Some(header::until_nul(data).to_vec()),
            Extension::LongLink => self.long_link = Some(header::until_nul(data).to_vec()),
            Extension::Local => self.local.add(data).map_err(fault)?,
            Extension::Global => {
                self.global.add(data).map_err(fault)?;
                // It belongs to no entry in particular, so the stream may end behind it.
                if self.long_name.is_none() && self.long_link.is_none() && self.local.is_empty() {
                    self.entry_start = None;
                }
            }
        }
        Ok(())
    }

    /// The header of an entry itself.
    fn member<S: TarSink + ?Sized>(
        &mut self,
        block: &[u8; BLOCK],
        start: u64,
        sink: &mut S,
    ) -> Result<(), FormatError> {
        let names = header::Names {
            name: self.long_name.as_deref(),
            link: self.long_link.as_deref(),
            local: &self.local,
            global: &self.global,
            map: self.limits.sparse.then_some(self.map.as_slice()),
        };
        let header_offset = self.entry_start.unwrap_or(start);
        let entry = header::entry(block, &names, &mut self.joined, header_offset)
            .map_err(|what| FormatError::Tar { offset: start, what })?;
        let size = entry.size;
        if self.offset.checked_add(size).is_none_or(|end| end > i64::MAX.unsigned_abs()) {
            return Err(FormatError::Tar { offset: start, what: "the size is out of range" });
        }
        sink.entry(&entry, self.offset)?;
        if self.entry_start.take().is_some() {
            self.long_name = None;
            self.long_link = None;
            self.local = Pax::default();
        }
        if size == 0 {
            self.state = State::Header;
            return sink.end();
        }
        self.state = State::Member { left: size, padding: padding(size) };
        Ok(())
    }
}

/// Bytes from the end of `size` bytes of data to the next block.
fn padding(size: u64) -> u64 {
    let block = BLOCK as u64;
    (block - size % block) % block
}
