//! The encoding of a [`MemberTable`] in the index. Decoding accepts any bytes and returns `None` for those that encode no table.

use std::collections::HashMap;
use std::sync::Arc;

use super::member_record::{kind_of, kind_tag};
use super::member_table::{MemberRun, MemberTable};
use super::member_table_builder::MemberTableBuilder;
use crate::meta_encoding::{
    OwnerFields, decode_attributes, decode_owner, decode_path, encode_attributes, encode_owner,
};
use dupfs_cache::index::encoding::{RecordDecoder, RecordEncoder};
use dupfs_format::ArchivePath;
use dupfs_format::difftar::DiffEntryName;

impl MemberTable {
    /// Encodes the table.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut encoder = RecordEncoder::default();
        let mut owners: HashMap<OwnerFields, u64> = HashMap::new();
        let mut last = ArchivePath::root();
        let mut at = 0;
        encoder.number(self.plain_len());
        encoder.number(self.run_count() as u64);
        for run in self.runs() {
            encoder.text_after(last.as_bytes(), run.path.as_bytes());
            encoder.byte(kind_tag(run.kind) << 1 | u8::from(run.multivol));
            let meta = &run.meta;
            let owner = (meta.uid, meta.gid, Arc::clone(&meta.uname), Arc::clone(&meta.gname));
            let fresh = owners.len() as u64;
            let number = *owners.entry(owner).or_insert(fresh);
            encoder.number(number);
            if number == fresh {
                encode_owner(&mut encoder, meta);
            }
            encode_attributes(&mut encoder, meta);
            self.write_parts(&run, &mut at, &mut encoder);
            last = run.path;
        }
        encoder.out
    }

    fn write_parts(&self, run: &MemberRun, at: &mut u64, encoder: &mut RecordEncoder) {
        encoder.number(self.parts(run).count() as u64);
        let mut number = 0;
        for part in self.parts(run) {
            encoder.number(part.number.saturating_sub(number));
            encoder.number(part.offset.saturating_sub(*at));
            encoder.number(part.len);
            encoder.signed(part.mtime.wrapping_sub(run.meta.mtime));
            number = part.number;
            *at = part.offset.saturating_add(part.len);
        }
    }

    /// Decodes a table that [`Self::encode`] returned; `None` for other bytes.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut decoder = RecordDecoder::new(bytes);
        let mut builder = MemberTableBuilder::default();
        let (mut owners, mut path, mut at): (Vec<OwnerFields>, _, _) = (Vec::new(), Vec::new(), 0u64);
        let plain_len = decoder.number()?;
        let runs = decoder.count()?;
        for _ in 0..runs {
            decoder.text_after(&mut path)?;
            let path = decode_path(&path)?;
            let tag = decoder.byte()?;
            let (kind, multivol) = (kind_of(tag >> 1)?, tag & 1 == 1);
            let number = usize::try_from(decoder.number()?).ok()?;
            if number == owners.len() {
                owners.push(decode_owner(&mut decoder)?);
            }
            let mut meta = decode_attributes(&mut decoder, owners.get(number)?.clone())?;
            let (parts, mtime, mut last) = (decoder.count()?, meta.mtime, 0u64);
            if parts == 0 || (!multivol && parts != 1) {
                return None;
            }
            let mut member = DiffEntryName { path, kind, part: None };
            for _ in 0..parts {
                let number = last.checked_add(decoder.number()?)?;
                let offset = at.checked_add(decoder.number()?)?;
                let len = decoder.number()?;
                at = offset.checked_add(len).filter(|&end| end <= plain_len)?;
                meta.mtime = mtime.wrapping_add(decoder.signed()?);
                member.part = multivol.then_some(number);
                builder.push(&member, &meta, offset, len);
                last = number;
            }
        }
        let table = builder.finish(plain_len);
        (decoder.is_at_end() && table.run_count() == runs).then_some(table)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dupfs_format::difftar::DiffKind;
    use dupfs_format::{EntryKind, EntryMeta};

    fn sample() -> MemberTable {
        let mut builder = MemberTableBuilder::default();
        let meta = |uid, mtime| EntryMeta {
            kind: EntryKind::File,
            mode: 0o600,
            uid,
            gid: 5,
            uname: (*b"u").into(),
            gname: Default::default(),
            mtime,
        };
        let mut at = 512;
        let mut push = |path: &str, kind, part, uid, mtime, len| {
            let path = ArchivePath::parse(path.as_bytes()).unwrap();
            builder.push(&DiffEntryName { path, kind, part }, &meta(uid, mtime), at, len);
            at += len.next_multiple_of(512) + 512;
        };
        push("", DiffKind::Snapshot, None, 0, -1, 0);
        push("a/b", DiffKind::Diff, None, 0, 7, 100);
        for part in 3..7 {
            push("a/big", DiffKind::Snapshot, Some(part), 1, 8, 65_536);
        }
        push("a/big", DiffKind::Snapshot, Some(7), 1, 9, 10);
        push("a/gone", DiffKind::Deleted, None, 0, 0, 0);
        push("a/b", DiffKind::Snapshot, None, 0, 7, 3);
        builder.finish(1 << 20)
    }

    #[test]
    fn a_table_is_decoded_as_it_was_encoded() {
        let members = |table: &MemberTable| -> Vec<_> {
            table.runs().map(|run| (run.clone(), table.parts(&run).collect::<Vec<_>>())).collect()
        };
        let table = sample();
        let decoded = MemberTable::decode(&table.encode()).unwrap();
        assert_eq!((members(&decoded), decoded.plain_len()), (members(&table), table.plain_len()));
        assert_eq!(members(&table).len(), 5);
    }

    /// The index contains these bytes: for another encoding, raise VERSION in crates/cache/src/index/framed_file.rs.
    #[test]
    fn the_bytes_of_a_table_are_stable() {
        let part = b"\x01\x80\x04\x80\x80\x04\x00";
        let expected: &[&[u8]] = &[
            b"\x80\x80\x40\x05",
            b"\x00\x00\x00\x00\x00\x05\x01u\x00\x80\x03\x01\x00\x01\x01\x80\x04\x00\x00",
            b"\x00\x03a/b\x02\x00\x80\x03\x0e\x00\x01\x01\x80\x04\x64\x00",
            b"\x03\x02ig\x01\x01\x01\x05\x01u\x00\x80\x03\x10\x00\x05",
            &[b"\x03\x9c\x07\x80\x80\x04\x00", &part[..], part, part, b"\x01\x80\x04\x0a\x02"].concat(),
            b"\x02\x04gone\x04\x00\x80\x03\x00\x00\x01\x01\xf6\x07\x00\x00",
            b"\x02\x01b\x00\x00\x80\x03\x0e\x00\x01\x01\x80\x04\x03\x00",
        ];
        assert_eq!(sample().encode(), expected.concat());
    }

    #[test]
    fn bytes_that_encode_no_table_are_refused() {
        let whole = sample().encode();
        for len in 0..whole.len() {
            assert!(MemberTable::decode(&whole[..len]).is_none(), "cut to {len} bytes");
        }
        for at in 0..whole.len() {
            for bit in 0..8 {
                let mut flipped = whole.clone();
                flipped[at] ^= 1 << bit;
                crate::volume::fuzz_members(&flipped);
                if let Some(table) = MemberTable::decode(&flipped) {
                    let sound = |run| table.parts(&run).all(|p| p.offset + p.len <= table.plain_len());
                    assert!(table.runs().all(sound), "byte {at}, bit {bit}");
                }
            }
        }
    }
}
