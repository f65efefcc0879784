//! `at/<TIME>` against `duplicity restore --time TIME`.

use std::path::Path;

use crate::support::Scratch;
use crate::support::dated_sets::{DAY, dated_sets, now, restored_set, time_text, two_dated_chains};
use crate::support::duplicity::{Repository, stamp};
use crate::support::exec;
use crate::support::mount::Mount;

/// Requires that `at/` gives for each of `times` the set that duplicity restores, and no set for those in `early`.
fn same_choice(version: &str, repo: &Repository, scratch: &Scratch, zone: &str, times: &[String], early: &[String]) {
    let mount = Mount::new(&repo.reader().variable("TZ", zone), &repo.url(), &scratch.dir(&zone.replace('/', "-")));
    let at = mount.path().join("at");
    let mut wrong = Vec::new();
    for (i, time) in times.iter().enumerate() {
        let wanted = restored_set(version, repo, time, zone, &scratch.path().join(format!("{}-{i}", mount.pid())));
        let link = std::fs::read_link(at.join(time));
        let right = match &wanted {
            Some(which) => {
                let content = std::fs::read_to_string(at.join(time).join("which"));
                link.as_ref().is_ok_and(|l| *l == Path::new("../snapshots").join(which))
                    && content.is_ok_and(|content| content == *which)
            }
            None => link.as_ref().is_err_and(|e| e.raw_os_error() == Some(libc::ENOENT)),
        };
        if !right {
            wrong.push(format!("{time:?}: {link:?}, duplicity takes {wanted:?}"));
        }
    }
    assert!(wrong.is_empty(), "{version} in {zone}:\n  {}", wrong.join("\n  "));
    for time in early {
        let missing = std::fs::symlink_metadata(at.join(time)).unwrap_err();
        assert_eq!(missing.raw_os_error(), Some(libc::ENOENT), "{time} is before the first backup");
    }
    assert_eq!(std::fs::read_dir(&at).unwrap().count(), 0, "at/ lists nothing");
    mount.unmount();
}

fn two_chains(version: &str) {
    let scratch = Scratch::new();
    let (repo, at) = two_dated_chains(version, &scratch);
    let mut times: Vec<String> = at.iter().flat_map(|t| [*t, t + 1, t + DAY / 2]).map(|t| t.to_string()).collect();
    times.extend(at.iter().skip(1).map(|t| (t - 1).to_string()));
    times.extend(at.iter().map(|t| stamp(*t)));
    times.extend(["now", "40D", "38D12h", "30D", "29D1h", "1M", "5W", "0s", "20h", "3D"].map(str::to_owned));
    for form in [
        "%Y-%m-%d",
        "%m-%d-%Y",
        "%Y%m%dZ",
        "%Y-%m-%dT%H:%M:%SZ",
        "%Y-%m-%dT%H:%M:%S+00:00",
        "%Y-%m-%dT%H:%M:%S-05:30",
        "%Y-%m-%dT%H:%M:%S",
    ] {
        times.push(time_text(at[1] + DAY / 3, form));
        times.push(time_text(at[4] + DAY / 3, form));
    }
    times.extend(["today", "3d", "1.5D", "T12:00", "2023-13-01", "yesterday", "3D ", "latest"].map(str::to_owned));
    // duplicity selects the oldest full set for these.
    let early = [(at[0] - 1).to_string(), stamp(at[0] - 1)];
    let early = early.into_iter().chain(["5", "1Y", "2Y6M", "20240101"].map(str::to_owned)).collect::<Vec<_>>();
    same_choice(version, &repo, &scratch, "UTC", &times, &early);
    let local: Vec<String> =
        ["%Y-%m-%d", "%Y%m%dZ", "%Y-%m-%dT%H:%M:%S"].iter().map(|form| time_text(at[4] + 3600, form)).collect();
    same_choice(version, &repo, &scratch, "America/New_York", &local, &[]);
}

#[test]
fn every_time_string_0_8_22() {
    two_chains("0.8.22");
}

#[test]
fn every_time_string_3_2_1() {
    two_chains("3.2.1");
}

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
