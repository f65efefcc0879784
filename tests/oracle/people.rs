//! Owners of files, and users who may mount and read.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::check;
use crate::support::duplicity::{Mode, Repository, stamp};
use crate::support::exec::{self, Dupfs};
use crate::support::maker::Maker;
use crate::support::mount::{self, Mount};
use crate::support::source;
use crate::support::tree::{Rules, Tree, assert_same};
use crate::support::{Scratch, mount::is_mounted};

const TIME: i64 = 1_700_000_000;
/// The user ID of Debian's user `nobody`.
const NOBODY: u32 = 65_534;

/// A backup from a machine on which owner names have other numbers: `daemon` was 4001 there, `mail` 4002, and
/// `elsewhere` does not exist here.
fn backup_of_a_machine_with_other_numbers(scratch: &Scratch) -> Repository {
    let mut maker = Maker::new(&scratch.dir("source"), 1_400_000_000);
    for (name, uid, gid) in
        [("daemon", 4001, 4002), ("elsewhere", 4003, 4004), ("nameless", 4005, 4006), ("root", 0, 0)]
    {
        maker.file(name, name);
        maker.chown(name, uid, gid);
    }
    maker.link("link", "daemon");
    maker.chown("link", 4001, 4002);
    let repo = Repository::new("3.2.1", |_| Mode::Gzip, &scratch.dir("r"));
    let (passwd, group) = (scratch.path().join("passwd"), scratch.path().join("group"));
    fs::write(&passwd, "root:x:0:0::/root:/bin/sh\ndaemon:x:4001:4002::/:/bin/sh\nelsewhere:x:4003:4004::/:/bin/sh\n")
        .unwrap();
    fs::write(&group, "root:x:0:\nmail:x:4002:\nelsewhere:x:4004:\n").unwrap();
    // The other machine is this one with other files mounted over /etc/passwd and /etc/group, for duplicity only.
    let backup = repo.backup_command(true, maker.root(), TIME);
    // A new mount namespace also has the mounts of other tests, and would keep them alive after they are unmounted.
    let mut command = Command::new("unshare");
    let script = "umount -alt fuse.dupfs; mount --bind \"$1\" /etc/passwd && mount --bind \"$2\" /etc/group && shift 2 && exec \"$@\"";
    command.args(["--mount", "--propagation", "private", "sh", "-c", script, "sh"]).arg(&passwd).arg(&group);
    command.arg(backup.get_program()).args(backup.get_args());
    for (name, value) in backup.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    exec::run(&mut command);
    repo
}

fn owners_equal_restore(options: &[&str]) -> Tree {
    let scratch = Scratch::new();
    let repo = backup_of_a_machine_with_other_numbers(&scratch);
    let dest = scratch.path().join("restored");
    repo.restore("now", &dest, options);
    let reader = options.iter().fold(repo.reader(), |reader, option| reader.option(option));
    let mount = Mount::new(&reader, &repo.url(), &scratch.dir("mnt"));
    let shown = Tree::walk(&mount.path().join("latest/."));
    assert_same(&format!("owners with {options:?}"), &Tree::walk(&dest), &shown, &Rules::default());
    mount.unmount();
    shown
}

#[test]
fn owners_are_mapped_by_name_as_restore_does() {
    let shown = owners_equal_restore(&[]);
    assert_ne!(shown.entries[&b"daemon"[..]].uid, 4001, "the name was not mapped: this test would prove nothing");
    assert_eq!(shown.entries[&b"nameless"[..]].uid, 4005);
}

#[test]
fn owners_are_numbers_with_numeric_owner() {
    let shown = owners_equal_restore(&["--numeric-owner"]);
    assert_eq!((shown.entries[&b"daemon"[..]].uid, shown.entries[&b"daemon"[..]].gid), (4001, 4002));
}

#[test]
fn uid_gid_and_umask_override_what_was_stored() {
    let scratch = Scratch::new();
    let repo = backup_of_a_machine_with_other_numbers(&scratch);
    let options = ["--uid=1234", "--gid=2345", "--umask=077"];
    let reader = options.iter().fold(repo.reader(), |reader, option| reader.option(option));
    let mount = Mount::new(&reader, &repo.url(), &scratch.dir("mnt"));
    for (path, entry) in &Tree::walk(&mount.path().join("latest/.")).entries {
        assert_eq!((entry.uid, entry.gid), (1234, 2345), "{}", path.escape_ascii());
        let link = path.as_slice() == b"link";
        assert!(link || entry.mode & 0o077 == 0, "{}: mode {:o}", path.escape_ascii(), entry.mode);
    }
    mount.unmount();
}

/// Returns the tree below `dir` as `user` sees it: every path with type, mode, owner, mtime, size, link target, and a
/// checksum of each file.
fn seen_by(user: Option<u32>, dir: &Path) -> Vec<String> {
    let script = r#"cd "$1" && find . -printf '%P|%y|%m|%U|%G|%T@|%l\n' && find . -type f -printf '%P|%s\n' && find . -type f -exec sha1sum {} +"#;
    let mut command = match user {
        None => Command::new("sh"),
        Some(uid) => {
            let id = uid.to_string();
            let mut command = Command::new("setpriv");
            command.args(["--reuid", &id, "--regid", &id, "--clear-groups", "--", "sh"]);
            command
        }
    };
    let output = exec::run(command.args(["-c", script, "sh"]).arg(dir).env("LC_ALL", "C"));
    let mut lines: Vec<String> = String::from_utf8_lossy(&output).lines().map(str::to_owned).collect();
    lines.sort();
    // Restore does not set the times of links.
    for line in lines.iter_mut().filter(|l| l.contains("|l|")) {
        let mut fields: Vec<_> = line.split('|').collect();
        fields.remove(5);
        *line = fields.join("|");
    }
    lines
}

/// A repository and a copy of the program that every user can read.
fn open_to_all(scratch: &Scratch) -> (Repository, PathBuf, PathBuf) {
    fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let states = source::small(scratch.path());
    let repo =
        Repository::new("0.8.22", |home| Mode::Key(home.generate("k", "future-default", "pass")), &scratch.dir("r"));
    repo.backup(true, &states[0], TIME);
    repo.backup(false, &states[1], TIME + 60);
    let dest = scratch.path().join("restored");
    repo.restore("now", &dest, &[]);
    exec::run(Command::new("chmod").arg("-R").arg("a+rX").arg(scratch.path().join("r")));
    let program = scratch.path().join("dupfs");
    fs::copy(env!("CARGO_BIN_EXE_dupfs"), &program).unwrap();
    (repo, dest, program)
}

fn as_nobody(scratch: &Scratch, repo: &Repository, program: &Path) -> Dupfs {
    let home = scratch.dir("home-nobody");
    std::os::unix::fs::chown(&home, Some(NOBODY), Some(NOBODY)).unwrap();
    let key = repo.gpg_home().path().join("k.secret.asc");
    let open_key = home.join("key.asc");
    fs::copy(key, &open_key).unwrap();
    fs::set_permissions(&open_key, fs::Permissions::from_mode(0o644)).unwrap();
    Dupfs::new(&home).passphrase("pass").secret_key(&open_key).with_user(NOBODY, program)
}

#[test]
fn an_unprivileged_user_mounts_through_fusermount3_and_reads_everything() {
    let scratch = Scratch::new();
    let (repo, restored, program) = open_to_all(&scratch);
    let mount = Mount::new(&as_nobody(&scratch, &repo, &program), &repo.url(), &scratch.dir("mnt"));
    let line = mount::mount_line(mount.path()).unwrap();
    for option in ["ro", "nosuid", "nodev", "fuse.dupfs", &format!("user_id={NOBODY}"), "dupfs:file://"] {
        assert!(line.contains(option), "no {option} in the mount table: {line}");
    }
    let snapshot = mount.path().join("snapshots").join(stamp(TIME + 60));
    assert_eq!(seen_by(None, &restored), seen_by(Some(NOBODY), &snapshot));
    // No other user has access, not even root, since allow_other was not given.
    assert!(fs::read_dir(mount.path()).is_err(), "root can read a mount of nobody's without allow_other");
    let mut unmount = Command::new("setpriv");
    let id = NOBODY.to_string();
    unmount
        .args(["--reuid", &id, "--regid", &id, "--clear-groups", "--"])
        .arg(&program)
        .arg("umount")
        .arg(mount.path());
    exec::run(&mut unmount);
    assert!(!is_mounted(mount.path()));
}

#[test]
fn with_allow_other_the_stored_modes_are_enforced() {
    let scratch = Scratch::new();
    let (repo, restored, _) = open_to_all(&scratch);
    let reader = repo.reader().option("-o").option("allow_other");
    let mount = Mount::new(&reader, &repo.url(), &scratch.dir("mnt"));
    let snapshot = mount.path().join("snapshots").join(stamp(TIME + 60));
    assert_eq!(seen_by(None, &restored), seen_by(None, &snapshot), "what root sees");
    let id = NOBODY.to_string();
    let cat = |path: &Path| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", &id, "--regid", &id, "--clear-groups", "--", "cat"]).arg(path);
        exec::output(&mut command)
    };
    assert_eq!(cat(&snapshot.join("a file")).stdout, b"hello\n");
    let refused = cat(&snapshot.join("dir/secret"));
    assert!(!refused.status.success() && refused.stdout.is_empty(), "nobody reads a file of root's with mode 600");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("Permission denied"), "{refused:?}");
    mount.unmount();
}

#[test]
fn mount_in_the_background_returns_when_the_mount_answers_and_umount_ends_it() {
    let scratch = Scratch::new();
    let states = source::small(scratch.path());
    let repo = Repository::new("3.2.1", |_| Mode::Gzip, &scratch.dir("r"));
    repo.backup(true, &states[0], TIME);
    let mnt = scratch.dir("mnt");
    mount::require_fuse();
    let reader = repo.reader();
    reader.run("mount", &[&repo.url(), mnt.to_str().unwrap()]);
    let answered = fs::read(mnt.join("latest/a file"));
    let daemons = processes_that_name(&mnt);
    let unmounted = exec::output(reader.command("umount").arg(&mnt));
    mount::release(&mnt);
    assert_eq!(answered.unwrap(), b"hello\n");
    assert_eq!(daemons.len(), 1, "daemons of {}: {daemons:?}", mnt.display());
    assert!(unmounted.status.success(), "{unmounted:?}");
    let start = std::time::Instant::now();
    while Path::new(&format!("/proc/{}", daemons[0])).exists() {
        assert!(start.elapsed().as_secs() < 10, "the daemon outlives its mount");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    check::every_snapshot("after it", &repo, &[TIME], &[&states[0]], scratch.path());
}

/// Process ids whose command line has `path`.
fn processes_that_name(path: &Path) -> Vec<u32> {
    let wanted = path.as_os_str().as_encoded_bytes();
    let all = fs::read_dir("/proc").unwrap().filter_map(|e| e.unwrap().file_name().to_str()?.parse::<u32>().ok());
    let names_it = |pid: &u32| {
        fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.split(|&b| b == 0).any(|word| word == wanted))
    };
    all.filter(names_it).collect()
}
