//! Signature archives (FORMAT.md 5): every object that a set changed, with its metadata, and what its librsync signature
//! tells of its size.

use super::FormatError;
use super::difftar::{path_fault, split_kind};
use super::tar::{TarEntry, TarLimits, TarSink, TarWalker};
use crate::{ArchivePath, EntryMeta};

#[cfg(test)]
mod tests;

/// Bytes of a signature's header: mark, block length, length of the strong sums.
pub const SIG_HEADER_LEN: usize = 12;
/// The same as a size in a stream.
const HEADER_BYTES: u64 = 12;
/// Bytes of a block's weak sum.
const WEAK_LEN: u64 = 4;

/// What a signature archive says of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SigChange {
    /// `signature/PATH`: it is a regular file, new or changed.
    Signature,
    /// `snapshot/PATH`: it is another object, new or changed.
    Snapshot,
    /// `deleted/PATH`: it is gone.
    Deleted,
}

/// One entry of a signature archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SigEntry {
    /// The path; the root for `snapshot/`, `snapshot/./` and, if the backup is of a single file, `signature/`.
    pub path: ArchivePath,
    /// What happened to it.
    pub change: SigChange,
    /// Its metadata; meaningless zeros for [`SigChange::Deleted`].
    pub meta: EntryMeta,
    /// The signature's header; `None` unless it is a regular file with a sound signature.
    pub signature: Option<SigHeader>,
    /// What the signature tells of the file's size; `None` as for `signature`.
    pub bounds: Option<SizeBounds>,
}

/// The header of a librsync signature. The block length must be read, never computed (FORMAT.md 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SigHeader {
    /// Bytes of content per block.
    pub block_len: u32,
    /// Bytes of each block's strong sum.
    pub strong_len: u32,
}

impl SigHeader {
    /// Parses a signature's first [`SIG_HEADER_LEN`] bytes; `None` if they are no signature's.
    pub fn parse(head: &[u8; SIG_HEADER_LEN]) -> Option<Self> {
        let [m0, m1, m2, m3, b0, b1, b2, b3, s0, s1, s2, s3] = *head;
        let header =
            Self { block_len: u32::from_be_bytes([b0, b1, b2, b3]), strong_len: u32::from_be_bytes([s0, s1, s2, s3]) };
        // MD4 or BLAKE2 strong sums, over librsync's or RabinKarp weak sums; duplicity writes the first.
        let known = matches!([m0, m1, m2, m3], [0x72, 0x73, 0x01, 0x36 | 0x37 | 0x46 | 0x47]);
        (known && header.block_len > 0 && (1..=32).contains(&header.strong_len)).then_some(header)
    }

    /// The bounds of the file's size, given the size of the signature; `None` if that is not header and whole blocks.
    pub fn bounds(&self, signature_len: u64) -> Option<SizeBounds> {
        let sums = signature_len.checked_sub(HEADER_BYTES)?;
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

/// The sizes that a file with a given signature can have: n blocks of length b are of (n-1)*b < size <= n*b.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SizeBounds {
    /// Number of blocks; 0 for an empty file.
    pub blocks: u64,
    /// Smallest possible size, itself included.
    pub min: u64,
    /// Largest possible size, itself included.
    pub max: u64,
}

impl SizeBounds {
    /// Whether a file of `size` bytes can have this signature.
    pub fn contains(&self, size: u64) -> bool {
        (self.min..=self.max).contains(&size)
    }

    /// The size, if only one is possible.
    pub fn exact(&self) -> Option<u64> {
        (self.min == self.max).then_some(self.max)
    }
}

/// Splits the name of a signature archive's entry.
///
/// # Errors
/// [`FormatError::Entry`] at offset 0 (see [`FormatError::at`]) for names that duplicity does not write, and for paths
/// that would leave the tree.
pub fn parse_name(name: &[u8]) -> Result<(SigChange, ArchivePath), FormatError> {
    let refuse = |what| FormatError::entry(0, name, what);
    let (head, rest) = split_kind(name).ok_or_else(|| refuse("there is no '/' in it"))?;
    let change = match head {
        b"signature" => SigChange::Signature,
        b"snapshot" => SigChange::Snapshot,
        b"deleted" => SigChange::Deleted,
        _ => return Err(refuse("its first component is no kind of change")),
    };
    let path = ArchivePath::parse(rest).map_err(|error| refuse(path_fault(error)))?;
    Ok((change, path))
}

/// What is told of a signature archive. An error that a sink returns ends the reading.
pub trait SigtarSink {
    /// The next entry, in the archive's order.
    ///
    /// # Errors
    /// The sink's, passed on.
    fn entry(&mut self, entry: SigEntry) -> Result<(), FormatError>;

    /// An entry that cannot be understood and is left out, or, with its signature, told without bounds. The archive as a
    /// whole is sound, so reading goes on; what is left out must not be taken for unchanged or absent.
    ///
    /// # Errors
    /// The sink's, passed on: a sink that takes no damage returns the problem.
    fn problem(&mut self, problem: FormatError) -> Result<(), FormatError>;
}

/// A push parser of signature archives. It keeps one entry and 12 bytes of its data.
#[derive(Debug)]
pub struct SigtarReader {
    walker: TarWalker,
    pending: Pending,
}

impl Default for SigtarReader {
    fn default() -> Self {
        Self::new(TarLimits::default())
    }
}

impl SigtarReader {
    /// A reader at the start of an archive.
    pub fn new(limits: TarLimits) -> Self {
        Self { walker: TarWalker::new(limits), pending: Pending::default() }
    }

    /// Takes the next decoded bytes.
    ///
    /// # Errors
    /// As [`TarWalker::feed`], and the sink's.
    pub fn feed<S: SigtarSink + ?Sized>(&mut self, bytes: &[u8], sink: &mut S) -> Result<(), FormatError> {
        self.walker.feed(bytes, &mut Adapter { pending: &mut self.pending, sink })
    }

    /// Ends the archive.
    ///
    /// # Errors
    /// As [`TarWalker::finish`], and [`FormatError::Tar`] for an archive that does not end in a zero block, as all do
    /// (FORMAT.md 3): cut between two entries, or empty, it would look like one of fewer objects.
    pub fn finish(&mut self) -> Result<(), FormatError> {
        self.walker.finish()?;
        if !self.walker.ended() {
            return Err(FormatError::Tar {
                offset: self.walker.offset(),
                what: "it ends without its closing zero blocks",
            });
        }
        Ok(())
    }
}

/// The entry whose data is being read.
#[derive(Debug, Default)]
struct Pending {
    entry: Option<SigEntry>,
    /// Size of the entry's data, and where its header began.
    size: u64,
    offset: u64,
    head: [u8; SIG_HEADER_LEN],
    filled: usize,
}

struct Adapter<'a, S: ?Sized> {
    pending: &'a mut Pending,
    sink: &'a mut S,
}

impl<S: SigtarSink + ?Sized> TarSink for Adapter<'_, S> {
    fn entry(&mut self, header: &TarEntry<'_>, _data_offset: u64) -> Result<(), FormatError> {
        self.pending.filled = 0;
        self.pending.size = header.size;
        self.pending.offset = header.header_offset;
        let parsed = parse_name(header.path).map_err(|error| error.at(header.header_offset));
        let parsed = parsed.and_then(|(change, path)| Ok((change, path, header.meta()?)));
        self.pending.entry = match parsed {
            Ok((change, path, meta)) => Some(SigEntry { path, change, meta, signature: None, bounds: None }),
            Err(problem) => {
                self.sink.problem(problem)?;
                None
            }
        };
        Ok(())
    }

    fn data(&mut self, bytes: &[u8]) -> Result<(), FormatError> {
        let pending = &mut *self.pending;
        if let Some(room) = pending.head.get_mut(pending.filled..).filter(|room| !room.is_empty()) {
            for (to, &from) in room.iter_mut().zip(bytes) {
                *to = from;
                pending.filled += 1;
            }
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), FormatError> {
        let Some(mut entry) = self.pending.entry.take() else { return Ok(()) };
        if entry.change == SigChange::Signature {
            let complete = self.pending.filled == SIG_HEADER_LEN;
            let header = complete.then(|| SigHeader::parse(&self.pending.head)).flatten();
            match header.and_then(|header| Some((header, header.bounds(self.pending.size)?))) {
                Some((header, bounds)) => {
                    entry.signature = Some(header);
                    entry.bounds = Some(bounds);
                }
                None => {
                    let what = "its data is no librsync signature";
                    self.sink.problem(FormatError::entry(self.pending.offset, entry.path.as_bytes(), what))?;
                }
            }
        }
        self.sink.entry(entry)
    }
}
