//! `dupfs index` on backups of real duplicity: afterwards all names and sizes are answered without volumes.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::Scratch;
use crate::support::duplicity::{Mode, Repository};
use crate::support::exec::{self, Dupfs};
use crate::support::source;
use crate::support::terminal::on_terminal;
use crate::support::tree::{Kind, Tree};

const TIMES: [i64; 4] = [1_700_000_000, 1_700_003_600, 1_700_007_200, 1_700_010_800];

fn index(dupfs: &Dupfs, args: &[&str]) -> Value {
    serde_json::from_slice(&dupfs.run("index", &[args, &["--json"]].concat())).unwrap()
}

fn objects(repo: &Repository, part: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(repo.dir()).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.file_name().unwrap().to_str().unwrap().contains(part)).collect()
}

/// The sizes of all files in a snapshot, by `ls`; each is exact.
fn sizes(dupfs: &Dupfs, url: &str, time: i64) -> Vec<(String, u64)> {
    let printed = dupfs.run("ls", &["-lR", "--json", "--time", &time.to_string(), url]);
    let entries: Value = serde_json::from_slice(&printed).unwrap();
    let files = entries.as_array().unwrap().iter().filter(|entry| entry["type"] == "file");
    let size = |entry: &Value| {
        assert_eq!(entry["size_is_exact"], true, "{entry}");
        (entry["path"].as_str().unwrap().to_owned(), entry["size"].as_u64().unwrap())
    };
    files.map(size).collect()
}

fn expected_sizes(source: &Path) -> Vec<(String, u64)> {
    let tree = Tree::walk(source);
    let files = tree.entries.iter().filter(|(_, entry)| entry.kind == Kind::File);
    files.map(|(path, entry)| (String::from_utf8(path.clone()).unwrap(), entry.size)).collect()
}

#[test]
fn after_an_index_run_all_sizes_are_known_and_a_second_run_fetches_nothing() {
    for version in ["0.8.22", "3.2.1"] {
        let scratch = Scratch::new();
        let states = source::small(scratch.path());
        let mode = |_: &_| if version == "3.2.1" { Mode::Symmetric("p".to_owned()) } else { Mode::Gzip };
        let repo = Repository::new(version, mode, &scratch.dir("r"));
        let repo = if version == "3.2.1" { repo.option("--gpg-options=--s2k-count 1024") } else { repo };
        for (i, state) in [0, 1, 2, 1].into_iter().enumerate() {
            repo.backup(i == 0 || i == 3, &states[state], TIMES[i]);
        }
        let url = repo.url();
        let only_trees = index(&repo.reader(), &["--no-sizes", &url]);
        let keys: Vec<_> = only_trees.as_object().unwrap().keys().map(String::as_str).collect();
        let expected = [
            "bytes_fetched",
            "cold",
            "complete",
            "failures",
            "files",
            "interrupted",
            "new_sizes",
            "paths",
            "snapshots",
            "unknown_sizes",
            "url",
        ];
        assert_eq!(keys, expected);
        let small: u64 = objects(&repo, "")
            .iter()
            .filter(|path| !path.to_str().unwrap().contains("difftar"))
            .map(|path| fs::metadata(path).unwrap().len())
            .sum();
        let fetched = only_trees["bytes_fetched"].as_u64().unwrap();
        assert!(fetched > 0 && fetched <= small, "{only_trees}: a volume was fetched");
        assert_eq!((&only_trees["complete"], &only_trees["new_sizes"]), (&true.into(), &0.into()));
        // Signatures give the size of an empty file.
        let unknown = only_trees["unknown_sizes"].as_u64().unwrap();
        assert!(unknown >= 12 && unknown < only_trees["files"].as_u64().unwrap(), "{only_trees}");

        let all = index(&repo.reader(), &[&url]);
        assert_eq!((&all["complete"], &all["snapshots"]), (&true.into(), &4.into()), "{all}");
        assert_eq!((&all["new_sizes"], &all["unknown_sizes"]), (&unknown.into(), &0.into()), "{all}");
        assert!(all["files"].as_u64().unwrap() >= 16, "{all}");
        let volumes: u64 = objects(&repo, "difftar").iter().map(|path| fs::metadata(path).unwrap().len()).sum();
        let fetched = all["bytes_fetched"].as_u64().unwrap();
        assert!(fetched > volumes / 2 && fetched <= volumes + small, "{all}: {volumes} bytes of volumes");

        // The second run reads the newest manifest, which proves the key, and nothing else.
        let again = index(&repo.reader(), &[&url]);
        assert_eq!((&again["files"], &again["new_sizes"]), (&all["files"], &0.into()), "{again}");
        let manifests: u64 = objects(&repo, "manifest").iter().map(|path| fs::metadata(path).unwrap().len()).sum();
        assert!(again["bytes_fetched"].as_u64().unwrap() <= manifests, "{again}");
        let text = String::from_utf8(repo.reader().run("index", &[&url])).unwrap();
        assert!(text.starts_with(&format!("{url}: 4 snapshots, ")) && text.contains(" 0 new, 0 unknown; "), "{text}");

        // Sizes of all snapshots without a volume and without a signature archive.
        let lists: Vec<_> = TIMES.iter().map(|time| sizes(&repo.reader(), &url, *time)).collect();
        for (list, state) in lists.iter().zip([0, 1, 2, 1]) {
            let mut list = list.clone();
            list.sort();
            let mut expected = expected_sizes(&states[state]);
            expected.sort();
            assert_eq!(list, expected);
        }
    }
}

#[test]
fn a_size_that_was_found_needs_no_volume_and_lost_volumes_are_reported_once() {
    let scratch = Scratch::new();
    let states = source::small(scratch.path());
    let repo = Repository::new("3.2.1", |_| Mode::Gzip, &scratch.dir("r"));
    repo.backup(true, &states[0], TIMES[0]);
    repo.backup(false, &states[1], TIMES[1]);
    let url = repo.url();
    let full = objects(&repo, "duplicity-full.");
    let first: Vec<_> = full.into_iter().filter(|path| path.to_str().unwrap().contains(".vol2.")).collect();
    let whole = fs::read(&first[0]).unwrap();
    fs::write(&first[0], vec![0; whole.len()]).unwrap();
    let output = exec::output(repo.reader().command("index").args(["--json", &url]));
    assert_eq!(output.status.code(), Some(6), "{output:?}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let failures = report["failures"].as_array().unwrap();
    assert!(failures.len() == 1 && failures[0].as_str().unwrap().contains(".vol2."), "{report}");
    assert!(report["new_sizes"].as_u64().unwrap() > 2 && report["unknown_sizes"].as_u64().unwrap() > 2, "{report}");
    assert_eq!(report["complete"], false);
    fs::write(&first[0], whole).unwrap();
    let repaired = index(&repo.reader(), &[&url]);
    assert_eq!((&repaired["complete"], &repaired["unknown_sizes"]), (&true.into(), &0.into()), "{repaired}");
    assert!(repaired["new_sizes"].as_u64() >= report["unknown_sizes"].as_u64(), "{repaired}");

    for (args, code, part) in [
        (vec!["--no-index", url.as_str()], 2, "--no-index"),
        (vec!["--rate=0", url.as_str()], 2, "at least one byte"),
        (vec!["--rate=fast", url.as_str()], 2, "--rate"),
        (vec![], 2, "URL"),
        (vec!["/no/such/backup"], 3, "no such directory"),
    ] {
        let (got, error) = repo.reader().fails("index", &args);
        assert!(got == Some(code) && error.contains(part), "{args:?}: {got:?} {error}");
    }
    let elsewhere = scratch.path().join("file");
    fs::write(&elsewhere, "").unwrap();
    let (code, error) = repo.reader().fails("index", &["--cache-dir", elsewhere.to_str().unwrap(), &url]);
    assert!(code == Some(1) && error.ends_with("; give another --cache-dir\n"), "{error}");
    let mut child = repo.reader().command("index");
    let mut child = child.arg(&url).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.signal(), &*output.stderr), (Some(libc::SIGPIPE), &b""[..]));
}

#[test]
fn progress_is_on_a_terminal_only_and_a_rate_is_kept() {
    let scratch = Scratch::new();
    let states = source::small(scratch.path());
    let repo = Repository::new("3.2.1", |_| Mode::Plain, &scratch.dir("r"));
    repo.backup(true, &states[0], TIMES[0]);
    let url = repo.url();
    // Progress is shown after a second.
    let rate = 700_000;
    let begun = Instant::now();
    let shown = on_terminal(repo.reader().command("index").args(["--rate", &rate.to_string(), &url]), &[]);
    let elapsed = begun.elapsed();
    assert_eq!(shown.code, 0, "{}", shown.output);
    assert!(shown.output.contains("size ") && shown.output.contains("iB/s, "), "{}", shown.output);
    let bytes: u64 = shown.output.split("; ").last().unwrap().split(' ').next().unwrap().parse().unwrap();
    let least = Duration::from_secs_f64(bytes as f64 / f64::from(rate) * 0.9);
    assert!(bytes > 1_000_000 && elapsed >= least, "{bytes} bytes in {elapsed:?}");
}
