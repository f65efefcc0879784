//! The commands without a mount, compared with duplicity's output, and the errors of `mount`.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::process::Command;

use crate::support::duplicity::{Mode, Repository, stamp};
use crate::support::exec;
use crate::support::mount::{self, Mount};
use crate::support::source;
use crate::support::tree::{Kind, Tree};
use crate::support::{Scratch, fixtures};

const TIMES: [i64; 4] = [1_700_000_000, 1_700_003_600, 1_700_007_200, 1_700_010_800];

/// Two chains: full, increment, increment; full.
fn two_chains(scratch: &Scratch, version: &str, mode: Mode) -> (Repository, [PathBuf; 3]) {
    let states = source::small(scratch.path());
    let repo = Repository::new(version, |_| mode, &scratch.dir("r"));
    repo.backup(true, &states[0], TIMES[0]);
    repo.backup(false, &states[1], TIMES[1]);
    repo.backup(false, &states[2], TIMES[2]);
    repo.backup(true, &states[1], TIMES[3]);
    (repo, states)
}

#[test]
fn ls_lists_what_list_current_files_lists() {
    for version in ["0.8.22", "3.2.1"] {
        let scratch = Scratch::new();
        let (repo, _) = two_chains(&scratch, version, Mode::Symmetric("p".to_owned()));
        for time in TIMES {
            let time = time.to_string();
            let output = repo.ask("list-current-files", &["--time", &time]);
            // A line is a date of 24 characters and the path; the root is a dot.
            let dated = |line: &&str| line.len() > 25 && line.as_bytes()[13] == b':' && line.as_bytes()[16] == b':';
            let expected: BTreeSet<_> =
                output.lines().filter(dated).map(|l| l[25..].to_owned()).filter(|p| p != ".").collect();
            assert!(expected.len() > 8, "{output}");
            let listed = repo.reader().run("list-current-files", &["--print0", "--time", &time, &repo.url()]);
            assert_eq!(listed, repo.reader().run("ls", &["-R", "--print0", "--time", &time, &repo.url()]));
            let listed = String::from_utf8(listed).unwrap();
            let listed: BTreeSet<_> = listed.split_terminator('\0').map(str::to_owned).collect();
            assert_eq!(listed, expected, "{version} at {time}");
        }
    }
}

#[test]
fn sets_reports_the_same_as_collection_status() {
    for version in ["0.8.22", "2.2.4"] {
        let scratch = Scratch::new();
        let (repo, _) = two_chains(&scratch, version, Mode::Gzip);
        let output = repo.ask("collection-status", &[]);
        let mut expected: Vec<_> = output.lines().filter_map(status_line).collect();
        expected.sort();
        assert_eq!(expected.len(), 4, "{output}");
        let sets: serde_json::Value =
            serde_json::from_slice(&repo.reader().run("sets", &["--json", &repo.url()])).unwrap();
        let of = |set: &serde_json::Value| {
            let kind = set["type"].as_str().unwrap().to_owned();
            (set["epoch"].as_i64().unwrap(), kind, set["volumes"].as_u64().unwrap())
        };
        let mut shown: Vec<_> = sets["sets"].as_array().unwrap().iter().map(of).collect();
        shown.sort();
        assert_eq!(shown, expected, "{version}");
        assert_eq!(sets["latest"], stamp(TIMES[3]));
        let plain = String::from_utf8(repo.reader().run("collection-status", &[&repo.url()])).unwrap();
        for time in TIMES {
            assert!(plain.contains(&stamp(time)), "no {} in\n{plain}", stamp(time));
        }
    }
}

/// `Full  Tue Nov 14 22:13:20 2023  2` as (epoch, "full", 2).
fn status_line(line: &str) -> Option<(i64, String, u64)> {
    let words: Vec<_> = line.split_whitespace().collect();
    let kind = match *words.first()? {
        "Full" => "full",
        "Incremental" => "inc",
        _ => return None,
    };
    let [_, _, month, day, clock, year, volumes] = words[..] else { return None };
    let time = jiff::civil::DateTime::strptime("%b %d %H:%M:%S %Y", format!("{month} {day} {clock} {year}")).ok()?;
    Some((
        time.to_zoned_datetime(jiff::tz::TimeZone::UTC).ok()?.timestamp().as_second(),
        kind.to_owned(),
        volumes.parse().ok()?,
    ))
}

#[test]
fn cat_gives_every_file_of_every_snapshot() {
    let scratch = Scratch::new();
    let (repo, states) = two_chains(&scratch, "1.2.3", Mode::Gzip);
    for (time, state) in TIMES[..3].iter().zip(&states) {
        let tree = Tree::walk(state);
        let files: Vec<_> = tree.entries.iter().filter(|(_, e)| e.kind == Kind::File).map(|(p, _)| p).collect();
        let expected: Vec<u8> = files.iter().flat_map(|path| fs::read(tree.locate(path)).unwrap()).collect();
        let mut cat = repo.reader().command("cat");
        cat.args(["--time", &time.to_string(), &repo.url()]).args(files.iter().map(|path| OsStr::from_bytes(path)));
        assert!(exec::run(&mut cat) == expected, "cat of all files of {time} is not what the source had");
    }
    let (code, error) = repo.reader().fails("cat", &[&repo.url(), "no/such/file"]);
    assert_eq!(code, Some(3), "{error}");
    let (code, error) = repo.reader().fails("cat", &[&repo.url(), "dir"]);
    assert!(code != Some(0), "cat of a directory is no success: {error}");
}

/// An encrypted chain without any of its manifests: its volumes and signature archives give every file.
#[test]
fn a_chain_without_manifests_is_rebuilt_from_its_volumes() {
    let scratch = Scratch::new();
    let states = source::small(scratch.path());
    let repo = Repository::new("3.2.1", |_| Mode::Symmetric("p".to_owned()), &scratch.dir("r"));
    // A cheap key derivation.
    let repo = repo.option("--gpg-options=--s2k-count 1024");
    for (time, state) in TIMES.iter().zip(&states) {
        repo.backup(*time == TIMES[0], state, *time);
    }
    for entry in fs::read_dir(repo.dir()).unwrap() {
        let path = entry.unwrap().path();
        if path.to_str().unwrap().contains(".manifest") {
            fs::remove_file(path).unwrap();
        }
    }
    let (code, error) = repo.reader().fails("cat", &[&repo.url(), "any"]);
    assert!(code == Some(3) && error.contains("--rebuild"), "{error}");
    // Without a manifest, anyone with write access could add a volume. An unencrypted one does not count as part of
    // the set.
    let forged = format!("duplicity-full.{}.vol99.difftar", stamp(TIMES[0]));
    fs::write(repo.dir().join(forged), vec![0; 10_240]).unwrap();
    let rebuilding = repo.reader().option("--rebuild");
    for (time, state) in TIMES.iter().zip(&states) {
        let tree = Tree::walk(state);
        let files: Vec<_> = tree.entries.iter().filter(|(_, e)| e.kind == Kind::File).map(|(p, _)| p).collect();
        let expected: Vec<u8> = files.iter().flat_map(|path| fs::read(tree.locate(path)).unwrap()).collect();
        let mut cat = rebuilding.command("cat");
        cat.args(["--time", &time.to_string(), &repo.url()]).args(files.iter().map(|path| OsStr::from_bytes(path)));
        assert!(exec::run(&mut cat) == expected, "cat of all files of {time} is not what the source had");
    }
}

/// Runs `dupfs mount` (in the background) and requires failure with `code` and one line; nothing may be left mounted.
fn mount_fails(dupfs: &exec::Dupfs, url: &str, dir: &str, code: i32) -> String {
    let (got, error) = dupfs.fails("mount", &[url, dir]);
    assert_eq!(got, Some(code), "mount {url} {dir}: {error}");
    let lines: Vec<_> = error.lines().filter(|l| !l.contains("warning")).collect();
    assert_eq!(lines.len(), 1, "one line was promised:\n{error}");
    error
}

#[test]
fn mount_reports_its_failure_in_one_line() {
    let scratch = Scratch::new();
    let (repo, _) = two_chains(&scratch, "0.8.22", Mode::Gzip);
    let dupfs = repo.reader();
    let mnt = scratch.dir("mnt");
    let mnt = mnt.to_str().unwrap();
    let empty = scratch.dir("empty");
    mount_fails(&dupfs, "file:///no/such/directory", mnt, 3);
    mount_fails(&dupfs, &format!("file://{}", empty.display()), mnt, 3);
    mount_fails(&dupfs, "gopher://host/backup", mnt, 2);
    mount_fails(&dupfs.clone().option("--time=yesterday"), &repo.url(), mnt, 2);
    mount_fails(&dupfs.clone().option("--path=no/such/directory"), &repo.url(), mnt, 3);
    let nowhere = scratch.path().join("nowhere");
    mount_fails(&dupfs, &repo.url(), nowhere.to_str().unwrap(), 3);
    // A backup below its own mount point could no longer be read.
    mount_fails(&dupfs, &repo.url(), repo.dir().to_str().unwrap(), 1);
    mount_fails(&dupfs, &fixtures::url("duplicity-0.6.23-key"), mnt, 5);

    let mount = Mount::new(&dupfs, &repo.url(), &scratch.path().join("mnt"));
    let error = mount_fails(&dupfs, &repo.url(), mnt, 1);
    assert!(error.contains("mount"), "{error}");
    mount.unmount();
}

#[test]
fn mount_reports_a_missing_dev_fuse() {
    let scratch = Scratch::new();
    let (repo, _) = two_chains(&scratch, "0.8.22", Mode::Gzip);
    let mnt = scratch.dir("mnt");
    let mounted = repo.reader().command("mount");
    // A new mount namespace also has the mounts of other tests, and would keep them alive after they are unmounted.
    let mut command = Command::new("unshare");
    let script = "umount -alt fuse.dupfs; mount -t tmpfs none /dev && exec \"$@\"";
    command.args(["--mount", "--propagation", "private", "sh", "-c", script, "sh"]).arg(mounted.get_program());
    command.args(mounted.get_args()).arg(repo.url()).arg(&mnt).env("HOME", scratch.path());
    let output = exec::output(&mut command);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    mount::release(&mnt);
    assert!(matches!(output.status.code(), Some(1 | 4)), "{:?} {error}", output.status);
    assert!(error.contains("/dev/fuse") && error.lines().count() == 1, "{error}");
}

#[test]
fn a_damaged_volume_affects_only_its_files() {
    let scratch = Scratch::new();
    let (repo, states) = two_chains(&scratch, "0.8.22", Mode::Symmetric("damage".to_owned()));
    let volume = format!("duplicity-inc.{}.to.{}.vol1.difftar.gpg", stamp(TIMES[0]), stamp(TIMES[1]));
    let mut bytes = fs::read(repo.dir().join(&volume)).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(repo.dir().join(&volume), bytes).unwrap();

    let mount = Mount::new(&repo.reader(), &repo.url(), &scratch.path().join("mnt"));
    let mut failed = Vec::new();
    for (time, state) in TIMES.into_iter().zip([&states[0], &states[1], &states[2], &states[1]]) {
        let tree = Tree::walk(state);
        for (path, _) in tree.entries.iter().filter(|(_, e)| e.kind == Kind::File) {
            let shown = mount.path().join("snapshots").join(stamp(time)).join(OsStr::from_bytes(path));
            match fs::read(&shown) {
                Ok(bytes) => {
                    assert!(bytes == fs::read(tree.locate(path)).unwrap(), "wrong bytes in {}", shown.display());
                }
                Err(error) => {
                    assert_eq!(error.raw_os_error(), Some(libc::EIO), "{}: {error}", shown.display());
                    failed.push((time, path.escape_ascii().to_string()));
                }
            }
        }
    }
    let log = mount.log();
    let expected = [(TIMES[1], "dir/edited"), (TIMES[1], "new"), (TIMES[2], "dir/edited")];
    assert_eq!(failed, expected.map(|(time, path)| (time, path.to_owned())), "what could not be read\n{log}");
    assert!(log.contains(&volume), "the log does not name the volume:\n{log}");
    mount.unmount();
}

#[test]
fn quiet_leaves_out_warnings_and_no_error() {
    let scratch = Scratch::new();
    let dupfs = exec::Dupfs::new(scratch.path()).option("--no-index");
    let fixture = fixtures::path("duplicity-0.7.13-gz");
    let fixture = fixture.to_str().unwrap();
    let stderr = |args: &[&str]| {
        let output = exec::output(dupfs.command("ls").args(args));
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    // An option of duplicity that only concerns backups.
    let (code, warning) = stderr(&["--volsize=25", fixture]);
    assert!(code == Some(0) && warning.contains("volsize"), "{warning}");
    assert_eq!(stderr(&["-q", "--volsize=25", fixture]), (Some(0), String::new()));
    assert_eq!(stderr(&["--volsize=25", "--quiet", fixture]), (Some(0), String::new()));
    let (code, error) = stderr(&["-q", fixture, "no/such/path"]);
    assert!(code == Some(3) && error.contains("no/such/path"), "{error}");
    assert_eq!(stderr(&["-q", "-v", fixture]).0, Some(2));
}

#[test]
fn options_that_exclude_each_other_are_refused_on_both_sides_of_the_command() {
    let scratch = Scratch::new();
    let dupfs = exec::Dupfs::new(scratch.path());
    let fixture = fixtures::path("duplicity-0.7.13-gz");
    let fixture = fixture.to_str().unwrap();
    let refused: [(&[&str], &str); 6] = [
        (&["-q", "sets", "-v", fixture], "--quiet cannot be used with --verbose"),
        (&["-v", "sets", "-q", fixture], "--quiet cannot be used with --verbose"),
        (&["sets", "-q", "-v", fixture], "--quiet cannot be used with --verbose: leave out one of them"),
        (&["-v", "completions", "-q", "bash"], "--quiet cannot be used with --verbose"),
        (&["umount", "--stale", "-l", "/m"], "--stale cannot be used with --lazy: leave out one of them"),
        (&["umount", "--lazy", "--stale", "/m"], "--lazy cannot be used with --stale: leave out one of them"),
    ];
    for (args, reason) in refused {
        let output = exec::output(dupfs.command(args[0]).args(&args[1..]));
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(2) && error.contains(reason), "{args:?}: {error}");
    }
}
