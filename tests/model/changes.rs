//! `diff` and `history` over random histories: they print the differences between the plain trees, and fetch no volume.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use dupfs::cli::diff::{self, DiffOptions};
use dupfs::cli::find::{self, FindOptions};
use dupfs::cli::history::{self, HistoryOptions};
use dupfs::cli::printer::Printer;
use dupfs::cli::{CliError, CommandExit, RequestTimeout};
use dupfs::vfs::{NodeKind, TreeFs};
use proptest::prelude::*;
use serde_json::Value;

use crate::properties::{encoded, watched};
use crate::reference::encode::Repository;
use crate::reference::history::{History, config, histories};
use crate::reference::layout::{BlockRule, Layout, Oddities, layouts};
use crate::reference::store::{Fault, MemoryStore};
use crate::reference::subject;
use crate::reference::tree::{Kind, Node, Path, Tree, joined, shown};

/// The parts in which two objects differ, in the order of docs/CLI.md.
fn parts(old: &Node, new: &Node) -> Vec<&'static str> {
    if !old.kind.same_type(&new.kind) {
        return vec!["type"];
    }
    let is_link = matches!(new.kind, Kind::Symlink(_));
    let is_device = matches!(new.kind, Kind::Char(..) | Kind::Block(..));
    let all = [
        ("contents", old.content() != new.content()),
        ("target", is_link && old.kind != new.kind),
        ("device", is_device && old.kind != new.kind),
        ("mode", !is_link && old.mode != new.mode),
        ("owner", old.uid != new.uid),
        ("group", old.gid != new.gid),
        ("mtime", old.mtime != new.mtime),
    ];
    all.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
}

/// The changes from `old` to `new` by path: one word, and the parts.
fn differences(old: &Tree, new: &Tree) -> BTreeMap<Vec<u8>, (&'static str, Vec<&'static str>)> {
    let paths: BTreeSet<&Path> = old.keys().chain(new.keys()).collect();
    let of = |path: &Path| match (old.get(path), new.get(path)) {
        (Some(_), None) => Some(("removed", vec![])),
        (None, Some(_)) => Some(("added", vec![])),
        (Some(a), Some(b)) => Some(("changed", parts(a, b))).filter(|(_, parts)| !parts.is_empty()),
        (None, None) => None,
    };
    paths.into_iter().filter_map(|path| Some((joined(path), of(path)?))).collect()
}

/// Requires that `printed` are the parts `expected`. Contents that were signed in blocks of different lengths may be undecided.
fn assert_parts(printed: &Value, expected: &[&str], undecided: bool, context: &str) {
    let printed: Vec<&str> = printed.as_array().unwrap().iter().map(|part| part.as_str().unwrap()).collect();
    let without = |parts: &[&str]| -> Vec<String> {
        parts.iter().filter(|part| !part.starts_with("contents")).map(ToString::to_string).collect()
    };
    if undecided && printed.contains(&"contents?") {
        assert_eq!(without(&printed), without(expected), "{context}");
    } else {
        assert_eq!(printed, expected, "{context}");
    }
}

fn path_of(entry: &Value) -> Vec<u8> {
    match entry["path_hex"].as_str() {
        Some(hex) => (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect(),
        None => entry["path"].as_str().unwrap().as_bytes().to_vec(),
    }
}

/// The permitted deviations.
#[derive(Clone, Copy)]
struct Allowance {
    /// The comparison of contents may be undecided.
    undecided: bool,
    /// Signature archives are missing, which is reported where contents need them.
    lost_archives: bool,
}

/// Runs a command that must succeed without a message.
fn printed(allowance: Allowance, run: impl FnOnce(&mut Printer<'_>) -> Result<CommandExit, CliError>) -> Vec<u8> {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let exit = run(&mut Printer::new(&mut out, &mut err, false)).unwrap();
    let message = String::from_utf8(err).unwrap();
    let reported = allowance.lost_archives && !message.is_empty();
    assert_eq!(exit, if reported { CommandExit::Damage } else { CommandExit::Done }, "{message}");
    assert!(message.lines().all(|line| reported && line.contains("files cannot be compared")), "{message}");
    out
}

fn diff_json(fs: &TreeFs, operands: &[&str], allowance: Allowance) -> Value {
    let operands = operands.iter().map(OsString::from).collect();
    let options = DiffOptions { operands, json: true, ..DiffOptions::default() };
    let run = |printer: &mut Printer<'_>| diff::run(fs, &options, RequestTimeout::default(), printer);
    serde_json::from_slice(&printed(allowance, run)).unwrap()
}

fn check_diff(fs: &TreeFs, repository: &Repository, allowance: Allowance) {
    let undecided = allowance.undecided;
    let empty = Tree::new();
    for (new_index, new) in repository.sets.iter().enumerate() {
        let pairs = repository.sets.iter().map(|old| (Some(old.snapshot()), &old.tree));
        let before = new_index.checked_sub(1).map_or(&empty, |before| &repository.sets[before].tree);
        for (old_name, old) in pairs.chain([(None, before)]) {
            let operands: Vec<String> = old_name.clone().into_iter().chain([new.snapshot()]).collect();
            let operands: Vec<&str> = operands.iter().map(String::as_str).collect();
            let report = diff_json(fs, &operands, allowance);
            assert_eq!(report["snapshots"]["new"], new.snapshot());
            let changes = report["changes"].as_array().unwrap();
            let mut expected = differences(old, &new.tree);
            for entry in changes {
                let path = path_of(entry);
                let context = format!("{operands:?}: {entry}");
                let (change, parts) = match expected.remove(&path) {
                    Some(expected) => expected,
                    None if undecided && entry["changes"] == serde_json::json!(["contents?"]) => continue,
                    None => panic!("nothing has changed: {context}"),
                };
                assert_eq!(entry["change"], change, "{context}");
                assert_parts(&entry["changes"], &parts, undecided, &context);
                assert_eq!((entry["old"].is_null(), entry["new"].is_null()), (change == "added", change == "removed"));
            }
            assert!(expected.is_empty(), "{operands:?}: not printed: {expected:?}");
            let order: Vec<Vec<Vec<u8>>> = changes
                .iter()
                .map(|entry| path_of(entry).split(|&b| b == b'/').map(<[u8]>::to_vec).collect())
                .collect();
            assert!(order.is_sorted(), "{operands:?}: {order:?}");
        }
    }
}

/// The rows that the history of `path` has: snapshot, event and parts.
fn expected_history(repository: &Repository, path: &Path) -> Vec<(String, &'static str, Vec<&'static str>)> {
    let mut rows = Vec::new();
    let (mut before, mut existed) = (None, false);
    for set in &repository.sets {
        let now = set.tree.get(path);
        match (before, now) {
            (Some(_), None) => rows.push((set.snapshot(), "deleted", vec![])),
            (None, Some(_)) => rows.push((set.snapshot(), if existed { "reappeared" } else { "created" }, vec![])),
            (Some(old), Some(new)) if !parts(old, new).is_empty() => {
                rows.push((set.snapshot(), "changed", parts(old, new)));
            }
            (Some(_), Some(_)) | (None, None) => {}
        }
        existed |= now.is_some();
        before = now;
    }
    rows
}

fn check_history(fs: &TreeFs, repository: &Repository, allowance: Allowance) {
    let undecided = allowance.undecided;
    let paths: BTreeSet<&Path> = repository.sets.iter().flat_map(|set| set.tree.keys()).collect();
    for path in paths {
        let typed = [b"versions/", &joined(path)[..]].concat();
        let options = HistoryOptions { json: true, ..HistoryOptions::default() };
        let run = |printer: &mut Printer<'_>| {
            history::run(fs, OsStr::from_bytes(&typed), options, RequestTimeout::default(), printer)
        };
        let rows: Value = serde_json::from_slice(&printed(allowance, run)).unwrap();
        let mut rows: Vec<Value> = rows.as_array().unwrap().clone();
        let expected = expected_history(repository, path);
        if undecided {
            let stamps: Vec<&str> = expected.iter().map(|(snapshot, ..)| snapshot.as_str()).collect();
            rows.retain(|row| {
                row["changes"] != serde_json::json!(["contents?"])
                    || stamps.contains(&row["snapshot"].as_str().unwrap())
            });
        }
        let context = format!("{}: {rows:?}, expected {expected:?}", shown(path));
        assert_eq!(rows.len(), expected.len(), "{context}");
        for (row, (snapshot, event, parts)) in rows.iter().zip(&expected) {
            assert_eq!((&row["snapshot"], &row["event"]), (&snapshot.as_str().into(), &(*event).into()), "{context}");
            assert_parts(&row["changes"], parts, undecided, &context);
            assert_eq!(path_of(row), joined(path));
        }
        if !undecided {
            // Each snapshot with the path has exactly one of the versions.
            let mut shown_in: Vec<String> = rows
                .iter()
                .flat_map(|row| row["snapshots"].as_array().unwrap())
                .map(|name| name.as_str().unwrap().to_owned())
                .collect();
            shown_in.sort();
            let having = repository.sets.iter().filter(|set| set.tree.contains_key(path));
            let mut having: Vec<String> = having.map(|set| set.snapshot()).collect();
            having.sort();
            assert_eq!(shown_in, having, "{context}");
        }
    }
}

/// `find --all` prints each path once, with the snapshots that have it.
fn check_find(fs: &TreeFs, repository: &Repository) {
    let find = |kinds: Vec<NodeKind>| {
        let options = FindOptions { pattern: "*".into(), kinds, json: true, ..FindOptions::default() };
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let printer = &mut Printer::new(&mut out, &mut err, false);
        let exit = find::run_all(fs, &options, RequestTimeout::default(), printer).unwrap();
        let found: Value = serde_json::from_slice(&out).unwrap();
        let found = found.as_array().unwrap();
        assert_eq!(exit, if found.is_empty() { CommandExit::NotFound } else { CommandExit::Done });
        let of = |entry: &Value| (path_of(entry), (entry["snapshots"].clone(), entry["mtime"].clone()));
        let paths: BTreeMap<_, _> = found.iter().map(of).collect();
        assert_eq!(paths.len(), found.len(), "a path is printed twice");
        paths
    };
    let expected = |selects: &dyn Fn(&Node) -> bool| {
        let mut paths: BTreeMap<Vec<u8>, (Value, Value)> = BTreeMap::new();
        for set in &repository.sets {
            for (path, node) in set.tree.iter().filter(|(path, node)| !path.is_empty() && selects(node)) {
                let (snapshots, mtime) =
                    paths.entry(joined(path)).or_insert_with(|| (Value::Array(vec![]), Value::Null));
                snapshots.as_array_mut().unwrap().push(set.snapshot().into());
                *mtime = node.mtime.into();
            }
        }
        paths
    };
    assert_eq!(find(vec![]), expected(&|_| true));
    assert_eq!(find(vec![NodeKind::File]), expected(&|node| node.content().is_some()));
}

fn check_changes(history: &History, layout: &Layout) {
    let repository = encoded(history, layout);
    let store = MemoryStore::new(&repository.objects);
    let fs = subject::open_trees(store.clone(), &repository, 1 << 20).expect("a sound repository opens");
    let rules: Vec<BlockRule> = layout.sets.iter().map(|set| set.blocks).collect();
    let undecided = rules.contains(&BlockRule::Stale) || rules.iter().any(|rule| *rule != rules[0]);
    let allowance = Allowance { undecided, lost_archives: false };
    check_diff(&fs, &repository, allowance);
    check_history(&fs, &repository, allowance);
    check_find(&fs, &repository);
    let is_volume = |name: &String| repository.sets.iter().any(|set| set.volumes.contains(name));
    let fetched: Vec<String> = store
        .take_counts()
        .into_iter()
        .filter(|(name, count)| count.opens > 0 && is_volume(name))
        .map(|(n, _)| n)
        .collect();
    assert!(fetched.is_empty(), "volumes were fetched: {fetched:?}");
}

/// The same for trees of which some are made of volumes, because signature archives are missing.
fn check_without_signatures(history: &History, layout: &Layout, lost: u8) {
    let repository = encoded(history, layout);
    let store = MemoryStore::new(&repository.objects);
    let sets = repository.sets.iter().enumerate().filter(|(at, _)| lost >> (at % 8) & 1 == 1);
    store.set_faults(&sets.map(|(_, set)| (set.sigtar.clone(), Fault::Missing)).collect());
    let fs = subject::open_trees(store, &repository, 1 << 20).expect("a repository without signatures opens");
    let allowance = Allowance { undecided: true, lost_archives: true };
    check_diff(&fs, &repository, allowance);
    check_history(&fs, &repository, allowance);
    check_find(&fs, &repository);
}

proptest! {
    #![proptest_config(config(60))]

    #[test]
    fn without_signature_archives_only_contents_are_undecided(
        history in histories(),
        layout in layouts(Oddities::None),
        lost in any::<u8>(),
    ) {
        watched(move || check_without_signatures(&history, &layout, lost))?;
    }

    #[test]
    fn diff_and_history_print_the_differences_of_the_trees(
        history in histories(),
        layout in layouts(Oddities::None),
    ) {
        watched(move || check_changes(&history, &layout))?;
    }
}
