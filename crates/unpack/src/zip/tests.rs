//! Zip archives field by field, as no program writes them.

use super::*;
use crate::decode_workers::DecodeWorkers;
use crate::test_support::UNLIMITED;

/// A zip archive of members that are stored: name, mode, flags, content.
fn zip(members: &[(&str, u32, u16, &[u8])]) -> Vec<u8> {
    let (mut out, mut directory) = (Vec::new(), Vec::new());
    for &(name, mode, flags, content) in members {
        let size = u32::try_from(content.len()).unwrap();
        let mut common = Vec::new();
        for field in [20, flags, 0, 0, 0x21] {
            common.extend_from_slice(&field.to_le_bytes());
        }
        for field in [crc32fast::hash(content), size, size] {
            common.extend_from_slice(&field.to_le_bytes());
        }
        common.extend_from_slice(&u16::try_from(name.len()).unwrap().to_le_bytes());
        common.extend_from_slice(&[0; 2]);
        directory.extend_from_slice(b"PK\x01\x02\x14\x03");
        directory.extend_from_slice(&common);
        directory.extend_from_slice(&[0; 6]);
        directory.extend_from_slice(&(mode << 16).to_le_bytes());
        directory.extend_from_slice(&u32::try_from(out.len()).unwrap().to_le_bytes());
        directory.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"PK\x03\x04");
        out.extend_from_slice(&common);
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(content);
    }
    let (count, at) = (u16::try_from(members.len()).unwrap(), u32::try_from(out.len()).unwrap());
    out.extend_from_slice(&directory);
    out.extend_from_slice(b"PK\x05\x06\0\0\0\0");
    out.extend_from_slice(&[count.to_le_bytes(), count.to_le_bytes()].concat());
    out.extend_from_slice(&u32::try_from(directory.len()).unwrap().to_le_bytes());
    out.extend_from_slice(&at.to_le_bytes());
    out.extend_from_slice(&[0; 2]);
    out
}

#[test]
fn impossible_links_are_files_that_report_it_and_hide_no_later_member() {
    let long = vec![b'x'; 5000];
    let bytes = zip(&[
        ("good", 0o120_777, 0, b"target"),
        ("long", 0o120_777, 0, &long),
        ("edge", 0o120_777, 0, &long[..4096]),
        ("locked", 0o120_777, 1, b"whatever"),
        ("behind", 0o100_644, 0, b"text"),
    ]);
    let mut added = Vec::new();
    let source = super::super::MemorySource::new("a.zip", bytes);
    let mut table = super::super::ArchiveTable::new(100, 100_000);
    let mut add = |member: ArchiveMember<'_>| {
        added.push(String::from_utf8_lossy(member.path).into_owned());
        table.insert(member).map_err(|_| UnpackError::limit(&source.name(), "full"))
    };
    let workers = std::sync::Arc::new(DecodeWorkers::new());
    let context = DecodeContext::new(&workers, 0, &UNLIMITED);
    ZipScan::new().advance(&source, (&UnpackLimits::default(), None), &mut add, &context).unwrap();
    assert_eq!(added, ["good", "long", "edge", "locked", "behind"]);
    let entry = |name: &str| table.entry(table.child(super::super::NodeKey::ROOT, name.as_bytes()).unwrap()).unwrap();
    assert_eq!(entry("good").meta.kind, EntryKind::Symlink(b"target".as_slice().into()));
    for (name, expected) in [("long", "5000"), ("edge", "4096"), ("locked", "encrypted")] {
        let ArchiveEntry { meta, data: MemberData::Refused(reason) } = entry(name) else {
            panic!("{name} is not refused")
        };
        assert_eq!(meta.kind, EntryKind::File);
        assert!(reason.contains(expected), "{name}: {reason}");
    }
    assert_eq!(entry("behind").data.size(), 4);
}
