//! The member table of a volume: the location of each part of each path in its plaintext.
//!
//! The records are encoded one after the other, each by its difference from the one before, in blocks of some records. So a
//! small member takes some ten bytes. A lookup finds the block by binary search and decodes it.

use std::hash::{BuildHasher, RandomState};

use super::member_parts::{MemberPart, PartGroup};
use super::member_record::{MemberRecord, MemberRecordReader};
use super::table_allowance::TableAllowance;
use dupfs_format::difftar::DiffKind;
use dupfs_format::{ArchivePath, EntryMeta, LastOwnerNames};

/// Consecutive parts of one path, of one kind, with ascending numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberRun {
    /// The position of the run in the table.
    pub index: usize,
    /// The path as this volume spells it. It may be mangled (docs/FORMAT.md section 4.3).
    pub path: ArchivePath,
    /// The meaning of the data: the object itself, a delta, or a deletion.
    pub kind: DiffKind,
    /// True if the object was split into numbered parts.
    pub multivol: bool,
    /// Metadata in the header of the first part.
    pub meta: EntryMeta,
    parts: PartGroup,
    /// True if further records have parts of it.
    is_continued: bool,
}

impl MemberRun {
    /// The first part.
    pub fn first_part(&self) -> MemberPart {
        self.parts.first
    }
}

/// All members of one volume, in stored order.
#[derive(Debug, Default)]
pub struct MemberTable {
    pub(super) records: MemberRecords,
    /// The runs by their paths, if they are not in the order of their paths.
    pub(super) by_path: Option<RunsByPath>,
    pub(super) plain_len: u64,
    /// Its share of the memory for tables, as long as it exists.
    pub(super) _allowance: Option<TableAllowance>,
}

impl MemberTable {
    /// The number of runs.
    pub fn run_count(&self) -> usize {
        self.records.runs as usize
    }

    /// The runs in stored order.
    pub fn runs(&self) -> impl Iterator<Item = MemberRun> + '_ {
        let mut cursor = self.records.cursor(0);
        let mut names = LastOwnerNames::default();
        std::iter::from_fn(move || {
            while cursor.advance() {
                if !cursor.reader.continues() {
                    return cursor.run(&mut names);
                }
            }
            None
        })
    }

    /// The run at `index`.
    pub fn run(&self, index: usize) -> Option<MemberRun> {
        self.records.cursor_at(u32::try_from(index).ok()?)?.run(&mut LastOwnerNames::default())
    }

    /// The last run.
    pub fn last_run(&self) -> Option<MemberRun> {
        self.run(self.run_count().checked_sub(1)?)
    }

    /// The indexes and kinds of the runs of `path`, in stored order.
    pub fn runs_of<'a>(&'a self, path: &'a ArchivePath) -> impl Iterator<Item = (usize, DiffKind)> + 'a {
        let hashed = self.by_path.as_ref().map(|by_path| by_path.candidates(path));
        let mut sorted = hashed.is_none().then(|| self.records.cursor_before(path));
        let mut cursor = self.records.cursor(0);
        let mut candidates = hashed.unwrap_or(&[]).iter();
        std::iter::from_fn(move || {
            if let Some(cursor) = &mut sorted {
                while cursor.advance() {
                    if cursor.reader.path() == path.as_bytes() {
                        if !cursor.reader.continues() {
                            return Some(cursor.position());
                        }
                    } else if ArchivePath::compare_bytes(cursor.reader.path(), path.as_bytes()).is_gt() {
                        break;
                    }
                }
                sorted = None;
            }
            candidates.by_ref().find_map(|&(_, run)| {
                cursor.seek(run)?;
                (cursor.reader.path() == path.as_bytes()).then(|| cursor.position())
            })
        })
    }

    /// The last part of `run`, which is of this table.
    pub fn last_part(&self, run: &MemberRun) -> MemberPart {
        let further = if run.is_continued { self.parts(run).last() } else { None };
        further.unwrap_or_else(|| run.parts.last())
    }

    /// The parts of `run`, which is of this table.
    pub fn parts(&self, run: &MemberRun) -> impl Iterator<Item = MemberPart> + use<'_> {
        let further = run.is_continued.then(|| u32::try_from(run.index).ok()).flatten();
        let further = further.and_then(|index| Some((index, self.records.cursor_at(index)?)));
        let groups = further.into_iter().flat_map(|(index, mut cursor)| {
            std::iter::from_fn(move || {
                (cursor.advance() && cursor.run == Some(index)).then(|| cursor.reader.parts().iter())
            })
        });
        run.parts.iter().chain(groups.flatten())
    }

    /// Part `number` of the run at `index`.
    pub fn part(&self, index: usize, number: u64) -> Option<MemberPart> {
        let index = u32::try_from(index).ok()?;
        let mut cursor = self.records.cursor_at_part(index, number);
        while cursor.advance() && cursor.run <= Some(index) {
            let found = (cursor.run == Some(index)).then(|| cursor.reader.parts().get(number)).flatten();
            if found.is_some() {
                return found;
            }
        }
        None
    }

    /// Length of the volume's plaintext in bytes.
    pub fn plain_len(&self) -> u64 {
        self.plain_len
    }

    /// Approximate size of the table in memory, in bytes.
    pub fn weight(&self) -> u64 {
        let by_path = self.by_path.as_ref().map_or(0, |by_path| size_of_val(by_path.runs.as_slice()) as u64);
        self.records.bytes().saturating_add(by_path).saturating_add(size_of::<Self>() as u64)
    }
}

/// Encoded records of a table.
#[derive(Clone, Debug, Default)]
pub(super) struct MemberRecords {
    /// The bytes in pieces, so that no large piece is moved as the table grows. No block is in two of them.
    pub(super) chunks: Vec<Vec<u8>>,
    pub(super) blocks: Vec<RecordBlock>,
    pub(super) runs: u32,
}

/// A block of records. It begins with one that is independent of those before.
#[derive(Clone, Copy, Debug)]
pub(super) struct RecordBlock {
    pub(super) chunk: u32,
    /// Its start in its chunk.
    pub(super) offset: u32,
    /// The run of its first record.
    pub(super) run: u32,
}

impl MemberRecords {
    /// Bytes of memory.
    pub(super) fn bytes(&self) -> u64 {
        let chunks = self.chunks.iter().fold(0u64, |bytes, chunk| bytes.saturating_add(chunk.capacity() as u64));
        let tables = self.chunks.capacity() * size_of::<Vec<u8>>() + self.blocks.capacity() * size_of::<RecordBlock>();
        chunks.saturating_add(tables as u64)
    }

    /// The bytes of the block at `index`.
    fn block(&self, index: usize) -> Option<&[u8]> {
        let block = self.blocks.get(index)?;
        let next = self.blocks.get(index.saturating_add(1)).filter(|next| next.chunk == block.chunk);
        let chunk = self.chunks.get(block.chunk as usize)?;
        chunk.get(block.offset as usize..next.map_or(chunk.len(), |next| next.offset as usize))
    }

    /// A cursor before the first record of the block at `index`.
    pub(super) fn cursor(&self, index: usize) -> RecordCursor<'_> {
        RecordCursor { records: self, next_block: index, run: None, reader: MemberRecordReader::new(&[]) }
    }

    /// A cursor at the first record of `run`.
    fn cursor_at(&self, run: u32) -> Option<RecordCursor<'_>> {
        let mut cursor = self.cursor(0);
        cursor.seek(run)?;
        Some(cursor)
    }

    /// A cursor before the first record of `path`, in a table that is in the order of paths.
    fn cursor_before(&self, path: &ArchivePath) -> RecordCursor<'_> {
        let is_before = |index: usize| {
            let first = self.block(index).and_then(MemberRecordReader::first_path);
            first.is_some_and(|first| ArchivePath::compare_bytes(first, path.as_bytes()).is_lt())
        };
        self.cursor(partition_point(self.blocks.len(), is_before).saturating_sub(1))
    }

    /// A cursor before the record of `run` that has part `number`, if there is one.
    fn cursor_at_part(&self, run: u32, number: u64) -> RecordCursor<'_> {
        let begins_later = |index: usize| {
            let mut reader = MemberRecordReader::new(self.block(index).unwrap_or(&[]));
            reader.advance().is_some() && reader.continues() && reader.parts().first.number > number
        };
        let is_before = |index: usize| {
            self.blocks.get(index).is_some_and(|block| block.run < run || (block.run == run && !begins_later(index)))
        };
        self.cursor(partition_point(self.blocks.len(), is_before).saturating_sub(1))
    }
}

/// The number of the first indexes below `len` for which `is_before` is true.
fn partition_point(len: usize, is_before: impl Fn(usize) -> bool) -> usize {
    let (mut start, mut end) = (0, len);
    while start < end {
        let middle = start.midpoint(end);
        if is_before(middle) {
            start = middle.saturating_add(1);
        } else {
            end = middle;
        }
    }
    start
}

/// Goes through the records of a table.
#[derive(Clone, Debug)]
pub(super) struct RecordCursor<'a> {
    records: &'a MemberRecords,
    next_block: usize,
    /// The run of the record that was decoded last; `None` before the first one.
    run: Option<u32>,
    pub(super) reader: MemberRecordReader<'a>,
}

impl RecordCursor<'_> {
    /// Decodes the next record. Returns false at the end of the table.
    pub(super) fn advance(&mut self) -> bool {
        if self.reader.advance().is_some() {
            let first = u32::from(!self.reader.continues());
            self.run = self.run.map(|run| run.saturating_add(first));
            return true;
        }
        let Some(block) = self.records.block(self.next_block) else { return false };
        self.run = self.records.blocks.get(self.next_block).map(|block| block.run);
        self.next_block = self.next_block.saturating_add(1);
        self.reader.enter(block);
        self.reader.advance().is_some()
    }

    /// Goes to the first record of `run`; `None` if there is no such run.
    fn seek(&mut self, run: u32) -> Option<()> {
        let next = self.records.blocks.get(self.next_block);
        let is_here = self.run.is_some_and(|at| at < run) && next.is_none_or(|next| next.run > run);
        if !is_here {
            // Its first record is in the last block that begins with an earlier run, or is the first of the next block.
            let first = self.records.blocks.partition_point(|block| block.run < run);
            *self = self.records.cursor(first.saturating_sub(1));
        }
        while self.advance() && self.run <= Some(run) {
            if self.run == Some(run) && !self.reader.continues() {
                return Some(());
            }
        }
        None
    }

    /// Index and kind of the run.
    fn position(&self) -> (usize, DiffKind) {
        (self.run.unwrap_or(0) as usize, self.reader.kind())
    }

    /// The run whose first record was decoded last.
    pub(super) fn run(&self, names: &mut LastOwnerNames) -> Option<MemberRun> {
        let MemberRecord { path, kind, multivol, meta, parts, .. } = self.reader.record(names)?;
        let is_continued = self.reader.next_continues().unwrap_or_else(|| {
            let block = self.records.block(self.next_block);
            block.is_some_and(|block| MemberRecordReader::new(block).next_continues() == Some(true))
        });
        let index = self.run.unwrap_or(0) as usize;
        Some(MemberRun { index, path, kind, multivol, meta, parts, is_continued })
    }
}

/// The runs of a table by hashes of their paths, keyed at random because the writer of a backup chooses the paths.
#[derive(Debug)]
pub(super) struct RunsByPath {
    hasher: RandomState,
    /// Hash and run, sorted.
    runs: Vec<(u32, u32)>,
}

impl RunsByPath {
    /// Bytes of memory for each run.
    pub(super) const RUN_BYTES: u64 = size_of::<(u32, u32)>() as u64;

    /// The runs of `records`.
    pub(super) fn of(records: &MemberRecords) -> Self {
        let mut this = Self { hasher: RandomState::new(), runs: Vec::with_capacity(records.runs as usize) };
        let mut cursor = records.cursor(0);
        while cursor.advance() {
            if let Some(run) = cursor.run.filter(|_| !cursor.reader.continues()) {
                this.runs.push((this.hash(cursor.reader.path()), run));
            }
        }
        this.runs.sort_unstable();
        this
    }

    fn hash(&self, path: &[u8]) -> u32 {
        let [a, b, c, d, ..] = self.hasher.hash_one(path).to_le_bytes();
        u32::from_le_bytes([a, b, c, d])
    }

    /// The runs that may be of `path`, in stored order.
    fn candidates(&self, path: &ArchivePath) -> &[(u32, u32)] {
        let hash = self.hash(path.as_bytes());
        let rest = self.runs.get(self.runs.partition_point(|&(other, _)| other < hash)..).unwrap_or(&[]);
        rest.get(..rest.partition_point(|&(other, _)| other == hash)).unwrap_or(&[])
    }
}
