//! Real backups in tests/fixtures by versions of duplicity and gpg that are hard to run today: every snapshot,
//! mounted through the kernel and read by `dupfs cat`, is compared with the listing of the source.
//!
//! The volumes of the backups by 0.8.15 on Python 2.7 have U+FFFD for each byte of a name that is not UTF-8, while
//! their signature archives have the raw name (FORMAT.md 4.3). The mount shows the raw name with its content.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use crate::support::exec::{self, Dupfs};
use crate::support::mount::Mount;
use crate::support::tree::{Entry, Kind, Tree, show};
use crate::support::{Scratch, fixtures};
use crate::verify;
use crate::{changes, exchanged};

/// The passphrase of all symmetrically encrypted files in tests/fixtures.
const PASSPHRASE: &str = "fixture passphrase";

#[test]
fn duplicity_0_6_23_symmetric() {
    chain("duplicity-0.6.23-sym", |d| d.passphrase(PASSPHRASE));
}

#[test]
fn duplicity_0_6_23_to_a_key() {
    chain("duplicity-0.6.23-key", old_key);
}

#[test]
fn duplicity_0_6_23_gz() {
    chain("duplicity-0.6.23-gz", |d| d);
}

#[test]
fn duplicity_0_7_13_gz() {
    chain("duplicity-0.7.13-gz", |d| d);
}

#[test]
fn duplicity_0_8_15_on_python_2_gz() {
    chain("duplicity-0.8.15-python2.7-gz", |d| d);
}

#[test]
fn duplicity_0_8_15_on_python_2_to_a_key() {
    chain("duplicity-0.8.15-python2.7-key", old_key);
}

#[test]
fn gpg_1_4_aes128_symmetric() {
    small("gpg1-aes128-sym");
}

#[test]
fn gpg_1_4_3des_symmetric() {
    small("gpg1-3des-sym");
}

#[test]
fn gpg_2_4_packet_20_ocb_symmetric() {
    small("gpg24-ocb-sym");
}

#[test]
fn gpg_2_2_armoured_bzip2_symmetric() {
    small("gpg22-armor-bzip2-sym");
}

fn old_key(dupfs: Dupfs) -> Dupfs {
    dupfs.passphrase("old key").secret_key(&fixtures::path("old-key.secret.asc"))
}

fn small(name: &str) {
    check(name, &["tree-small"], |d| d.passphrase(PASSPHRASE));
}

fn chain(name: &str, keys: impl FnOnce(Dupfs) -> Dupfs) {
    check(name, &["tree-0", "tree-1", "tree-2"], keys);
}

fn check(name: &str, listings: &[&str], keys: impl FnOnce(Dupfs) -> Dupfs) {
    let scratch = Scratch::new();
    let dupfs = keys(Dupfs::new(&scratch.dir("home")));
    exchanged::no_false_alarm(&dupfs, &fixtures::url(name));
    match std::env::var_os("DUPFS_TEST_ROUNDS") {
        Some(_) => verify::proves_all(&dupfs, &fixtures::url(name)),
        None => verify::finds_nothing(&dupfs, &fixtures::url(name)),
    }
    let mount = Mount::new(&dupfs, &fixtures::url(name), &scratch.dir("mnt"));
    let mut stamps: Vec<_> = fs::read_dir(mount.path().join("snapshots"))
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    stamps.sort();
    assert_eq!(stamps.len(), listings.len(), "{name}: snapshots {stamps:?}");
    for (at, listing) in listings.iter().enumerate() {
        let lines = |listing: &str| fs::read_to_string(fixtures::path(&format!("{listing}.expected.jsonl"))).unwrap();
        let before = at.checked_sub(1).map_or_else(String::new, |before| lines(listings[before]));
        changes::compare_listings(&dupfs, &fixtures::url(name), &stamps[at], [&before, &lines(listing)]);
    }
    for (stamp, listing) in stamps.iter().zip(listings) {
        let expected = read_listing(&fixtures::path(&format!("{listing}.expected.jsonl")));
        let tree = Tree::walk(&mount.path().join("snapshots").join(stamp));
        let diffs = compare(&expected, &tree);
        assert!(diffs.is_empty(), "{name}, snapshot {stamp} against {listing}:\n  {}", diffs.join("\n  "));
        cat_gives_the_same(name, &dupfs, stamp, &expected);
        let dest = scratch.path().join(format!("restored-{stamp}"));
        dupfs.run("restore", &["--time", stamp, &fixtures::url(name), dest.to_str().unwrap()]);
        let diffs = compare(&expected, &Tree::walk(&dest));
        assert!(diffs.is_empty(), "{name}, restore of {stamp} against {listing}:\n  {}", diffs.join("\n  "));
    }
    mount.unmount();
}

/// `dupfs cat` of the smallest and of the largest file of the snapshot.
fn cat_gives_the_same(name: &str, dupfs: &Dupfs, stamp: &str, expected: &BTreeMap<Vec<u8>, Expected>) {
    let mut files: Vec<_> = expected.iter().filter(|(_, e)| e.kind == Kind::File).collect();
    files.sort_by_key(|(_, e)| e.size);
    for (path, want) in [files[0], files[files.len() - 1]] {
        let path = std::str::from_utf8(path).unwrap();
        let got = exec::run(dupfs.command("cat").args(["--time", stamp, &fixtures::url(name), path]));
        assert_eq!(sha256(&got), want.sha256, "{name}: dupfs cat --time {stamp} {path} ({} bytes)", got.len());
    }
}

struct Expected {
    kind: Kind,
    mode: Option<u32>,
    owner: (u64, u64),
    mtime: i64,
    size: u64,
    sha256: String,
    target: String,
}

fn read_listing(path: &Path) -> BTreeMap<Vec<u8>, Expected> {
    let text = fs::read_to_string(path).unwrap();
    let objects = text.lines().map(|line| {
        let object: serde_json::Value = serde_json::from_str(line).unwrap();
        let text = |key: &str| object[key].as_str().unwrap_or_default().to_owned();
        let kind = match object["type"].as_str().unwrap() {
            "dir" => Kind::Dir,
            "file" => Kind::File,
            "link" => Kind::Link,
            "fifo" => Kind::Fifo,
            other => panic!("a type unknown to this test: {other}"),
        };
        let expected = Expected {
            kind,
            mode: object["mode"].as_str().map(|m| u32::from_str_radix(m.trim_start_matches("0o"), 8).unwrap()),
            owner: (object["uid"].as_u64().unwrap(), object["gid"].as_u64().unwrap()),
            mtime: object["mtime"].as_i64().unwrap(),
            size: object["size"].as_u64().unwrap_or_default(),
            sha256: text("sha256"),
            target: text("target"),
        };
        (raw_path(object["path"].as_str().unwrap()), expected)
    });
    objects.collect()
}

/// The listings write bytes that are not UTF-8 as `\xHH`, and the root as `.`.
fn raw_path(shown: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = if shown == "." { "" } else { shown };
    while let Some((before, after)) = rest.split_once("\\x") {
        out.extend_from_slice(before.as_bytes());
        out.push(u8::from_str_radix(&after[..2], 16).unwrap());
        rest = &after[2..];
    }
    out.extend_from_slice(rest.as_bytes());
    out
}

fn compare(expected: &BTreeMap<Vec<u8>, Expected>, tree: &Tree) -> Vec<String> {
    let paths: BTreeSet<_> = expected.keys().chain(tree.entries.keys()).collect();
    let mut diffs = Vec::new();
    for path in paths {
        match (expected.get(path), tree.entries.get(path)) {
            (Some(_), None) => diffs.push(format!("{}: missing", show(path))),
            (None, _) => diffs.push(format!("{}: extra", show(path))),
            (Some(want), Some(have)) => {
                let (want, have) = (describe_expected(want), describe(want, have, &tree.locate(path)));
                if want != have {
                    diffs.push(format!("{}: {have}, expected {want}", show(path)));
                }
            }
        }
    }
    diffs
}

fn describe_expected(e: &Expected) -> String {
    format!("{:?} {:?} {:?} {} {} {} {}", e.kind, e.mode, e.owner, e.mtime, e.size, e.sha256, e.target)
}

/// Describes an entry of the mount in the same form. Modes are not compared where the listing has none (links).
fn describe(want: &Expected, have: &Entry, place: &Path) -> String {
    let is_file = have.kind == Kind::File;
    describe_expected(&Expected {
        kind: have.kind,
        mode: want.mode.map(|_| have.mode),
        owner: (have.uid.into(), have.gid.into()),
        mtime: have.mtime,
        size: if is_file { have.size } else { 0 },
        sha256: if is_file { fs::read(place).map_or_else(|e| e.to_string(), |b| sha256(&b)) } else { String::new() },
        target: String::from_utf8_lossy(&have.target).into_owned(),
    })
}

fn sha256(bytes: &[u8]) -> String {
    use sequoia_openpgp::types::HashAlgorithm;
    let mut context = HashAlgorithm::SHA256.context().unwrap().for_digest();
    context.update(bytes);
    context.into_digest().unwrap().iter().map(|b| format!("{b:02x}")).collect()
}
