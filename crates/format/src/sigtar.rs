//! Signature archives (docs/FORMAT.md section 5): every object that a set changed, with its metadata, and the bounds of
//! its size from its librsync signature.

use super::FormatError;
use super::difftar::{path_fault, split_kind};
use super::tar::{TarEntry, TarLimits, TarParser, TarSink};
use crate::{ArchivePath, EntryMeta, LastOwnerNames};

#[cfg(test)]
mod tests;

/// Length in bytes of a signature's header: magic, block length, length of the strong sums.
pub const SIG_HEADER_LEN: usize = 12;
/// [`SIG_HEADER_LEN`] as a size in a stream.
const HEADER_SIZE: u64 = SIG_HEADER_LEN as u64;
/// Length in bytes of a block's weak sum.
const WEAK_LEN: u64 = 4;

/// The change of a path that a signature archive states.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SigChange {
    /// `signature/PATH`: a regular file, new or changed.
    Signature,
    /// `snapshot/PATH`: an object of another type, new or changed.
    Snapshot,
    /// `deleted/PATH`: a path that no longer exists.
    Deleted,
}

/// One entry of a signature archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SigEntry {
    /// The path. It is the root for `snapshot/`, `snapshot/./` and, in the backup of a single file, `signature/`.
    pub path: ArchivePath,
    /// The change of the path.
    pub change: SigChange,
    /// The metadata. Meaningless zeros for [`SigChange::Deleted`].
    pub meta: EntryMeta,
    /// The header of the signature. `None` unless the entry is a regular file with a valid signature.
    pub signature: Option<SigHeader>,
    /// The bounds of the file's size from the signature. `None` if `signature` is.
    pub bounds: Option<SizeBounds>,
}

/// The header of a librsync signature. The block length must be read here, not computed from the size (docs/FORMAT.md
/// section 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SigHeader {
    /// Length in bytes of a block of content.
    pub block_len: u32,
    /// Length in bytes of a block's strong sum.
    pub strong_len: u32,
}

impl SigHeader {
    /// Parses the first [`SIG_HEADER_LEN`] bytes of a signature. Returns `None` if they are not one.
    pub fn parse(head: &[u8; SIG_HEADER_LEN]) -> Option<Self> {
        let [m0, m1, m2, m3, b0, b1, b2, b3, s0, s1, s2, s3] = *head;
        let header =
            Self { block_len: u32::from_be_bytes([b0, b1, b2, b3]), strong_len: u32::from_be_bytes([s0, s1, s2, s3]) };
        // MD4 or BLAKE2 as strong sum, librsync's own or RabinKarp as weak sum. duplicity writes the first of each.
        let known = matches!([m0, m1, m2, m3], [0x72, 0x73, 0x01, 0x36 | 0x37 | 0x46 | 0x47]);
        (known && header.block_len > 0 && (1..=32).contains(&header.strong_len)).then_some(header)
    }

    /// Returns the bounds of the file's size. `signature_len` is the size of the signature in bytes. Returns `None` if
    /// it is not a header and whole blocks.
    pub fn bounds(&self, signature_len: u64) -> Option<SizeBounds> {
        let sums = signature_len.checked_sub(HEADER_SIZE)?;
        let each = WEAK_LEN + u64::from(self.strong_len);
        if sums % each != 0 {
            return None;
        }
        let blocks = sums / each;
        let max = blocks.checked_mul(u64::from(self.block_len)).filter(|&max| max <= i64::MAX.unsigned_abs())?;
        let min = if blocks == 0 { 0 } else { max - u64::from(self.block_len) + 1 };
        Some(SizeBounds { blocks, min, max })
    }
}

/// The bounds of the size of a file with a given signature: for n blocks of length b, (n-1)*b < size <= n*b.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SizeBounds {
    /// Number of blocks. 0 for an empty file.
    pub blocks: u64,
    /// Smallest possible size (inclusive).
    pub min: u64,
    /// Largest possible size (inclusive).
    pub max: u64,
}

impl SizeBounds {
    /// Returns true if a file of `size` bytes can have this signature.
    pub fn contains(&self, size: u64) -> bool {
        (self.min..=self.max).contains(&size)
    }

    /// Returns the size if only one is possible.
    pub fn exact(&self) -> Option<u64> {
        (self.min == self.max).then_some(self.max)
    }
}

/// Parses the name of an entry of a signature archive.
///
/// # Errors
/// [`FormatError::Entry`] at offset 0 (see [`FormatError::at`]) for names that duplicity does not write, and for paths
/// that would leave the tree.
pub fn parse_entry_name(name: &[u8]) -> Result<(SigChange, ArchivePath), FormatError> {
    let refuse = |what| FormatError::entry(0, name, what);
    let (head, rest) = split_kind(name).ok_or_else(|| refuse("its name has no '/'"))?;
    let change = match head {
        b"signature" => SigChange::Signature,
        b"snapshot" => SigChange::Snapshot,
        b"deleted" => SigChange::Deleted,
        _ => return Err(refuse("its first component is not a known kind of change")),
    };
    let path = ArchivePath::parse(rest).map_err(|error| refuse(path_fault(error)))?;
    Ok((change, path))
}

/// A receiver of the entries of a signature archive. An error that a sink returns ends the parsing.
pub trait SigtarSink {
    /// Takes the next entry, in the order of the archive.
    ///
    /// # Errors
    /// Any error of the sink. The parser passes it on.
    fn entry(&mut self, entry: SigEntry) -> Result<(), FormatError>;

    /// Takes the problem of an entry that is damaged. If its name and metadata are valid, the entry itself follows
    /// without bounds. Otherwise it is left out, and must not be taken for unchanged or absent. The archive as a whole
    /// is valid, so the parsing continues.
    ///
    /// # Errors
    /// Any error of the sink. A sink that tolerates no damage returns the problem.
    fn problem(&mut self, problem: FormatError) -> Result<(), FormatError>;
}

/// A push parser of signature archives: it takes chunks of any size. It keeps one entry and the first 12 bytes of its
/// data in memory.
#[derive(Debug)]
pub struct SigtarParser {
    tar: TarParser,
    current: CurrentEntry,
}

impl Default for SigtarParser {
    fn default() -> Self {
        Self::new(TarLimits::default())
    }
}

impl SigtarParser {
    /// Creates a parser at the start of an archive.
    pub fn new(limits: TarLimits) -> Self {
        Self { tar: TarParser::new(limits), current: CurrentEntry::default() }
    }

    /// Takes the next decoded bytes.
    ///
    /// # Errors
    /// The errors of [`TarParser::feed`] and of the sink.
    pub fn feed<S: SigtarSink + ?Sized>(&mut self, bytes: &[u8], sink: &mut S) -> Result<(), FormatError> {
        self.tar.feed(bytes, &mut SigtarAdapter { current: &mut self.current, sink })
    }

    /// Ends the archive.
    ///
    /// # Errors
    /// The errors of [`TarParser::finish`]. [`FormatError::Tar`] for an archive that does not end in a zero block, as
    /// all do (docs/FORMAT.md section 3): an archive that is empty or cut between two entries would otherwise look like
    /// one of fewer objects.
    pub fn finish(&mut self) -> Result<(), FormatError> {
        self.tar.finish()?;
        if !self.tar.is_ended() {
            return Err(FormatError::Tar { offset: self.tar.offset(), what: "the closing zero blocks are missing" });
        }
        Ok(())
    }
}

/// The entry whose data is being read.
#[derive(Debug, Default)]
struct CurrentEntry {
    entry: Option<SigEntry>,
    names: LastOwnerNames,
    /// Size of the entry's data.
    size: u64,
    /// Offset of the entry's header.
    offset: u64,
    /// The first bytes of the data, of which `filled` have arrived.
    head: [u8; SIG_HEADER_LEN],
    filled: usize,
}

/// The sink of the tar parser: it passes on the entries of the archive to `sink`.
struct SigtarAdapter<'a, S: ?Sized> {
    current: &'a mut CurrentEntry,
    sink: &'a mut S,
}

impl<S: SigtarSink + ?Sized> TarSink for SigtarAdapter<'_, S> {
    fn entry(&mut self, header: &TarEntry<'_>, _data_offset: u64) -> Result<(), FormatError> {
        self.current.filled = 0;
        self.current.size = header.size;
        self.current.offset = header.header_offset;
        let parsed = parse_entry_name(header.path).map_err(|error| error.at(header.header_offset));
        let parsed = parsed.and_then(|(change, path)| Ok((change, path, header.meta(&mut self.current.names)?)));
        self.current.entry = match parsed {
            Ok((change, path, meta)) => Some(SigEntry { path, change, meta, signature: None, bounds: None }),
            Err(problem) => {
                self.sink.problem(problem)?;
                None
            }
        };
        Ok(())
    }

    fn data(&mut self, bytes: &[u8]) -> Result<(), FormatError> {
        let current = &mut *self.current;
        if let Some(room) = current.head.get_mut(current.filled..).filter(|room| !room.is_empty()) {
            for (to, &from) in room.iter_mut().zip(bytes) {
                *to = from;
                current.filled += 1;
            }
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), FormatError> {
        let Some(mut entry) = self.current.entry.take() else { return Ok(()) };
        if entry.change == SigChange::Signature {
            let complete = self.current.filled == SIG_HEADER_LEN;
            let header = complete.then(|| SigHeader::parse(&self.current.head)).flatten();
            match header.and_then(|header| Some((header, header.bounds(self.current.size)?))) {
                Some((header, bounds)) => {
                    entry.signature = Some(header);
                    entry.bounds = Some(bounds);
                }
                None => {
                    let what = "its data is not a librsync signature";
                    self.sink.problem(FormatError::entry(self.current.offset, entry.path.as_bytes(), what))?;
                }
            }
        }
        self.sink.entry(entry)
    }
}
