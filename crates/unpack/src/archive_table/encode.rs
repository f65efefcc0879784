//! A table in bytes, for the block cache. Bytes that no table encodes to are refused: a decoded table is a tree.

use std::sync::Arc;

use super::member::{ArchiveEntry, EntryNumber, MemberData, checked_pieces};
use super::names::{NAME, TARGET, string_bytes};
use super::{ArchiveTable, NodeKey};
use crate::stream_decoder::{ByteFields, put_len};
use crate::zip_method::{StatedContent, ZipMethod};
use dupfs_format::{EntryKind, EntryMeta};

/// Upper bound of an encoded table, in bytes.
const MAX_ENCODED: usize = 128 << 20;

impl ArchiveTable {
    /// Encodes the table; `None` if a length in it does not fit 32 bits. The same table always has the same bytes.
    pub(crate) fn encode(&self) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        put_len(&mut out, self.entries.len())?;
        self.entries.iter().try_for_each(|entry| put_entry(&mut out, entry))?;
        for (number, node) in self.nodes.iter().enumerate() {
            if number > 0 {
                out.extend_from_slice(&node.parent.0.to_be_bytes());
                put_bytes(&mut out, &node.name)?;
            }
            out.extend_from_slice(&EntryNumber::encode(node.entry));
        }
        Some(out)
    }

    /// Decodes the table in `bytes`, with the same numbers; `None` unless they are well-formed and within the bounds.
    pub(crate) fn decode(bytes: &[u8], max_members: usize, max_names: usize) -> Option<Self> {
        if bytes.len() > MAX_ENCODED {
            return None;
        }
        let mut fields = ByteFields(bytes);
        let mut this = Self::new(max_members, max_names);
        let count = usize::try_from(fields.u32()?).ok().filter(|&count| count <= max_members)?;
        for _ in 0..count {
            let entry = take_entry(&mut fields)?;
            this.charge(string_bytes(&entry)).ok()?;
            this.push_entry(entry).ok()?;
        }
        let mut node = 0;
        loop {
            if let Some(entry) = EntryNumber::decode(fields.u32()?) {
                if entry.index() >= count {
                    return None;
                }
                this.set_entry(node, entry);
            }
            if fields.0.is_empty() {
                break;
            }
            let (parent, name) = (fields.u32()?, take_bytes(&mut fields)?);
            let is_name = (1..=NAME).contains(&name.len())
                && name != b"."
                && name != b".."
                && !name.iter().any(|b| matches!(b, 0 | b'/'));
            if !is_name || parent as usize >= this.nodes.len() || this.child(NodeKey(parent), name).is_some() {
                return None;
            }
            node = this.add(parent, name).ok()?;
        }
        let parents_are_dirs = this.nodes.iter().all(|node| this.is_dir(node.parent));
        parents_are_dirs.then_some(this)
    }
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) -> Option<()> {
    put_len(out, bytes.len())?;
    out.extend_from_slice(bytes);
    Some(())
}

fn take_bytes<'a>(fields: &mut ByteFields<'a>) -> Option<&'a [u8]> {
    let len = usize::try_from(fields.u32()?).ok()?;
    let (bytes, rest) = fields.0.split_at_checked(len)?;
    fields.0 = rest;
    Some(bytes)
}

fn put_entry(out: &mut Vec<u8>, entry: &ArchiveEntry) -> Option<()> {
    let meta = &entry.meta;
    let devices = |out: &mut Vec<u8>, tag, major: u32, minor: u32| {
        out.push(tag);
        out.extend_from_slice(&major.to_be_bytes());
        out.extend_from_slice(&minor.to_be_bytes());
    };
    match &meta.kind {
        EntryKind::File => out.push(0),
        EntryKind::Dir => out.push(1),
        EntryKind::Fifo => out.push(2),
        EntryKind::Symlink(target) => {
            out.push(3);
            put_bytes(out, target)?;
        }
        EntryKind::CharDevice(major, minor) => devices(out, 4, *major, *minor),
        EntryKind::BlockDevice(major, minor) => devices(out, 5, *major, *minor),
    }
    out.extend_from_slice(&meta.mode.to_be_bytes());
    out.extend_from_slice(&meta.uid.to_be_bytes());
    out.extend_from_slice(&meta.gid.to_be_bytes());
    put_bytes(out, &meta.uname)?;
    put_bytes(out, &meta.gname)?;
    out.extend_from_slice(&meta.mtime.to_be_bytes());
    match &entry.data {
        MemberData::Nothing => out.push(0),
        MemberData::Pieces { size, pieces } => {
            out.push(1);
            out.extend_from_slice(&size.to_be_bytes());
            put_len(out, pieces.len())?;
            for number in pieces.iter().flat_map(|&(start, len, at)| [start, len, at]) {
                out.extend_from_slice(&number.to_be_bytes());
            }
        }
        MemberData::Packed { header, packed, method, stated } => {
            out.push(2);
            out.push(method.number());
            for number in [header, packed, &stated.size] {
                out.extend_from_slice(&number.to_be_bytes());
            }
            out.extend_from_slice(&stated.crc.to_be_bytes());
        }
        MemberData::Refused(reason) => {
            out.push(3);
            put_bytes(out, reason.as_bytes())?;
        }
        MemberData::Damaged(what) => {
            out.push(4);
            put_bytes(out, what.as_bytes())?;
        }
    }
    Some(())
}

fn take_entry(fields: &mut ByteFields<'_>) -> Option<ArchiveEntry> {
    let kind = match fields.u8()? {
        0 => EntryKind::File,
        1 => EntryKind::Dir,
        2 => EntryKind::Fifo,
        3 => EntryKind::Symlink(take_bytes(fields).filter(|target| target.len() <= TARGET)?.into()),
        4 => EntryKind::CharDevice(fields.u32()?, fields.u32()?),
        5 => EntryKind::BlockDevice(fields.u32()?, fields.u32()?),
        _ => return None,
    };
    let mode = fields.array().map(u16::from_be_bytes)?;
    let (uid, gid) = (fields.u32()?, fields.u32()?);
    let (uname, gname) = (take_bytes(fields)?.into(), take_bytes(fields)?.into());
    let mtime = fields.array().map(i64::from_be_bytes)?;
    let data = match fields.u8()? {
        0 => MemberData::Nothing,
        1 => {
            let (size, count) = (fields.u64()?, usize::try_from(fields.u32()?).ok()?);
            let mut pieces = Vec::new();
            for _ in 0..count {
                pieces.push((fields.u64()?, fields.u64()?, fields.u64()?));
            }
            MemberData::Pieces { size, pieces: checked_pieces(pieces, size)? }
        }
        2 => {
            let method = ZipMethod::of_number(fields.u8()?)?;
            let (header, packed, size) = (fields.u64()?, fields.u64()?, fields.u64()?);
            MemberData::Packed { header, packed, method, stated: StatedContent { size, crc: fields.u32()? } }
        }
        3 => MemberData::Refused(Arc::from(std::str::from_utf8(take_bytes(fields)?).ok()?)),
        4 => MemberData::Damaged(Arc::from(std::str::from_utf8(take_bytes(fields)?).ok()?)),
        _ => return None,
    };
    Some(ArchiveEntry { meta: EntryMeta { kind, mode, uid, gid, uname, gname, mtime }, data })
}
