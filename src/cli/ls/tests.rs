use std::os::unix::ffi::OsStrExt;

use super::*;
use crate::vfs::ROOT_INO;
use crate::vfs::memory_fs::{ClosingPipe, MemoryFs, MemoryNodeKind};

fn tree() -> MemoryFs {
    let mut fs = MemoryFs::new();
    let etc = fs.add(ROOT_INO, b"etc", MemoryNodeKind::Dir);
    fs.file(etc, b"hosts", b"127.0.0.1".as_slice());
    fs.add(etc, b"mtab", MemoryNodeKind::Link(b"../proc/mounts".to_vec()));
    fs.file(ROOT_INO, b"lat-\xe9\n", b"".as_slice());
    fs.add(ROOT_INO, b"disk", MemoryNodeKind::Device(8, 1));
    fs
}

struct Printed {
    out: Vec<u8>,
    err: String,
    end: Result<CommandExit, CliError>,
}

fn ls(fs: &MemoryFs, path: &[u8], options: &LsOptions, terminal: bool) -> Printed {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let path = (!path.is_empty()).then(|| OsStr::from_bytes(path));
    let end = run(fs, path, options, RequestTimeout::default(), &mut Printer::new(&mut out, &mut err, terminal));
    Printed { out, err: String::from_utf8(err).unwrap(), end }
}

fn plain() -> LsOptions {
    LsOptions::default()
}

#[test]
fn names_are_raw_in_a_pipe_and_escaped_on_a_terminal() {
    let fs = tree();
    assert_eq!(ls(&fs, b"", &plain(), false).out, b"disk\netc\nlat-\xe9\n\n");
    assert_eq!(ls(&fs, b"", &plain(), true).out, b"disk\netc\nlat-\\xe9\\x0a\n");
    let zero = LsOptions { print0: true, ..plain() };
    assert_eq!(ls(&fs, b"/", &zero, true).out, b"disk\0etc\0lat-\xe9\n\0");
}

#[test]
fn recursive_lists_paths_from_the_root_each_directory_before_what_is_in_it() {
    let all = LsOptions { recursive: true, print0: true, ..plain() };
    let printed = ls(&tree(), b"", &all, false);
    assert_eq!(printed.out, b"disk\0etc\0lat-\xe9\n\0etc/hosts\0etc/mtab\0");
    assert_eq!(ls(&tree(), b"/etc/", &all, false).out, b"etc/hosts\0etc/mtab\0");
}

#[test]
fn long_shows_exact_sizes_and_link_targets() {
    let long = LsOptions { long: true, numeric: true, ..plain() };
    let printed = String::from_utf8(ls(&tree(), b"etc", &long, false).out).unwrap();
    let lines: Vec<Vec<&str>> = printed.lines().map(|line| line.split_whitespace().collect()).collect();
    let time = "2017-01-28T02:15:00Z";
    assert_eq!(lines[0], ["-rwSr-----", "1", "1000", "7", "9", time, "hosts"]);
    assert_eq!(lines[1], ["lrwSr-----", "1", "1000", "7", "14", time, "mtab", "->", "../proc/mounts"]);
    let one = String::from_utf8(ls(&tree(), b"disk", &long, false).out).unwrap();
    assert_eq!(one.split_whitespace().collect::<Vec<_>>(), ["brwSr-----", "1", "1000", "7", "8,", "1", time, "disk"]);
}

#[test]
fn a_size_that_cannot_be_determined_is_not_invented() {
    let mut fs = tree();
    fs.add(ROOT_INO, b"broken", MemoryNodeKind::File { bytes: vec![0; 9], damaged_from: Some(0) });
    let long = LsOptions { long: true, ..plain() };
    let printed = ls(&fs, b"broken", &long, false);
    assert_eq!(printed.end, Ok(CommandExit::Damage));
    assert!(String::from_utf8(printed.out).unwrap().contains(" ? "));
    assert_eq!(printed.err, "dupfs: broken: duplicity-full.T.vol7.difftar.gpg: damaged\n");
    let json = LsOptions { json: true, ..long };
    let rows: serde_json::Value = serde_json::from_slice(&ls(&fs, b"broken", &json, false).out).unwrap();
    assert_eq!(rows[0]["size"], serde_json::Value::Null);
    assert_eq!(rows[0]["size_is_exact"], false);
    assert_eq!(ls(&fs, b"", &plain(), false).end, Ok(CommandExit::Done), "without sizes nothing is wrong");
}

#[test]
fn a_directory_that_lacks_names_is_listed_and_fails() {
    let mut fs = tree();
    fs.incomplete_dirs.push(2);
    let printed = ls(&fs, b"", &LsOptions { recursive: true, ..plain() }, true);
    assert_eq!(printed.end, Ok(CommandExit::Damage));
    assert!(printed.out.ends_with(b"etc/hosts\netc/mtab\n"));
    assert!(printed.err.starts_with("dupfs: etc: "), "{}", printed.err);
}

#[test]
fn json_is_one_array_with_names_that_are_not_utf8_in_hex() {
    let json = LsOptions { json: true, ..plain() };
    let rows: serde_json::Value = serde_json::from_slice(&ls(&tree(), b"", &json, true).out).unwrap();
    assert_eq!(rows[0], serde_json::json!({"path": "disk", "type": "block-device"}));
    assert_eq!(rows[2], serde_json::json!({"path": "lat-\u{fffd}\n", "path_hex": "6c61742de90a", "type": "file"}));
    let long = LsOptions { long: true, ..json.clone() };
    let rows: serde_json::Value = serde_json::from_slice(&ls(&tree(), b"etc", &long, true).out).unwrap();
    let hosts = serde_json::json!({
        "path": "etc/hosts", "type": "file", "mode": "4640", "nlink": 1, "uid": 1000, "gid": 7,
        "size": 9, "size_is_exact": true, "mtime": 1_485_569_700
    });
    assert_eq!(rows[0], hosts);
    assert_eq!(rows[1]["target"], "../proc/mounts");
    let mut empty = MemoryFs::new();
    let dir = empty.add(ROOT_INO, b"d", MemoryNodeKind::Dir);
    assert_eq!(dir, 2);
    assert_eq!(
        serde_json::from_slice::<serde_json::Value>(&ls(&empty, b"d", &json, true).out).unwrap(),
        serde_json::json!([])
    );
}

#[test]
fn a_path_that_is_not_there_is_not_found() {
    for path in [b"nope".as_slice(), b"etc/hosts/x", b"etc/mtab/x"] {
        let failure = ls(&tree(), path, &plain(), true).end.unwrap_err();
        assert_eq!(failure.exit(), CommandExit::NotFound, "{failure}");
    }
    assert_eq!(ls(&tree(), b"a/../b", &plain(), true).end.unwrap_err().exit(), CommandExit::Usage);
}

#[test]
fn a_closed_pipe_ends_ls_silently() {
    let (mut out, mut err) = (ClosingPipe(3), Vec::new());
    let failure = run(&tree(), None, &plain(), RequestTimeout::default(), &mut Printer::new(&mut out, &mut err, false))
        .unwrap_err();
    assert_eq!(failure, CliError::OutputClosed);
    assert!(err.is_empty());
}

#[test]
fn a_store_that_does_not_answer_does_not_block_the_command() {
    let mut fs = tree();
    fs.hanging.push(2);
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let options = LsOptions { recursive: true, ..plain() };
    let timeout = RequestTimeout(std::time::Duration::from_millis(30));
    let end = run(&fs, None, &options, timeout, &mut Printer::new(&mut out, &mut err, false));
    assert_eq!(end, Ok(CommandExit::Damage));
    assert!(out.starts_with(b"disk\netc\n"));
    let err = String::from_utf8(err).unwrap();
    assert!(err.starts_with("dupfs: etc: ") && err.contains("deadline"), "{err}");
}
