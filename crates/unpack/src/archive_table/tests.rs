//! Members with strings that are crafted to exhaust the memory, and names that no file system accepts.

use std::sync::Arc;

use super::*;
use crate::stream_decoder::put_len;
use crate::zip_method::{StatedContent, ZipMethod};
use dupfs_format::EntryMeta;

fn entry(kind: EntryKind) -> ArchiveEntry {
    let meta =
        EntryMeta { kind, mode: 0o644, uid: 0, gid: 0, uname: b"".as_slice().into(), gname: Arc::default(), mtime: 0 };
    ArchiveEntry { meta, data: MemberData::Nothing }
}

fn file(path: &[u8]) -> ArchiveMember<'_> {
    ArchiveMember { path, entry: entry(EntryKind::File), hard_link: None }
}

fn link(path: &[u8], target: Vec<u8>) -> ArchiveMember<'_> {
    ArchiveMember { path, entry: entry(EntryKind::Symlink(target.into())), hard_link: None }
}

/// Inserts `member` under many names until the table is full. Returns their number.
fn until_full(member: impl Fn(&[u8]) -> ArchiveMember<'_>) -> usize {
    let mut table = ArchiveTable::new(1000, 100_000);
    let taken = (0..1000).take_while(|i| {
        let inserted = table.insert(member(format!("n{i}").as_bytes()));
        assert!(matches!(inserted, Ok(()) | Err(TableFull::Names)));
        inserted.is_ok()
    });
    taken.count()
}

fn owned(name: &[u8]) -> ArchiveMember<'_> {
    let mut member = file(name);
    member.entry.meta.uname = vec![b'u'; 2000].into();
    member.entry.meta.gname = vec![b'g'; 2000].into();
    member
}

fn refused(name: &[u8]) -> ArchiveMember<'_> {
    let mut member = file(name);
    member.entry.data = MemberData::Refused("r".repeat(4000).into());
    member
}

#[test]
fn every_string_of_a_member_counts_against_the_bound() {
    assert_eq!(until_full(file), 1000);
    assert_eq!(until_full(|name| link(name, vec![b'x'; 4000])), 24);
    assert_eq!(until_full(owned), 24);
    assert_eq!(until_full(refused), 24);
}

#[test]
fn strings_count_in_encoded_tables_too() {
    let mut table = ArchiveTable::new(1000, 100_000);
    (0..10).for_each(|i| table.insert(link(format!("n{i}").as_bytes(), vec![b'x'; 4000])).unwrap());
    let encoded = table.encode().unwrap();
    assert!(ArchiveTable::decode(&encoded, 1000, 100_000).is_some());
    assert!(ArchiveTable::decode(&encoded, 1000, 30_000).is_none());
}

#[test]
fn a_link_that_is_too_long_for_any_file_system_is_listed_with_an_error() {
    let mut table = ArchiveTable::new(1000, 100_000);
    table.insert(link(b"d/good", vec![b'x'; 4095])).unwrap();
    table.insert(link(b"d/bad", vec![b'x'; 4096])).unwrap();
    table.insert(link(b"d/worse", vec![b'x'; 1 << 20])).unwrap();
    let find = |name: &[u8]| table.entry(NodeKey(table.find(&[b"d", name]).unwrap())).unwrap();
    assert!(matches!(&find(b"good").meta.kind, EntryKind::Symlink(target) if target.len() == 4095));
    for name in [b"bad".as_slice(), b"worse"] {
        let ArchiveEntry { meta, data: MemberData::Refused(reason) } = find(name) else { panic!("not refused") };
        assert_eq!(meta.kind, EntryKind::File);
        assert!(reason.contains("4095"), "{reason}");
    }
    let again = ArchiveTable::decode(&table.encode().unwrap(), 1000, 100_000).unwrap();
    assert_eq!(again.encode(), table.encode());
}

#[test]
fn the_reason_of_a_lost_hard_link_is_no_longer_than_a_reason() {
    let mut table = ArchiveTable::new(1000, 100_000);
    let target = vec![1; 1 << 20];
    table.insert(ArchiveMember { hard_link: Some(&target), ..file(b"lost") }).unwrap();
    let entry = table.entry(NodeKey(1)).unwrap();
    let MemberData::Refused(reason) = &entry.data else { panic!("not refused") };
    assert!(reason.len() < 2000, "{} bytes", reason.len());
    assert!(reason.contains("a hard link to") && reason.contains("not an earlier member"), "{reason}");
}

#[test]
fn names_that_no_file_system_accepts_are_shortened_and_distinct() {
    let mut table = ArchiveTable::new(1000, 1_000_000);
    let long = |end: &str| format!("{}{end}", "ä".repeat(150)).into_bytes();
    let at = |dir: &str, name: &[u8]| [dir.as_bytes(), b"/", name].concat();
    for end in ["1", "2", ".tar.gz"] {
        table.insert(file(&at("d", &long(end)))).unwrap();
    }
    table.insert(file(&at("d", &[b'f'; 255]))).unwrap();
    table.insert(file(&at("d", &vec![b'g'; 100_000]))).unwrap();
    table.insert(file(&[&long("dir")[..], b"/x"].concat())).unwrap();
    table.insert(file(&[&long("dir")[..], b"/y"].concat())).unwrap();
    let names: Vec<&[u8]> = (1..table.len()).map(|n| &*table.nodes[n].name).collect();
    assert_eq!(names.len(), 9, "a name twice");
    assert!(names.iter().all(|name| name.len() <= 255));
    for (n, name) in names.iter().enumerate() {
        assert_eq!(names.iter().filter(|other| other == &name).count(), 1);
        assert!(table.child(table.nodes[n + 1].parent, name).is_some());
        assert!(std::str::from_utf8(name).is_ok(), "cut within a letter");
    }
    assert_eq!(names[4], [b'f'; 255]);
    // The suffix is unchanged.
    assert!(names[3].ends_with(b".tar.gz") && names[3].starts_with("ä".as_bytes()));
    // The long name of a member replaces this one.
    let target = at("d", &long("1"));
    table.insert(ArchiveMember { hard_link: Some(&target), ..file(b"hard") }).unwrap();
    assert_eq!(table.entry(NodeKey(10)), table.entry(NodeKey(2)));
    assert!(matches!(table.entry(NodeKey(10)).unwrap().data, MemberData::Nothing));
    table.insert(file(&at("d", &long("1")))).unwrap();
    assert_eq!(table.len(), 11, "a later member replaces the earlier one");
    assert_eq!(table.shortened(), 5);
    let again = ArchiveTable::decode(&table.encode().unwrap(), 1000, 1_000_000).unwrap();
    assert_eq!(again.encode(), table.encode());
}

#[test]
fn a_suffix_makes_no_name_too_long() {
    let mut table = ArchiveTable::new(1000, 1_000_000);
    let name = [b'n'; 255];
    table.insert(file(&[&name[..], b"/below"].concat())).unwrap();
    table.insert(file(&name)).unwrap();
    table.insert(link(b"l", b"/out".to_vec())).unwrap();
    table.insert(file(b"l/x")).unwrap();
    let names: Vec<&[u8]> = (1..table.len()).map(|n| &*table.nodes[n].name).collect();
    assert_eq!(names.len(), 6);
    assert!(names[2].len() <= 255 && names[2] != name);
    assert_eq!(names[4], b"l~1");
}

#[test]
fn encoded_tables_with_names_that_no_file_system_accepts_are_refused() {
    let mut table = ArchiveTable::new(1000, 100_000);
    table.insert(file(b"name")).unwrap();
    let encoded = table.encode().unwrap();
    let at = encoded.windows(4).position(|w| w == b"name").unwrap();
    let with = |len: usize| {
        let len_at = at - 4;
        let len_bytes = u32::try_from(len).unwrap().to_be_bytes();
        [&encoded[..len_at], &len_bytes, &vec![b'x'; len], &encoded[at + 4..]].concat()
    };
    assert!(ArchiveTable::decode(&with(255), 1000, 100_000).is_some());
    assert!(ArchiveTable::decode(&with(256), 1000, 100_000).is_none());
}

/// The spill file contains these bytes.
#[test]
fn the_bytes_of_an_archive_table_are_stable() {
    let mut table = ArchiveTable::new(1000, 100_000);
    let with = |path, kind, data| {
        let mut member = file(path);
        member.entry.meta =
            EntryMeta { uid: 0x0102, gid: 3, uname: b"us".as_slice().into(), mtime: -2, ..entry(kind).meta };
        member.entry.data = data;
        member
    };
    let pieces = MemberData::Pieces { size: 0x0900, pieces: Box::new([(1, 2, 0x0304)]) };
    let stated = StatedContent { size: 0x0506, crc: 0x0708_090a };
    let zipped = MemberData::Packed { header: 0x0b, packed: 0x0c, method: ZipMethod::Deflate, stated };
    for member in [
        with(b"d/ab", EntryKind::File, pieces),
        with(b"z", EntryKind::File, zipped),
        link(b"l", b"to".to_vec()),
        with(b"dev", EntryKind::CharDevice(1, 3), MemberData::Nothing),
        with(b"r", EntryKind::File, MemberData::Refused("why".into())),
        with(b"x", EntryKind::File, MemberData::Damaged("how".into())),
    ] {
        table.insert(member).unwrap();
    }
    let meta = b"\x01\xa4\0\0\x01\x02\0\0\0\x03\0\0\0\x02us\0\0\0\0\xff\xff\xff\xff\xff\xff\xff\xfe";
    let number = |n: u16| u64::from(n).to_be_bytes();
    let expected: &[&[u8]] = &[
        &[0, 0, 0, 6],
        &[b"\0", &meta[..], b"\x01", &number(0x0900), b"\0\0\0\x01", &number(1), &number(2), &number(0x0304)].concat(),
        &[b"\0", &meta[..], b"\x02\x01", &number(0x0b), &number(0x0c), &number(0x0506), b"\x07\x08\x09\x0a"].concat(),
        &[&b"\x03\0\0\0\x02to\x01\xa4"[..], &[0; 24], b"\0"].concat(),
        &[b"\x04\0\0\0\x01\0\0\0\x03", &meta[..], b"\0"].concat(),
        &[b"\0", &meta[..], b"\x03\0\0\0\x03why"].concat(),
        &[b"\0", &meta[..], b"\x04\0\0\0\x03how"].concat(),
        // The entry of the root, and the parent, name and entry of each other node.
        b"\xff\xff\xff\xff",
        b"\0\0\0\0\0\0\0\x01d\xff\xff\xff\xff",
        b"\0\0\0\x01\0\0\0\x02ab\0\0\0\0",
        b"\0\0\0\0\0\0\0\x01z\0\0\0\x01",
        b"\0\0\0\0\0\0\0\x01l\0\0\0\x02",
        b"\0\0\0\0\0\0\0\x03dev\0\0\0\x03",
        b"\0\0\0\0\0\0\0\x01r\0\0\0\x04",
        b"\0\0\0\0\0\0\0\x01x\0\0\0\x05",
    ];
    assert_eq!(table.encode(), Some(expected.concat()));
}

#[test]
fn a_length_that_does_not_fit_is_not_stored() {
    let mut out = Vec::new();
    assert_eq!(put_len(&mut out, u32::MAX as usize), Some(()));
    assert_eq!(put_len(&mut out, u32::MAX as usize + 1), None);
    assert_eq!(out, [0xff; 4]);
}
