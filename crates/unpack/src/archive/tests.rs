use std::io::Write;

use super::*;
use crate::test_support::UNLIMITED;
use crate::{MemoryPointStore, MemorySource, UnpackLimits};
use dupfs_base::{ErrorKind, HasKind};
use dupfs_cache::CacheConfig;
use dupfs_test_tar::{TestHeader, put, put_entry, put_extension};

pub(super) fn unpacker(limits: UnpackLimits) -> Arc<Unpacker> {
    let cache = CacheConfig { memory_bytes: 4 << 20, spill: None };
    Unpacker::new(cache, limits, Arc::new(MemoryPointStore::new(1 << 20)))
}

fn archive(tar: &[u8], limits: UnpackLimits) -> Arc<Archive> {
    Archive::new(&unpacker(limits), Arc::new(MemorySource::new("a.tar", tar)), ArchiveFormat::Tar(None))
}

pub(super) fn find(archive: &Archive, path: &str) -> Result<Option<NodeKey>, UnpackError> {
    archive.find(&UNLIMITED, |table| {
        path.split('/').try_fold(NodeKey::ROOT, |dir, name| table.child(dir, name.as_bytes()))
    })
}

fn read(archive: &Archive, path: &str) -> Vec<u8> {
    let key = find(archive, path).unwrap().unwrap_or_else(|| panic!("no {path}"));
    let (source, entry) = archive.open(key, &UNLIMITED).unwrap();
    let bytes = source.read_at(0, 1 << 20, &UNLIMITED).unwrap();
    archive.confirm_end(key, entry, &UNLIMITED).unwrap();
    bytes
}

fn paths(archive: &Archive) -> Vec<String> {
    archive.wait_for_pass(&UNLIMITED).unwrap();
    archive.with_table(|table| {
        let keys = (1..u32::try_from(table.len()).unwrap()).map(NodeKey);
        let mut all: Vec<String> =
            keys.map(|key| String::from_utf8_lossy(&table.path(key).join(&b'/')).into_owned()).collect();
        all.sort();
        all
    })
}

#[test]
fn members_have_the_paths_of_an_extraction_and_none_is_hidden() {
    let mut tar = Vec::new();
    put_entry(&mut tar, b"./d/", b'5', b"");
    put_entry(&mut tar, b"d/a", b'0', b"first");
    put_entry(&mut tar, b"/abs/b", b'0', b"absolute");
    put_entry(&mut tar, b"../../x/../up", b'0', b"up");
    put_entry(&mut tar, b"d/a", b'0', b"second");
    put(&mut tar, TestHeader::new(b"link", b'2', 0).bytes(157, b"d"), b"");
    put_entry(&mut tar, b"link/through", b'0', b"through a link");
    put(&mut tar, TestHeader::new(b"out", b'2', 0).bytes(157, b"/etc"), b"");
    put_entry(&mut tar, b"out/passwd", b'0', b"not there");
    put_entry(&mut tar, b"d", b'0', b"a file where a directory is");
    put(&mut tar, TestHeader::new(b"hard", b'1', 0).bytes(157, b"./d/a"), b"");
    put(&mut tar, TestHeader::new(b"lost", b'1', 0).bytes(157, b"nowhere"), b"");
    let archive = archive(&tar, UnpackLimits::default());
    let names = paths(&archive);
    let wanted =
        ["abs", "abs/b", "d", "d/a", "d/through", "d~1", "hard", "link", "lost", "out", "out~1", "out~1/passwd", "up"];
    assert_eq!(names, wanted);
    assert_eq!(read(&archive, "d/a"), b"second");
    assert_eq!(read(&archive, "hard"), b"second");
    assert_eq!(read(&archive, "up"), b"up");
    assert_eq!(read(&archive, "out~1/passwd"), b"not there");
    assert_eq!(read(&archive, "d~1"), b"a file where a directory is");
    let lost = archive.open(find(&archive, "lost").unwrap().unwrap(), &UNLIMITED).unwrap_err();
    assert!(lost.to_string().contains("hard link to nowhere"), "{lost}");
    let out = find(&archive, "out").unwrap().unwrap();
    assert_eq!(archive.link_target(out, &UNLIMITED).unwrap().unwrap(), b"etc");
}

#[test]
fn reading_a_member_that_is_replaced_meanwhile_is_an_error() {
    let mut tar = Vec::new();
    put_entry(&mut tar, b"a", b'0', b"old");
    put_entry(&mut tar, b"b", b'0', b"b");
    put_entry(&mut tar, b"a", b'0', b"new");
    let archive = archive(&tar, UnpackLimits::default());
    archive.wait_for_pass(&UNLIMITED).unwrap();
    let key = find(&archive, "a").unwrap().unwrap();
    assert!(matches!(
        archive.confirm_end(key, EntryNumber::new(0).unwrap(), &UNLIMITED),
        Err(UnpackError::Replaced { .. })
    ));
    assert!(archive.confirm_end(key, EntryNumber::new(2).unwrap(), &UNLIMITED).is_ok());
}

#[test]
fn members_before_the_damage_are_served_and_later_ones_are_errors() {
    let mut tar = Vec::new();
    put_entry(&mut tar, b"good", b'0', b"good");
    put_extension(&mut tar, b'L', b"some long name\0");
    tar.extend_from_slice(&[0x55; 512]);
    let archive = archive(&tar, UnpackLimits::default());
    assert!(find(&archive, "good").unwrap().is_some());
    assert_eq!(find(&archive, "other").unwrap_err().kind(), ErrorKind::Corrupt);
    assert!(matches!(archive.wait_for_pass(&UNLIMITED).unwrap(), PassProgress::Failed(_)));
    assert_eq!(read(&archive, "good"), b"good");
    for cut in [100, 512, 1000] {
        let mut one = Vec::new();
        put_entry(&mut one, b"cut", b'0', &[1; 1500]);
        let cut = self::archive(&one[..cut], UnpackLimits::default());
        assert!(matches!(cut.wait_for_pass(&UNLIMITED).unwrap(), PassProgress::Failed(_)));
    }
}

#[test]
fn a_wrong_checksum_of_a_compressed_archive_fails_every_member() {
    let mut tar = Vec::new();
    put_entry(&mut tar, b"a", b'0', b"text");
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(&tar).unwrap();
    let mut packed = encoder.finish().unwrap();
    let crc = packed.len() - 8;
    packed[crc] ^= 1;
    let file = Arc::new(MemorySource::new("a.tgz", packed));
    let archive = Archive::new(&unpacker(UnpackLimits::default()), file, ArchiveFormat::Tar(Some(StreamCodec::Gzip)));
    assert!(matches!(archive.wait_for_pass(&UNLIMITED).unwrap(), PassProgress::Failed(_)));
    let lookup = find(&archive, "a");
    if let Ok(Some(key)) = lookup {
        assert_eq!(
            archive.confirm_end(key, EntryNumber::new(0).unwrap(), &UNLIMITED).unwrap_err().kind(),
            ErrorKind::Corrupt
        );
    }
}

/// A sparse member in PAX form 1.0 whose data begins with `map`.
fn put_sparse(tar: &mut Vec<u8>, name: &str, map: &[u8]) {
    let record = |key: &str, value: &str| {
        let rest = format!(" {key}={value}\n");
        // The length counts its own two digits.
        format!("{}{rest}", rest.len() + 2)
    };
    let header = [
        record("GNU.sparse.major", "1"),
        record("GNU.sparse.minor", "0"),
        record("GNU.sparse.name", name),
        record("GNU.sparse.realsize", "5000"),
    ];
    put_extension(tar, b'x', header.concat().as_bytes());
    let mut data = map.to_vec();
    data.resize(data.len().next_multiple_of(512), 0);
    data.extend_from_slice(b"island");
    put_entry(tar, b"GNUSparseFile.0/member", b'0', &data);
}

#[test]
fn a_damaged_map_of_a_sparse_member_is_damage_and_hides_no_other_member() {
    let mut tar = Vec::new();
    put_sparse(&mut tar, "good", b"1\n1000\n6\n");
    let damaged: [(&str, &[u8]); 5] = [
        ("words", b"1\nten\n6\n"),
        ("beyond", b"1\n6000\n6\n"),
        ("crossed", b"2\n1000\n6\n500\n6\n"),
        ("longer", b"1\n1000\n600\n"),
        ("endless", b"11111111111111111111111111"),
    ];
    damaged.iter().for_each(|(name, map)| put_sparse(&mut tar, name, map));
    put_sparse(&mut tar, "many", b"70000\n1\n1\n");
    put_entry(&mut tar, b"behind", b'0', b"behind");
    let archive = archive(&tar, UnpackLimits::default());
    let good = read(&archive, "good");
    assert_eq!((good.len(), &good[1000..1006], good[999], good[1006]), (5000, &b"island"[..], 0, 0));
    let failure = |name: &str| {
        let key = find(&archive, name).unwrap().unwrap();
        archive.open(key, &UNLIMITED).map(|_| ()).unwrap_err()
    };
    for (name, _) in damaged {
        let error = failure(name);
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{name}: {error}");
        assert!(error.to_string().contains("damaged: ") && error.to_string().contains("sparse"), "{error}");
    }
    // Not damage: more than is read.
    assert_eq!(failure("many").kind(), ErrorKind::Unsupported);
    assert_eq!(read(&archive, "behind"), b"behind");
    let encoded = archive.with_table(ArchiveTable::encode).unwrap();
    assert_eq!(ArchiveTable::decode(&encoded, 1000, 100_000).unwrap().encode().unwrap(), encoded);
}

#[test]
fn exceeded_limits_of_an_archive_are_named_in_the_error() {
    let mut tar = Vec::new();
    (0..100).for_each(|i| put_entry(&mut tar, format!("d{i}/e/f").as_bytes(), b'0', b""));
    for (limits, expected) in [
        (UnpackLimits { members: 50, ..UnpackLimits::default() }, "more than 50 members"),
        (UnpackLimits { names: 200, ..UnpackLimits::default() }, "names and links of more than 200 bytes"),
    ] {
        let archive = archive(&tar, limits);
        let PassProgress::Failed(error) = archive.wait_for_pass(&UNLIMITED).unwrap() else {
            panic!("no limit was reached")
        };
        assert!(error.to_string().contains(expected), "{error}");
        assert_eq!(error.kind(), ErrorKind::Unsupported);
    }
}

#[test]
fn encoded_tables_are_decoded_and_damaged_ones_refused() {
    let mut tar = Vec::new();
    put_entry(&mut tar, b"d/e/f", b'0', b"text");
    put(&mut tar, TestHeader::new(b"link", b'2', 0).bytes(157, b"d/e"), b"");
    put_entry(&mut tar, b"d/", b'5', b"");
    let archive = archive(&tar, UnpackLimits::default());
    archive.wait_for_pass(&UNLIMITED).unwrap();
    let encoded = archive.with_table(ArchiveTable::encode).unwrap();
    let back = ArchiveTable::decode(&encoded, 1000, 1000).unwrap();
    assert_eq!(back.encode().unwrap(), encoded);
    assert_eq!(back.child(NodeKey::ROOT, b"link"), find(&archive, "link").unwrap());
    assert!(ArchiveTable::decode(&encoded, 1, 1000).is_none());
    assert!(ArchiveTable::decode(&encoded, 1000, 3).is_none());
    for at in 0..encoded.len() {
        // Never a panic, whatever their content.
        for value in [0, 1, 0x2f, 0xff] {
            let mut wrong = encoded.clone();
            wrong[at] = value;
            drop(ArchiveTable::decode(&wrong, 1000, 1000));
        }
        if let Some(table) = ArchiveTable::decode(&encoded[..at], 1000, 1000) {
            assert!(table.len() < back.len());
        }
    }
}

/// A zip archive of one member called `a`, whose directory states `size`.
fn zip_of(body: &[u8], method: u8, crc: u32, size: u32) -> Vec<u8> {
    let mut out = b"PK\x03\x04\x14\0\0\0".to_vec();
    let packed = u32::try_from(body.len()).unwrap();
    let numbers =
        [&[method, 0, 0, 0, 0, 0][..], &crc.to_le_bytes(), &packed.to_le_bytes(), &size.to_le_bytes()].concat();
    out.extend_from_slice(&numbers);
    out.extend_from_slice(b"\x01\0\0\0a");
    out.extend_from_slice(body);
    let directory = u32::try_from(out.len()).unwrap();
    out.extend_from_slice(b"PK\x01\x02\x14\0\x14\0\0\0");
    out.extend_from_slice(&numbers);
    out.extend_from_slice(b"\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0a");
    let len = u32::try_from(out.len()).unwrap() - directory;
    out.extend_from_slice(b"PK\x05\x06\0\0\0\0\x01\0\x01\0");
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(&directory.to_le_bytes());
    out.extend_from_slice(&[0, 0]);
    out
}

#[test]
fn a_member_that_a_zip_directory_calls_empty_is_checked_when_it_is_opened() {
    let deflated = |bytes: &[u8]| miniz_oxide::deflate::compress_to_vec(bytes, 6);
    let crc = crc32fast::hash(b"text");
    let cases = [
        (deflated(b"text"), 8, crc, 4, Ok(b"text".to_vec())),
        (deflated(b""), 8, 0, 0, Ok(Vec::new())),
        (Vec::new(), 0, 0, 0, Ok(Vec::new())),
        // Some programs write no bytes for an empty member.
        (Vec::new(), 8, 0, 0, Ok(Vec::new())),
        (deflated(b"text"), 8, crc, 0, Err(())),
        (deflated(b"text"), 8, 0, 0, Err(())),
        (b"text".to_vec(), 0, crc, 0, Err(())),
        (Vec::new(), 0, crc, 0, Err(())),
    ];
    for (case, (body, method, crc, size, wanted)) in cases.into_iter().enumerate() {
        let file = Arc::new(MemorySource::new("a.zip", zip_of(&body, method, crc, size)));
        let archive = Archive::new(&unpacker(UnpackLimits::default()), file, ArchiveFormat::Zip);
        let key = find(&archive, "a").unwrap().unwrap();
        let read = archive.open(key, &UNLIMITED).and_then(|(source, _)| {
            source.read_at(0, usize::try_from(source.known_len().unwrap()).unwrap(), &UNLIMITED)
        });
        match (read, wanted) {
            (Ok(read), Ok(wanted)) => assert_eq!(read, wanted, "case {case}"),
            (Err(error), Err(())) => assert_eq!(error.kind(), ErrorKind::Corrupt, "case {case}"),
            (read, wanted) => panic!("case {case}: {read:?} and not {wanted:?}"),
        }
    }
}
