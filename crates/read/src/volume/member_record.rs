//! The encoding of a member table in memory: each record has what differs from the record before it.
//!
//! Only this process reads the bytes, and only as it wrote them: they may change at any time. The index has an encoding of its
//! own.

use super::member_parts::{MemberPart, PartGroup};
use crate::meta_encoding::{decode_kind, encode_kind, encode_owner};
use dupfs_cache::index::encoding::{RecordDecoder, RecordEncoder};
use dupfs_format::difftar::DiffKind;
use dupfs_format::{ArchivePath, EntryKind, EntryMeta, LastOwnerNames};

/// Bits of the first byte of a record: the kind of change, and the fields that follow.
const KIND: u8 = 0b11;
/// The object was split into parts.
const MULTIVOL: u8 = 1 << 2;
/// The record has further parts of the run before it.
const CONTINUES: u8 = 1 << 3;
/// Mode and type follow.
const ATTRIBUTES: u8 = 1 << 4;
/// The owner follows.
const OWNER: u8 = 1 << 5;
/// The data is not directly behind that of the record before, with one header between.
const OFFSET: u8 = 1 << 6;
/// Number, count and distance of the parts follow.
const PARTS: u8 = 1 << 7;

/// Bytes of a block of a tar archive.
const TAR_BLOCK: u64 = 512;

/// The number of `kind` in encodings.
pub(super) fn kind_tag(kind: DiffKind) -> u8 {
    match kind {
        DiffKind::Snapshot => 0,
        DiffKind::Diff => 1,
        DiffKind::Deleted => 2,
    }
}

/// The kind with the number `tag`.
pub(super) fn kind_of(tag: u8) -> Option<DiffKind> {
    [DiffKind::Snapshot, DiffKind::Diff, DiffKind::Deleted].get(usize::from(tag)).copied()
}

/// A group of parts of one object, as it is encoded.
#[derive(Clone, Debug)]
pub(super) struct MemberRecord {
    pub(super) path: ArchivePath,
    pub(super) kind: DiffKind,
    pub(super) multivol: bool,
    /// True if it belongs to the run of the record before.
    pub(super) continues: bool,
    pub(super) meta: EntryMeta,
    pub(super) parts: PartGroup,
}

/// The data of a record is expected here: behind that of the record before, and a header.
fn expected_offset(end: u64) -> u64 {
    end.checked_next_multiple_of(TAR_BLOCK).map_or(u64::MAX, |start| start.saturating_add(TAR_BLOCK))
}

fn end_of(parts: &PartGroup) -> u64 {
    let last = parts.last();
    last.offset.saturating_add(last.len)
}

/// Encodes records, each after the one before.
#[derive(Clone, Debug, Default)]
pub(super) struct MemberRecordWriter {
    last: Option<MemberRecord>,
}

impl MemberRecordWriter {
    /// Makes the next record independent of those before it.
    pub(super) fn reset(&mut self) {
        self.last = None;
    }

    /// Appends `record`.
    pub(super) fn write(&mut self, record: MemberRecord, encoder: &mut RecordEncoder) {
        let MemberRecord { path, kind, multivol, continues, meta, parts } = &record;
        let last = self.last.as_ref();
        let same_owner = last.is_some_and(|MemberRecord { meta: last, .. }| {
            (last.uid, last.gid) == (meta.uid, meta.gid) && last.uname == meta.uname && last.gname == meta.gname
        });
        let same_attributes = last.is_some_and(|last| last.meta.mode == meta.mode && last.meta.kind == meta.kind);
        let expected = expected_offset(last.map_or(0, |last| end_of(&last.parts)));
        let has_offset = parts.first.offset != expected;
        let has_parts = (parts.first.number, parts.count) != (1, 1);
        let flags = [
            (*multivol, MULTIVOL),
            (*continues, CONTINUES),
            (!same_attributes, ATTRIBUTES),
            (!same_owner, OWNER),
            (has_offset, OFFSET),
            (has_parts, PARTS),
        ];
        encoder.byte(flags.iter().filter(|(set, _)| *set).fold(kind_tag(*kind), |tag, (_, flag)| tag | flag));
        encoder.text_after(last.map_or(&[], |last| last.path.as_bytes()), path.as_bytes());
        if !same_owner {
            encode_owner(encoder, meta);
        }
        if !same_attributes {
            encoder.number(meta.mode.into());
            encode_kind(encoder, &meta.kind);
        }
        encoder.signed(parts.first.mtime.wrapping_sub(last.map_or(0, |last| last.parts.first.mtime)));
        if has_offset {
            encoder.number(parts.first.offset);
        }
        if has_parts {
            encoder.number(parts.first.number);
            encoder.number(parts.count);
            encoder.number(parts.distance);
        }
        encoder.number(parts.first.len);
        self.last = Some(record);
    }
}

/// Decodes records one after the other. It has the fields of the last one.
#[derive(Clone, Debug)]
pub(super) struct MemberRecordReader<'a> {
    decoder: RecordDecoder<'a>,
    tag: u8,
    path: Vec<u8>,
    kind: DiffKind,
    owner: (u32, u32),
    names: (&'a [u8], &'a [u8]),
    mode: u16,
    object: EntryKind,
    parts: PartGroup,
}

impl<'a> MemberRecordReader<'a> {
    /// Before the first record of `block`, which is independent of others.
    pub(super) fn new(block: &'a [u8]) -> Self {
        Self {
            decoder: RecordDecoder::new(block),
            tag: 0,
            path: Vec::new(),
            kind: DiffKind::Snapshot,
            owner: (0, 0),
            names: (&[], &[]),
            mode: 0,
            object: EntryKind::File,
            parts: PartGroup::default(),
        }
    }

    /// Continues with the first record of `block`, which is independent of others.
    pub(super) fn enter(&mut self, block: &'a [u8]) {
        let mut path = std::mem::take(&mut self.path);
        path.clear();
        *self = Self { path, ..Self::new(block) };
    }

    /// The path of the first record of `block`.
    pub(super) fn first_path(block: &'a [u8]) -> Option<&'a [u8]> {
        let mut decoder = RecordDecoder::new(block);
        decoder.byte()?;
        decoder.number()?;
        decoder.bytes()
    }

    /// Decodes the next record; `None` at the end of the block.
    pub(super) fn advance(&mut self) -> Option<()> {
        let decoder = &mut self.decoder;
        self.tag = decoder.byte()?;
        self.kind = kind_of(self.tag & KIND)?;
        decoder.text_after(&mut self.path)?;
        if self.tag & OWNER != 0 {
            self.owner = (decoder.number_u32()?, decoder.number_u32()?);
            self.names = (decoder.bytes()?, decoder.bytes()?);
        }
        if self.tag & ATTRIBUTES != 0 {
            self.mode = u16::try_from(decoder.number()?).ok()?;
            self.object = decode_kind(decoder)?;
        }
        let mtime = self.parts.first.mtime.wrapping_add(decoder.signed()?);
        let offset = if self.tag & OFFSET == 0 { expected_offset(end_of(&self.parts)) } else { decoder.number()? };
        let (number, count, distance) =
            if self.tag & PARTS == 0 { (1, 1, 0) } else { (decoder.number()?, decoder.number()?, decoder.number()?) };
        let len = decoder.number()?;
        self.parts = PartGroup { first: MemberPart { number, offset, len, mtime }, count, distance };
        Some(())
    }

    /// Returns true if the next record of the block has further parts of the run of the last one; `None` at the end of the
    /// block.
    pub(super) fn next_continues(&self) -> Option<bool> {
        self.decoder.clone().byte().map(|tag| tag & CONTINUES != 0)
    }

    /// Returns true if the record has further parts of the run of the one before.
    pub(super) fn continues(&self) -> bool {
        self.tag & CONTINUES != 0
    }

    /// The path.
    pub(super) fn path(&self) -> &[u8] {
        &self.path
    }

    /// The kind of change.
    pub(super) fn kind(&self) -> DiffKind {
        self.kind
    }

    /// The parts.
    pub(super) fn parts(&self) -> PartGroup {
        self.parts
    }

    /// The record, with names of owners shared by `names`.
    pub(super) fn record(&self, names: &mut LastOwnerNames) -> Option<MemberRecord> {
        let (uname, gname) = names.share(self.names.0, self.names.1);
        let (uid, gid) = self.owner;
        let meta = EntryMeta {
            kind: self.object.clone(),
            mode: self.mode,
            uid,
            gid,
            uname,
            gname,
            mtime: self.parts.first.mtime,
        };
        Some(MemberRecord {
            path: ArchivePath::parse(&self.path).ok()?,
            kind: self.kind,
            multivol: self.tag & MULTIVOL != 0,
            continues: self.continues(),
            meta,
            parts: self.parts,
        })
    }
}
