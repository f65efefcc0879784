use super::*;
use crate::EntryKind;
use dupfs_test_tar::{TestHeader, put, put_entry};

#[derive(Default)]
struct SigtarLog {
    entries: Vec<SigEntry>,
    problems: Vec<String>,
}

impl SigtarSink for SigtarLog {
    fn entry(&mut self, entry: SigEntry) -> Result<(), FormatError> {
        self.entries.push(entry);
        Ok(())
    }

    fn problem(&mut self, problem: FormatError) -> Result<(), FormatError> {
        self.problems.push(problem.to_string());
        Ok(())
    }
}

fn read(tar: &[u8]) -> SigtarLog {
    let (mut parser, mut log) = (SigtarParser::default(), SigtarLog::default());
    parser.feed(tar, &mut log).unwrap();
    parser.feed(&[0; 1024], &mut log).unwrap();
    parser.finish().unwrap();
    log
}

/// docs/FORMAT.md section 5: the signature of "hello\n".
const HELLO: [u8; 24] = [
    0x72, 0x73, 0x01, 0x36, 0, 0, 2, 0, 0, 0, 0, 8, 0x0a, 0xd0, 0x02, 0xd8, 0x63, 0x48, 0x1c, 0x78, 0xae, 0x04, 0xc2,
    0x01,
];

#[test]
fn the_documented_example_is_parsed() {
    let header = SigHeader::parse(HELLO.first_chunk().unwrap()).unwrap();
    assert_eq!(header, SigHeader { block_len: 512, strong_len: 8 });
    let bounds = header.bounds(24).unwrap();
    assert_eq!(bounds, SizeBounds { blocks: 1, min: 1, max: 512 });
    assert!(bounds.contains(6) && !bounds.contains(0) && !bounds.contains(513));
    // docs/FORMAT.md section 9: bl=2048, n=2561 => size in (5242880, 5244928]
    let header = SigHeader { block_len: 2048, strong_len: 8 };
    let bounds = header.bounds(12 + 12 * 2561).unwrap();
    assert!(bounds.contains(5_244_114) && bounds.contains(5_242_881) && bounds.contains(5_244_928));
    assert!(!bounds.contains(5_242_880) && !bounds.contains(5_244_929));
    // an empty file: no block
    let empty = header.bounds(12).unwrap();
    assert_eq!((empty.exact(), empty.contains(0), empty.contains(1)), (Some(0), true, false));
    assert_eq!(SigHeader { block_len: 1, strong_len: 8 }.bounds(36).unwrap().exact(), Some(2));
}

#[test]
fn invalid_signatures_have_no_bounds() {
    let header = SigHeader { block_len: 2048, strong_len: 8 };
    for len in [0, 11, 13, 23] {
        assert_eq!(header.bounds(len), None, "{len}");
    }
    assert_eq!(SigHeader { block_len: u32::MAX, strong_len: 8 }.bounds(12 + 12 * (u64::MAX / 13)), None);
    for (at, value) in [(0, 0), (3, 0x35), (6, 0), (11, 0), (11, 33), (8, 1)] {
        let mut head = *HELLO.first_chunk().unwrap();
        head[at] = value;
        assert_eq!(SigHeader::parse(&head), None, "{value} at {at}");
    }
}

#[test]
fn entries_of_every_kind_are_parsed_in_chunks_of_any_size() {
    let mut tar = Vec::new();
    put_entry(&mut tar, b"snapshot/", b'5', b"");
    put_entry(&mut tar, b"signature/hello", b'0', &HELLO);
    put(&mut tar, TestHeader::new(b"snapshot/link", b'2', 0).bytes(157, b"caf\xe9"), b"");
    put_entry(&mut tar, b"deleted/gone", b'0', b"");
    put_entry(&mut tar, b"signature/empty", b'0', &HELLO[..12]);
    tar.resize(tar.len() + 10_240, 0);
    let log = read(&tar);
    assert!(log.problems.is_empty(), "{:?}", log.problems);
    let view: Vec<_> = log.entries.iter().map(|e| (e.path.as_bytes(), e.change, e.bounds.map(|b| b.max))).collect();
    assert_eq!(
        view,
        [
            (&b""[..], SigChange::Snapshot, None),
            (b"hello", SigChange::Signature, Some(512)),
            (b"link", SigChange::Snapshot, None),
            (b"gone", SigChange::Deleted, None),
            (b"empty", SigChange::Signature, Some(0)),
        ]
    );
    assert_eq!(log.entries[0].meta.kind, EntryKind::Dir);
    assert_eq!(log.entries[2].meta.kind, EntryKind::Symlink(b"caf\xe9".as_slice().into()));
    for step in [1, 5, 511, 700] {
        let (mut parser, mut pieces) = (SigtarParser::default(), SigtarLog::default());
        tar.chunks(step).for_each(|chunk| parser.feed(chunk, &mut pieces).unwrap());
        parser.finish().unwrap();
        assert_eq!(pieces.entries, log.entries);
    }
}

#[test]
fn the_root_is_a_directory_or_the_file_that_was_backed_up() {
    for (name, type_flag, kind) in [
        (&b"snapshot/"[..], b'5', EntryKind::Dir),
        (b"snapshot/./", b'5', EntryKind::Dir),
        (b"signature/", b'0', EntryKind::File),
    ] {
        let mut tar = Vec::new();
        put_entry(&mut tar, name, type_flag, if type_flag == b'0' { &HELLO } else { b"" });
        let log = read(&tar);
        assert!(log.entries[0].path.is_root());
        assert_eq!(log.entries[0].meta.kind, kind);
    }
}

#[test]
fn a_damaged_entry_is_reported_and_the_others_are_parsed() {
    let mut tar = Vec::new();
    put_entry(&mut tar, b"signature/../../etc/passwd", b'0', &HELLO);
    put_entry(&mut tar, b"diff/x", b'0', b"");
    put_entry(&mut tar, b"snapshot/hard", b'1', b"");
    put_entry(&mut tar, b"signature/torn", b'0', &HELLO[..11]);
    put_entry(&mut tar, b"signature/odd", b'0', &HELLO[..23]);
    put_entry(&mut tar, b"signature/none", b'0', b"");
    put_entry(&mut tar, b"signature/good", b'0', &HELLO);
    let log = read(&tar);
    assert_eq!(log.problems.len(), 6, "{:?}", log.problems);
    let view: Vec<_> = log.entries.iter().map(|e| (e.path.as_bytes(), e.bounds.is_some())).collect();
    assert_eq!(view, [(&b"torn"[..], false), (b"odd", false), (b"none", false), (b"good", true)]);
}

#[test]
fn an_archive_cut_short_is_an_error() {
    let mut tar = Vec::new();
    put_entry(&mut tar, b"signature/hello", b'0', &HELLO);
    let (mut parser, mut log) = (SigtarParser::default(), SigtarLog::default());
    parser.feed(&tar[..520], &mut log).unwrap();
    assert!(parser.finish().is_err());
    assert!(log.entries.is_empty());
}

#[test]
fn an_archive_without_closing_zero_blocks_is_an_error() {
    let mut tar = Vec::new();
    put_entry(&mut tar, b"signature/hello", b'0', &HELLO);
    for whole in [&[][..], &tar] {
        let (mut parser, mut log) = (SigtarParser::default(), SigtarLog::default());
        parser.feed(whole, &mut log).unwrap();
        assert!(parser.finish().is_err(), "{} bytes", whole.len());
    }
}
