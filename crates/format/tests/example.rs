//! Runs the code of the example on backups that old versions of duplicity wrote.

// A failing test panics.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

#[allow(dead_code, unreachable_pub)]
#[path = "../examples/list_backup.rs"]
mod list_backup;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures")
}

fn listed(fixture: &str) -> String {
    let mut out = Vec::new();
    list_backup::list_backup(&fixtures().join(fixture), &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

/// The rest of each line of `text` that begins with `word` and a space.
fn items<'a>(text: &'a str, word: &str) -> Vec<&'a str> {
    text.lines().filter_map(|line| line.strip_prefix(word)?.strip_prefix(' ')).collect()
}

#[test]
fn sets_chains_and_snapshots_of_a_backup_are_listed() {
    let text = listed("duplicity-0.7.13-gz");
    let sets = items(&text, "set");
    assert_eq!(sets.len(), 3);
    assert!(sets[0].starts_with("full 20261122T131027Z: 2 volumes, "), "{}", sets[0]);
    assert!(sets[2].starts_with("inc 20261122T131030Z to 20261122T131035Z: 1 volumes, "), "{}", sets[2]);
    assert_eq!(items(&text, "chain"), ["20261122T131027Z-20261122T131035Z: 3 sets"]);
    let snapshots = ["20261122T131027Z: 1 sets", "20261122T131030Z: 2 sets", "20261122T131035Z: 3 sets"];
    assert_eq!(items(&text, "snapshot"), snapshots);
    assert!(items(&text, "problem").is_empty());
}

#[test]
fn paths_of_the_newest_snapshot_are_those_of_the_source() {
    let expected = std::fs::read_to_string(fixtures().join("tree-2.expected.jsonl")).unwrap();
    let path_of =
        |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["path"].as_str().unwrap().to_owned();
    let expected: BTreeSet<String> = expected.lines().map(path_of).collect();
    assert!(expected.len() > 20);
    for fixture in ["duplicity-0.6.23-gz", "duplicity-0.7.13-gz", "duplicity-0.8.15-python2.7-gz"] {
        let text = listed(fixture);
        let paths: BTreeSet<String> = items(&text, "path").into_iter().map(str::to_owned).collect();
        assert_eq!(paths, expected, "{fixture}");
    }
}

#[test]
fn paths_of_an_encrypted_backup_are_not_listed() {
    let text = listed("duplicity-0.6.23-sym");
    assert_eq!(items(&text, "snapshot").len(), 3);
    assert!(items(&text, "path").is_empty());
    assert!(text.ends_with("are encrypted or incomplete\n"), "{text}");
}

#[test]
fn a_directory_without_a_backup_is_an_error() {
    let error = list_backup::list_backup(&fixtures().join("keys"), &mut Vec::new()).unwrap_err();
    assert!(error.to_string().starts_with("no duplicity backup here: "), "{error}");
}
