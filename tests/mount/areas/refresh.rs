//! Backups that appear and disappear during a mount.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use super::daemon::Daemon;
use crate::support::duplicity::{Mode, Repository, stamp};
use crate::support::exec;
use crate::support::maker::Maker;
use crate::support::tree::{Rules, Tree, assert_same};
use crate::support::{Scratch, noise};

const HOUR: i64 = 3600;
const FIRST: i64 = 1_700_000_000;
const SAME: &str = "listed: nothing new";

fn source(scratch: &Scratch) -> Maker {
    let mut maker = Maker::new(&scratch.path().join("source"), 1_400_000_000);
    maker.file("big", noise(1, 3_500_000));
    maker.file("dir/edited", noise(2, 200_000));
    maker.file("dir/gone", "gone soon");
    maker
}

fn edit(maker: &mut Maker, round: u64) {
    maker.edit("dir/edited", |content| drop(content.splice(1000..1100, noise(round, 3000))));
    maker.file(format!("new-{round}"), noise(round, 5000));
    maker.edit("big", |content| content[2_000_000..2_000_010].copy_from_slice(&noise(round, 10)));
}

/// Paths below `dir` with their inode numbers.
fn inodes(dir: &Path) -> BTreeMap<String, u64> {
    let listed = exec::run(Command::new("find").arg(dir).args(["-printf", "%P %i\n"]));
    let listed = String::from_utf8(listed).unwrap();
    listed.lines().map(|line| line.rsplit_once(' ').unwrap()).map(|(p, i)| (p.to_owned(), i.parse().unwrap())).collect()
}

/// Requires that the snapshot of `time` is what duplicity restores.
fn check(repo: &Repository, mount: &Daemon, scratch: &Scratch, time: i64, round: &str) {
    let dest = scratch.path().join(format!("restored-{time}-{round}"));
    repo.restore(&time.to_string(), &dest, &[]);
    let shown = Tree::walk(&mount.path().join("snapshots").join(stamp(time)));
    assert_same(&format!("{} {round}", stamp(time)), &Tree::walk(&dest), &shown, &Rules::default());
}

fn link(mount: &Daemon, name: &str) -> String {
    std::fs::read_link(mount.path().join(name)).unwrap().to_str().unwrap().to_owned()
}

fn follows(version: &str, mode: Mode, stepwise: bool) {
    let scratch = Scratch::new();
    let repo = Repository::new(version, |_| mode, &scratch.dir("r"));
    let mut maker = source(&scratch);
    repo.backup(true, maker.root(), FIRST);
    let mount = Daemon::mount(&repo.reader().option("--refresh").option("0"), &repo.url(), &scratch.dir("mnt"));
    assert_eq!(link(&mount, "latest"), format!("snapshots/{}", stamp(FIRST)));
    let first = mount.path().join("snapshots").join(stamp(FIRST));
    let before = inodes(&first);
    let mut open = File::open(first.join("big")).unwrap();
    let mut read = vec![0; 100_000];
    open.read_exact(&mut read).unwrap();

    let times: Vec<i64> = (1..=4).map(|i| FIRST + i * HOUR).collect();
    for (i, &time) in times.iter().enumerate() {
        edit(&mut maker, i as u64 + 10);
        // An increment, a new full set, an increment at the end of each chain.
        repo.backup(i == 1, maker.root(), time);
        if stepwise || i + 1 == times.len() {
            mount.hup_until("new snapshots: ");
            assert!(mount.names("snapshots").contains(&stamp(time)));
            // The kernel caches the name for some seconds, and then it leads to the new snapshot.
            mount.wait_for("latest", || link(&mount, "latest") == format!("snapshots/{}", stamp(time)));
            assert_eq!(link(&mount, "at/now"), format!("../snapshots/{}", stamp(time)));
            assert_eq!(link(&mount, &format!("at/{}", FIRST + 1)), format!("../snapshots/{}", stamp(FIRST)));
            check(&repo, &mount, &scratch, time, "new");
            assert_eq!(inodes(&first), before, "inode numbers after {}", stamp(time));
        }
    }
    let all: Vec<String> = std::iter::once(FIRST).chain(times.iter().copied()).map(stamp).collect();
    assert_eq!(mount.names("snapshots"), all);
    open.read_to_end(&mut read).unwrap();
    assert!(read == noise(1, 3_500_000), "the file that was open all the time");
    drop(open);
    check(&repo, &mount, &scratch, FIRST, "still");
    check(&repo, &mount, &scratch, times[0], "still");
    let numbers = inodes(&mount.path().join("snapshots"));
    mount.hup_until(SAME);
    assert_eq!(inodes(&mount.path().join("snapshots")), numbers);
    mount.unmount();
    // The inode numbers are those of a mount that starts with the whole backup.
    let again = Daemon::mount(&repo.reader(), &repo.url(), &scratch.dir("again"));
    assert_eq!(inodes(&again.path().join("snapshots")), numbers);
    again.unmount();
}

#[test]
fn new_backups_of_0_8_22_are_shown_one_by_one() {
    follows("0.8.22", Mode::Symmetric("secret".to_owned()), true);
}

#[test]
#[ignore = "slow: scripts/test --all"]
fn new_backups_of_3_2_1_are_shown_one_by_one() {
    follows("3.2.1", Mode::Gzip, true);
}

#[test]
#[ignore = "slow: scripts/test --all"]
fn several_new_backups_are_shown_at_once() {
    follows("3.2.1", Mode::Plain, false);
}

#[test]
fn the_timer_lists_too() {
    let scratch = Scratch::new();
    let repo = Repository::new("3.2.1", |_| Mode::Gzip, &scratch.dir("r"));
    let mut maker = source(&scratch);
    repo.backup(true, maker.root(), FIRST);
    let mount = Daemon::mount(&repo.reader().option("-o").option("refresh=1"), &repo.url(), &scratch.dir("mnt"));
    edit(&mut maker, 1);
    repo.backup(false, maker.root(), FIRST + HOUR);
    mount.wait_for("the new snapshot", || mount.names("snapshots") == [stamp(FIRST), stamp(FIRST + HOUR)]);
    check(&repo, &mount, &scratch, FIRST + HOUR, "new");
    mount.unmount();
}

#[test]
fn a_failing_store_changes_nothing_and_is_reported_once() {
    let scratch = Scratch::new();
    let repo = Repository::new("3.2.1", |_| Mode::Gzip, &scratch.dir("r"));
    let mut maker = source(&scratch);
    repo.backup(true, maker.root(), FIRST);
    let reader = repo.reader().option("--refresh").option("0");
    let mount = Daemon::mount(&reader, &repo.url(), &scratch.dir("mnt"));
    check(&repo, &mount, &scratch, FIRST, "before");
    let shown = || Tree::walk(&mount.path().join("snapshots"));
    let before = shown();
    let away = repo.dir().with_extension("away");
    // Missing, and empty like the directory of a network file system that is not mounted.
    for empty in [false, true] {
        std::fs::rename(repo.dir(), &away).unwrap();
        if empty {
            std::fs::create_dir(repo.dir()).unwrap();
        }
        mount.hup_until("cannot be listed again");
        // The same failure is not reported again. The recovery shows that the store was listed.
        mount.hup();
        assert_same("what is shown", &before, &shown(), &Rules::default());
        if empty {
            std::fs::remove_dir(repo.dir()).unwrap();
        }
        std::fs::rename(&away, repo.dir()).unwrap();
        mount.hup_until(SAME);
    }
    edit(&mut maker, 1);
    repo.backup(false, maker.root(), FIRST + HOUR);
    mount.hup_until("new snapshots: ");
    assert_eq!(mount.log().matches("can be listed again").count(), 2, "{}", mount.log());
    check(&repo, &mount, &scratch, FIRST + HOUR, "new");
    mount.unmount();
}

#[test]
fn a_backup_under_way_is_shown_when_it_is_complete() {
    let scratch = Scratch::new();
    let repo = Repository::new("0.8.22", |_| Mode::Gzip, &scratch.dir("r"));
    let mut maker = source(&scratch);
    repo.backup(true, maker.root(), FIRST);
    let target = scratch.dir("target");
    let copy = |names: &dyn Fn(&str) -> bool| {
        for entry in std::fs::read_dir(repo.dir()).unwrap() {
            let name = entry.unwrap().file_name();
            if names(name.to_str().unwrap()) && !target.join(&name).exists() {
                std::fs::copy(repo.dir().join(&name), target.join(&name)).unwrap();
            }
        }
    };
    copy(&|_| true);
    edit(&mut maker, 1);
    repo.backup(false, maker.root(), FIRST + HOUR);
    edit(&mut maker, 2);
    repo.backup(true, maker.root(), FIRST + 2 * HOUR);
    let url = format!("file://{}", target.display());
    let mount = Daemon::mount(&repo.reader().option("--refresh").option("0"), &url, &scratch.dir("mnt"));
    let latest = |time: i64| link(&mount, "latest") == format!("snapshots/{}", stamp(time));
    // In the order in which duplicity writes: volumes, the signature archive, and the manifest last.
    copy(&|name| name.contains(".vol1."));
    mount.hup_until(SAME);
    copy(&|name| name.contains(".vol"));
    mount.hup_until(SAME);
    copy(&|name| name.contains("sigtar"));
    mount.hup_until(SAME);
    assert_eq!(mount.names("snapshots"), [stamp(FIRST)]);
    assert!(latest(FIRST));
    copy(&|name| name.contains(".manifest") && name.contains("inc"));
    mount.hup_until("new snapshots: ");
    assert_eq!(mount.names("snapshots"), [stamp(FIRST), stamp(FIRST + HOUR)]);
    mount.wait_for("latest", || latest(FIRST + HOUR));
    copy(&|_| true);
    mount.hup_until("new snapshots: ");
    mount.wait_for("latest", || latest(FIRST + 2 * HOUR));
    for i in 0..3 {
        check(&repo, &mount, &scratch, FIRST + i * HOUR, "copied");
    }
    mount.unmount();
}

#[test]
fn snapshots_removed_by_duplicity_leave_the_listing_and_reads_of_them_are_errors() {
    let scratch = Scratch::new();
    let repo = Repository::new("3.2.1", |_| Mode::Plain, &scratch.dir("r"));
    let mut maker = source(&scratch);
    repo.backup(true, maker.root(), FIRST);
    edit(&mut maker, 1);
    repo.backup(false, maker.root(), FIRST + HOUR);
    edit(&mut maker, 2);
    repo.backup(true, maker.root(), FIRST + 2 * HOUR);
    let mount = Daemon::mount(&repo.reader().option("--refresh").option("0"), &repo.url(), &scratch.dir("mnt"));
    let old = mount.path().join("snapshots").join(stamp(FIRST + HOUR));
    let before = inodes(&old);
    let kept = inodes(&mount.path().join("snapshots").join(stamp(FIRST + 2 * HOUR)));
    let dir = File::open(old.join("dir")).unwrap();
    let read = std::fs::read(old.join("new-1")).unwrap();
    let open = File::open(old.join("new-1")).unwrap();
    let output = repo.ask("remove-all-but-n-full", &["1", "--force"]);
    assert!(output.contains("Deleting"), "{output}");
    // Known names stay, and reads of removed data are errors.
    assert_eq!(inodes(&old), before);
    let lost = std::fs::read(old.join("big")).unwrap_err();
    assert_eq!(lost.raw_os_error(), Some(libc::EIO));
    mount.hup_until("no longer in the store: ");
    assert_eq!(mount.names("snapshots"), [stamp(FIRST + 2 * HOUR)]);
    mount.wait_for("the name's end", || std::fs::symlink_metadata(&old).is_err());
    assert_eq!(std::fs::symlink_metadata(&old).unwrap_err().raw_os_error(), Some(libc::ENOENT));
    let held = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&dir));
    assert_eq!(std::fs::symlink_metadata(format!("{held}/edited")).unwrap().ino(), before["dir/edited"]);
    assert_eq!(std::fs::read(format!("{held}/edited")).unwrap_err().raw_os_error(), Some(libc::EIO));
    let mut again = Vec::new();
    (&open).read_to_end(&mut again).unwrap();
    assert!(again == read);
    assert_eq!(inodes(&mount.path().join("snapshots").join(stamp(FIRST + 2 * HOUR))), kept);
    check(&repo, &mount, &scratch, FIRST + 2 * HOUR, "left");
    edit(&mut maker, 3);
    repo.backup(false, maker.root(), FIRST + 3 * HOUR);
    drop((open, dir));
    mount.hup_until("new snapshots: ");
    check(&repo, &mount, &scratch, FIRST + 3 * HOUR, "after");
    mount.unmount();
}

#[test]
fn one_snapshot_as_the_root_stays_that_snapshot() {
    let scratch = Scratch::new();
    let repo = Repository::new("3.2.1", |_| Mode::Gzip, &scratch.dir("r"));
    let mut maker = source(&scratch);
    repo.backup(true, maker.root(), FIRST);
    let mount = Daemon::mount(&repo.reader().option("--time").option("now"), &repo.url(), &scratch.dir("mnt"));
    let before = inodes(mount.path());
    edit(&mut maker, 1);
    repo.backup(false, maker.root(), FIRST + HOUR);
    mount.hup_until("new snapshots: ");
    assert_eq!(inodes(mount.path()), before);
    let dest = scratch.path().join("restored");
    repo.restore(&FIRST.to_string(), &dest, &[]);
    assert_same("the root", &Tree::walk(&dest), &Tree::walk(mount.path()), &Rules::default());
    mount.unmount();
}
