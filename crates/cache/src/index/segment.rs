//! A segment: a file of records by key, with a table of its records at the end. Opening a segment reads only the table. Each
//! record has its own checksum.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileExt;

use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::framed_file::{HEADER, header};
use super::identity::Identity;

/// The kind of the file in its header.
const SEGMENT: u8 = b's';
/// Length of an entry of the table: key, group, offset, length, checksum.
const ENTRY: usize = 16 + 8 + 8 + 4 + 8;
/// Length of the trailer: offset of the table, number of its entries, checksum of header, table and these two numbers.
const TRAILER: usize = 8 + 4 + 8;
/// Upper bound of the length of a record.
pub(super) const MAX_RECORD: usize = 64 << 20;

/// An entry of the table: the location of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentEntry {
    pub(super) key: Identity,
    /// The group of the record: a record is dropped when its group is not live any more.
    pub(super) group: u64,
    offset: u64,
    len: u32,
    sum: u64,
}

impl SegmentEntry {
    /// Offset of the end of the record, exclusive.
    pub(super) fn end(&self) -> u64 {
        self.offset.saturating_add(self.len.into())
    }
}

/// An open segment.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) name: String,
    file: File,
    /// Ordered by key.
    entries: Vec<SegmentEntry>,
    pub(super) size: u64,
}

impl Segment {
    /// Opens `file` as a segment for `identity`; `None` if it is not one, or is damaged.
    pub(super) fn open(name: String, file: File, identity: Identity) -> Option<Self> {
        let size = file.metadata().ok()?.len();
        let read = |at: u64, len: usize| {
            let mut bytes = vec![0; len];
            file.read_exact_at(&mut bytes, at).ok().map(|()| bytes)
        };
        let entries = decode_table(size, identity, read)?;
        Some(Self { name, file, entries, size })
    }

    /// The entry of `key`.
    pub(super) fn find(&self, key: &Identity) -> Option<SegmentEntry> {
        let at = self.entries.binary_search_by(|entry| entry.key.cmp(key)).ok()?;
        self.entries.get(at).copied()
    }

    /// All entries, ordered by key.
    pub(super) fn entries(&self) -> &[SegmentEntry] {
        &self.entries
    }

    /// Reads the record of `entry`; `None` if it is damaged.
    pub(super) fn read(&self, entry: &SegmentEntry) -> Option<Vec<u8>> {
        let mut record = vec![0; usize::try_from(entry.len).ok()?];
        self.file.read_exact_at(&mut record, entry.offset).ok()?;
        (xxh3_64(&record) == entry.sum).then_some(record)
    }
}

/// Decodes the table of a segment of `size` bytes for `identity`, which `read` reads (offset, length).
pub(super) fn decode_table(
    size: u64,
    identity: Identity,
    read: impl Fn(u64, usize) -> Option<Vec<u8>>,
) -> Option<Vec<SegmentEntry>> {
    let trailer_at = size.checked_sub(TRAILER as u64)?;
    let head = read(0, HEADER)?;
    if head != header(SEGMENT, identity) {
        return None;
    }
    let trailer = read(trailer_at, TRAILER)?;
    let mut fields = FixedFields(&trailer);
    let (table_at, count, sum) = (fields.u64()?, fields.u32()?, fields.u64()?);
    let len = usize::try_from(count).ok()?.checked_mul(ENTRY)?;
    if table_at < HEADER as u64 || table_at.checked_add(len as u64)? != trailer_at {
        return None;
    }
    let table = read(table_at, len)?;
    if checksum(&head, &table, table_at, count) != sum {
        return None;
    }
    let mut entries: Vec<SegmentEntry> = Vec::with_capacity(len / ENTRY);
    for bytes in table.chunks_exact(ENTRY) {
        let mut fields = FixedFields(bytes);
        let key = Identity(fields.take()?);
        let (group, offset, len, sum) = (fields.u64()?, fields.u64()?, fields.u32()?, fields.u64()?);
        let ends = offset.checked_add(len.into())?;
        let sorted = entries.last().is_none_or(|last| last.key < key);
        if offset < HEADER as u64 || ends > table_at || !sorted || len as usize > MAX_RECORD {
            return None;
        }
        entries.push(SegmentEntry { key, group, offset, len, sum });
    }
    Some(entries)
}

/// Writes a segment for `identity` to `file`. `records` yields key, group and record, ordered by key.
///
/// # Errors
/// Any error of the file.
pub(super) fn write(
    file: &File,
    identity: Identity,
    records: impl Iterator<Item = (Identity, u64, Vec<u8>)>,
) -> io::Result<()> {
    let head = header(SEGMENT, identity);
    let mut out = BufWriter::with_capacity(256 << 10, file);
    out.write_all(&head)?;
    let (mut at, mut count, mut table) = (HEADER as u64, 0u32, Vec::new());
    for (key, group, record) in records {
        let Some(len) = u32::try_from(record.len()).ok().filter(|_| record.len() <= MAX_RECORD) else { continue };
        out.write_all(&record)?;
        table.extend_from_slice(&key.0);
        table.extend_from_slice(&group.to_le_bytes());
        table.extend_from_slice(&at.to_le_bytes());
        table.extend_from_slice(&len.to_le_bytes());
        table.extend_from_slice(&xxh3_64(&record).to_le_bytes());
        at = at.saturating_add(len.into());
        count = count.saturating_add(1);
    }
    out.write_all(&table)?;
    out.write_all(&at.to_le_bytes())?;
    out.write_all(&count.to_le_bytes())?;
    out.write_all(&checksum(&head, &table, at, count).to_le_bytes())?;
    out.flush()
}

fn checksum(head: &[u8], table: &[u8], table_at: u64, count: u32) -> u64 {
    let mut hash = Xxh3::new();
    hash.update(head);
    hash.update(table);
    hash.update(&table_at.to_le_bytes());
    hash.update(&count.to_le_bytes());
    hash.digest()
}

/// Decodes fields of a fixed length, one after the other.
struct FixedFields<'a>(&'a [u8]);

impl FixedFields<'_> {
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
