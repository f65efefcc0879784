use proptest::prelude::*;

use super::*;
use crate::EntryKind;
use crate::{FormatError, LastOwnerNames};
use dupfs_test_tar::{TarMagic, TestHeader, pax_record, put, put_entry, put_extension};

/// One entry as the sink received it, with its data.
#[derive(Clone, Debug, PartialEq)]
struct RecordedEntry {
    path: Vec<u8>,
    type_flag: u8,
    ids: (i64, i64),
    names: (Vec<u8>, Vec<u8>),
    mtime: i64,
    link: Vec<u8>,
    header_offset: u64,
    data_offset: u64,
    data: Vec<u8>,
}

#[derive(Default)]
struct EntryLog(Vec<RecordedEntry>);

impl TarSink for EntryLog {
    fn entry(&mut self, header: &TarEntry<'_>, data_offset: u64) -> Result<(), FormatError> {
        self.0.push(RecordedEntry {
            path: header.path.to_vec(),
            type_flag: header.type_flag,
            ids: (header.uid, header.gid),
            names: (header.uname.to_vec(), header.gname.to_vec()),
            mtime: header.mtime,
            link: header.link.to_vec(),
            header_offset: header.header_offset,
            data_offset,
            data: Vec::new(),
        });
        Ok(())
    }

    fn data(&mut self, bytes: &[u8]) -> Result<(), FormatError> {
        self.0.last_mut().unwrap().data.extend_from_slice(bytes);
        Ok(())
    }

    fn end(&mut self) -> Result<(), FormatError> {
        Ok(())
    }
}

fn parse(stream: &[u8]) -> Result<Vec<RecordedEntry>, FormatError> {
    let (mut parser, mut log) = (TarParser::new(TarLimits::default()), EntryLog::default());
    parser.feed(stream, &mut log)?;
    parser.finish()?;
    Ok(log.0)
}

fn one(stream: &[u8]) -> RecordedEntry {
    let entries = parse(stream).unwrap();
    assert_eq!(entries.len(), 1);
    entries.into_iter().next().unwrap()
}

fn fault(stream: &[u8]) -> String {
    parse(stream).unwrap_err().to_string()
}

/// A tar of one file whose header `change` was applied to.
fn with(change: impl FnOnce(&mut TestHeader)) -> Vec<u8> {
    let mut out = Vec::new();
    let mut header = TestHeader::new(b"snapshot/a", b'0', 0);
    change(&mut header);
    put(&mut out, &mut header, b"");
    out
}

#[test]
fn entries_come_with_their_data_and_offsets() {
    let mut tar = Vec::new();
    put_entry(&mut tar, b"snapshot/a", b'0', b"hello\n");
    put_entry(&mut tar, b"snapshot/dir/", b'5', b"");
    put_entry(&mut tar, b"snapshot/full", b'0', &[7; 512]);
    put_entry(&mut tar, b"deleted/b", 0, b"");
    put_entry(&mut tar, b"old/", 0, b"");
    let entries = parse(&tar).unwrap();
    let view: Vec<_> =
        entries.iter().map(|t| (&t.path[..], t.type_flag, t.header_offset, t.data_offset, t.data.len())).collect();
    assert_eq!(
        view,
        [
            (&b"snapshot/a"[..], b'0', 0, 512, 6),
            (b"snapshot/dir/", b'5', 1024, 1536, 0),
            (b"snapshot/full", b'0', 1536, 2048, 512),
            (b"deleted/b", b'0', 2560, 3072, 0),
            (b"old/", b'5', 3072, 3584, 0),
        ]
    );
    assert_eq!(entries[0].data, b"hello\n");
    assert_eq!((entries[0].ids, entries[0].mtime), ((1000, 1000), 1_700_000_000));
    assert_eq!(entries[0].names, (b"www".to_vec(), b"web".to_vec()));
}

#[test]
fn the_first_zero_block_ends_the_stream() {
    let mut tar = Vec::new();
    put_entry(&mut tar, b"snapshot/a", b'0', b"x");
    for tail in [&b""[..], &[0; 512], &[0; 10_240]] {
        assert_eq!(parse(&[&tar[..], tail].concat()).unwrap().len(), 1);
    }
    // docs/FORMAT.md section 3: one zero block, then a copy of the encrypted file's beginning
    let garbage = [&tar[..], &[0; 512], b"\x8c\x0d\x04\x09\x03\x02", &tar, &[0xff; 700]].concat();
    let (mut parser, mut log) = (TarParser::new(TarLimits::default()), EntryLog::default());
    parser.feed(&garbage, &mut log).unwrap();
    parser.finish().unwrap();
    assert_eq!((log.0.len(), parser.is_ended(), parser.offset()), (1, true, 1536));
    assert!(parse(b"").unwrap().is_empty());
}

#[test]
fn a_stream_that_ends_within_an_entry_or_header_is_an_error() {
    let mut tar = Vec::new();
    put_entry(&mut tar, b"snapshot/a", b'0', b"hello\n");
    put_extension(&mut tar, b'L', b"snapshot/long\0");
    put_entry(&mut tar, b"snapshot/lo", b'0', b"");
    for cut in 0..=tar.len() {
        let sound = [0, 1024, tar.len()].contains(&cut);
        assert_eq!(parse(&tar[..cut]).is_ok(), sound, "cut at {cut}");
    }
    assert_eq!(fault(&tar[..1000]), "the tar stream is damaged at byte 1000: truncated within an entry");
    assert!(fault(&tar[..2048]).contains("between an extension header and its entry"));
    assert!(fault(&[&tar[..2048], &[0; 512]].concat()).contains("has no entry"));
}

#[test]
fn damaged_headers_are_reported_with_their_offset() {
    let mut tar = Vec::new();
    put_entry(&mut tar, b"snapshot/a", b'0', b"hello\n");
    put_entry(&mut tar, b"snapshot/b", b'0', b"");
    for at in [1024, 1030, 1024 + 100, 1024 + 130, 1024 + 150, 1024 + 156, 1024 + 511] {
        let mut bad = tar.clone();
        bad[at] ^= 0x11;
        assert!(fault(&bad).starts_with("the tar stream is damaged at byte 1024"), "flip at {at}");
    }
    assert!(fault(&[0x8c; 512]).contains("byte 0"));
    let (mut parser, mut log) = (TarParser::new(TarLimits::default()), EntryLog::default());
    assert!(parser.feed(&[b'x'; 512], &mut log).is_err());
    assert!(parser.feed(&tar, &mut log).is_err(), "a parser continues after an error");
    assert!(parser.finish().is_err() && log.0.is_empty());
}

#[test]
fn checksums_of_signed_bytes_are_accepted() {
    let mut header = TestHeader::new(b"snapshot/caf\xe9", b'0', 0);
    header.finish();
    let signed: i32 = header
        .0
        .iter()
        .enumerate()
        .map(|(at, &b)| if (148..156).contains(&at) { 32 } else { i32::from(b.cast_signed()) })
        .sum();
    header.bytes(148, format!("{signed:06o}\0 ").as_bytes());
    assert_eq!(one(&header.0).path, b"snapshot/caf\xe9");
}

#[test]
fn gnu_long_names_and_links_apply_to_one_entry() {
    let long = [b"snapshot/".as_slice(), &[b'n'; 300]].concat();
    let target = vec![b't'; 1000];
    let mut tar = Vec::new();
    put_extension(&mut tar, b'K', &[&target[..], b"\0"].concat());
    put_extension(&mut tar, b'L', &[&long[..], b"\0"].concat());
    put_entry(&mut tar, &long, b'2', b"");
    put_entry(&mut tar, b"snapshot/z", b'0', b"");
    let entries = parse(&tar).unwrap();
    assert_eq!((&entries[0].path, &entries[0].link, entries[0].header_offset), (&long, &target, 0));
    assert_eq!(
        (&entries[1].path[..], &entries[1].link[..]),
        (&b"snapshot/z"[..], &b""[..]),
        "extensions serve one entry"
    );
}

#[test]
fn base_256_numbers_are_parsed_or_refused_by_range() {
    // docs/FORMAT.md section 4.1: uid 4294967294
    let mut tar = with(|header| {
        header.bytes(108, &[0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xfe]).bytes(116, &[0xff; 8]);
        header.bytes(136, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x9c]);
    });
    let entries = one(&tar);
    assert_eq!((entries.ids, entries.mtime), ((4_294_967_294, -1), -100));
    tar = with(|header| {
        header.bytes(136, &[0x80, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
    });
    assert!(fault(&tar).contains("out of range"));
    tar = with(|header| {
        header.bytes(124, &[0xff; 12]);
    });
    assert!(fault(&tar).contains("negative"));
    tar = with(|header| {
        header.bytes(124, &[0x80, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
    });
    assert!(fault(&tar).contains("out of range"));
}

#[test]
fn octal_numbers_are_parsed_in_every_notation() {
    for (field, value) in [
        (&b"   1750\0"[..], 1000),
        (b"0001750 ", 1000),
        (b"00001750", 1000),
        (b"\0\0\0\0\0\0\0\0", 0),
        (b"        ", 0),
        (b"1750 \0\0\0", 1000),
    ] {
        let tar = with(|header| {
            header.bytes(108, field);
        });
        assert_eq!(one(&tar).ids.0, value, "{field:?}");
    }
    for field in [&b"0001780\0"[..], b"-000001\0", b"17 50\0\0\0", b"0x1\0\0\0\0\0"] {
        let tar = with(|header| {
            header.bytes(108, field);
        });
        assert!(parse(&tar).is_err(), "{field:?}");
    }
}

#[test]
fn pax_records_win_over_the_header() {
    // docs/FORMAT.md section 4.1: the header's name is lossy
    let mut records = b"21 hdrcharset=BINARY\n33 path=snapshot/names/latin1-\xe9\xff\n".to_vec();
    assert_eq!(pax_record(b"hdrcharset", b"BINARY"), records[..21]);
    for (key, value) in [
        ("uid", "3000000"),
        ("gid", "4294967294"),
        ("mtime", "1700000000.999"),
        ("uname", "\u{fc}"),
        ("linkpath", "\u{e9}"),
        ("comment", "a=b\n"),
    ] {
        records.extend(pax_record(key.as_bytes(), value.as_bytes()));
    }
    let mut tar = Vec::new();
    put_extension(&mut tar, b'x', &records);
    put(&mut tar, TestHeader::new(b"snapshot/names/latin1-??", b'2', 0).magic(TarMagic::Ustar), b"");
    put_entry(&mut tar, b"snapshot/next", b'0', b"");
    let entries = parse(&tar).unwrap();
    assert_eq!(entries[0].path, b"snapshot/names/latin1-\xe9\xff");
    assert_eq!((entries[0].ids, entries[0].mtime), ((3_000_000, 4_294_967_294), 1_700_000_000));
    assert_eq!((&entries[0].names.0[..], &entries[0].link[..]), ("\u{fc}".as_bytes(), "\u{e9}".as_bytes()));
    assert_eq!((&entries[1].path[..], entries[1].ids.0), (&b"snapshot/next"[..], 1000));
}

#[test]
fn pax_numbers_are_truncated_toward_zero_and_sizes_apply() {
    let mut tar = Vec::new();
    put_extension(&mut tar, b'x', &[pax_record(b"mtime", b"-1.9"), pax_record(b"size", b"6")].concat());
    put(&mut tar, &mut TestHeader::new(b"snapshot/a", b'0', 0), b"hello\n");
    let entries = one(&tar);
    assert_eq!((entries.mtime, &entries.data[..]), (-1, &b"hello\n"[..]));
    for (key, value) in [("size", "-1"), ("uid", "x"), ("mtime", "1.x"), ("mtime", "."), ("GNU.sparse.major", "1")] {
        let mut tar = Vec::new();
        put_extension(&mut tar, b'x', &pax_record(key.as_bytes(), value.as_bytes()));
        put_entry(&mut tar, b"a", b'0', b"");
        assert!(parse(&tar).is_err(), "{key}={value}");
    }
    for records in
        [&b"9 a=b\n"[..], b"6 a=b ", b"7 a_bc\n", b"x a=b\n", b"99999999999999999999999 a=b\n", b"0 a=b\n", b"6a=b\n"]
    {
        let mut tar = Vec::new();
        put_extension(&mut tar, b'x', records);
        put_entry(&mut tar, b"a", b'0', b"");
        assert!(parse(&tar).is_err(), "{records:?}");
    }
}

#[test]
fn global_records_apply_until_they_are_overridden() {
    let mut tar = Vec::new();
    put_extension(&mut tar, b'g', &[pax_record(b"uid", b"7"), pax_record(b"uname", b"all")].concat());
    put_entry(&mut tar, b"a", b'0', b"");
    put_extension(&mut tar, b'x', &[pax_record(b"uid", b"8"), pax_record(b"uname", b"")].concat());
    put_entry(&mut tar, b"b", b'0', b"");
    put_entry(&mut tar, b"c", b'0', b"");
    put_extension(&mut tar, b'g', &pax_record(b"uid", b"9"));
    let entries = parse(&tar).unwrap();
    let seen: Vec<_> = entries.iter().map(|t| (t.ids.0, &t.names.0[..])).collect();
    assert_eq!(seen, [(7, &b"all"[..]), (8, b"www"), (7, b"all")]);
}

#[test]
fn the_prefix_field_counts_only_with_the_posix_magic() {
    let tar = |magic| {
        let mut out = Vec::new();
        put(&mut out, TestHeader::new(b"name", b'0', 0).magic(magic).bytes(345, b"snapshot/some/dir"), b"");
        out
    };
    assert_eq!(one(&tar(TarMagic::Ustar)).path, b"snapshot/some/dir/name");
    assert_eq!(one(&tar(TarMagic::Gnu)).path, b"name");
    // a name that fills its field has no NUL
    assert_eq!(
        one(&with(|header| {
            header.bytes(0, &[b'n'; 100]);
        }))
        .path,
        [b'n'; 100]
    );
}

#[test]
fn only_files_have_data() {
    for type_flag in b'1'..=b'6' {
        let mut tar = Vec::new();
        put(&mut tar, &mut TestHeader::new(b"a", type_flag, 4096), b"");
        put_entry(&mut tar, b"b", b'0', b"x");
        assert_eq!(parse(&tar).unwrap().len(), 2);
    }
    let mut sparse = Vec::new();
    put_entry(&mut sparse, b"a", b'S', b"");
    assert!(fault(&sparse).contains("sparse"));
}

#[test]
fn extension_headers_are_bounded() {
    for type_flag in [b'L', b'K', b'x', b'g'] {
        let header = TestHeader::new(b"a", type_flag, (64 << 10) + 1).finish();
        let error = parse(&header).unwrap_err();
        assert!(matches!(error, FormatError::TooLarge { limit: 0x0001_0000, .. }), "{error}");
    }
}

#[test]
fn metadata_is_returned_for_every_type_that_duplicity_writes() {
    struct Metas(Vec<Result<crate::EntryMeta, String>>);
    impl TarSink for Metas {
        fn entry(&mut self, header: &TarEntry<'_>, _: u64) -> Result<(), FormatError> {
            self.0.push(header.meta(&mut LastOwnerNames::default()).map_err(|error| error.to_string()));
            Ok(())
        }
        fn data(&mut self, _: &[u8]) -> Result<(), FormatError> {
            Ok(())
        }
        fn end(&mut self) -> Result<(), FormatError> {
            Ok(())
        }
    }
    let mut tar = Vec::new();
    for type_flag in *b"0723456" {
        let mut header = TestHeader::new(b"a", type_flag, 0);
        header.octal(100, 8, 0o104_755).octal(329, 8, 8).octal(337, 8, 1).bytes(157, b"target\xe9");
        put(&mut tar, &mut header, b"");
    }
    put_entry(&mut tar, b"hard", b'1', b"");
    put(&mut tar, TestHeader::new(b"id", b'0', 0).bytes(108, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe]), b"");
    put(&mut tar, TestHeader::new(b"id", b'0', 0).bytes(108, &[0x80, 0, 0, 1, 0, 0, 0, 0]), b"");
    let mut sink = Metas(Vec::new());
    TarParser::new(TarLimits::default()).feed(&tar, &mut sink).unwrap();
    let kinds: Vec<_> = sink.0[..7].iter().map(|meta| meta.as_ref().unwrap().kind.clone()).collect();
    assert_eq!(
        kinds,
        [
            EntryKind::File,
            EntryKind::File,
            EntryKind::Symlink(b"target\xe9".as_slice().into()),
            EntryKind::CharDevice(8, 1),
            EntryKind::BlockDevice(8, 1),
            EntryKind::Dir,
            EntryKind::Fifo,
        ]
    );
    assert_eq!(sink.0[0].as_ref().unwrap().mode, 0o4755);
    assert!(sink.0[7].as_ref().unwrap_err().contains("'hard'"));
    assert_eq!(sink.0[8].as_ref().unwrap().uid, 4_294_967_294);
    assert!(sink.0[9].is_err());
}

proptest! {
    #[test]
    fn written_entries_are_parsed_in_chunks_of_any_size(
        entries in proptest::collection::vec((proptest::collection::vec(1_u8.., 1..300), 0_usize..2000, any::<bool>()), 0..6),
        step in 1_usize..2000,
    ) {
        let mut tar = Vec::new();
        for (name, len, pax) in &entries {
            if *pax {
                put_extension(&mut tar, b'x', &pax_record(b"path", name));
            } else if name.len() > 100 {
                put_extension(&mut tar, b'L', &[&name[..], b"\0"].concat());
            }
            put_entry(&mut tar, name, b'0', &vec![0x5a; *len]);
        }
        let (mut parser, mut log) = (TarParser::new(TarLimits::default()), EntryLog::default());
        for chunk in tar.chunks(step) {
            parser.feed(chunk, &mut log).unwrap();
        }
        parser.finish().unwrap();
        prop_assert_eq!(log.0.len(), entries.len());
        for (entries, (name, len, _)) in log.0.iter().zip(&entries) {
            prop_assert_eq!((&entries.path, entries.data.len()), (name, *len));
            prop_assert!(entries.data.iter().all(|&b| b == 0x5a));
        }
    }
}
