//! A segment: records by key, their directory at the end. Only the directory is read when a segment is opened; each record
//! has a checksum of its own.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileExt;

use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::file::{HEADER, header};
use super::identity::Identity;

/// The kind of file.
const SEGMENT: u8 = b's';
/// Key, group, offset, length, checksum.
const ENTRY: usize = 16 + 8 + 8 + 4 + 8;
/// Offset of the directory, number of its entries, checksum of header, directory and these.
const TRAILER: usize = 8 + 4 + 8;
/// Records are small; what is larger is not one.
pub(super) const MOST_RECORD: usize = 64 << 20;

/// Where a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) key: Identity,
    /// What it goes with: it is kept as long as that is.
    pub(super) group: u64,
    offset: u64,
    len: u32,
    sum: u64,
}

impl Entry {
    /// Where the record ends.
    pub(super) fn end(&self) -> u64 {
        self.offset.saturating_add(self.len.into())
    }
}

/// An open segment.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) name: String,
    file: File,
    /// In the order of their keys.
    entries: Vec<Entry>,
    pub(super) size: u64,
}

impl Segment {
    /// Opens `file` as a segment about `identity`; `None` if it is none, whole and unchanged.
    pub(super) fn open(name: String, file: File, identity: Identity) -> Option<Self> {
        let size = file.metadata().ok()?.len();
        let read = |at: u64, len: usize| {
            let mut bytes = vec![0; len];
            file.read_exact_at(&mut bytes, at).ok().map(|()| bytes)
        };
        let entries = parse_directory(size, identity, read)?;
        Some(Self { name, file, entries, size })
    }

    /// The entry of `key`.
    pub(super) fn find(&self, key: &Identity) -> Option<Entry> {
        let at = self.entries.binary_search_by(|entry| entry.key.cmp(key)).ok()?;
        self.entries.get(at).copied()
    }

    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The record of `entry`; `None` if it is not as it was written.
    pub(super) fn read(&self, entry: &Entry) -> Option<Vec<u8>> {
        let mut record = vec![0; usize::try_from(entry.len).ok()?];
        self.file.read_exact_at(&mut record, entry.offset).ok()?;
        (xxh3_64(&record) == entry.sum).then_some(record)
    }
}

/// Reads the directory of a segment of `size` bytes about `identity` through `read` (offset, length).
pub(super) fn parse_directory(
    size: u64,
    identity: Identity,
    read: impl Fn(u64, usize) -> Option<Vec<u8>>,
) -> Option<Vec<Entry>> {
    let trailer_at = size.checked_sub(TRAILER as u64)?;
    let head = read(0, HEADER)?;
    if head != header(SEGMENT, identity) {
        return None;
    }
    let trailer = read(trailer_at, TRAILER)?;
    let mut fields = Fields(&trailer);
    let (directory_at, count, sum) = (fields.u64()?, fields.u32()?, fields.u64()?);
    let len = usize::try_from(count).ok()?.checked_mul(ENTRY)?;
    if directory_at < HEADER as u64 || directory_at.checked_add(len as u64)? != trailer_at {
        return None;
    }
    let directory = read(directory_at, len)?;
    if checksum(&head, &directory, directory_at, count) != sum {
        return None;
    }
    let mut entries: Vec<Entry> = Vec::with_capacity(len / ENTRY);
    for bytes in directory.chunks_exact(ENTRY) {
        let mut fields = Fields(bytes);
        let key = Identity(fields.take()?);
        let (group, offset, len, sum) = (fields.u64()?, fields.u64()?, fields.u32()?, fields.u64()?);
        let ends = offset.checked_add(len.into())?;
        let sorted = entries.last().is_none_or(|last| last.key < key);
        if offset < HEADER as u64 || ends > directory_at || !sorted || len as usize > MOST_RECORD {
            return None;
        }
        entries.push(Entry { key, group, offset, len, sum });
    }
    Some(entries)
}

/// Writes a segment about `identity` of the records that `records` gives in the order of their keys: key, group, record.
///
/// # Errors
/// Of the file.
pub(super) fn write(
    file: &File,
    identity: Identity,
    records: impl Iterator<Item = (Identity, u64, Vec<u8>)>,
) -> io::Result<()> {
    let head = header(SEGMENT, identity);
    let mut out = BufWriter::with_capacity(256 << 10, file);
    out.write_all(&head)?;
    let (mut at, mut count, mut directory) = (HEADER as u64, 0u32, Vec::new());
    for (key, group, record) in records {
        let Some(len) = u32::try_from(record.len()).ok().filter(|_| record.len() <= MOST_RECORD) else { continue };
        out.write_all(&record)?;
        directory.extend_from_slice(&key.0);
        directory.extend_from_slice(&group.to_le_bytes());
        directory.extend_from_slice(&at.to_le_bytes());
        directory.extend_from_slice(&len.to_le_bytes());
        directory.extend_from_slice(&xxh3_64(&record).to_le_bytes());
        at = at.saturating_add(len.into());
        count = count.saturating_add(1);
    }
    out.write_all(&directory)?;
    out.write_all(&at.to_le_bytes())?;
    out.write_all(&count.to_le_bytes())?;
    out.write_all(&checksum(&head, &directory, at, count).to_le_bytes())?;
    out.flush()
}

fn checksum(head: &[u8], directory: &[u8], directory_at: u64, count: u32) -> u64 {
    let mut hash = Xxh3::new();
    hash.update(head);
    hash.update(directory);
    hash.update(&directory_at.to_le_bytes());
    hash.update(&count.to_le_bytes());
    hash.digest()
}

/// Fixed fields, one after the other.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, tail) = self.0.split_first_chunk::<N>()?;
        self.0 = tail;
        Some(*head)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }
}
