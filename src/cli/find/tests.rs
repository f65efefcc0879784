use super::*;
use crate::vfs::memory_fs::{ClosingPipe, MemoryFs, MemoryNodeKind};

fn tree() -> MemoryFs {
    let mut fs = MemoryFs::new();
    let etc = fs.add(ROOT_INO, b"etc", MemoryNodeKind::Dir);
    fs.file(etc, b"hosts", b"127.0.0.1".as_slice());
    fs.add(etc, b"mtab", MemoryNodeKind::Link(b"../proc/mounts".to_vec()));
    let below = fs.add(etc, b"a", MemoryNodeKind::Dir);
    fs.file(below, b"hosts", b"".as_slice());
    fs.file(ROOT_INO, b"h-\xe9\n", b"".as_slice());
    fs
}

struct Printed {
    out: Vec<u8>,
    err: String,
    end: Result<CommandExit, CliError>,
}

fn find(fs: &MemoryFs, options: &FindOptions, terminal: bool) -> Printed {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let end = run(fs, options, RequestTimeout::default(), &mut Printer::new(&mut out, &mut err, terminal));
    Printed { out, err: String::from_utf8(err).unwrap(), end }
}

fn named(pattern: &str) -> FindOptions {
    FindOptions { pattern: pattern.into(), ..FindOptions::default() }
}

#[test]
fn names_are_found_at_any_depth_each_directory_before_what_is_in_it() {
    let fs = tree();
    let found = find(&fs, &named("*"), false);
    assert_eq!(found.out, b"etc\nh-\xe9\n\netc/a\netc/hosts\netc/mtab\netc/a/hosts\n");
    assert_eq!(found.end, Ok(CommandExit::Done));
    assert_eq!(find(&fs, &named("h*"), true).out, b"h-\\xe9\\x0a\netc/hosts\netc/a/hosts\n");
    let zero = FindOptions { print0: true, ..named("h-*") };
    assert_eq!(find(&fs, &zero, true).out, b"h-\xe9\n\0");
}

#[test]
fn types_times_and_sizes_select() {
    let fs = tree();
    let links = FindOptions { kinds: vec![NodeKind::Symlink, NodeKind::Dir], ..named("*") };
    assert_eq!(find(&fs, &links, false).out, b"etc\netc/a\netc/mtab\n");
    // Sizes of this file system are bounds, 100 bytes above the exact size.
    let larger = FindOptions { larger: Some(100), ..named("*") };
    assert_eq!(find(&fs, &larger, false).out, b"etc/hosts\n");
    let larger = FindOptions { larger: Some(109), ..named("*") };
    assert_eq!(find(&fs, &larger, false).end, Ok(CommandExit::NotFound));
    // All have the same time.
    let time = fs.lookup(ROOT_INO, b"etc", &RequestTimeout::default().start()).unwrap().mtime;
    for (newer, count) in [(time - 1, 6), (time, 0)] {
        let newer = FindOptions { newer: Some(BackupTime(newer)), print0: true, ..named("*") };
        assert_eq!(find(&fs, &newer, false).out.iter().filter(|&&b| b == 0).count(), count);
    }
}

#[test]
fn nothing_found_is_an_error_with_advice() {
    let found = find(&tree(), &named("host"), false);
    assert_eq!(found.end, Ok(CommandExit::NotFound));
    assert!(found.err.contains("--all") && found.err.contains("'*host*'") && found.err.lines().count() == 1);
    let json = FindOptions { json: true, ..named("no-*") };
    let found = find(&tree(), &json, false);
    assert_eq!((found.out.as_slice(), found.end), (&b"[]\n"[..], Ok(CommandExit::NotFound)));
    assert!(!found.err.contains("'*no"), "{}", found.err);
    let wrong = find(&tree(), &named("[a"), false);
    assert_eq!(wrong.end.unwrap_err().exit(), CommandExit::Usage);
}

#[test]
fn json_has_the_documented_keys() {
    let json = FindOptions { json: true, ..named("hosts") };
    let found: serde_json::Value = serde_json::from_slice(&find(&tree(), &json, true).out).unwrap();
    let expected = serde_json::json!([
        {"path": "etc/hosts", "type": "file", "mode": "4640", "uid": 1000, "gid": 7, "size": 109, "size_is_exact": false,
         "mtime": 1_485_569_700},
        {"path": "etc/a/hosts", "type": "file", "mode": "4640", "uid": 1000, "gid": 7, "size": 100,
         "size_is_exact": false, "mtime": 1_485_569_700},
    ]);
    assert_eq!(found, expected);
}

#[test]
fn an_unreadable_directory_is_reported_and_the_others_are_searched() {
    let mut fs = tree();
    let etc = fs.lookup(ROOT_INO, b"etc", &RequestTimeout::default().start()).unwrap().ino;
    fs.incomplete_dirs.push(etc);
    let found = find(&fs, &named("h*"), false);
    assert_eq!(found.end, Ok(CommandExit::Damage));
    assert!(found.err.contains("etc") && found.out.starts_with(b"h-\xe9\n\n"), "{}", found.err);
}

#[test]
fn consecutive_snapshots_are_one_run() {
    let names = ["A", "B", "C", "D", "E"].map(str::to_owned);
    assert_eq!(runs(&names, &[0, 1, 2, 4]), "A..C,E");
    assert_eq!(runs(&names, &[3]), "D");
}

#[test]
fn a_closed_pipe_ends_the_search() {
    let mut err = Vec::new();
    let mut pipe = ClosingPipe(3);
    let end = run(&tree(), &named("*"), RequestTimeout::default(), &mut Printer::new(&mut pipe, &mut err, false));
    assert_eq!(end, Err(CliError::OutputClosed));
}
