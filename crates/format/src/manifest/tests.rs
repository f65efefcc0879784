use proptest::prelude::*;

use std::io::Read;

use super::*;
use crate::FormatError;

/// The example of docs/FORMAT.md section 2, completed.
const EXAMPLE: &str = "Hostname vm
Localdir src
Volume 1:
    StartingPath   .  
    EndingPath     big/random5m 16
    Hash SHA1 cf98f81111a9c979d3bacac97930db2b0fe4ec73
Volume 2:
    StartingPath   big/random5m 17
    EndingPath     \"names/sp\\x20ace\"  
    Hash SHA1 eaf0c790e994be031ea97f7c87f6cd56a19bbbaf
Filelist 2
    new      \"names/quo\\x22te\"
    changed  inc/touch
";

fn path(text: &str) -> ArchivePath {
    ArchivePath::parse(text.as_bytes()).unwrap()
}

fn boundary(text: &str, part: Option<u64>) -> VolumeBoundary {
    VolumeBoundary { path: path(text), part }
}

fn read(text: &str) -> Manifest {
    Manifest::read(&mut text.as_bytes()).unwrap()
}

fn volume(number: u32, end: &str, block: Option<u64>) -> ManifestVolume {
    let number = VolumeNumber(number);
    ManifestVolume { number, start: boundary(".", None), end: boundary(end, block), hash: None }
}

/// An undamaged entry. Its hash distinguishes entries for the same number.
fn entry(number: u32, end: &str, mark: u8) -> String {
    format!("Volume {number}:\n    StartingPath   .  \n    EndingPath     {end}\n    Hash SHA1 {mark:040x}\n")
}

fn numbers(manifest: &Manifest) -> Vec<(u32, u8)> {
    let last_byte = |v: &ManifestVolume| v.hash.as_ref().and_then(|hash| hash.digest.last().copied()).unwrap_or(0);
    manifest.volumes.iter().map(|v| (v.number.0, last_byte(v))).collect()
}

#[test]
fn the_documented_example_is_parsed() {
    let manifest = read(EXAMPLE);
    assert_eq!(manifest.hostname.as_deref(), Some(&b"vm"[..]));
    assert_eq!(manifest.localdir.as_deref(), Some(&b"src"[..]));
    assert_eq!(manifest.changed_files, Some(2));
    assert!(manifest.problems.is_empty(), "{:?}", manifest.problems);
    let [one, two] = manifest.volumes.as_slice() else { panic!("two volumes") };
    assert_eq!(
        (one.number, &one.start, &one.end),
        (VolumeNumber(1), &boundary(".", None), &boundary("big/random5m", Some(16)))
    );
    assert_eq!(two.end, boundary("names/sp ace", None));
    let VolumeHash { kind, digest } = two.hash.as_ref().unwrap();
    assert_eq!((*kind, digest.len(), digest[0], digest[19]), (HashKind::Sha1, 20, 0xea, 0xaf));
    assert_eq!(manifest.missing_volumes().count(), 0);
}

#[test]
fn the_list_of_files_may_precede_be_empty_or_be_absent() {
    let volumes = entry(1, "a", 1);
    assert_eq!(read(&volumes).changed_files, None);
    assert_eq!(read(&format!("{volumes}Filelist 0\n")).changed_files, Some(0));
    let before = read(&format!("hostname h\nFILELIST 2\n    new a\n    deleted \"b\\x0a\"\n{volumes}"));
    assert_eq!((before.changed_files, before.volumes.len(), before.problems.len()), (Some(2), 1, 0));
    let short = read(&format!("{volumes}Filelist 2\n    new a\n"));
    assert_eq!((short.volumes.len(), short.problems.len()), (1, 1));
}

#[test]
fn keywords_match_in_either_case_and_paths_are_raw_bytes() {
    let text = b"VOLUME 1:\n\tstartingpath .\n\tENDINGPATH lat-\xe9\x85\xc2\xa0\n\
        \thash md5 00112233445566778899aabbccddeeff\n";
    let manifest = Manifest::read(&mut text.as_slice()).unwrap();
    assert_eq!(manifest.volumes[0].end.path.as_bytes(), b"lat-\xe9\x85\xc2\xa0");
    assert_eq!(manifest.volumes[0].hash.as_ref().unwrap().kind, HashKind::Md5);
    let quoted = read(&entry(1, "\"t\\x09n\\x0av\\x0bf\\x0cr\\x0db\\x5cq\\x22a\\x27\" 3", 0));
    assert_eq!(quoted.volumes[0].end, boundary("t\tn\nv\u{b}f\u{c}r\rb\\q\"a'", Some(3)));
}

#[test]
fn sha1_is_preferred_to_md5() {
    let text = "Volume 1:\n StartingPath .\n EndingPath a\n Hash SHA1 cf98f81111a9c979d3bacac97930db2b0fe4ec73\n \
                Hash MD5 00112233445566778899aabbccddeeff\n";
    assert_eq!(read(text).volumes[0].hash.as_ref().unwrap().kind, HashKind::Sha1);
}

#[test]
fn after_a_restart_the_last_entry_wins_and_higher_numbers_are_void() {
    // docs/FORMAT.md section 2.3: 1,2,3,3,4 and 1,2,3,4,5,2,3
    let text: String = [(1, 1), (2, 2), (3, 3), (3, 4), (4, 5)].map(|(n, m)| entry(n, "x", m)).concat();
    assert_eq!(numbers(&read(&text)), [(1, 1), (2, 2), (3, 4), (4, 5)]);
    let text: String = [(1, 1), (2, 2), (3, 3), (4, 4), (5, 5), (2, 6), (3, 7)].map(|(n, m)| entry(n, "x", m)).concat();
    let manifest = read(&text);
    assert_eq!(numbers(&manifest), [(1, 1), (2, 6), (3, 7)]);
    assert!(manifest.problems.is_empty() && manifest.missing_volumes().count() == 0);
}

#[test]
fn volumes_are_in_numerical_order() {
    let text: String = (1..=12).map(|n| entry(n, "x", 0)).collect();
    assert_eq!(read(&text).volumes.iter().map(|v| v.number.0).collect::<Vec<_>>(), (1..=12).collect::<Vec<_>>());
}

#[test]
fn the_worked_example_finds_byte_4000000_in_volume_7() {
    // docs/FORMAT.md section 9: byte 4,000,000 is in part 62
    let ends = [("a", None), ("b", None), ("big/a", None), ("big/random5m", Some(16)), ("big/random5m", Some(32))];
    let more =
        [("big/random5m", Some(48)), ("big/random5m", Some(64)), ("big/random5m", Some(80)), ("inc/chmod", Some(1))];
    let volumes = ends.iter().chain(&more).zip(1..).map(|(&(end, block), n)| volume(n, end, block)).collect();
    let manifest = Manifest::from_volumes(volumes);
    let of = |name: &str, part| manifest.volume_of(&path(name), part).map(|n| n.0);
    assert_eq!(of("big/random5m", PartSelector::Number(62)), Some(7));
    assert_eq!(of("big/random5m", PartSelector::Number(16)), Some(4));
    assert_eq!(of("big/random5m", PartSelector::Number(17)), Some(5));
    assert_eq!(of("big/random5m", PartSelector::Number(81)), Some(9));
    assert_eq!(of("big/random5m", PartSelector::Last), Some(9));
    assert_eq!(of("inc/chmod", PartSelector::Number(1)), Some(9));
    assert_eq!(of("inc/chmod", PartSelector::Number(2)), None);
    assert_eq!(of("zebra", PartSelector::Number(1)), None);
    assert_eq!(of("", PartSelector::Number(1)), Some(1));
    // components, not bytes: `big/z` is before `big!`
    assert_eq!(of("big!", PartSelector::Number(1)), Some(9));
    let all: Vec<u32> = manifest.volumes_of(&path("big/random5m")).iter().map(|v| v.number.0).collect();
    assert_eq!(all, [4, 5, 6, 7, 8, 9]);
    // its next volume does not exist
    assert_eq!(manifest.volumes_of(&path("inc/chmod")).len(), 1);
    assert!(manifest.volumes_of(&path("zebra")).is_empty());
}

#[test]
fn volumes_without_entries_have_no_paths() {
    // docs/FORMAT.md section 2.1: a second volume `.`..`f` of a single file, and a set without changes
    let manifest = Manifest::from_volumes(vec![volume(1, "f", None), volume(2, "f", None)]);
    assert_eq!(manifest.volume_of(&path("f"), PartSelector::Last), Some(VolumeNumber(1)));
    let none = Manifest::from_volumes(vec![volume(1, ".", None)]);
    assert_eq!(none.volume_of(&path("f"), PartSelector::Number(1)), None);
    assert_eq!(none.volume_of(&path("."), PartSelector::Last), Some(VolumeNumber(1)));
}

#[test]
fn the_greatest_end_before_a_volume_decides() {
    let manifest = Manifest::from_volumes(vec![volume(1, "m", None), volume(2, "c", None), volume(3, "x", None)]);
    assert_eq!(manifest.volume_of(&path("b"), PartSelector::Number(1)), Some(VolumeNumber(1)));
    assert_eq!(manifest.volume_of(&path("d"), PartSelector::Number(1)), Some(VolumeNumber(1)));
    assert_eq!(manifest.volume_of(&path("n"), PartSelector::Number(1)), Some(VolumeNumber(3)));
}

#[test]
fn a_damaged_entry_costs_its_volume_only() {
    let good = [entry(1, "a", 1), entry(2, "b", 2), entry(3, "c", 3)];
    let damages: [(&str, &str); 7] = [
        ("EndingPath", "EndingPaht"),
        ("Hash SHA1", "Hash SHA9"),
        ("    EndingPath     b\n", ""),
        ("     b", "     b 1x"),
        ("     b", "     \"b"),
        ("     b", "     b/../c"),
        ("000002", "00002"),
    ];
    for (from, to) in damages {
        let text = [good[0].as_str(), &good[1].replacen(from, to, 1), &good[2]].concat();
        let manifest = read(&text);
        assert_eq!(numbers(&manifest), [(1, 1), (3, 3)], "{to}");
        assert_eq!(manifest.missing_volumes().collect::<Vec<_>>(), [VolumeNumber(2)], "{to}");
        assert_eq!(manifest.problems.len(), 1, "{to}: {:?}", manifest.problems);
    }
    // a lost hash: the volume cannot be verified although the others can
    let manifest =
        read(&[good[0].as_str(), &good[1].replace(&format!("    Hash SHA1 {:040x}\n", 2), ""), &good[2]].concat());
    assert_eq!((numbers(&manifest), manifest.problems.len()), (vec![(1, 1), (3, 3)], 1));
    // a hash that became a line of its own, in a manifest of one volume
    let alone = Manifest::read(&mut good[0].replace("    Hash", "!   Hash").as_bytes());
    assert!(alone.is_err_and(|error| error.to_string().contains("volume 1: the keyword is unknown")));
    // a lost number: its lines must not pass for the previous volume's
    for header in ["Volume x:", "Volume 2", "Volume 0:", "Volume 99999999999:", "Wolume 2:"] {
        let manifest = read(&[good[0].as_str(), &good[1].replace("Volume 2:", header), &good[2]].concat());
        assert_eq!(numbers(&manifest), [(1, 1), (3, 3)], "{header}");
        assert_eq!(manifest.problems.len(), 1, "{header}: {:?}", manifest.problems);
    }
    // of two entries for a number, the second replaces the first also if it is damaged
    let again = [good[0].as_str(), &good[1], &good[1].replace("SHA1", "SHA7"), &good[2]].concat();
    assert_eq!(numbers(&read(&again)), [(1, 1), (3, 3)]);
}

#[test]
fn a_manifest_cut_anywhere_never_gains_or_changes_a_volume() {
    let whole = read(EXAMPLE);
    for cut in 0..EXAMPLE.len() {
        match Manifest::read(&mut &EXAMPLE.as_bytes()[..cut]) {
            Ok(manifest) => {
                for volume in &manifest.volumes {
                    // if the file ends after volume 1 without its hash, no other volume has one
                    let mut expected = whole.volume(volume.number).unwrap().clone();
                    if volume.number.0 == 1 && volume.hash.is_none() {
                        expected.hash = None;
                    }
                    assert_eq!(*volume, expected, "cut at {cut}");
                }
            }
            Err(error) => assert!(matches!(error, FormatError::Manifest { .. }), "{error}"),
        }
    }
}

#[test]
fn files_without_a_volume_are_refused() {
    for text in ["", "\n\n", "<html>\n  <body>not found\n", "Hostname h\nLocaldir d\nFilelist 0\n", "\0\0\0\0"] {
        let error = Manifest::read(&mut text.as_bytes()).unwrap_err();
        assert!(matches!(error, FormatError::Manifest { .. }), "{error}");
    }
}

#[test]
fn memory_is_bounded() {
    let error = Manifest::read(&mut std::io::Read::take(std::io::repeat(b'x'), 3 << 20)).unwrap_err();
    assert!(matches!(error, FormatError::TooLarge { .. }), "{error}");
    let line = "    changed  var/www/assets/some/where/picture.jpg\n";
    let text = format!("{}Filelist 300000\n{}", entry(1, "x", 0), line.repeat(300_000));
    let mut parser = ManifestParser::new();
    for chunk in text.as_bytes().chunks(1000) {
        parser.feed(chunk).unwrap();
    }
    let manifest = parser.finish().unwrap();
    assert_eq!((manifest.changed_files, manifest.problems.len()), (Some(300_000), 0));
}

#[test]
fn an_error_of_the_reader_is_returned_with_its_offset() {
    struct FailingReader(bool);
    impl Read for FailingReader {
        fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
            if std::mem::replace(&mut self.0, true) {
                return Err(std::io::Error::other("the link is down"));
            }
            buf[..12].copy_from_slice(b"Hostname vm\n");
            Ok(12)
        }
    }
    let error = Manifest::read(&mut FailingReader(false)).unwrap_err();
    assert_eq!(error.to_string(), "reading failed at byte 12: the link is down");
}

proptest! {
    #[test]
    fn lookup_agrees_with_a_linear_search(
        ends in proptest::collection::vec(("[a-c/]{0,4}", proptest::option::of(1_u64..4)), 1..8),
        name in "[a-c/]{0,4}",
        part in 1_u64..5,
        last in any::<bool>(),
    ) {
        let volumes: Vec<_> = ends.iter().zip(1..).map(|((end, block), n)| volume(n, end, *block)).collect();
        let number = if last { u64::MAX } else { part };
        let key = (path(&name), number);
        // the rule in the words of docs/FORMAT.md section 2.2
        let mut before = None;
        let mut expected = None;
        for v in &volumes {
            let end = (v.end.path.clone(), v.end.part.unwrap_or(u64::MAX));
            if before.as_ref().is_none_or(|b| *b < key) && key <= end {
                expected = Some(v.number);
            }
            before = before.max(Some(end));
        }
        let manifest = Manifest::from_volumes(volumes);
        let selected = if last { PartSelector::Last } else { PartSelector::Number(part) };
        prop_assert_eq!(manifest.volume_of(&key.0, selected), expected);
        let all = manifest.volumes_of(&key.0);
        if let Some(found) = expected {
            prop_assert!(all.iter().any(|v| v.number == found));
        }
    }
}

#[test]
fn a_cut_list_of_files_concerns_no_volume() {
    let volumes = [entry(1, "a", 1), entry(2, "b", 2)].concat();
    let whole = format!("{volumes}Filelist 3\n    new      x\n    changed  y\n    deleted  z\n");
    let list_at = whole.find("Filelist").unwrap();
    for (case, text) in [
        ("announced", whole.replace("Filelist 3", "Filelist 99")),
        ("malformed", whole.replace("Filelist 3", "Filelist x")),
        ("cut after a line", whole[..list_at + 31].to_owned()),
        ("cut within a line", whole[..list_at + 20].to_owned()),
        ("damaged line", whole.replace("changed", "chnaged")),
    ] {
        let manifest = read(&text);
        let kinds: Vec<_> = manifest.problems.iter().map(|problem| problem.kind).collect();
        assert!(
            !kinds.is_empty() && kinds.iter().all(|kind| *kind == ManifestProblemKind::FileList),
            "{case}: {kinds:?}"
        );
        assert_eq!((manifest.entry_damage(), manifest.doubt(&path("b"))), (None, None), "{case}");
    }
    // Nothing is announced there that the list could differ from.
    let malformed = read(&whole.replace("Filelist 3", "Filelist x"));
    let reasons: Vec<_> = malformed.problems.iter().map(|problem| &*problem.what).collect();
    assert_eq!(reasons, ["the number of changed files is malformed"]);
    // A list before the volumes, of which one has lost the line with its number.
    let first = format!("Filelist 1\n    new      x\n{}", volumes.replace("Volume 2:", "Wolume 2:"));
    let kinds: Vec<_> = read(&first).problems.iter().map(|problem| problem.kind).collect();
    assert_eq!(kinds, [ManifestProblemKind::UnknownEntry]);
}

#[test]
fn damage_is_a_doubt_for_the_paths_that_it_may_concern_only() {
    let doubt = |text: &str, name: &str| read(text).doubt(&path(name));
    let sound = [entry(1, "b", 1), entry(2, "d", 2), entry(3, "f", 3)];
    for name in ["a", "b", "c", "d", "e", "f", "g"] {
        assert_eq!(doubt(&sound.concat(), name), None, "{name}");
    }
    let without = |n: usize| (0..3).filter(|i| *i != n).map(|i| sound[i].as_str()).collect::<String>();
    // The second volume is gone: paths that sort after the first may have been in it, up to the end of the third.
    for (name, doubtful) in
        [("a", false), ("b", false), ("c", true), ("d", true), ("e", true), ("f", true), ("g", false)]
    {
        assert_eq!(doubt(&without(1), name).is_some(), doubtful, "{name}");
    }
    // Of the third there is no trace at all.
    assert_eq!(doubt(&without(2), "e"), None);
    let last_damaged = sound.concat().replace("Volume 3:", "Volume x:");
    assert_eq!((doubt(&last_damaged, "d"), doubt(&last_damaged, "e").is_some()), (None, true));
    // The second volume ends before the first: paths up to the end of the third are doubtful, those of the fourth not.
    let overlapping = [&sound[0], &entry(2, "a", 2), &sound[2], &entry(4, "h", 4)].map(String::as_str).concat();
    for (name, doubtful) in [("a", true), ("b", true), ("d", true), ("f", true), ("g", false), ("h", false)] {
        assert_eq!(doubt(&overlapping, name).is_some(), doubtful, "{name}");
    }
    // A resumed backup's empty last volume has no range.
    let empty = entry(4, ".", 4);
    assert!(read(&[sound.concat(), empty].concat()).problems.is_empty());
}

/// A restart goes back to a number that had an entry. Entries in another order are not one, and hide volumes.
#[test]
fn entries_that_come_before_lower_numbers_are_damage() {
    let list = |numbers: &[u32]| -> String { numbers.iter().map(|n| entry(*n, &format!("f{n}"), 1)).collect() };
    for order in [&[1, 2, 3][..], &[1, 2, 3, 3, 4], &[1, 2, 3, 4, 5, 2, 3], &[1, 2, 1]] {
        assert_eq!(read(&list(order)).problems, [], "{order:?}");
    }
    // Each once, in any order, as `duplicity replicate` lists them.
    for order in [&[3, 2, 1][..], &[1, 3, 2], &[2, 1], &[5, 2, 1, 4, 6, 3]] {
        let manifest = read(&list(order));
        assert_eq!((&manifest.problems[..], manifest.is_resumed()), (&[][..], false), "{order:?}");
        assert_eq!(manifest.volumes.len(), order.len(), "{order:?}");
    }
    for order in [&[3, 1][..], &[1, 4, 3], &[3, 2, 1, 1, 2], &[3, 1, 2, 2]] {
        let manifest = read(&list(order));
        let kinds: Vec<_> = manifest.problems.iter().map(|problem| problem.kind).collect();
        assert_eq!(kinds, [ManifestProblemKind::UnknownEntry], "{order:?}");
        assert!(manifest.doubt(&path("f3")).is_some_and(|doubt| doubt.contains("before lower numbers")), "{order:?}");
    }
}
