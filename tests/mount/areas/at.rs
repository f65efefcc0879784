//! `at/<TIME>`: the clock, and errors. `tests/oracle/times.rs` compares every form of time with duplicity.

use std::path::Path;

use crate::support::Scratch;
use crate::support::dated_sets::{dated_sets, now};
use crate::support::duplicity::stamp;
use crate::support::exec;
use crate::support::mount::Mount;

#[test]
fn names_move_with_the_clock() {
    let scratch = Scratch::new();
    let start = now();
    let repo = dated_sets("3.2.1", &scratch, &[(true, start - 60), (false, start + 10)]);
    let mount = Mount::new(&repo.reader(), &repo.url(), &scratch.dir("mnt"));
    let here = mount.path().join("at/now");
    let mut seen = Vec::new();
    while now() < start + 40 {
        let shown = std::fs::read_to_string(here.join("which")).unwrap();
        if seen.last() != Some(&shown) {
            seen.push(shown);
        }
        if now() > start + 11 && seen.len() == 2 {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    assert_eq!(seen, [stamp(start - 60), stamp(start + 10)], "at/now follows the clock");
    // The kernel caches the name for no time, but a path through it works like any other.
    let same = |a: &Path, b: &Path| std::fs::read(a).unwrap() == std::fs::read(b).unwrap();
    assert!(same(&here.join("which"), &mount.path().join("latest/which")));
    mount.unmount();
}

#[test]
fn a_time_that_two_chains_cover_is_an_error_and_not_a_missing_name() {
    let scratch = Scratch::new();
    let base = 1_700_000_000;
    let repo = dated_sets("0.8.22", &scratch, &[(true, base), (false, base + 2000)]);
    let other = Scratch::new();
    let second = dated_sets("0.8.22", &other, &[(true, base + 1000), (false, base + 1200)]);
    let copy = format!("{}/.", second.dir().display());
    exec::run(std::process::Command::new("cp").arg("-a").arg(copy).arg(repo.dir()));
    let mount = Mount::new(&repo.reader(), &repo.url(), &scratch.dir("mnt"));
    let link = |time: i64| std::fs::read_link(mount.path().join("at").join(time.to_string()));
    assert_eq!(link(base + 1100).unwrap_err().raw_os_error(), Some(libc::EINVAL));
    assert!(mount.log().contains("overlap"), "{}", mount.log());
    assert_eq!(link(base + 500).unwrap(), Path::new("../snapshots").join(stamp(base)));
    mount.unmount();
}

#[test]
fn a_mount_of_one_snapshot_has_no_special_directories() {
    let scratch = Scratch::new();
    let repo = dated_sets("3.2.1", &scratch, &[(true, 1_700_000_000)]);
    let mount = Mount::new(&repo.reader().option("--time").option("now"), &repo.url(), &scratch.dir("mnt"));
    for name in ["at", "versions", "snapshots", "latest"] {
        let missing = std::fs::symlink_metadata(mount.path().join(name)).unwrap_err();
        assert_eq!(missing.raw_os_error(), Some(libc::ENOENT), "{name}");
    }
    mount.unmount();
}
