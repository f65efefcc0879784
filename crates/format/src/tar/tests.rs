use proptest::prelude::*;

use super::*;
use crate::EntryKind;
use crate::test_tar::{Header, Magic, pax_record, put, put_entry, put_extension};

/// One entry as it was told, with its data.
#[derive(Clone, Debug, PartialEq)]
struct Told {
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
struct Log(Vec<Told>);

impl TarSink for Log {
    fn entry(&mut self, header: &TarEntry<'_>, data_offset: u64) -> Result<(), FormatError> {
        self.0.push(Told {
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

fn walk(stream: &[u8]) -> Result<Vec<Told>, FormatError> {
    let (mut walker, mut log) = (TarWalker::new(TarLimits::default()), Log::default());
    walker.feed(stream, &mut log)?;
    walker.finish()?;
    Ok(log.0)
}

fn one(stream: &[u8]) -> Told {
    let told = walk(stream).unwrap();
    assert_eq!(told.len(), 1);
    told.into_iter().next().unwrap()
}

fn fault(stream: &[u8]) -> String {
    walk(stream).unwrap_err().to_string()
}

/// A tar of one file whose header `change` was applied to.
fn with(change: impl FnOnce(&mut Header)) -> Vec<u8> {
    let mut out = Vec::new();
    let mut header = Header::new(b"snapshot/a", b'0', 0);
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
    let told = walk(&tar).unwrap();
    let view: Vec<_> =
        told.iter().map(|t| (&t.path[..], t.type_flag, t.header_offset, t.data_offset, t.data.len())).collect();
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
    assert_eq!(told[0].data, b"hello\n");
    assert_eq!((told[0].ids, told[0].mtime), ((1000, 1000), 1_700_000_000));
    assert_eq!(told[0].names, (b"www".to_vec(), b"web".to_vec()));
}

#[test]
fn the_first_zero_block_ends_the_stream_whatever_follows() {
    let mut tar = Vec::new();
    put_entry(&mut tar, b"snapshot/a", b'0', b"x");
    for tail in [&b""[..], &[0; 512], &[0; 10_240]] {
        assert_eq!(walk(&[&tar[..], tail].concat()).unwrap().len(), 1);
    }
    // FORMAT.md 3: one zero block, then a copy of the encrypted file's beginning
    let garbage = [&tar[..], &[0; 512], b"\x8c\x0d\x04\x09\x03\x02", &tar, &[0xff; 700]].concat();
    let (mut walker, mut log) = (TarWalker::new(TarLimits::default()), Log::default());
    walker.feed(&garbage, &mut log).unwrap();
    walker.finish().unwrap();
    assert_eq!((log.0.len(), walker.ended(), walker.offset()), (1, true, 1536));
    assert!(walk(b"").unwrap().is_empty());
}

#[test]
fn an_end_within_something_is_an_error() {
    let mut tar = Vec::new();
    put_entry(&mut tar, b"snapshot/a", b'0', b"hello\n");
    put_extension(&mut tar, b'L', b"snapshot/long\0");
    put_entry(&mut tar, b"snapshot/lo", b'0', b"");
    for cut in 0..=tar.len() {
        let sound = [0, 1024, tar.len()].contains(&cut);
        assert_eq!(walk(&tar[..cut]).is_ok(), sound, "cut at {cut}");
    }
    assert_eq!(fault(&tar[..1000]), "the tar stream is damaged at byte 1000: it ends within an entry");
    assert!(fault(&tar[..2048]).contains("between an extension header and its entry"));
    assert!(fault(&[&tar[..2048], &[0; 512]].concat()).contains("has no entry"));
}

#[test]
fn damaged_headers_are_errors_at_their_offset() {
    let mut tar = Vec::new();
    put_entry(&mut tar, b"snapshot/a", b'0', b"hello\n");
    put_entry(&mut tar, b"snapshot/b", b'0', b"");
    for at in [1024, 1030, 1024 + 100, 1024 + 130, 1024 + 150, 1024 + 156, 1024 + 511] {
        let mut bad = tar.clone();
        bad[at] ^= 0x11;
        assert!(fault(&bad).starts_with("the tar stream is damaged at byte 1024"), "flip at {at}");
    }
    assert!(fault(&[0x8c; 512]).contains("byte 0"));
    let (mut walker, mut log) = (TarWalker::new(TarLimits::default()), Log::default());
    assert!(walker.feed(&[b'x'; 512], &mut log).is_err());
    assert!(walker.feed(&tar, &mut log).is_err(), "a broken walker goes on");
    assert!(walker.finish().is_err() && log.0.is_empty());
}

#[test]
fn checksums_of_signed_bytes_pass() {
    let mut header = Header::new(b"snapshot/caf\xe9", b'0', 0);
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
fn gnu_long_names_and_links() {
    let long = [b"snapshot/".as_slice(), &[b'n'; 300]].concat();
    let target = vec![b't'; 1000];
    let mut tar = Vec::new();
    put_extension(&mut tar, b'K', &[&target[..], b"\0"].concat());
    put_extension(&mut tar, b'L', &[&long[..], b"\0"].concat());
    put_entry(&mut tar, &long, b'2', b"");
    put_entry(&mut tar, b"snapshot/z", b'0', b"");
    let told = walk(&tar).unwrap();
    assert_eq!((&told[0].path, &told[0].link, told[0].header_offset), (&long, &target, 0));
    assert_eq!((&told[1].path[..], &told[1].link[..]), (&b"snapshot/z"[..], &b""[..]), "extensions serve one entry");
}

#[test]
fn base_256_numbers() {
    // FORMAT.md 4.1: uid 4294967294
    let mut tar = with(|header| {
        header.bytes(108, &[0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xfe]).bytes(116, &[0xff; 8]);
        header.bytes(136, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x9c]);
    });
    let told = one(&tar);
    assert_eq!((told.ids, told.mtime), ((4_294_967_294, -1), -100));
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
fn octal_numbers_in_all_their_spellings() {
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
        assert!(walk(&tar).is_err(), "{field:?}");
    }
}

#[test]
fn pax_records_win_over_the_header() {
    // FORMAT.md 4.1: the header's name is lossy
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
    put(&mut tar, Header::new(b"snapshot/names/latin1-??", b'2', 0).magic(Magic::Ustar), b"");
    put_entry(&mut tar, b"snapshot/next", b'0', b"");
    let told = walk(&tar).unwrap();
    assert_eq!(told[0].path, b"snapshot/names/latin1-\xe9\xff");
    assert_eq!((told[0].ids, told[0].mtime), ((3_000_000, 4_294_967_294), 1_700_000_000));
    assert_eq!((&told[0].names.0[..], &told[0].link[..]), ("\u{fc}".as_bytes(), "\u{e9}".as_bytes()));
    assert_eq!((&told[1].path[..], told[1].ids.0), (&b"snapshot/next"[..], 1000));
}

#[test]
fn pax_numbers_truncate_toward_zero_and_sizes_count() {
    let mut tar = Vec::new();
    put_extension(&mut tar, b'x', &[pax_record(b"mtime", b"-1.9"), pax_record(b"size", b"6")].concat());
    put(&mut tar, &mut Header::new(b"snapshot/a", b'0', 0), b"hello\n");
    let told = one(&tar);
    assert_eq!((told.mtime, &told.data[..]), (-1, &b"hello\n"[..]));
    for (key, value) in [("size", "-1"), ("uid", "x"), ("mtime", "1.x"), ("mtime", "."), ("GNU.sparse.major", "1")] {
        let mut tar = Vec::new();
        put_extension(&mut tar, b'x', &pax_record(key.as_bytes(), value.as_bytes()));
        put_entry(&mut tar, b"a", b'0', b"");
        assert!(walk(&tar).is_err(), "{key}={value}");
    }
    for records in
        [&b"9 a=b\n"[..], b"6 a=b ", b"7 a_bc\n", b"x a=b\n", b"99999999999999999999999 a=b\n", b"0 a=b\n", b"6a=b\n"]
    {
        let mut tar = Vec::new();
        put_extension(&mut tar, b'x', records);
        put_entry(&mut tar, b"a", b'0', b"");
        assert!(walk(&tar).is_err(), "{records:?}");
    }
}

#[test]
fn global_records_last_until_overridden() {
    let mut tar = Vec::new();
    put_extension(&mut tar, b'g', &[pax_record(b"uid", b"7"), pax_record(b"uname", b"all")].concat());
    put_entry(&mut tar, b"a", b'0', b"");
    put_extension(&mut tar, b'x', &[pax_record(b"uid", b"8"), pax_record(b"uname", b"")].concat());
    put_entry(&mut tar, b"b", b'0', b"");
    put_entry(&mut tar, b"c", b'0', b"");
    put_extension(&mut tar, b'g', &pax_record(b"uid", b"9"));
    let told = walk(&tar).unwrap();
    let seen: Vec<_> = told.iter().map(|t| (t.ids.0, &t.names.0[..])).collect();
    assert_eq!(seen, [(7, &b"all"[..]), (8, b"www"), (7, b"all")]);
}

#[test]
fn the_ustar_prefix_is_joined_only_where_the_magic_has_one() {
    let tar = |magic| {
        let mut out = Vec::new();
        put(&mut out, Header::new(b"name", b'0', 0).magic(magic).bytes(345, b"snapshot/some/dir"), b"");
        out
    };
    assert_eq!(one(&tar(Magic::Ustar)).path, b"snapshot/some/dir/name");
    assert_eq!(one(&tar(Magic::Gnu)).path, b"name");
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
fn only_files_have_data_whatever_the_header_says() {
    for type_flag in b'1'..=b'6' {
        let mut tar = Vec::new();
        put(&mut tar, &mut Header::new(b"a", type_flag, 4096), b"");
        put_entry(&mut tar, b"b", b'0', b"x");
        assert_eq!(walk(&tar).unwrap().len(), 2);
    }
    let mut sparse = Vec::new();
    put_entry(&mut sparse, b"a", b'S', b"");
    assert!(fault(&sparse).contains("sparse"));
}

#[test]
fn extension_headers_are_bounded() {
    for type_flag in [b'L', b'K', b'x', b'g'] {
        let header = Header::new(b"a", type_flag, (1 << 20) + 1).finish();
        let error = walk(&header).unwrap_err();
        assert!(matches!(error, FormatError::TooLarge { limit: 0x0010_0000, .. }), "{error}");
    }
}

#[test]
fn metadata_of_every_type() {
    struct Metas(Vec<Result<crate::EntryMeta, String>>);
    impl TarSink for Metas {
        fn entry(&mut self, header: &TarEntry<'_>, _: u64) -> Result<(), FormatError> {
            self.0.push(header.meta().map_err(|error| error.to_string()));
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
        let mut header = Header::new(b"a", type_flag, 0);
        header.octal(100, 8, 0o104_755).octal(329, 8, 8).octal(337, 8, 1).bytes(157, b"target\xe9");
        put(&mut tar, &mut header, b"");
    }
    put_entry(&mut tar, b"hard", b'1', b"");
    put(&mut tar, Header::new(b"id", b'0', 0).bytes(108, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe]), b"");
    put(&mut tar, Header::new(b"id", b'0', 0).bytes(108, &[0x80, 0, 0, 1, 0, 0, 0, 0]), b"");
    let mut sink = Metas(Vec::new());
    TarWalker::new(TarLimits::default()).feed(&tar, &mut sink).unwrap();
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
    fn written_entries_come_back_in_any_chunking(
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
        let (mut walker, mut log) = (TarWalker::new(TarLimits::default()), Log::default());
        for chunk in tar.chunks(step) {
            walker.feed(chunk, &mut log).unwrap();
        }
        walker.finish().unwrap();
        prop_assert_eq!(log.0.len(), entries.len());
        for (told, (name, len, _)) in log.0.iter().zip(&entries) {
            prop_assert_eq!((&told.path, told.data.len()), (name, *len));
            prop_assert!(told.data.iter().all(|&b| b == 0x5a));
        }
    }
}
