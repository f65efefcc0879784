//! The member table of a volume: the location of each part of each path in its plaintext.

use dupfs_format::difftar::{self, DiffKind};
use dupfs_format::{ArchivePath, EntryMeta};

/// One stored part: a whole object, or one of the parts that a file was split into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemberPart {
    /// Number from 1; 1 for whole objects.
    pub number: u64,
    /// Offset of its data in the volume's plaintext.
    pub offset: u64,
    /// Length of its data.
    pub len: u64,
    /// Modification time in its header. The parts of one file have the same, unless an interrupted backup was resumed.
    pub mtime: i64,
}

/// Consecutive parts of one path, of one kind, with ascending numbers.
#[derive(Debug)]
pub struct MemberRun {
    /// The path as this volume spells it. It may be mangled (docs/FORMAT.md section 4.3).
    pub path: ArchivePath,
    /// The meaning of the data: the object itself, a delta, or a deletion.
    pub kind: DiffKind,
    /// True if the object was split into numbered parts.
    pub multivol: bool,
    /// Metadata in the header of the first part.
    pub meta: EntryMeta,
    first: usize,
    count: usize,
}

/// All members of one volume, in stored order.
#[derive(Debug, Default)]
pub struct MemberTable {
    runs: Vec<MemberRun>,
    parts: Vec<MemberPart>,
    /// Indexes of `runs`, by path and then stored order.
    by_path: Vec<u32>,
    plain_len: u64,
}

impl MemberTable {
    /// The runs in stored order.
    pub fn runs(&self) -> &[MemberRun] {
        &self.runs
    }

    /// The run at `index`.
    pub fn run(&self, index: usize) -> Option<&MemberRun> {
        self.runs.get(index)
    }

    /// The runs of `path` with their indexes, in stored order.
    pub fn runs_of<'a>(&'a self, path: &'a ArchivePath) -> impl Iterator<Item = (usize, &'a MemberRun)> + 'a {
        let start = self.by_path.partition_point(|&i| self.run_path(i).is_some_and(|p| p < path));
        let sorted = self.by_path.get(start..).unwrap_or(&[]);
        let runs = sorted.iter().map(|&i| i as usize).filter_map(|i| Some((i, self.runs.get(i)?)));
        runs.take_while(move |(_, run)| run.path == *path)
    }

    /// The parts of `run`.
    pub fn parts(&self, run: &MemberRun) -> &[MemberPart] {
        self.parts.get(run.first..run.first.saturating_add(run.count)).unwrap_or(&[])
    }

    /// Length of the volume's plaintext in bytes.
    pub fn plain_len(&self) -> u64 {
        self.plain_len
    }

    /// Approximate size of the table in memory, in bytes.
    pub fn weight(&self) -> u64 {
        let paths: usize = self.runs.iter().map(|r| r.path.as_bytes().len().saturating_add(48)).sum();
        let fixed = size_of::<MemberRun>() * self.runs.len()
            + size_of::<MemberPart>() * self.parts.len()
            + 4 * self.by_path.len();
        (paths.saturating_add(fixed)) as u64
    }

    fn run_path(&self, index: u32) -> Option<&ArchivePath> {
        self.runs.get(index as usize).map(|r| &r.path)
    }
}

/// Builds a [`MemberTable`] from the headers of a volume in stored order.
#[derive(Debug, Default)]
pub(super) struct MemberTableBuilder {
    table: MemberTable,
}

impl MemberTableBuilder {
    /// Adds a member whose data has `len` bytes at `offset`.
    pub(super) fn push(&mut self, member: difftar::DiffEntryName, meta: EntryMeta, offset: u64, len: u64) {
        let number = member.part.unwrap_or(1);
        let first = self.table.parts.len();
        self.table.parts.push(MemberPart { number, offset, len, mtime: meta.mtime });
        let last_number = first.checked_sub(1).and_then(|i| self.table.parts.get(i)).map(|p| p.number);
        if let Some(run) = self.table.runs.last_mut() {
            let continues = run.multivol
                && member.part.is_some()
                && run.kind == member.kind
                && run.path == member.path
                && last_number.is_some_and(|last| number > last);
            if continues {
                run.count += 1;
                return;
            }
        }
        let multivol = member.part.is_some();
        self.table.runs.push(MemberRun { path: member.path, kind: member.kind, multivol, meta, first, count: 1 });
    }

    /// The table of a volume whose plaintext has `plain_len` bytes.
    pub(super) fn finish(mut self, plain_len: u64) -> MemberTable {
        let runs = &self.table.runs;
        // A volume of 2^32 runs does not fit in memory.
        let mut by_path: Vec<u32> = (0..=u32::MAX).take(runs.len()).collect();
        by_path.sort_by(|&a, &b| {
            let path = |i: u32| runs.get(i as usize).map(|r| &r.path);
            path(a).cmp(&path(b)).then(a.cmp(&b))
        });
        self.table.by_path = by_path;
        self.table.plain_len = plain_len;
        self.table.parts.shrink_to_fit();
        self.table
    }
}
