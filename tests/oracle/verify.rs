//! `dupfs verify` against damage: it reports exactly the objects that a restore of each snapshot cannot write.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::duplicity::{Mode, Repository, stamp};
use crate::support::exec::{self, Dupfs};
use crate::support::{Scratch, noise};

const TIME: i64 = 1_700_000_000;

/// Requires that a sound backup is found to be sound.
pub fn finds_nothing(dupfs: &Dupfs, url: &str) {
    sound(dupfs, &["--json", url]);
}

/// Requires that a sound backup is found to be sound, and that each file is the signed one.
pub fn proves_all(dupfs: &Dupfs, url: &str) {
    let report = sound(dupfs, &["--json", "--deep", url]);
    assert_eq!(report["proved"], report["files"], "{report}");
}

fn sound(dupfs: &Dupfs, args: &[&str]) -> Value {
    let report: Value = serde_json::from_slice(&dupfs.run("verify", args)).unwrap();
    assert_eq!(report["findings"], Value::Array(Vec::new()), "{args:?}");
    assert_eq!((&report["sound"], &report["complete"]), (&true.into(), &true.into()), "{report}");
    assert_eq!(report["volumes"], report["all_volumes"], "{report}");
    assert_eq!(report["signature_archives"], report["sets"], "{report}");
    report
}

/// The report of a damaged backup.
fn report(repo: &Repository, more: &[&str]) -> Value {
    let output = exec::output(repo.reader().command("verify").arg("--json").args(more).arg(repo.url()));
    let message = exec::tail(&output.stderr);
    assert_eq!(output.status.code(), Some(6), "{message}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["sound"], &report["complete"]), (&false.into(), &true.into()), "{report}");
    report
}

/// A backup of a full set of some volumes and an increment, and its source.
fn backup(mode: Mode, scratch: &Scratch) -> (Repository, PathBuf) {
    let source = scratch.dir("source");
    for d in 0..3u64 {
        let sub = source.join(format!("dir{d}"));
        fs::create_dir_all(&sub).unwrap();
        for f in 0..12u64 {
            let len = usize::try_from(f * f * 3000 + d).unwrap();
            fs::write(sub.join(format!("file{f}")), noise(d * 100 + f, len)).unwrap();
        }
    }
    let repo = Repository::new("3.2.1", |_| mode, &scratch.dir("r"));
    repo.backup(true, &source, TIME);
    fs::write(source.join("new"), noise(999, 70_000)).unwrap();
    repo.backup(false, &source, TIME + 60);
    (repo, source)
}

/// The object of the full set whose name contains `part`.
fn object(repo: &Repository, part: &str) -> PathBuf {
    let full = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap();
        name.contains("full") && name.contains(part)
    };
    fs::read_dir(repo.dir()).unwrap().map(|entry| entry.unwrap().path()).find(full).unwrap()
}

/// The SHA-1 of a file, as manifests have it.
fn hash(path: &Path) -> String {
    let line = String::from_utf8(exec::run(Command::new("sha1sum").arg(path))).unwrap();
    line.split(' ').next().unwrap().to_owned()
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 0x10;
    fs::write(path, bytes).unwrap();
}

/// The files that a restore of the snapshot of `time` cannot write.
fn unreadable(repo: &Repository, time: i64, dest: &Path) -> BTreeSet<String> {
    let output = exec::output(
        repo.reader().command("restore").args(["--json", "--time", &time.to_string(), &repo.url()]).arg(dest),
    );
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let failures = report["failures"].as_array().unwrap().iter();
    failures.map(|line| line.as_str().unwrap().split_once(": ").unwrap().0.to_owned()).collect()
}

/// The files that `report` says are affected at the snapshot of `time`.
fn affected(report: &Value, time: i64) -> BTreeSet<String> {
    let findings = report["findings"].as_array().unwrap().iter();
    let of_snapshot = findings.filter(|finding| finding["snapshots"].as_array().unwrap().contains(&stamp(time).into()));
    let paths = of_snapshot.flat_map(|finding| finding["paths"].as_array().cloned().unwrap_or_default());
    paths.map(|path| path["path"].as_str().unwrap().to_owned()).collect()
}

fn assert_reported(what: &str, repo: &Repository, report: &Value, scratch: &Scratch) {
    for time in [TIME, TIME + 60] {
        let lost = unreadable(repo, time, &scratch.dir(&format!("{what}-{time}")));
        assert!(!lost.is_empty(), "{what}");
        assert_eq!(affected(report, time), lost, "{what}: {report}");
    }
}

#[test]
fn a_damaged_and_a_missing_volume_and_a_wrong_key_are_reported() {
    let scratch = Scratch::new();
    let (repo, _) = backup(Mode::Symmetric("p".to_owned()), &scratch);
    finds_nothing(&repo.reader(), &repo.url());
    let (code, message) = Dupfs::new(&scratch.dir("h")).passphrase("wrong").fails("verify", &[&repo.url()]);
    assert_eq!(code, Some(5), "{message}");

    flip(&object(&repo, ".vol2."), 300_000);
    let damaged = report(&repo, &[]);
    let findings = damaged["findings"].as_array().unwrap();
    assert_eq!(findings.len(), 1, "{damaged}");
    assert_eq!((&findings[0]["kind"], &findings[0]["damaged"]), (&"volume".into(), &true.into()));
    assert!(findings[0]["object"].as_str().unwrap().contains(".vol2."));
    assert_reported("damaged", &repo, &damaged, &scratch);
    let text = exec::output(repo.reader().command("verify").arg(repo.url()));
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(
        text.contains("damaged: duplicity-full") && text.contains("  files: ") && text.contains("damaged: 1"),
        "{text}"
    );

    fs::remove_file(object(&repo, ".vol2.")).unwrap();
    let missing = report(&repo, &["--time", &TIME.to_string()]);
    assert_eq!(missing["only_sets"], Value::from(vec![stamp(TIME)]));
    assert_eq!(affected(&missing, TIME), affected(&damaged, TIME));
    // The report has it, and nothing else does; without the report of this volume, the names have.
    for (options, count) in [(&[][..], 0), (&["--time", &TIME.to_string()], 0), (&["--sample", "1%"], 1)] {
        let output = exec::output(repo.reader().command("verify").args(options).arg(repo.url()));
        let (report, log) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        assert_eq!(log.matches("volume 2 is missing").count(), count, "{options:?}: {log}");
        assert!(count == 1 || report.matches("damaged: volume 2 of full").count() == 1, "{options:?}: {report}");
    }
    // The names alone show it where the manifest cannot be read.
    flip(&object(&repo, ".manifest."), 60);
    let log = String::from_utf8(exec::output(repo.reader().command("verify").arg(repo.url())).stderr).unwrap();
    assert_eq!(log.matches("volume 2 is missing").count(), 1, "{log}");
}

#[test]
fn lost_signatures_and_manifests_are_reported() {
    let scratch = Scratch::new();
    let (repo, source) = backup(Mode::Gzip, &scratch);
    let signatures = object(&repo, "signatures");
    let whole = fs::read(&signatures).unwrap();
    fs::write(&signatures, &whole[..whole.len() / 2]).unwrap();
    let cut = report(&repo, &[]);
    assert_eq!(cut["findings"][0]["kind"], "signatures", "{cut}");
    assert!(unreadable(&repo, TIME, &scratch.dir("names")).is_empty(), "the volumes have the names too");
    fs::write(&signatures, &whole).unwrap();

    repo.backup(true, &source, TIME + 120);
    fs::remove_file(object(&repo, &format!("{}.manifest", stamp(TIME)))).unwrap();
    let kinds: BTreeSet<_> = report(&repo, &[])["findings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|finding| finding["kind"].as_str().unwrap().to_owned())
        .collect();
    assert!(kinds.contains("manifest-missing") && kinds.contains("orphaned"), "{kinds:?}");
    // The newest snapshot does not need the lost one.
    repo.reader().run("verify", &["--time", &(TIME + 120).to_string(), &repo.url()]);
}

#[test]
fn a_file_that_is_signed_and_not_stored_is_reported() {
    let scratch = Scratch::new();
    let (repo, _) = backup(Mode::Plain, &scratch);
    let volume = object(&repo, ".vol1.");
    let (before, mut bytes) = (hash(&volume), fs::read(&volume).unwrap());
    let name = b"snapshot/dir0/file3\0";
    let at = bytes.windows(name.len()).position(|window| window == name).unwrap();
    // "file3" becomes "file2": another file is stored twice, this one is not, and the hash in the manifest is right.
    bytes[at + 18] = b'2';
    bytes[at + 148..at + 156].fill(b' ');
    let sum: u32 = bytes[at..at + 512].iter().map(|&byte| u32::from(byte)).sum();
    bytes[at + 148..at + 156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    fs::write(&volume, bytes).unwrap();
    let manifest = object(&repo, ".manifest");
    let text = fs::read_to_string(&manifest).unwrap();
    assert!(text.contains(&before));
    fs::write(&manifest, text.replace(&before, &hash(&volume))).unwrap();
    let found = report(&repo, &[]);
    assert!(affected(&found, TIME).contains("dir0/file3"), "{found}");
    assert_reported("renamed", &repo, &found, &scratch);
}

#[test]
fn a_sample_reads_some_volumes_and_a_seed_the_same_ones_again() {
    let scratch = Scratch::new();
    let (repo, _) = backup(Mode::Gzip, &scratch);
    let sample = |percent: &str, seed: &str| {
        let args = ["--json", "--sample", percent, "--seed", seed, &repo.url()];
        let output = exec::output(repo.reader().command("verify").args(args));
        (output.status.code(), serde_json::from_slice::<Value>(&output.stdout).unwrap())
    };
    let (code, all) = sample("100%", "1");
    assert_eq!((code, &all["volumes"]), (Some(0), &all["all_volumes"]));
    let (code, one) = sample("0.1%", "1");
    assert_eq!((code, &one["volumes"], &one["findings"]), (Some(0), &1.into(), &Value::Array(Vec::new())), "{one}");
    assert_eq!(one["sample"]["seed"], 1, "{one}");
    flip(&object(&repo, ".vol2."), 300_000);
    let seeds: Vec<String> = (0..16).map(|seed| seed.to_string()).collect();
    let found: Vec<_> = seeds.iter().filter(|seed| sample("20%", seed).0 == Some(6)).collect();
    assert!(!found.is_empty() && found.len() < seeds.len(), "{found:?}");
    assert_eq!(sample("20%", found[0]).0, Some(6), "another run with the same seed");
}

#[test]
fn silent_damage_is_found_by_the_sums_of_the_signature() {
    let scratch = Scratch::new();
    let (repo, source) = backup(Mode::Plain, &scratch);
    let changed = [noise(1, 20_000), noise(2, 100_000)].concat();
    fs::write(source.join("dir1/file5"), &changed).unwrap();
    exec::run(Command::new("touch").args(["-d", "2012-12-12 12:12:12Z"]).arg(source.join("dir1/file5")));
    repo.backup(false, &source, TIME + 120);
    proves_all(&repo.reader(), &repo.url());

    // Another byte in a file, and the hash in the manifest is that of the changed volume: nothing else can notice it.
    let data = fs::read(source.join("dir1/file4")).unwrap();
    let volumes = ["vol1", "vol2", "vol3", "vol4", "vol5"].map(|number| object(&repo, &format!(".{number}.")));
    let find = |volume: &PathBuf| fs::read(volume).unwrap().windows(64).position(|window| window == &data[1000..1064]);
    let (volume, at) = volumes.iter().find_map(|volume| Some((volume, find(volume)?))).unwrap();
    let before = hash(volume);
    flip(volume, at);
    let manifest = object(&repo, ".manifest");
    let text = fs::read_to_string(&manifest).unwrap();
    fs::write(&manifest, text.replace(&before, &hash(volume))).unwrap();
    finds_nothing(&repo.reader(), &repo.url());
    let found = report(&repo, &["--deep"]);
    let findings = found["findings"].as_array().unwrap();
    assert_eq!((findings.len(), &findings[0]["kind"]), (1, &"content".into()), "{found}");
    for time in [TIME, TIME + 60, TIME + 120] {
        assert_eq!(affected(&found, time), BTreeSet::from(["dir1/file4".to_owned()]), "{found}");
    }
    assert_eq!(found["proved"].as_u64().unwrap() + 1, found["files"].as_u64().unwrap());
}

#[test]
fn an_interrupt_ends_the_verification_with_a_report_so_far() {
    let scratch = Scratch::new();
    let (repo, _) = backup(Mode::Symmetric("p".to_owned()), &scratch);
    let mut child = repo.reader().command("verify");
    let child = child.args(["--json", &repo.url()]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    // The thread that handles the signal exists as soon as a signal does not end the program.
    let threads = PathBuf::from(format!("/proc/{}/task", child.id()));
    let is_watched = || {
        let tasks = fs::read_dir(&threads).into_iter().flatten().flatten();
        tasks
            .filter_map(|task| fs::read_to_string(task.path().join("comm")).ok())
            .any(|name| name.trim() == "dupfs-signals")
    };
    let is_running =
        || fs::read_to_string(format!("/proc/{}/stat", child.id())).is_ok_and(|stat| !stat.contains(") Z "));
    while !is_watched() && is_running() {}
    exec::output(Command::new("kill").args(["-INT", &child.id().to_string()]));
    let output = child.wait_with_output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    // It may have ended before the signal came.
    let interrupted = report["interrupted"] == true;
    assert_eq!(output.status.code(), Some(if interrupted { 130 } else { 0 }), "{report}");
    assert_eq!(report["complete"], !interrupted, "{report}");
}
