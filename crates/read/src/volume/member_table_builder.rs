//! Builds a [`MemberTable`] from the headers of a volume.

use super::member_parts::{MemberPart, PartGroup};
use super::member_record::{MemberRecord, MemberRecordWriter};
use super::member_table::{MemberRecords, MemberTable, RecordBlock, RunsByPath};
use super::table_allowance::TableAllowance;
use dupfs_cache::index::encoding::RecordEncoder;
use dupfs_format::difftar::DiffEntryName;
use dupfs_format::{ArchivePath, EntryMeta};

/// Records of a block. A lookup decodes half of them.
const BLOCK_RECORDS: u32 = 16;
/// Bytes from which no further block begins in a piece of memory.
const CHUNK_BYTES: usize = 60 << 10;

/// Builds a [`MemberTable`] from the headers of a volume in stored order.
#[derive(Debug, Default)]
pub(super) struct MemberTableBuilder {
    records: MemberRecords,
    /// Bytes of memory of the chunks before the last one.
    closed_bytes: u64,
    chunk: RecordEncoder,
    writer: MemberRecordWriter,
    block_records: u32,
    /// The record that further parts may extend.
    open: Option<MemberRecord>,
    is_unsorted: bool,
    allowance: Option<TableAllowance>,
}

impl MemberTableBuilder {
    /// Adds a member whose data has `len` bytes at `offset`.
    pub(super) fn push(&mut self, member: &DiffEntryName, meta: &EntryMeta, offset: u64, len: u64) {
        let part = MemberPart { number: member.part.unwrap_or(1), offset, len, mtime: meta.mtime };
        let multivol = member.part.is_some();
        let mut continues = false;
        if let Some(open) = &mut self.open {
            continues = open.multivol
                && multivol
                && open.kind == member.kind
                && open.path == member.path
                && part.number > open.parts.last().number;
            if continues && open.parts.extend(part) {
                return;
            }
            self.is_unsorted |= open.path > member.path;
        }
        let (path, kind, meta) = (member.path.clone(), member.kind, meta.clone());
        let next = MemberRecord { path, kind, multivol, continues, meta, parts: PartGroup::of(part) };
        if let Some(last) = self.open.replace(next) {
            self.write(last);
        }
    }

    fn write(&mut self, record: MemberRecord) {
        self.records.runs = self.records.runs.saturating_add(u32::from(!record.continues));
        if self.block_records == 0 {
            if self.chunk.out.len() >= CHUNK_BYTES {
                self.close_chunk();
            }
            let position = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
            self.records.blocks.push(RecordBlock {
                chunk: position(self.records.chunks.len()),
                offset: position(self.chunk.out.len()),
                run: self.records.runs.saturating_sub(1),
            });
            self.writer.reset();
        }
        self.writer.write(record, &mut self.chunk);
        self.block_records = (self.block_records + 1) % BLOCK_RECORDS;
    }

    fn close_chunk(&mut self) {
        let mut chunk = std::mem::take(&mut self.chunk.out);
        chunk.shrink_to_fit();
        self.closed_bytes = self.closed_bytes.saturating_add(chunk.len() as u64);
        self.records.chunks.push(chunk);
    }

    /// An upper bound of the bytes of memory of the table so far.
    pub(super) fn bytes(&self) -> u64 {
        let by_path = if self.is_unsorted { u64::from(self.records.runs) * RunsByPath::RUN_BYTES } else { 0 };
        // More runs than a table can number take all memory.
        let limit = if self.records.runs == u32::MAX { u64::MAX } else { 0 };
        let blocks = (self.records.blocks.capacity() * size_of::<RecordBlock>()) as u64;
        limit.saturating_add(self.closed_bytes + self.chunk.out.len() as u64 + blocks + by_path)
    }

    /// The share of memory of the table.
    pub(super) fn set_allowance(&mut self, allowance: TableAllowance) {
        self.allowance = Some(allowance);
    }

    /// The path of the member that was added last.
    pub(super) fn newest(&self) -> Option<&ArchivePath> {
        self.open.as_ref().map(|open| &open.path)
    }

    /// The members that were added so far, as the table of a volume of `plain_len` bytes. `None` if they are not in the order of
    /// their paths: then the table is worth its cost only once.
    pub(super) fn so_far(&self, plain_len: u64) -> Option<MemberTable> {
        if self.is_unsorted {
            return None;
        }
        let copy = Self {
            records: self.records.clone(),
            closed_bytes: self.closed_bytes,
            chunk: self.chunk.clone(),
            writer: self.writer.clone(),
            block_records: self.block_records,
            open: self.open.clone(),
            is_unsorted: false,
            allowance: None,
        };
        Some(copy.finish(plain_len))
    }

    /// The table of a volume whose plaintext has `plain_len` bytes.
    pub(super) fn finish(mut self, plain_len: u64) -> MemberTable {
        if let Some(last) = self.open.take() {
            self.write(last);
        }
        self.close_chunk();
        let mut records = self.records;
        records.chunks.shrink_to_fit();
        records.blocks.shrink_to_fit();
        let by_path = self.is_unsorted.then(|| RunsByPath::of(&records));
        MemberTable { records, by_path, plain_len, _allowance: self.allowance }
    }
}

#[cfg(test)]
mod tests {
    use super::super::member_table::MemberRun;
    use super::*;
    use dupfs_format::EntryKind;
    use dupfs_format::difftar::DiffKind;

    fn meta(kind: EntryKind, uid: u32, mtime: i64) -> EntryMeta {
        EntryMeta { kind, mode: 0o640, uid, gid: 5, uname: (*b"user").into(), gname: (*b"group").into(), mtime }
    }

    /// A member as it is pushed.
    type Pushed = (DiffEntryName, EntryMeta, u64, u64);

    fn table_of(pushed: &[Pushed]) -> MemberTable {
        let mut builder = MemberTableBuilder::default();
        pushed.iter().for_each(|(member, meta, offset, len)| builder.push(member, meta, *offset, *len));
        builder.finish(1 << 40)
    }

    /// The runs of `pushed` with their parts, grouped as the definition of a run says.
    fn expected_runs(pushed: &[Pushed]) -> Vec<(DiffEntryName, EntryMeta, Vec<MemberPart>)> {
        let mut runs: Vec<(DiffEntryName, EntryMeta, Vec<MemberPart>)> = Vec::new();
        for (member, meta, offset, len) in pushed {
            let part = MemberPart { number: member.part.unwrap_or(1), offset: *offset, len: *len, mtime: meta.mtime };
            match runs.last_mut() {
                Some((first, _, parts))
                    if first.part.is_some()
                        && member.part.is_some()
                        && (first.kind, &first.path) == (member.kind, &member.path)
                        && parts.last().is_some_and(|last| part.number > last.number) =>
                {
                    parts.push(part);
                }
                _ => runs.push((member.clone(), meta.clone(), vec![part])),
            }
        }
        runs
    }

    fn check(pushed: &[Pushed]) -> MemberTable {
        let (table, expected) = (table_of(pushed), expected_runs(pushed));
        let runs: Vec<MemberRun> = table.runs().collect();
        assert_eq!((runs.len(), table.run_count()), (expected.len(), expected.len()));
        for (index, (run, (member, meta, parts))) in runs.iter().zip(&expected).enumerate() {
            assert_eq!((run.index, &run.path, run.kind), (index, &member.path, member.kind));
            assert_eq!((run.multivol, &run.meta), (member.part.is_some(), meta));
            assert_eq!(table.run(index).as_ref(), Some(run));
            assert_eq!((run.first_part(), Some(&table.last_part(run))), (parts[0], parts.last()));
            assert_eq!(table.parts(run).collect::<Vec<_>>(), *parts);
            for part in parts {
                assert_eq!(table.part(index, part.number), Some(*part));
            }
            let numbers = |number: &u64| parts.iter().all(|part| part.number != *number);
            let none = [0, parts[0].number + 1, parts[parts.len() - 1].number + 1];
            assert!(none.iter().filter(|&number| numbers(number)).all(|&number| table.part(index, number).is_none()));
            let same = expected.iter().enumerate().filter(|(_, (other, ..))| other.path == member.path);
            let same: Vec<_> = same.map(|(index, (other, ..))| (index, other.kind)).collect();
            assert_eq!(table.runs_of(&run.path).collect::<Vec<_>>(), same);
        }
        for other in ["", "0", "d001/f1x", "d005", "zz"] {
            let other = ArchivePath::parse(other.as_bytes()).unwrap();
            if expected.iter().all(|(member, ..)| member.path != other) {
                assert_eq!(table.runs_of(&other).count(), 0, "{other}");
            }
        }
        assert!(table.run(expected.len()).is_none());
        table
    }

    /// Members of all kinds: runs of parts that lie at equal distances and others, over the ends of blocks.
    fn members(count: u64, mut state: u64) -> Vec<Pushed> {
        let mut random = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        let (mut pushed, mut offset) = (Vec::new(), 512);
        for number in 0..count {
            let path = ArchivePath::parse(format!("d{:03}/f{number:06}", number / 50).as_bytes()).unwrap();
            let kind = [DiffKind::Snapshot, DiffKind::Diff, DiffKind::Deleted][usize::try_from(random(3)).unwrap()];
            let object = if random(4) == 0 { EntryKind::Symlink((*b"target").into()) } else { EntryKind::File };
            let meta =
                meta(object, u32::try_from(random(3)).unwrap(), i64::try_from(random(1 << 40)).unwrap() - (1 << 39));
            let mut part = (random(3) == 0).then(|| random(9) + 1);
            let parts = if part.is_some() { random(70) + 1 } else { 1 };
            for _ in 0..parts {
                let len = if random(9) == 0 { random(1 << 30) } else { 65_536 };
                let meta = EntryMeta { mtime: meta.mtime + i64::from(random(40) == 0), ..meta.clone() };
                pushed.push((DiffEntryName { path: path.clone(), kind, part }, meta, offset, len));
                offset += len.next_multiple_of(512) + 512 * (1 + 2 * u64::from(random(20) == 0));
                part = part.map(|number| number + 1 + u64::from(random(30) == 0));
            }
        }
        pushed
    }

    #[test]
    fn a_table_has_the_members_that_were_added() {
        check(&[]);
        for count in [1, 15, 16, 17, 700] {
            let sorted = members(count, count);
            assert!(check(&sorted).by_path.is_none(), "it is in the order of paths");
            // Parts that do not ascend, members twice, and an order that is not that of paths.
            let mut other = [&sorted[..], &sorted[sorted.len() / 2..], &sorted[..1]].concat();
            check(&other);
            other.reverse();
            check(&other);
        }
    }

    #[test]
    fn a_member_takes_few_bytes() {
        let numbered = |number: u64, uid, prefix: &str| {
            let path = ArchivePath::parse(format!("{prefix}{number:07}").as_bytes()).unwrap();
            let member = DiffEntryName { path, kind: DiffKind::Snapshot, part: None };
            (member, meta(EntryKind::File, uid, 1_700_000_000), 512 * (number + 1), 0)
        };
        let weight = |pushed: &[Pushed]| table_of(pushed).weight() / pushed.len() as u64;
        let count = 100_000;
        let plain: Vec<_> = (0..count).map(|number| numbered(number, 0, "d/f")).collect();
        assert!(weight(&plain) <= 10, "{}", weight(&plain));
        let long: Vec<_> = (0..count).map(|number| numbered(number, 0, &"x".repeat(200))).collect();
        assert!(weight(&long) <= 24, "{}", weight(&long));
        let other_owners: Vec<_> =
            (0..count).map(|number| numbered(number, u32::try_from(number).unwrap(), "d/f")).collect();
        assert!(weight(&other_owners) <= 32, "{}", weight(&other_owners));
        let backwards: Vec<_> = plain.iter().rev().cloned().collect();
        assert!(weight(&backwards) <= 22, "{}", weight(&backwards));
        let part = |number| {
            let member = DiffEntryName { part: Some(number), ..plain[0].0.clone() };
            (member, plain[0].1.clone(), 66_048 * number, 65_536)
        };
        let parts: Vec<_> = (1..=count).map(part).collect();
        assert!(table_of(&parts).weight() < 1024, "parts at equal distances take no memory");
    }

    #[test]
    fn the_bytes_of_a_table_are_counted_while_it_is_built() {
        for pushed in [members(3000, 1), members(3000, 2).into_iter().rev().collect()] {
            let mut builder = MemberTableBuilder::default();
            pushed.iter().for_each(|(member, meta, offset, len)| builder.push(member, meta, *offset, *len));
            let counted = builder.bytes();
            let weight = builder.finish(1 << 40).weight();
            assert!(counted + 2048 > weight && counted < 2 * weight, "{counted} of {weight}");
        }
    }
}
