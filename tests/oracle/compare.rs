//! `dupfs verify --compare` against `duplicity verify --compare-data`: the same objects differ, in backups and in source trees
//! that were changed since.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::duplicity::{Mode, Repository};
use crate::support::{Scratch, exec, noise, source};

const TIME: i64 = 1_700_000_000;

/// The exit code and the report of dupfs on `dir`.
fn compared(repo: &Repository, dir: &Path, more: &[&str]) -> (Option<i32>, Value) {
    let mut command = repo.reader().command("verify");
    let output = exec::output(command.args(["--json", "--compare-data"]).args(more).arg(repo.url()).arg(dir));
    let report = serde_json::from_slice(&output.stdout);
    (output.status.code(), report.unwrap_or_else(|error| panic!("{error}: {}", exec::tail(&output.stderr))))
}

/// The exit code, the numbers of objects and differences, and all output of duplicity.
fn of_duplicity(repo: &Repository, dir: &Path, more: &[&str]) -> (Option<i32>, u64, u64, String) {
    let mut command = repo.command("verify");
    let output = exec::output(command.args(["--compare-data", "-v4"]).args(more).arg(repo.url()).arg(dir));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let end = text.rsplit_once("Verify complete: ").unwrap_or_else(|| panic!("{text}{}", exec::tail(&output.stderr))).1;
    let numbers: Vec<u64> = end.split(' ').filter_map(|word| word.parse().ok()).collect();
    (output.status.code(), numbers[0], numbers[1], text)
}

/// The beginning of duplicity's line on the first difference of an object.
fn expected_line(path: &str, kind: &str) -> String {
    let line = match kind {
        "missing" => format!("File {path} is missing"),
        "extra" => format!("New file {path}"),
        "type" => format!("File {path} has type"),
        "mode" | "owner" => format!("File {path} has permissions"),
        "mtime" => format!("File {path} has mtime"),
        "size" | "content" => format!("Data for file {path} is different"),
        "target" => format!("Symlink {path} points to"),
        "device" => format!("Device file {path} has numbers"),
        other => panic!("{other}"),
    };
    format!("Difference found: {line}")
}

/// Requires that both find the same differences between `base` of a snapshot and `dir`.
fn same_differences(what: &str, repo: &Repository, (dir, base): (&Path, &str), more: &[&str]) -> Value {
    let (code, report) = compared(repo, dir, more);
    let (expected_code, objects, different, text) = of_duplicity(repo, dir, more);
    assert_eq!(code, expected_code, "{what}: {report}");
    assert_eq!(
        (&report["compared"], &report["different"]),
        (&objects.into(), &different.into()),
        "{what}: {report}\n{text}"
    );
    assert_eq!((&report["complete"], &report["same"]), (&true.into(), &(different == 0).into()), "{what}: {report}");
    let mut first: BTreeMap<&str, &str> = BTreeMap::new();
    for difference in report["differences"].as_array().unwrap() {
        let (path, kind) = (difference["path"].as_str().unwrap(), difference["kind"].as_str().unwrap());
        first.entry(path).or_insert(kind);
    }
    assert!(first.len() as u64 >= different / 2, "{what}");
    // duplicity prints names unescaped, so those with line feeds or other bytes are compared by their number only.
    for (path, kind) in first.into_iter().filter(|(path, _)| path.chars().all(|c| c.is_ascii_graphic())) {
        // Its paths begin at the compared directory.
        let below = path.strip_prefix(base).unwrap_or(path).trim_start_matches('/');
        let line = expected_line(if below.is_empty() { "." } else { below }, kind);
        assert!(text.lines().any(|found| found.starts_with(&line)), "{what}: no line {line}\n{text}");
    }
    report
}

#[test]
fn the_same_objects_differ_as_for_duplicity() {
    let scratch = Scratch::new();
    let states: [PathBuf; source::STATES] = source::build(&scratch.dir("states"));
    let repo = Repository::new("3.2.1", |_| Mode::Gzip, &scratch.dir("r"));
    repo.backup(true, &states[0], TIME);
    repo.backup(false, &states[1], TIME + 60);
    let own = same_differences("its own source", &repo, (&states[1], ""), &[]);
    assert_eq!(own["read"], 0, "all contents are proved by their signatures: {own}");
    assert!(own["proved"].as_u64().unwrap() > 20, "{own}");
    for (number, state) in states.iter().enumerate() {
        let report = same_differences(&format!("state {number}"), &repo, (state, ""), &[]);
        assert_eq!(report["same"], number == 1, "{report}");
    }
    let earlier = ["--time", &TIME.to_string()];
    assert_eq!(same_differences("the first set", &repo, (&states[0], ""), &earlier)["same"], true);
    let path = ["--path-to-restore", "edits"];
    same_differences("a path", &repo, (&states[2].join("edits"), "edits"), &path);
}

#[test]
fn contents_are_compared_without_volumes_and_with_them_if_wanted() {
    let scratch = Scratch::new();
    let source = scratch.dir("source");
    for n in 0..8_u64 {
        fs::write(source.join(format!("file{n}")), noise(n, 200_000)).unwrap();
    }
    let repo = Repository::new("2.2.4", |_| Mode::Symmetric("p".to_owned()), &scratch.dir("r"));
    repo.backup(true, &source, TIME);
    let (code, report) = compared(&repo, &source, &["--deep"]);
    assert_eq!((code, &report["read"], &report["proved"]), (Some(0), &8.into(), &0.into()), "{report}");
    // The same size and time: only the content shows it.
    let changed = source.join("file3");
    let before = fs::metadata(&changed).unwrap().modified().unwrap();
    let mut bytes = noise(3, 200_000);
    bytes[123_456] ^= 1;
    fs::write(&changed, bytes).unwrap();
    fs::File::options().write(true).open(&changed).unwrap().set_modified(before).unwrap();
    same_differences("one byte", &repo, (&source, ""), &[]);
    for volume in fs::read_dir(repo.dir()).unwrap().map(|entry| entry.unwrap().path()) {
        if volume.to_str().unwrap().contains(".difftar") {
            fs::write(volume, "destroyed").unwrap();
        }
    }
    let (code, report) = compared(&repo, &source, &[]);
    assert_eq!((code, &report["proved"], &report["read"]), (Some(1), &8.into(), &0.into()), "{report}");
    assert_eq!(report["differences"][0]["path"], "file3");
    assert_eq!(report["differences"].as_array().unwrap().len(), 1, "{report}");
    assert_eq!(compared(&repo, &source, &["--deep"]).0, Some(6));

    // Without --compare-data neither the content nor a volume is read.
    let args = ["--json", "--compare", source.to_str().unwrap(), &repo.url()];
    let report: Value = serde_json::from_slice(&repo.reader().run("verify", &args)).unwrap();
    assert_eq!((&report["same"], &report["proved"]), (&true.into(), &0.into()), "{report}");
    fs::write(source.join("file4"), "short").unwrap();
    let output = exec::output(repo.reader().command("verify").args(args));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.code() == Some(1) && text.contains(r#""kind":"size""#), "{text}");
}

#[test]
fn options_without_a_directory_or_against_it_are_usage_errors() {
    let scratch = Scratch::new();
    let repo = Repository::new("3.2.1", |_| Mode::Plain, &scratch.dir("r"));
    for (args, expected) in [
        (vec!["--compare-data"], "need a directory"),
        (vec!["--path", "x"], "need a directory"),
        (vec!["--compare", "/tmp", "--sample", "5%"], "--sample"),
        (vec!["--compare", "/tmp", "--deep"], "--compare-data"),
    ] {
        let output = exec::output(repo.reader().command("verify").args(&args).arg(repo.url()));
        let message = exec::tail(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {message}");
        assert!(message.contains(expected), "{args:?}: {message}");
    }
    let source = scratch.dir("source");
    fs::write(source.join("file"), "x").unwrap();
    repo.backup(true, &source, TIME);
    let output = exec::output(repo.reader().command("verify").arg(repo.url()).arg(&source));
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(exec::tail(&output.stderr).contains("--compare"), "{output:?}");
}
