//! The snapshot that a time selects, by `--time` and in `at/`, compared with duplicity: every form of time string, and
//! times between, before and after the sets of two chains.

use std::path::Path;
use std::process::Command;

use crate::support::Scratch;
use crate::support::dated_sets::{DAY, dated_sets, restored_set, time_text, two_dated_chains};
use crate::support::duplicity::{Repository, stamp};
use crate::support::exec;
use crate::support::mount::Mount;

/// Times, each with the set that duplicity restores for it, or `None` if it refuses the time.
type Choices = Vec<(String, Option<String>)>;

/// Returns duplicity's choice for each of `times`.
fn choices(version: &str, repo: &Repository, scratch: &Scratch, zone: &str, times: Vec<String>) -> Choices {
    let dir = scratch.dir(&format!("by-duplicity-{}", zone.replace('/', "-")));
    let choice = |(i, time): (usize, String)| {
        let chosen = restored_set(version, repo, &time, zone, &dir.join(i.to_string()));
        (time, chosen)
    };
    times.into_iter().enumerate().map(choice).collect()
}

/// Requires that `--time` selects the sets in `choices`. A time that duplicity refuses is a usage error of dupfs.
fn option_selects(repo: &Repository, zone: &str, choices: &Choices) {
    let mut wrong = Vec::new();
    for (time, by_duplicity) in choices {
        let mut cat = repo.reader().command("cat");
        let by_dupfs = exec::output(cat.args(["--time", time, &repo.url(), "which"]).env("TZ", zone));
        let code = by_dupfs.status.code();
        let content = String::from_utf8_lossy(&by_dupfs.stdout).into_owned();
        let right = match by_duplicity {
            Some(which) => code == Some(0) && *which == content,
            None => code == Some(2),
        };
        if !right {
            let error = String::from_utf8_lossy(&by_dupfs.stderr).into_owned();
            wrong.push(format!("{time:?}: {content:?} (exit {code:?}, {error:?}), duplicity takes {by_duplicity:?}"));
        }
    }
    assert!(wrong.is_empty(), "--time in {zone}:\n  {}", wrong.join("\n  "));
}

/// Requires that `at/` leads to the sets in `choices`, and has no name for a time that duplicity refuses or that is in
/// `early`.
fn at_leads_to(repo: &Repository, scratch: &Scratch, zone: &str, choices: &Choices, early: &[String]) {
    let mount = Mount::new(&repo.reader().variable("TZ", zone), &repo.url(), &scratch.dir(&zone.replace('/', "-")));
    let at = mount.path().join("at");
    let mut wrong = Vec::new();
    let names = choices.iter().filter(|(time, _)| !time.is_empty() && !time.contains('/'));
    for (time, by_duplicity) in names.filter(|(time, _)| !early.contains(time)) {
        let link = std::fs::read_link(at.join(time));
        let right = match by_duplicity {
            Some(which) => {
                let content = std::fs::read_to_string(at.join(time).join("which"));
                link.as_ref().is_ok_and(|l| *l == Path::new("../snapshots").join(which))
                    && content.is_ok_and(|content| content == *which)
            }
            None => link.as_ref().is_err_and(|e| e.raw_os_error() == Some(libc::ENOENT)),
        };
        if !right {
            wrong.push(format!("{time:?}: {link:?}, duplicity takes {by_duplicity:?}"));
        }
    }
    assert!(wrong.is_empty(), "at/ in {zone}:\n  {}", wrong.join("\n  "));
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
    let mut times: Vec<String> =
        at.iter().flat_map(|t| [t - 1, *t, t + 1, t + DAY / 2]).map(|t| t.to_string()).collect();
    times.extend(at.iter().map(|t| stamp(*t)));
    times.extend(["now", "40D", "38D12h", "30D", "29D1h", "1M", "5W", "0s", "20h", "3D"].map(str::to_owned));
    for form in [
        "%Y-%m-%d",
        "%m-%d-%Y",
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
    times.extend(["today", "3d", "1.5D", "T12:00", "2023-13-01", "yesterday", "", "3D ", "latest"].map(str::to_owned));
    // duplicity and `--time` select the oldest full set for these, and `at/` none.
    let early = [(at[0] - 1).to_string(), stamp(at[0] - 1)];
    let early = early.into_iter().chain(["5", "1Y", "2Y6M", "20240101"].map(str::to_owned)).collect::<Vec<_>>();
    times.extend(early[1..].iter().cloned());
    let by_duplicity = choices(version, &repo, &scratch, "UTC", times);
    option_selects(&repo, "UTC", &by_duplicity);
    at_leads_to(&repo, &scratch, "UTC", &by_duplicity, &early);
    let zone = "America/New_York";
    let local = ["%Y-%m-%d", "%Y%m%dZ", "%Y-%m-%dT%H:%M:%S"].map(|form| time_text(at[4] + 3600, form));
    let by_duplicity = choices(version, &repo, &scratch, zone, local.to_vec());
    option_selects(&repo, zone, &by_duplicity);
    at_leads_to(&repo, &scratch, zone, &by_duplicity, &[]);
}

#[test]
#[ignore = "slow: scripts/test --all"]
fn every_time_string_0_8_22() {
    two_chains("0.8.22");
}

#[test]
#[ignore = "slow: scripts/test --all"]
fn every_time_string_3_2_1() {
    two_chains("3.2.1");
}

#[test]
fn local_times_use_standard_time_even_in_summer() {
    let scratch = Scratch::new();
    // 2023-07-01 16:30Z and 17:30Z: in New York 12:00 is 16:00Z by the clock, and 17:00Z as duplicity reads it.
    let repo = dated_sets("0.8.22", &scratch, &[(true, 1_688_229_000), (false, 1_688_232_600)]);
    let zone = "America/New_York";
    let times = [
        "2023-07-01T12:00:00",
        "2023-07-01T12:31:00",
        "2023-07-01T11:00:00",
        "2023-07-01T12:00:00-04:00",
        "2023-07-02",
    ];
    option_selects(&repo, zone, &choices("0.8.22", &repo, &scratch, zone, times.map(str::to_owned).to_vec()));
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
    let times = times.map(|t| t.to_string()).to_vec();
    option_selects(&repo, "UTC", &choices("0.8.22", &repo, &scratch, "UTC", times));
}

#[test]
fn mounting_one_time_makes_the_root_that_snapshot() {
    let scratch = Scratch::new();
    let base = 1_700_000_000;
    let repo = dated_sets("3.2.1", &scratch, &[(true, base), (false, base + 1000)]);
    let reader = repo.reader().option("--time").option(&base.to_string());
    let mount = Mount::new(&reader, &repo.url(), &scratch.dir("mnt"));
    let names: Vec<_> = std::fs::read_dir(mount.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["which"]);
    assert_eq!(std::fs::read_to_string(mount.path().join("which")).unwrap(), stamp(base));
    mount.unmount();
}
