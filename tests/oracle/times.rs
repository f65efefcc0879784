//! The snapshot that a time selects, compared with duplicity: every form of time string, and times between, before
//! and after the sets of two chains.

use std::process::Command;

use crate::support::Scratch;
use crate::support::dated_sets::{DAY, dated_sets, restored_set, time_text, two_dated_chains};
use crate::support::duplicity::{Repository, stamp};
use crate::support::exec;

/// Requires that duplicity and dupfs select the same set for each of `times`. One that duplicity refuses is a usage
/// error of dupfs.
fn same_choice(version: &str, repo: &Repository, scratch: &Scratch, zone: &str, times: &[String]) {
    let mut wrong = Vec::new();
    for (i, time) in times.iter().enumerate() {
        let dest = scratch.path().join(format!("which-{}-{i}", zone.replace('/', "-")));
        let by_duplicity = restored_set(version, repo, time, zone, &dest);
        let mut cat = repo.reader().command("cat");
        let by_dupfs = exec::output(cat.args(["--time", time, &repo.url(), "which"]).env("TZ", zone));
        let code = by_dupfs.status.code();
        let content = String::from_utf8_lossy(&by_dupfs.stdout).into_owned();
        let right = match &by_duplicity {
            Some(which) => code == Some(0) && *which == content,
            None => code == Some(2),
        };
        if !right {
            let error = String::from_utf8_lossy(&by_dupfs.stderr).into_owned();
            wrong.push(format!("{time:?}: {content:?} (exit {code:?}, {error:?}), duplicity takes {by_duplicity:?}"));
        }
    }
    assert!(wrong.is_empty(), "{version} in {zone}:\n  {}", wrong.join("\n  "));
}

fn two_chains(version: &str) {
    let scratch = Scratch::new();
    let (repo, at) = two_dated_chains(version, &scratch);
    let mut times: Vec<String> =
        at.iter().flat_map(|t| [t - 1, *t, t + 1, t + DAY / 2]).map(|t| t.to_string()).collect();
    times.extend(at.iter().map(|t| stamp(*t)));
    times.extend(["now", "5", "40D", "38D12h", "30D", "29D1h", "1M", "5W", "1Y", "2Y6M", "0s"].map(str::to_owned));
    for form in [
        "%Y-%m-%d",
        "%Y/%m/%d",
        "%m/%d/%Y",
        "%Y%m%dZ",
        "%Y-%m-%dT%H:%M:%SZ",
        "%Y-%m-%dT%H:%M:%S+00:00",
        "%Y-%m-%dT%H:%M:%S-05:30",
        "%Y-%m-%dT%H:%M:%S",
    ] {
        times.push(time_text(at[1] + DAY / 3, form));
        times.push(time_text(at[4] + DAY / 3, form));
    }
    times.extend(["today", "3d", "1.5D", "T12:00", "2023-13-01", "yesterday", "", "3D "].map(str::to_owned));
    same_choice(version, &repo, &scratch, "UTC", &times);
    let local: Vec<String> =
        ["%Y-%m-%d", "%Y%m%dZ", "%Y-%m-%dT%H:%M:%S"].iter().map(|form| time_text(at[4] + 3600, form)).collect();
    same_choice(version, &repo, &scratch, "America/New_York", &local);
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
fn local_times_use_standard_time_even_in_summer() {
    let scratch = Scratch::new();
    // 2023-07-01 16:30Z and 17:30Z: in New York 12:00 is 16:00Z by the clock, and 17:00Z as duplicity reads it.
    let repo = dated_sets("0.8.22", &scratch, &[(true, 1_688_229_000), (false, 1_688_232_600)]);
    let times = [
        "2023-07-01T12:00:00",
        "2023-07-01T12:31:00",
        "2023-07-01T11:00:00",
        "2023-07-01T12:00:00-04:00",
        "2023-07-02",
    ];
    same_choice("0.8.22", &repo, &scratch, "America/New_York", &times.map(str::to_owned));
}

#[test]
fn overlapping_chains_are_chosen_as_duplicity_does() {
    // Two clients: a chain of 0 and 2000, and in between a full set of 1000 (FORMAT.md section 7).
    let scratch = Scratch::new();
    let base = 1_700_000_000;
    let repo = dated_sets("0.8.22", &scratch, &[(true, base), (false, base + 2000)]);
    let other = Scratch::new();
    let second = dated_sets("0.8.22", &other, &[(true, base + 1000)]);
    exec::run(Command::new("cp").arg("-a").arg(format!("{}/.", second.dir().display())).arg(repo.dir()));
    let times = [base - 1, base, base + 500, base + 1000, base + 1500, base + 2000, base + 2500];
    same_choice("0.8.22", &repo, &scratch, "UTC", &times.map(|t| t.to_string()));
}

#[test]
fn mounting_one_time_makes_the_root_that_snapshot() {
    let scratch = Scratch::new();
    let base = 1_700_000_000;
    let repo = dated_sets("3.2.1", &scratch, &[(true, base), (false, base + 1000)]);
    let reader = repo.reader().option("--time").option(&base.to_string());
    let mount = crate::support::mount::Mount::new(&reader, &repo.url(), &scratch.dir("mnt"));
    let names: Vec<_> = std::fs::read_dir(mount.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["which"]);
    assert_eq!(std::fs::read_to_string(mount.path().join("which")).unwrap(), stamp(base));
    mount.unmount();
}
