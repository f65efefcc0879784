use super::*;

fn parsed(name: &[u8]) -> (Vec<u8>, DiffKind, Option<u64>) {
    let found = parse_entry_name(name).unwrap();
    (found.path.as_bytes().to_vec(), found.kind, found.part)
}

#[test]
fn names_of_every_kind_are_parsed() {
    assert_eq!(parsed(b"snapshot/etc/hosts"), (b"etc/hosts".to_vec(), DiffKind::Snapshot, None));
    assert_eq!(parsed(b"snapshot/etc/"), (b"etc".to_vec(), DiffKind::Snapshot, None));
    assert_eq!(parsed(b"diff/a/1"), (b"a/1".to_vec(), DiffKind::Diff, None));
    assert_eq!(parsed(b"deleted/a/diff/b"), (b"a/diff/b".to_vec(), DiffKind::Deleted, None));
    // docs/FORMAT.md section 4: the last component is the part, greedily
    assert_eq!(parsed(b"multivol_snapshot/big/dir7/7/1"), (b"big/dir7/7".to_vec(), DiffKind::Snapshot, Some(1)));
    assert_eq!(parsed(b"multivol_diff/x/12"), (b"x".to_vec(), DiffKind::Diff, Some(12)));
    assert_eq!(parsed(b"snapshot/lat-\xe9"), (b"lat-\xe9".to_vec(), DiffKind::Snapshot, None));
}

#[test]
fn the_root_has_several_names() {
    for name in [&b"snapshot/./"[..], b"snapshot/", b"snapshot/."] {
        assert_eq!(parsed(name), (Vec::new(), DiffKind::Snapshot, None));
    }
    assert_eq!(parsed(b"multivol_snapshot/./3"), (Vec::new(), DiffKind::Snapshot, Some(3)));
    assert_eq!(parsed(b"multivol_diff/./1"), (Vec::new(), DiffKind::Diff, Some(1)));
}

#[test]
fn foreign_names_are_refused() {
    for name in [
        &b""[..],
        b"snapshot",
        b"signature/x",
        b"Snapshot/x",
        b"/snapshot/x",
        b"multivol_snapshot/1",
        b"multivol_snapshot/x/",
        b"multivol_snapshot/x/0",
        b"multivol_snapshot/x/-1",
        b"multivol_snapshot/x/1a",
        b"multivol_diff/x/99999999999999999999",
        b"snapshot/../etc",
        b"snapshot/a/../../b",
        b"snapshot/a\0b",
    ] {
        assert!(parse_entry_name(name).is_err(), "{name:?}");
    }
    let error = parse_entry_name(b"snapshot/../etc").unwrap_err().at(512);
    assert!(error.to_string().contains("'snapshot/../etc' at byte 512"), "{error}");
}

#[test]
fn mangled_forms_are_those_of_old_writers() {
    let forms = |raw: &[u8]| mangled_forms(&ArchivePath::parse(raw).unwrap());
    // docs/FORMAT.md section 4.3: py3.6 and 3.7; py2.7 of 0.8; a Latin-1 locale
    let latin = forms(b"names/lat-\xe9");
    assert_eq!(
        latin,
        [&b"names/lat-?"[..], b"names/lat-\xef\xbf\xbd", b"names/lat-\xc3\xa9"].map(Box::from),
        "{latin:?}"
    );
    // the C locale loses every byte of valid UTF-8 too
    let utf8 = forms("\u{fc}".as_bytes());
    assert_eq!(utf8, [&b"??"[..], b"\xc3\x83\xc2\xbc"].map(Box::from), "{utf8:?}");
    // a broken sequence of two bytes: one mark a byte, or one in all
    let broken = forms(b"\xe2\x82x");
    assert!(broken.contains(&Box::from(&b"??x"[..])) && broken.contains(&Box::from("\u{fffd}x".as_bytes())));
    assert!(broken.contains(&Box::from("\u{fffd}\u{fffd}x".as_bytes())));
    assert!(forms(b"plain").is_empty());
    assert!(forms(b"").is_empty());
}
