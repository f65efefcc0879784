//! `dupfs find` on backups of which only manifests and signature archives can be read.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use crate::support::Scratch;
use crate::support::duplicity::{Mode, Repository, stamp};
use crate::support::source;
use crate::support::tree::{Entry, Kind, Tree};

const TIMES: [i64; 4] = [1_700_000_000, 1_700_003_600, 1_700_007_200, 1_700_010_800];

/// Backs up the states, one after the other; the last set is a full one. Then every volume is damaged, so that a search that
/// needs one fails.
fn without_volumes(repo: &Repository, states: &[&PathBuf]) -> Vec<(String, Tree)> {
    for (i, state) in states.iter().enumerate() {
        repo.backup(i == 0 || i == 3, state, TIMES[i]);
    }
    let mut damaged = 0;
    for entry in fs::read_dir(repo.dir()).unwrap() {
        let path = entry.unwrap().path();
        if path.to_str().unwrap().contains(".difftar") {
            fs::write(path, "damaged").unwrap();
            damaged += 1;
        }
    }
    assert!(damaged > states.len(), "no set has two volumes");
    states.iter().zip(TIMES).map(|(state, time)| (stamp(time), Tree::walk(state))).collect()
}

/// The paths of `tree` without its root that `selects` accepts.
fn selected(tree: &Tree, selects: impl Fn(&str, &Entry) -> bool) -> BTreeSet<String> {
    let named = tree.entries.iter().map(|(path, entry)| (String::from_utf8(path.clone()).unwrap(), entry));
    named.filter(|(path, entry)| !path.is_empty() && selects(path, entry)).map(|(path, _)| path).collect()
}

fn name_of(path: &str) -> &str {
    path.rsplit('/').next().unwrap()
}

fn found(repo: &Repository, args: &[&str]) -> BTreeSet<String> {
    let url = repo.url();
    let args = [&[url.as_str()], args, &["--print0"]].concat();
    let printed = String::from_utf8(repo.reader().run("find", &args)).unwrap();
    let paths: Vec<_> = printed.split_terminator('\0').map(str::to_owned).collect();
    let set: BTreeSet<_> = paths.iter().cloned().collect();
    assert_eq!(set.len(), paths.len(), "a path is printed twice: {paths:?}");
    set
}

fn found_json(repo: &Repository, args: &[&str]) -> BTreeMap<String, Value> {
    let url = repo.url();
    let args = [&[url.as_str()], args, &["--json"]].concat();
    let printed: Value = serde_json::from_slice(&repo.reader().run("find", &args)).unwrap();
    let entries = printed.as_array().unwrap().iter();
    entries.map(|entry| (entry["path"].as_str().unwrap().to_owned(), entry.clone())).collect()
}

/// Compares searches in each snapshot and in all with the states of the source.
fn compare(repo: &Repository, snapshots: &[(String, Tree)]) {
    for (time, tree) in snapshots {
        let at = |args: &[&str]| found(repo, &[args, &["--time", time.as_str()]].concat());
        assert_eq!(at(&["*"]), selected(tree, |_, _| true), "{time}");
        assert_eq!(at(&["*e*"]), selected(tree, |path, _| name_of(path).contains('e')), "{time}");
        assert_eq!(at(&["dir/*"]), selected(tree, |path, _| path.starts_with("dir/")), "{time}");
        assert_eq!(at(&["--regex", "^dir.*e"]), selected(tree, |p, _| p.starts_with("dir") && p[3..].contains('e')));
        assert_eq!(at(&["*", "--type", "f"]), selected(tree, |_, e| e.kind == Kind::File), "{time}");
        assert_eq!(at(&["*", "--type", "d,p"]), selected(tree, |_, e| matches!(e.kind, Kind::Dir | Kind::Fifo)));
        let newest = tree.entries.values().map(|entry| entry.mtime).max().unwrap();
        for newer in tree.entries.values().map(|entry| entry.mtime).filter(|mtime| *mtime < newest) {
            let args = ["*", "--newer", &newer.to_string()];
            assert_eq!(at(&args), selected(tree, |_, e| e.mtime > newer), "{time}, newer than {newer}");
        }
        // A size that only a volume has counts as its upper bound: nothing is left out.
        let json = found_json(repo, &["*", "--larger", "100K", "--time", time]);
        let larger = selected(tree, |_, e| e.kind == Kind::File && e.size > 100 << 10);
        assert!(larger.len() >= 2 && larger.iter().all(|path| json.contains_key(path)), "{time}: {json:?}");
        for (path, entry) in &json {
            assert!(larger.contains(path) || entry["size_is_exact"] == false, "{time}: {entry}");
        }
        let all = found_json(repo, &["*", "--time", time]);
        for (path, entry) in &all {
            let source = &tree.entries[path.as_bytes()];
            assert_eq!(entry["mtime"], source.mtime, "{time}: {path}");
            assert_eq!(entry["mode"], format!("{:04o}", source.mode), "{time}: {path}");
            assert_eq!((&entry["uid"], &entry["gid"]), (&source.uid.into(), &source.gid.into()), "{time}: {path}");
            if source.kind == Kind::File {
                let size = entry["size"].as_u64().unwrap();
                let is_exact = entry["size_is_exact"] == true;
                assert!(if is_exact { size == source.size } else { size >= source.size }, "{time}: {entry}");
            }
        }
    }
    let mut expected: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for (time, tree) in snapshots {
        for path in selected(tree, |path, _| name_of(path).contains('e')) {
            expected.entry(path).or_default().push(time);
        }
    }
    let json = found_json(repo, &["--all", "*e*"]);
    let snapshots_of = |entry: &Value| {
        let names = entry["snapshots"].as_array().unwrap().iter();
        names.map(|name| name.as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let shown: BTreeMap<_, _> = json.iter().map(|(path, entry)| (path.clone(), snapshots_of(entry))).collect();
    assert_eq!(shown, expected.iter().map(|(p, t)| (p.clone(), t.iter().map(ToString::to_string).collect())).collect());
    assert_eq!(found(repo, &["--all", "*e*"]), expected.into_keys().collect());
}

#[test]
fn find_answers_from_trees_alone() {
    let scratch = Scratch::new();
    let states = source::small(scratch.path());
    let repo = Repository::new("3.2.1", |_| Mode::Symmetric("p".to_owned()), &scratch.dir("encrypted"));
    // A cheap key derivation.
    let repo = repo.option("--gpg-options=--s2k-count 1024");
    let snapshots = without_volumes(&repo, &[&states[0], &states[1], &states[2], &states[1]]);
    compare(&repo, &snapshots);
    // `new` was deleted in the third snapshot and is in the full set after it.
    let url = repo.url();
    let text = String::from_utf8(repo.reader().run("find", &[&url, "--all", "new"])).unwrap();
    assert_eq!(text, format!("{},{} new\n", stamp(TIMES[1]), stamp(TIMES[3])));
    let text = String::from_utf8(repo.reader().run("find", &[&url, "--all", "secret"])).unwrap();
    assert_eq!(text, format!("{}..{} dir/secret\n", stamp(TIMES[0]), stamp(TIMES[3])));
    // What is read from a volume fails.
    assert_eq!(repo.reader().fails("cat", &[&url, "new"]).0, Some(6));
    for (args, code, part) in [
        (vec![url.as_str(), "gone"], 3, "--all searches all snapshots"),
        (vec![url.as_str(), "--all", "gon"], 3, "'*gon*'"),
        (vec![url.as_str(), "[gone"], 2, "a [ is not closed"),
        (vec![url.as_str(), "gone", "--newer", "yesterday"], 2, "--newer"),
        (vec!["gone", url.as_str()], 2, "the wrong way round"),
        (vec![url.as_str(), "gone", "--time", "now", "--all"], 2, "cannot be used with"),
    ] {
        let (got, error) = repo.reader().fails("find", &args);
        assert!(got == Some(code) && error.contains(part), "{args:?}: {got:?} {error}");
    }
    let (code, error) = repo.reader().passphrase("wrong").fails("find", &[&url, "--all", "*"]);
    assert_eq!(code, Some(5), "{error}");

    let plain = Repository::new("0.8.22", |_| Mode::Plain, &scratch.dir("plain"));
    let snapshots = without_volumes(&plain, &[&states[0], &states[1]]);
    compare(&plain, &snapshots);
}
