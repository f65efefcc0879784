//! The member table of a volume: the location of each part of each path in its plaintext.

use super::table_allowance::TableAllowance;
use dupfs_format::difftar::{self, DiffKind};
use dupfs_format::{ArchivePath, EntryKind, EntryMeta};

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

/// Bytes of memory of a run besides its parts and the bytes of its strings: the run, its index entry by path, and the
/// overhead of the three or four allocations.
const RUN_BYTES: u64 = size_of::<MemberRun>() as u64 + 4 + 64;

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
    /// Its share of the memory for tables, as long as it exists.
    allowance: Option<TableAllowance>,
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
        let strings = |r: &MemberRun| {
            let meta = &r.meta;
            r.path.as_bytes().len() + meta.uname.len() + meta.gname.len() + target_len(meta)
        };
        let strings: usize = self.runs.iter().map(strings).sum();
        let parts = size_of::<MemberPart>() * self.parts.len();
        (self.runs.len() as u64).saturating_mul(RUN_BYTES).saturating_add((strings + parts) as u64)
    }

    fn run_path(&self, index: u32) -> Option<&ArchivePath> {
        self.runs.get(index as usize).map(|r| &r.path)
    }
}

fn target_len(meta: &EntryMeta) -> usize {
    match &meta.kind {
        EntryKind::Symlink(target) => target.len(),
        _ => 0,
    }
}

/// Builds a [`MemberTable`] from the headers of a volume in stored order.
#[derive(Debug, Default)]
pub(super) struct MemberTableBuilder {
    table: MemberTable,
    bytes: u64,
}

impl MemberTableBuilder {
    /// Adds a member whose data has `len` bytes at `offset`.
    pub(super) fn push(&mut self, member: difftar::DiffEntryName, meta: EntryMeta, offset: u64, len: u64) {
        let number = member.part.unwrap_or(1);
        let first = self.table.parts.len();
        self.bytes = self.bytes.saturating_add(size_of::<MemberPart>() as u64);
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
        let lens = [member.path.as_bytes().len(), meta.uname.len(), meta.gname.len(), target_len(&meta)];
        self.bytes = self.bytes.saturating_add(RUN_BYTES + lens.iter().sum::<usize>() as u64);
        self.table.runs.push(MemberRun { path: member.path, kind: member.kind, multivol, meta, first, count: 1 });
    }

    /// An upper bound of the bytes of memory of the table so far.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The share of memory of the table.
    pub(super) fn set_allowance(&mut self, allowance: TableAllowance) {
        self.table.allowance = Some(allowance);
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
