use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::cli::open::{RepositoryOptions, open_repository};
use dupfs_read::storage::MemoryStore;

/// Stores an unencrypted set: the volumes `there`, and a manifest that lists `listed`.
fn set(store: &MemoryStore, name: &str, host: &str, listed: u32, there: &[u32]) {
    for n in there {
        store.put(&format!("duplicity-{name}.vol{n}.difftar.gz"), vec![0; 1000]);
    }
    let mut manifest = format!("Hostname {host}\nLocaldir /srv/site\n");
    for n in 1..=listed {
        manifest += &format!("Volume {n}:\n    StartingPath   .  \n    EndingPath     f{n:02}  \n");
        manifest += "    Hash SHA1 da39a3ee5e6b4b0d3255bfef95601890afd80709\n";
    }
    manifest += "Filelist 1\n    new      f1\n";
    store.put(&format!("duplicity-{name}.manifest"), manifest.into_bytes());
    let (kind, times) = name.split_once('.').unwrap();
    let kind = if kind == "full" { "full" } else { "new" };
    store.put(&format!("duplicity-{kind}-signatures.{times}.sigtar.gz"), vec![0; 100]);
}

const T0: &str = "20170101T000000Z";
const T1: &str = "20170108T000000Z";
const T2: &str = "20170115T000000Z";

fn repository(store: MemoryStore) -> Arc<Repository> {
    let options = RepositoryOptions { memory: 1 << 20, ..RepositoryOptions::default() };
    open_repository(Arc::new(store), options, RequestTimeout::default()).unwrap()
}

fn printed(repository: &Arc<Repository>, json: bool) -> String {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let options = SetsOptions { json, check: false };
    let end = run(repository, RequestTimeout::default(), options, &mut Printer::new(&mut out, &mut err, true));
    assert_eq!((end, err.len()), (Ok(CommandExit::Done), 0));
    String::from_utf8(out).unwrap()
}

fn report(repository: &Arc<Repository>) -> Value {
    serde_json::from_str(&printed(repository, true)).unwrap()
}

fn kinds(report: &Value) -> Vec<&str> {
    report["problems"].as_array().unwrap().iter().map(|problem| problem["kind"].as_str().unwrap()).collect()
}

#[test]
fn an_intact_chain_is_reported_as_by_collection_status() {
    let store = MemoryStore::new();
    set(&store, &format!("full.{T0}"), "db1", 12, &(1..=12).collect::<Vec<_>>());
    set(&store, &format!("inc.{T0}.to.{T1}"), "db1", 1, &[1]);
    let repository = repository(store);
    let report = report(&repository);
    assert_eq!(report["latest"], T1);
    assert_eq!(
        report["chains"],
        json!([{
            "start_time": T0, "end_time": T1, "primary": true, "sets": [0, 1], "volumes": 13,
            "bytes": report["sets"][0]["bytes"].as_u64().unwrap() + report["sets"][1]["bytes"].as_u64().unwrap()
        }])
    );
    let inc = &report["sets"][1];
    for (key, value) in [
        ("type", json!("inc")),
        ("time", json!(T1)),
        ("epoch", json!(1_483_833_600)),
        ("start_time", json!(T0)),
        ("snapshot", json!(T1)),
        ("lineage", json!([0, 1])),
        ("encryption", json!("none")),
        ("listed_volumes", json!(1)),
        ("volume_bytes", json!(1000)),
        ("signature_bytes", json!(100)),
        ("hostname", json!("db1")),
        ("source_directory", json!("/srv/site")),
        ("listed_files", json!(1)),
    ] {
        assert_eq!(inc[key], value, "{key}");
    }
    assert_eq!(report["signature_chains"][0]["objects"].as_array().unwrap().len(), 2);
    assert_eq!(report["problems"], json!([]));
    let text = printed(&repository, false);
    for part in [
        "memory:\n2 backup sets, 2 snapshots, 13 volumes, ",
        "source directory /srv/site, host db1\n",
        &format!("latest snapshot {T1}\n"),
        &format!("primary chain {T0} to {T1}: 2 sets, 13 volumes, "),
        &format!("  full {T0}                             12 volumes  "),
        &format!("  inc  {T1} since {T0}        1 volume  "),
        &format!("signature chain {T0} to {T1}: 2 archives\n"),
        "no problems found\n",
    ] {
        assert!(text.contains(part), "no {part:?} in:\n{text}");
    }
}

#[test]
fn volumes_are_compared_with_the_manifest() {
    let store = MemoryStore::new();
    set(&store, &format!("full.{T0}"), "db1", 4, &[1, 3, 5, 6]);
    set(&store, &format!("inc.{T0}.to.{T1}"), "db2", 2, &[]);
    let repository = repository(store);
    let report = report(&repository);
    assert_eq!(report["sets"][0]["missing_volumes"], json!([2, 4]));
    assert_eq!(report["sets"][0]["unlisted_volumes"], json!([5, 6]));
    assert_eq!(kinds(&report), ["volume-missing", "volume-missing", "volume-unlisted", "source-changed"]);
    let text = printed(&repository, false);
    assert!(
        text.contains(&format!("error: full {T0}: volumes 2, 4 are in the manifest and not in the store")),
        "{text}"
    );
    assert!(text.contains("none of its 2 volumes is in the store"), "{text}");
    assert!(text.contains("volumes 5-6 are in the store and not in the manifest"), "{text}");
    assert!(text.contains("made from db2:/srv/site where the set before it was made from db1:/srv/site"), "{text}");
    assert!(text.contains("2 of 4 volumes"), "{text}");
}

#[test]
fn a_missing_only_volume_is_reported_in_the_singular() {
    let store = MemoryStore::new();
    set(&store, &format!("full.{T0}"), "db1", 1, &[]);
    let text = printed(&repository(store), false);
    assert!(
        text.contains(": its only volume is not in the store, so no file stored in this set can be read"),
        "{text}"
    );
}

#[test]
fn manifests_that_cannot_be_read_do_not_hide_the_rest() {
    let store = MemoryStore::new();
    set(&store, &format!("full.{T0}"), "db1", 1, &[1]);
    set(&store, &format!("inc.{T0}.to.{T1}"), "db1", 1, &[1]);
    store.put(&format!("duplicity-inc.{T0}.to.{T1}.manifest"), b"rubbish\n".as_slice());
    store.put_archived(&format!("duplicity-inc.{T1}.to.{T2}.manifest"), b"".as_slice(), "DEEP_ARCHIVE");
    store.put(&format!("duplicity-inc.{T1}.to.{T2}.vol1.difftar.gz"), b"x".as_slice());
    let repository = repository(store);
    let report = report(&repository);
    assert_eq!(report["sets"].as_array().unwrap().len(), 3);
    assert_eq!(report["sets"][0]["listed_volumes"], 1);
    assert_eq!(report["sets"][1]["listed_volumes"], Value::Null);
    let unreadable = kinds(&report).iter().filter(|kind| **kind == "manifest-unreadable").count();
    assert_eq!(unreadable, 1, "{report:#}");
    assert!(kinds(&report).contains(&"cold"), "{report:#}");
}

#[test]
fn sets_outside_the_chains_are_reported_with_the_reason() {
    let store = MemoryStore::new();
    set(&store, &format!("full.{T0}"), "db1", 1, &[1]);
    set(&store, &format!("inc.{T0}.to.{T1}"), "db1", 1, &[1]);
    set(&store, &format!("inc.{T0}.to.{T2}"), "db1", 1, &[1]);
    set(&store, "inc.20180101T000000Z.to.20180102T000000Z", "db1", 1, &[1]);
    store.put("duplicity-full.20190101T000000Z.vol1.difftar.gz", b"x".as_slice());
    let repository = repository(store);
    let report = report(&repository);
    assert_eq!(report["replaced_sets"], json!([{"set": 1, "by": 2}]));
    assert_eq!((&report["orphaned_sets"], &report["incomplete_sets"]), (&json!([3]), &json!([4])));
    let text = printed(&repository, false);
    assert!(text.contains("in no chain of duplicity's: 3 sets"), "{text}");
    assert!(text.contains(&format!("replaced by {T2}, shown\n")), "{text}");
    assert!(text.contains("orphaned, not shown\n") && text.contains("incomplete, not shown\n"), "{text}");
}

#[test]
fn check_turns_errors_and_nothing_else_into_exit_code_6() {
    let exit = |store: MemoryStore, check: bool, json: bool| {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let options = SetsOptions { json, check };
        let printer = &mut Printer::new(&mut out, &mut err, true);
        run(&repository(store), RequestTimeout::default(), options, printer).unwrap()
    };
    let with_volumes = |there: &[u32], host: &str| {
        let store = MemoryStore::new();
        set(&store, &format!("full.{T0}"), "db1", 2, there);
        set(&store, &format!("inc.{T0}.to.{T1}"), host, 1, &[1]);
        store
    };
    for json in [false, true] {
        assert_eq!(exit(with_volumes(&[1], "db1"), true, json), CommandExit::Damage, "a volume is missing");
        assert_eq!(exit(with_volumes(&[1], "db1"), false, json), CommandExit::Done);
        // Notes: a volume is not listed, and the source changed.
        assert_eq!(exit(with_volumes(&[1, 2, 3], "db2"), true, json), CommandExit::Done);
    }
}

/// Overlapping ranges and a cut list of changed files: the former hides files, the latter nothing.
#[test]
fn damaged_manifests_are_reported_with_their_consequence() {
    let report_of = |edit: &dyn Fn(String) -> String| {
        let store = MemoryStore::new();
        let name = format!("full.{T0}");
        set(&store, &name, "db1", 3, &[1, 2, 3]);
        let mut manifest = String::from("Hostname db1\nLocaldir /srv/site\n");
        for n in 1..=3 {
            manifest += &format!("Volume {n}:\n    StartingPath   .  \n    EndingPath     f{n}  \n");
            manifest += "    Hash SHA1 da39a3ee5e6b4b0d3255bfef95601890afd80709\n";
        }
        store.put(&format!("duplicity-{name}.manifest"), edit(manifest + "Filelist 1\n    new      f1\n").into_bytes());
        report(&repository(store))
    };
    assert_eq!(report_of(&|manifest| manifest)["problems"], json!([]));
    let cut = report_of(&|manifest| manifest.replace("Filelist 1", "Filelist 99"));
    assert_eq!((kinds(&cut), &cut["problems"][0]["severity"]), (vec!["file-list"], &json!("note")));
    let message = cut["problems"][0]["message"].as_str().unwrap();
    assert!(message.contains("99 changed files are announced but 1 are listed"), "{message}");
    assert!(message.contains("every file of the set can be read") && !message.contains("cannot"), "{message}");
    for (edit, reason) in [
        (("EndingPath     f1 ", "EndingPath     f3 "), "volume 2 ends at f2, before volume 1, which ends at f3"),
        (("Volume 2:", "Volume 0:"), "a volume's number is malformed"),
        (("Volume 3:", "Volume x:"), "a volume's number is malformed"),
        (("Volume 3:", "Volume 9000000:"), "volumes 3-10002 and more are not described"),
        (("EndingPath     f2 ", "EndingPath     f2 0"), "volume 2: a block number is malformed"),
    ] {
        let report = report_of(&|manifest| manifest.replacen(edit.0, edit.1, 1));
        let problems = report["problems"].as_array().unwrap();
        let damage = problems.iter().find(|problem| problem["kind"] == "manifest-damaged").expect("a damaged manifest");
        assert_eq!(damage["severity"], "error", "{report:#}");
        assert!(damage["message"].as_str().unwrap().contains(reason), "{damage}");
    }
}

#[test]
fn a_lost_manifest_is_reported_with_the_option_that_rebuilds_it() {
    let store = || {
        let store = MemoryStore::new();
        set(&store, &format!("full.{T0}"), "db1", 2, &[1, 2]);
        set(&store, &format!("inc.{T0}.to.{T1}"), "db1", 1, &[1]);
        store.remove(&format!("duplicity-inc.{T0}.to.{T1}.manifest"));
        store
    };
    let without = report(&repository(store()));
    assert_eq!((kinds(&without), &without["latest"]), (vec!["manifest-missing"], &json!(T0)));
    assert!(without["problems"][0]["message"].as_str().unwrap().contains("give --rebuild"), "{without:#}");
    assert_eq!((&without["sets"][1]["rebuilt"], &without["sets"][1]["snapshot"]), (&json!(false), &Value::Null));
    let options = RepositoryOptions { memory: 1 << 20, rebuild: true, ..RepositoryOptions::default() };
    let rebuilding = open_repository(Arc::new(store()), options, RequestTimeout::default()).unwrap();
    let with = report(&rebuilding);
    assert_eq!((kinds(&with), &with["latest"]), (vec!["manifest-rebuilt"], &json!(T1)));
    assert_eq!((&with["sets"][1]["rebuilt"], &with["sets"][1]["snapshot"]), (&json!(true), &json!(T1)));
    assert_eq!((&with["sets"][0]["rebuilt"], &with["sets"][1]["listed_volumes"]), (&json!(false), &Value::Null));
    let text = printed(&rebuilding, false);
    assert!(text.contains("not encrypted  rebuilt\n"), "{text}");
    // Without a signature archive to prove anything the option is not offered.
    let store = store();
    store.remove(&format!("duplicity-new-signatures.{T0}.to.{T1}.sigtar.gz"));
    let without = report(&repository(store));
    assert!(!without["problems"][0]["message"].as_str().unwrap().contains("--rebuild"), "{without:#}");
}

/// A store of `multi://` is missing: volumes are missing with the signature archive, so names are missing too.
#[test]
fn a_missing_store_of_a_stripe_is_not_reported_as_harmless() {
    let store = MemoryStore::new();
    set(&store, &format!("full.{T0}"), "db1", 4, &[1, 3]);
    store.remove(&format!("duplicity-full-signatures.{T0}.sigtar.gz"));
    let text = printed(&repository(store), false);
    assert!(text.contains("volumes 2, 4 are in the manifest and not in the store"), "{text}");
    assert!(text.contains("names in missing volumes are unknown") && !text.contains("nothing is lost"), "{text}");
}
