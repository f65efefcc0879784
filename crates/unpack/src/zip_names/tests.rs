//! The rules for names, one by one.

use super::*;

fn decoded(raw: &[u8], made_by: u16, is_utf8: bool, extra: &[u8], encoding: Option<&str>) -> Option<String> {
    let encoding = encoding.map(|label| NameEncoding::for_label(label).unwrap());
    NameFacts { raw, is_utf8, made_by }.decode(extra_fields::ExtraFields::new(extra), encoding)
}

fn unicode_field(version: u8, raw: &[u8], name: &[u8]) -> Vec<u8> {
    let len = u16::try_from(5 + name.len()).unwrap();
    let crc = crc32fast::hash(raw);
    [&0x7075_u16.to_le_bytes()[..], &len.to_le_bytes(), &[version], &crc.to_le_bytes(), name].concat()
}

const UNIX: u16 = 3 << 8 | 30;
const DOS: u16 = 20;

#[test]
fn the_extra_field_is_first_if_it_belongs_to_the_name() {
    let field = unicode_field(1, b"name", "имя".as_bytes());
    for (made_by, is_utf8) in [(UNIX, false), (UNIX, true), (DOS, false)] {
        assert_eq!(decoded(b"name", made_by, is_utf8, &field, Some("cp866")).unwrap(), "имя");
    }
    // An archiver without support for the field has renamed the member, and so on.
    assert_eq!(decoded(b"other", UNIX, false, &field, None).unwrap(), "other");
    assert_eq!(decoded(b"name", UNIX, false, &unicode_field(2, b"name", b"x"), None).unwrap(), "name");
    assert_eq!(decoded(b"name", UNIX, false, &unicode_field(1, b"name", b"\xff"), None).unwrap(), "name");
    assert_eq!(decoded(b"name", UNIX, false, &unicode_field(1, b"name", b""), None).unwrap(), "name");
    assert_eq!(decoded(b"name", UNIX, false, &field[..7], None).unwrap(), "name");
}

#[test]
fn code_pages_apply_where_nothing_else_gives_the_encoding() {
    let latin = b"\x84\x94\x81.txt";
    assert_eq!(decoded(latin, DOS, false, b"", None).unwrap(), "äöü.txt");
    for made_by in [6 << 8 | 20, 11 << 8 | 50] {
        assert_eq!(decoded(latin, made_by, false, b"", None).unwrap(), "äöü.txt");
    }
    // PKZIP for Windows, Unix, NTFS, and a flag that is wrong: bytes as they are.
    for (made_by, is_utf8) in [(25, false), (26, false), (40, false), (UNIX, false), (11 << 8 | 20, false), (DOS, true)]
    {
        assert_eq!(decoded(latin, made_by, is_utf8, b"", None), None, "{made_by:x}");
    }
    assert_eq!(decoded("äöü".as_bytes(), DOS, false, b"", None).unwrap(), "äöü");
    assert_eq!(decoded("äöü".as_bytes(), DOS, true, b"", Some("cp866")).unwrap(), "äöü");
}

#[test]
fn the_chosen_encoding_is_for_names_that_are_not_utf8() {
    for made_by in [DOS, UNIX] {
        let cyrillic = b"\x8f\xe0\xa8\xa2\xa5\xe2";
        assert_eq!(decoded(cyrillic, made_by, false, b"", Some("cp866")).unwrap(), "Привет");
        assert_eq!(decoded(cyrillic, made_by, true, b"", Some("cp866")), None);
        // The second byte of one of these is a backslash.
        let japanese = b"\x93\xfa\x96\x7b\x8c\xea\x95\x5c/\x83\x5c";
        assert_eq!(decoded(japanese, made_by, false, b"", Some("SJIS")).unwrap(), "日本語表/ソ");
        assert_eq!(decoded(b"\x81", made_by, false, b"", Some("shift_jis")), None, "cut within a letter");
        assert_eq!(decoded(b"\xb5", made_by, false, b"", Some("CP850")).unwrap(), "Á");
        assert_eq!(decoded(b"\xa5", made_by, false, b"", Some("cp852")).unwrap(), "ą");
    }
    for unknown in ["", "utf-16", "cp1", "x-user-defined-1", "iso-2022-jp"] {
        assert_eq!(NameEncoding::for_label(unknown), None, "{unknown}");
    }
    for known in ["437", "ibm850", "cp932", "gbk", "big5", "euc-kr", "windows-1251", "koi8-r", "UTF-8"] {
        assert!(NameEncoding::for_label(known).is_some(), "{known}");
    }
}

#[test]
fn backslashes_separate_directories_in_names_from_dos() {
    assert_eq!(decoded(b"a\\b", DOS, false, b"", None).unwrap(), "a/b");
    assert_eq!(decoded(b"a/b\\c", DOS, false, b"", None).unwrap(), "a/b\\c");
    assert_eq!(decoded(b"a\\b", UNIX, false, b"", None).unwrap(), "a\\b");
}
