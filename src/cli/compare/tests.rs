use std::fs::{self, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::{Duration, UNIX_EPOCH};

use super::*;
use crate::vfs::ROOT_INO;
use crate::vfs::memory_fs::{ClosingPipe, MemoryFs, MemoryNodeKind};

/// The times and modes that the file system in memory gives to all objects.
fn settle(path: &Path) {
    let mode = if path.is_dir() { 0o1755 } else { 0o4640 };
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    let file = File::open(path).unwrap();
    file.set_modified(UNIX_EPOCH + Duration::from_secs(1_485_569_700)).unwrap();
}

/// A snapshot, and a directory that is equal to it.
fn pair() -> (MemoryFs, tempfile::TempDir) {
    let mut backup = MemoryFs::new();
    let etc = backup.add(ROOT_INO, b"etc", MemoryNodeKind::Dir);
    backup.file(etc, b"hosts", b"127.0.0.1".as_slice());
    backup.add(etc, b"mtab", MemoryNodeKind::Link(b"../proc/mounts".to_vec()));
    backup.file(ROOT_INO, b"lat-\xe9\n", vec![7; 2_500_000]);
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &[u8]| dir.path().join(OsStr::from_bytes(name));
    fs::create_dir(at(b"etc")).unwrap();
    fs::write(at(b"etc/hosts"), b"127.0.0.1").unwrap();
    symlink("../proc/mounts", at(b"etc/mtab")).unwrap();
    fs::write(at(b"lat-\xe9\n"), vec![7; 2_500_000]).unwrap();
    for name in [&b"etc/hosts"[..], b"etc", b"lat-\xe9\n", b""] {
        settle(&at(name));
    }
    (backup, dir)
}

fn options(dir: &Path) -> CompareOptions {
    let contents = ContentRule::Signed;
    CompareOptions { directory: dir.to_owned(), contents, no_owner: true, ..CompareOptions::default() }
}

fn compared(fs: &MemoryFs, options: &CompareOptions) -> (String, String, Result<CommandExit, CliError>) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let end = run(fs, "memory:", options, RequestTimeout::default(), &mut Printer::new(&mut out, &mut err, true));
    (String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap(), end)
}

#[test]
fn the_summary_of_one_object_is_in_the_singular_and_a_file_in_place_of_the_directory_has_a_remedy() {
    let (backup, dir) = pair();
    let file = dir.path().join("etc/hosts");
    let one = CompareOptions { path: Some("etc/hosts".into()), contents: ContentRule::None, ..options(&file) };
    assert_eq!(compared(&backup, &one).0, "1 object compared: 0 differ\n");
    let error = compared(&backup, &options(&file)).2.unwrap_err().to_string();
    assert!(
        error.ends_with("cannot be compared: not a directory; compare a file with: dupfs verify --path PATH URL FILE")
    );
}

#[test]
fn equal_trees_have_no_difference_and_each_difference_is_reported() {
    let (backup, dir) = pair();
    let (out, err, end) = compared(&backup, &options(dir.path()));
    let expected = "5 objects compared, 0 contents by their signatures and 2 with the backup: 0 differ\n";
    assert_eq!((out.as_str(), err.as_str(), end), (expected, "", Ok(CommandExit::Done)));

    fs::write(dir.path().join("etc/hosts"), b"127.0.0.2").unwrap();
    fs::create_dir_all(dir.path().join("new/below")).unwrap();
    fs::remove_file(dir.path().join(OsStr::from_bytes(b"lat-\xe9\n"))).unwrap();
    fs::remove_file(dir.path().join("etc/mtab")).unwrap();
    symlink("/etc/hosts", dir.path().join("etc/mtab")).unwrap();
    settle(&dir.path().join("etc/hosts"));
    settle(&dir.path().join("etc"));
    settle(dir.path());
    let (out, _, end) = compared(&backup, &options(dir.path()));
    let expected = "missing: lat-\\xe9\\x0a
extra: new
content: etc/hosts
target: etc/mtab: /etc/hosts, expected ../proc/mounts
extra: new/below
7 objects compared, 0 contents by their signatures and 1 with the backup: 5 differ
";
    assert_eq!((out.as_str(), end), (expected, Ok(CommandExit::Failed)));
    let without = CompareOptions { contents: ContentRule::None, ..options(dir.path()) };
    assert!(!compared(&backup, &without).0.contains("content: "));
}

#[test]
fn a_path_is_compared_with_the_directory_or_file_itself() {
    let (backup, dir) = pair();
    let of = |path: &str, other: &str| {
        let options = CompareOptions { path: Some(path.into()), ..options(&dir.path().join(other)) };
        compared(&backup, &options)
    };
    assert_eq!(of("etc", "etc").2, Ok(CommandExit::Done));
    assert_eq!(of("etc/hosts", "etc/hosts").2, Ok(CommandExit::Done));
    assert_eq!(of("etc/mtab", "etc/mtab").2, Ok(CommandExit::Done));
    assert!(of("etc/hosts", "etc").0.starts_with("type: etc/hosts: dir, expected file\n"));
    assert!(of("etc/hosts", "none").0.starts_with("missing: etc/hosts\n"));
    assert_eq!(of("etc", "none").2.unwrap_err().exit(), CommandExit::NotFound);
    assert_eq!(of("none", "etc").2.unwrap_err().exit(), CommandExit::NotFound);
}

#[test]
fn no_link_is_followed_and_a_type_hides_nothing_below() {
    let (backup, dir) = pair();
    fs::rename(dir.path().join("etc"), dir.path().join("other")).unwrap();
    symlink("other", dir.path().join("etc")).unwrap();
    fs::remove_file(dir.path().join(OsStr::from_bytes(b"lat-\xe9\n"))).unwrap();
    fs::create_dir(dir.path().join(OsStr::from_bytes(b"lat-\xe9\n"))).unwrap();
    fs::write(dir.path().join(OsStr::from_bytes(b"lat-\xe9\n")).join("inside"), "").unwrap();
    settle(dir.path());
    let (out, _, _) = compared(&backup, &options(dir.path()));
    for line in [
        "type: etc: symlink, expected dir",
        "missing: etc/hosts",
        "missing: etc/mtab",
        "type: lat-\\xe9\\x0a: dir, expected file",
        "extra: lat-\\xe9\\x0a/inside",
        "extra: other/hosts",
    ] {
        assert!(out.lines().any(|found| found == line), "{line}: {out}");
    }
}

#[test]
fn an_unreadable_object_is_a_failure_and_no_difference() {
    let (mut backup, dir) = pair();
    backup.incomplete_dirs.push(ROOT_INO);
    fs::write(dir.path().join("maybe lost"), "").unwrap();
    let damaged = MemoryNodeKind::File { bytes: b"12345".to_vec(), damaged_from: Some(2) };
    backup.add(ROOT_INO, b"damaged", damaged);
    fs::write(dir.path().join("damaged"), "12345").unwrap();
    settle(&dir.path().join("damaged"));
    settle(dir.path());
    let (out, err, end) = compared(&backup, &options(dir.path()));
    assert!(out.ends_with(": 0 differ; 2 could not be compared\n"), "{out}");
    assert!(err.contains("damaged: ") && !out.contains("extra: "), "{err}{out}");
    assert_eq!(end, Ok(CommandExit::Damage));
}

#[test]
fn json_has_the_keys_of_the_documentation() {
    let (backup, dir) = pair();
    fs::write(dir.path().join("etc/hosts"), b"shorter").unwrap();
    let json = CompareOptions { json: true, contents: ContentRule::None, ..options(dir.path()) };
    let (out, _, _) = compared(&backup, &json);
    let report: serde_json::Value = serde_json::from_str(&out).unwrap();
    let keys: Vec<&str> = report.as_object().unwrap().keys().map(String::as_str).collect();
    let documented = [
        "compared",
        "complete",
        "differences",
        "different",
        "directory",
        "failed",
        "failures",
        "interrupted",
        "proved",
        "read",
        "same",
        "snapshot",
        "url",
    ];
    assert_eq!(keys, documented);
    assert_eq!((&report["same"], &report["complete"], &report["compared"]), (&false.into(), &true.into(), &5.into()));
    let kinds: Vec<_> = report["differences"].as_array().unwrap().iter().map(|found| found["kind"].clone()).collect();
    assert!(kinds.contains(&"mtime".into()), "{report}");
    let keys: Vec<&str> = report["differences"][0].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, ["expected", "found", "kind", "path", "path_hex"]);
    let (equal, dir) = pair();
    let json = CompareOptions { directory: dir.path().to_owned(), ..json };
    let report: serde_json::Value = serde_json::from_str(&compared(&equal, &json).0).unwrap();
    assert_eq!((&report["same"], &report["differences"]), (&true.into(), &serde_json::json!([])));
}

#[test]
fn a_closed_pipe_ends_the_comparison() {
    let (backup, dir) = pair();
    let mut err = Vec::new();
    let mut pipe = ClosingPipe(3);
    let end = run(
        &backup,
        "memory:",
        &options(&dir.path().join("etc")),
        RequestTimeout::default(),
        &mut Printer::new(&mut pipe, &mut err, false),
    );
    assert_eq!(end, Err(CliError::OutputClosed));
}
