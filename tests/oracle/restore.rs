//! `dupfs restore`: interrupted and continued, into destinations that are full, read-only or prepared by an attacker. The
//! comparison with `duplicity restore` in all modes is in `matrix`.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::support::duplicity::{Mode, Repository, stamp};
use crate::support::tree::{Kind, Rules, Tree, assert_same};
use crate::support::{Scratch, exec, noise};

const TIME: i64 = 1_700_000_000;
const TEMPORARY: &str = ".dupfs-restore";

/// Builds a source of some megabytes, with a file that is nearly only a hole.
fn build_source(dir: &Path) {
    for d in 0..4u64 {
        let sub = dir.join(format!("dir{d}"));
        fs::create_dir_all(&sub).unwrap();
        for f in 0..12u64 {
            let len = usize::try_from(f * f * 3000 + d).unwrap();
            fs::write(sub.join(format!("file{f}")), noise(d * 100 + f, len)).unwrap();
        }
        symlink("file1", sub.join("link")).unwrap();
        fs::set_permissions(&sub, fs::Permissions::from_mode(0o2750)).unwrap();
    }
    fs::write(dir.join("hole"), [vec![0u8; 3 << 20], vec![9], vec![0; 1 << 20]].concat()).unwrap();
    exec::run(Command::new("mkfifo").arg(dir.join("pipe")));
    exec::run(Command::new("touch").args(["-h", "-d", "2011-11-11 11:11:11Z"]).arg(dir.join("dir2")));
}

/// A backup of a full set and an increment, and the source in its last state.
fn backup(scratch: &Scratch) -> (Repository, PathBuf) {
    let source = scratch.dir("source");
    build_source(&source);
    let repo = Repository::new("3.2.1", |_| Mode::Symmetric("p".to_owned()), &scratch.dir("r"));
    repo.backup(true, &source, TIME);
    let changed = [noise(1, 200_000), noise(311, 363_003)].concat();
    fs::write(source.join("dir3/file11"), changed).unwrap();
    // duplicity notices changes by the second.
    exec::run(Command::new("touch").args(["-d", "2012-12-12 12:12:12Z"]).arg(source.join("dir3/file11")));
    fs::remove_file(source.join("dir0/file3")).unwrap();
    repo.backup(false, &source, TIME + 60);
    (repo, source)
}

fn as_text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The complete regular files below `dest`: those under their own names.
fn finished(dest: &Path) -> Vec<Vec<u8>> {
    if !dest.exists() {
        return Vec::new();
    }
    let list = exec::output(Command::new("find").arg(dest).args([
        "-type",
        "f",
        "!",
        "-name",
        ".dupfs-restore*",
        "-printf",
        "%P\\0",
    ]));
    list.stdout.split(|&b| b == 0).filter(|name| !name.is_empty()).map(<[u8]>::to_vec).collect()
}

#[test]
fn a_restore_that_is_killed_again_and_again_never_shows_a_half_file_and_ends_complete() {
    let scratch = Scratch::new();
    let (repo, source) = backup(&scratch);
    let dest = scratch.path().join("dest");
    let rounds: usize = std::env::var("DUPFS_TEST_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(1);
    for round in 0..4 * rounds {
        let before = finished(&dest).len();
        let mut child = repo.reader().command("restore");
        let mut child = child.arg(repo.url()).arg(&dest).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let more = 1 + round * 5 % 17;
        let ended = loop {
            if finished(&dest).len() >= before + more {
                break false;
            }
            if child.try_wait().unwrap().is_some() {
                break true;
            }
        };
        child.kill().unwrap();
        child.wait().unwrap();
        for name in finished(&dest) {
            let name = String::from_utf8(name).unwrap();
            assert!(
                fs::read(dest.join(&name)).unwrap() == fs::read(source.join(&name)).unwrap(),
                "{name} is not whole"
            );
        }
        if ended {
            break;
        }
    }
    let right = finished(&dest).len();
    let report = if dest.join(TEMPORARY).exists() {
        repo.reader().run("restore", &["--json", &repo.url(), as_text(&dest)])
    } else {
        repo.reader().run("restore", &["--json", "--force", &repo.url(), as_text(&dest)])
    };
    let report: serde_json::Value = serde_json::from_slice(&report).unwrap();
    assert!(report["already_right"].as_u64().unwrap() >= right as u64 && right > 0, "{report}");
    assert_eq!(report["complete"], true);
    assert_same("the continued restore", &Tree::walk(&source), &Tree::walk(&dest), &Rules::default());
    assert!(fs::metadata(dest.join("hole")).unwrap().blocks() * 512 < 1 << 20, "the hole is not kept");

    // What is right is recognized by its signature: no volume is needed any more.
    for entry in fs::read_dir(repo.dir()).unwrap().map(Result::unwrap) {
        if entry.file_name().to_str().unwrap().contains(".difftar") {
            fs::write(entry.path(), b"destroyed").unwrap();
        }
    }
    let report = repo.reader().run("restore", &["--json", "--force", &repo.url(), as_text(&dest)]);
    let report: serde_json::Value = serde_json::from_slice(&report).unwrap();
    assert_eq!((&report["complete"], &report["files"]), (&true.into(), &0.into()), "{report}");
    assert_same("without volumes", &Tree::walk(&source), &Tree::walk(&dest), &Rules::default());
}

#[test]
fn an_interrupt_ends_the_restore_and_leaves_what_the_next_one_continues() {
    let scratch = Scratch::new();
    let (repo, source) = backup(&scratch);
    let dest = scratch.path().join("dest");
    let mut command = repo.reader().command("restore");
    let mut child = command.arg(repo.url()).arg(&dest).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    while finished(&dest).is_empty() && child.try_wait().unwrap().is_none() {}
    exec::output(Command::new("kill").args(["-INT", &child.id().to_string()]));
    let code = child.wait().unwrap().code();
    assert!(code == Some(130) || code == Some(0), "{code:?}");
    if code == Some(130) {
        assert!(dest.join(TEMPORARY).exists(), "the next run must find its marker");
        let left = exec::output(Command::new("find").arg(&dest).args(["-name", ".dupfs-restore-*"]));
        assert!(left.stdout.is_empty(), "{}", String::from_utf8_lossy(&left.stdout));
        // Another snapshot must not be mixed in.
        let (code, message) =
            repo.reader().fails("restore", &["--time", &TIME.to_string(), &repo.url(), as_text(&dest)]);
        assert_eq!(code, Some(1));
        assert!(message.contains("interrupted restore"), "{message}");
        repo.reader().run("restore", &[&repo.url(), as_text(&dest)]);
    }
    assert_same("the continued restore", &Tree::walk(&source), &Tree::walk(&dest), &Rules::default());
}

#[test]
fn one_path_becomes_the_destination_and_several_go_into_it() {
    let scratch = Scratch::new();
    let (repo, source) = backup(&scratch);
    let (reader, url) = (repo.reader(), repo.url());
    let file = scratch.path().join("one");
    reader.run("restore", &[&url, "dir1/file7", as_text(&file)]);
    assert!(fs::read(&file).unwrap() == fs::read(source.join("dir1/file7")).unwrap());
    assert_eq!(fs::metadata(&file).unwrap().mtime(), fs::metadata(source.join("dir1/file7")).unwrap().mtime());
    // The same again is right already; another content is not replaced without --force.
    reader.run("restore", &[&url, "dir1/file7", as_text(&file)]);
    fs::write(&file, b"mine").unwrap();
    let (code, message) = reader.fails("restore", &[&url, "dir1/file7", as_text(&file)]);
    assert_eq!((code, fs::read(&file).unwrap().as_slice()), (Some(1), b"mine".as_slice()), "{message}");
    assert!(message.contains("--force"), "{message}");
    let output = exec::output(reader.command("restore").args([&url, "dir1/file7", as_text(&file)]));
    let summary = String::from_utf8(output.stdout).unwrap();
    assert!(summary.ends_with("; 1 failure: --force replaces what differs\n"), "{summary}");
    reader.run("restore", &["--force", "--file-to-restore", "dir1/file7", &url, as_text(&file)]);
    assert!(fs::read(&file).unwrap() == fs::read(source.join("dir1/file7")).unwrap());

    let dir = scratch.path().join("tree");
    let counted: serde_json::Value =
        serde_json::from_slice(&reader.run("restore", &["--dry-run", "--json", &url, "dir2", as_text(&dir)])).unwrap();
    assert_eq!((&counted["files"], &counted["directories"], &counted["others"]), (&12.into(), &1.into(), &1.into()));
    assert!(counted["dry_run"] == true && counted["bytes_written"].as_u64().unwrap() > 1_000_000, "{counted}");
    assert!(!dir.exists(), "written with --dry-run");
    reader.run("restore", &["--dry-run", "--force", &url, "dir1/file7", as_text(&file)]);
    let line = String::from_utf8(reader.run("restore", &["--dry-run", "--path", "dir2", &url])).unwrap();
    assert!(line.contains("12 files (at most ") && line.ends_with(" would be restored\n"), "{line}");
    reader.run("restore", &[&url, "dir2", as_text(&dir)]);
    assert_same("one directory", &Tree::walk(&source.join("dir2")), &Tree::walk(&dir), &Rules::default());
    let several = scratch.path().join("several");
    reader.run("restore", &[&url, "dir1/file7", "dir2", "dir0/link", as_text(&several)]);
    assert_same("in several", &Tree::walk(&source.join("dir2")), &Tree::walk(&several.join("dir2")), &Rules::default());
    assert_eq!(Tree::walk(&several).entries[&b"link"[..]].kind, Kind::Link);
    assert_eq!(reader.fails("restore", &[&url, "nothing", as_text(&dir.join("x"))]).0, Some(3));
    assert_eq!(reader.fails("restore", &[&url, "dir0/link", "dir1/link", as_text(&dir.join("x"))]).0, Some(2));
}

#[test]
fn nothing_is_replaced_without_force_and_no_link_leads_out_of_the_destination() {
    let scratch = Scratch::new();
    let (repo, source) = backup(&scratch);
    let (dest, outside) = (scratch.dir("dest"), scratch.dir("outside"));
    fs::write(outside.join("file5"), b"outside").unwrap();
    symlink(&outside, dest.join("dir1")).unwrap();
    symlink(outside.join("file5"), dest.join("hole")).unwrap();
    let planted = Tree::walk(&dest);
    let (code, message) = repo.reader().fails("restore", &[&repo.url(), as_text(&dest)]);
    assert_eq!(code, Some(1));
    assert!(message.contains("not empty") && message.contains("--force"), "{message}");
    assert_same("refused", &planted, &Tree::walk(&dest), &Rules::default());

    // The marker of this restore, as an interrupted run leaves it: still nothing is written through the links.
    fs::write(dest.join(TEMPORARY), b"").unwrap();
    let (code, message) = repo.reader().fails("restore", &[&repo.url(), as_text(&dest)]);
    assert_eq!(code, Some(1), "{message}");
    assert!(message.contains("dir1") && message.contains("hole"), "{message}");
    assert!(dest.join("dir1").is_symlink() && dest.join("hole").is_symlink());
    assert!(fs::read(dest.join("dir2/file5")).unwrap() == fs::read(source.join("dir2/file5")).unwrap());

    repo.reader().run("restore", &["--force", &repo.url(), as_text(&dest)]);
    assert_same("with --force", &Tree::walk(&source), &Tree::walk(&dest), &Rules::default());
    assert_eq!(fs::read(outside.join("file5")).unwrap(), b"outside");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
}

/// A tmpfs that is unmounted when the test ends.
struct Tmpfs(PathBuf);

impl Tmpfs {
    fn new(dir: PathBuf, options: &str) -> Self {
        exec::run(Command::new("mount").args(["-t", "tmpfs", "-o", options, "none"]).arg(&dir));
        Self(dir)
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        exec::output(Command::new("umount").arg("-l").arg(&self.0));
    }
}

#[test]
fn a_full_disk_and_a_read_only_one_are_reported_and_leave_no_half_file() {
    let scratch = Scratch::new();
    let (repo, source) = backup(&scratch);
    let small = Tmpfs::new(scratch.dir("small"), "size=2m");
    let dest = small.0.join("dest");
    let (code, message) = repo.reader().fails("restore", &[&repo.url(), as_text(&dest)]);
    assert_eq!((code, finished(&dest).len()), (Some(1), 0), "{message}");
    assert!(message.contains("are free") && message.contains("--ignore-space"), "{message}");
    // A refusal leaves neither the destination that it made nor anything in an existing one.
    assert!(!dest.exists());
    fs::create_dir(&dest).unwrap();
    repo.reader().fails("restore", &[&repo.url(), as_text(&dest)]);
    assert_eq!(fs::read_dir(&dest).unwrap().count(), 0);
    let (code, message) = repo.reader().fails("restore", &["--ignore-space", &repo.url(), as_text(&dest)]);
    assert_eq!(code, Some(1), "{message}");
    let remedy = "cannot be written: no space left on device, which ends the restore; free space there";
    assert!(message.contains(remedy), "{message}");
    let whole = finished(&dest);
    assert!(whole.len() > 3);
    for name in whole {
        let name = String::from_utf8(name).unwrap();
        assert!(fs::read(dest.join(&name)).unwrap() == fs::read(source.join(&name)).unwrap(), "{name} is not whole");
    }
    // With room the same command completes it.
    exec::run(Command::new("mount").args(["-o", "remount,size=64m"]).arg(&small.0));
    repo.reader().run("restore", &[&repo.url(), as_text(&dest)]);
    assert_same("after the full disk", &Tree::walk(&source), &Tree::walk(&dest), &Rules::default());

    let (code, message) = repo.reader().fails("restore", &[&repo.url(), as_text(&scratch.path().join("no/such/dest"))]);
    assert_eq!(code, Some(3), "{message}");
    assert!(message.ends_with("; create the directories above the destination (mkdir -p)\n"), "{message}");

    let fixed = Tmpfs::new(scratch.dir("fixed"), "ro");
    for dest in [fixed.0.clone(), fixed.0.join("new")] {
        let (code, message) = repo.reader().fails("restore", &[&repo.url(), as_text(&dest)]);
        assert_eq!(code, Some(4), "{message}");
        let reason = "nothing can be restored here: read-only file system; choose another destination\n";
        assert!(message.ends_with(reason), "{message}");
    }
}

/// The temporary name of a file in its destination.
fn temporary(dest: &Path, name: &str) -> PathBuf {
    let sum = exec::run(Command::new("sh").args(["-c", "printf %s \"$1\" | md5sum", "sh", name]));
    dest.join(format!("{TEMPORARY}-{}", std::str::from_utf8(&sum[..32]).unwrap()))
}

/// A copy as an interrupted run leaves it.
fn leave_copy(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

#[test]
fn an_interrupted_copy_of_a_large_file_is_continued_if_its_signature_proves_it() {
    const MIB: usize = 1 << 20;
    let scratch = Scratch::new();
    let source = scratch.dir("source");
    let whole = noise(77, 24 * MIB + 12_345);
    fs::write(source.join("dump"), &whole).unwrap();
    let repo = Repository::new("3.2.1", |_| Mode::Plain, &scratch.dir("r"));
    repo.backup(true, &source, TIME);
    let dest = scratch.dir("dest");
    let (file, begun) = (dest.join("out"), temporary(&dest, "out"));
    let restore = |options: &[&str]| {
        let url = repo.url();
        let report = repo.reader().run("restore", &[options, &["--json", &url, "dump", as_text(&file)]].concat());
        let report: serde_json::Value = serde_json::from_slice(&report).unwrap();
        assert_eq!((&report["complete"], &report["files"]), (&true.into(), &1.into()), "{report}");
        assert!(fs::read(&file).unwrap() == whole, "other bytes");
        assert!(!begun.exists(), "the temporary file is left");
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o7777, 0o644);
        fs::remove_file(&file).unwrap();
    };
    // Wrong at the end, in the middle, too long, and of another user: written again from the start.
    let mut wrong = whole[..20 * MIB].to_vec();
    *wrong.last_mut().unwrap() ^= 1;
    leave_copy(&begun, &wrong);
    restore(&[]);
    let mut wrong = whole[..20 * MIB].to_vec();
    wrong[5 * MIB] ^= 1;
    leave_copy(&begun, &wrong);
    restore(&[]);
    leave_copy(&begun, &[&whole[..], &[0; MIB]].concat());
    restore(&[]);
    leave_copy(&begun, &whole[..20 * MIB]);
    std::os::unix::fs::chown(&begun, Some(12_345), None).unwrap();
    restore(&[]);
    let outside = scratch.path().join("outside");
    leave_copy(&outside, &whole[..20 * MIB]);
    symlink(&outside, &begun).unwrap();
    restore(&[]);
    assert!(fs::read(&outside).unwrap() == whole[..20 * MIB], "written through a link");

    // Right: the volumes that have only bytes before the end of the copy are not needed.
    for number in 3..=15 {
        fs::remove_file(repo.dir().join(format!("duplicity-full.{}.vol{number}.difftar", stamp(TIME)))).unwrap();
    }
    leave_copy(&begun, &whole[..20 * MIB + 777]);
    restore(&[]);
    leave_copy(&begun, &whole[..15 * MIB]);
    let (code, message) = repo.reader().fails("restore", &[&repo.url(), "dump", as_text(&file)]);
    assert_eq!(code, Some(6), "a copy that is too short is not continued: {message}");
    assert!(!file.exists() && !begun.exists());
}

#[test]
fn an_interrupt_leaves_the_copy_of_a_large_file_for_the_next_run() {
    let scratch = Scratch::new();
    let source = scratch.dir("source");
    let whole = noise(78, 64 << 20);
    fs::write(source.join("dump"), &whole).unwrap();
    let repo = Repository::new("3.2.1", |_| Mode::Plain, &scratch.dir("r"));
    repo.backup(true, &source, TIME);
    let dest = scratch.dir("dest");
    let (file, begun) = (dest.join("out"), temporary(&dest, "out"));
    let len = || fs::metadata(&begun).map_or(0, |file| file.len());
    // The copy may end before the signal comes.
    let left = (0..30).find_map(|_| {
        let mut command = repo.reader().command("restore");
        let command = command.arg(repo.url()).arg("dump").arg(&file).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        while len() < 18 << 20 && child.try_wait().unwrap().is_none() {}
        exec::output(Command::new("kill").args(["-INT", &child.id().to_string()]));
        let code = child.wait().unwrap().code();
        if code == Some(0) {
            fs::remove_file(&file).unwrap();
            return None;
        }
        assert_eq!(code, Some(130));
        Some(len())
    });
    assert!(left.is_some_and(|left| left >= 16 << 20), "{left:?} bytes are left");
    assert!(!file.exists());
    repo.reader().run("restore", &[&repo.url(), "dump", as_text(&file)]);
    assert!(fs::read(&file).unwrap() == whole, "other bytes");
    assert_eq!(fs::read_dir(&dest).unwrap().count(), 1);
}

#[test]
fn paths_of_the_mount_and_of_its_archives_are_restored() {
    let scratch = Scratch::new();
    let (repo, source) = backup(&scratch);
    exec::run(Command::new("tar").args(["-c", "-z", "-f", "packed.tgz", "dir1", "dir2"]).current_dir(&source));
    exec::run(Command::new("gzip").args(["-k", "dir1/file7"]).current_dir(&source));
    repo.backup(false, &source, TIME + 120);
    let (reader, url) = (repo.reader(), repo.url());
    let restored = |path: &str| {
        let dest = scratch.path().join(path.replace('/', "-"));
        reader.run("restore", &[&url, path, as_text(&dest)]);
        dest
    };
    let (first, latest) = (stamp(TIME), stamp(TIME + 120));
    for (path, wanted) in [
        (format!("snapshots/{latest}/dir1"), "dir1"),
        ("latest/dir2".to_owned(), "dir2"),
        (format!("at/{}/dir1", TIME + 121), "dir1"),
        ("unpacked/latest/packed.tgz/dir2".to_owned(), "dir2"),
    ] {
        let restored = restored(&path);
        assert_same(&path, &Tree::walk(&source.join(wanted)), &Tree::walk(&restored), &Rules::default());
    }
    let same = |path: &str, wanted: &str| {
        assert!(fs::read(restored(path)).unwrap() == fs::read(source.join(wanted)).unwrap(), "{path}");
    };
    same(&format!("versions/dir1/file5/{first}"), "dir1/file5");
    same(&format!("unpacked/{latest}/packed.tgz/dir1/file7"), "dir1/file7");
    let versions = restored("versions/dir3/file11");
    assert_eq!(fs::read_dir(&versions).unwrap().count(), 2);
    assert!(fs::read(versions.join(stamp(TIME + 60))).unwrap() == fs::read(source.join("dir3/file11")).unwrap());
    assert_eq!(fs::metadata(versions.join(&first)).unwrap().len(), 363_003);
}

#[test]
fn a_user_without_rights_restores_with_modes_and_times_and_without_owners() {
    const NOBODY: u32 = 65_534;
    let scratch = Scratch::new();
    let source = scratch.dir("source");
    build_source(&source);
    std::os::unix::fs::chown(source.join("dir1/file5"), Some(12), Some(34)).unwrap();
    fs::set_permissions(source.join("dir1/file6"), fs::Permissions::from_mode(0o400)).unwrap();
    fs::set_permissions(source.join("dir3"), fs::Permissions::from_mode(0o555)).unwrap();
    exec::run(Command::new("mknod").arg(source.join("null")).args(["c", "1", "3"]));
    let repo = Repository::new("3.2.1", |_| Mode::Gzip, &scratch.dir("r"));
    repo.backup(true, &source, TIME);
    let mut wanted = Tree::walk(&source);
    fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o755)).unwrap();
    exec::run(Command::new("chmod").args(["-R", "go+rX"]).arg(scratch.path().join("r")));
    let home = scratch.dir("home");
    let program = home.join("dupfs");
    fs::copy(env!("CARGO_BIN_EXE_dupfs"), &program).unwrap();
    for path in [&home, &scratch.dir("out")] {
        std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    let reader = exec::Dupfs::new(&home).with_user(NOBODY, &program);
    let dest = scratch.path().join("out/tree");
    let (code, message) = reader.fails("restore", &[&repo.url(), as_text(&dest)]);
    assert_eq!(code, Some(4), "{message}");
    assert_eq!(message.lines().filter(|line| line.contains("null: cannot be written")).count(), 1, "{message}");
    wanted.entries.remove(&b"null"[..]);
    for entry in wanted.entries.values_mut() {
        (entry.uid, entry.gid) = (NOBODY, NOBODY);
    }
    // The run is not complete, so its marker stays.
    fs::remove_file(dest.join(TEMPORARY)).unwrap();
    let mut restored = Tree::walk(&dest);
    for tree in [&mut wanted, &mut restored] {
        tree.entries.get_mut(&b""[..]).unwrap().mtime = 0;
    }
    assert_same("as nobody", &wanted, &restored, &Rules::default());
}
