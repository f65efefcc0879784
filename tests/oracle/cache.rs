//! `dupfs cache`: the indexes of real backups, which backup each belongs to, and their removal.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::Scratch;
use crate::support::duplicity::{Mode, Repository};
use crate::support::exec::{self, Dupfs};
use crate::support::mount::Mount;
use crate::support::source;
use crate::support::terminal::on_terminal;

const TIME: i64 = 1_700_000_000;

fn json(dupfs: &Dupfs, args: &[&str]) -> Value {
    serde_json::from_slice(&dupfs.run("cache", &[args, &["--json"]].concat())).unwrap()
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

/// The URLs of the indexes in a listing; an index without one is `-`.
fn urls(listing: &Value) -> BTreeSet<String> {
    let indexes = listing["indexes"].as_array().unwrap().iter();
    indexes.map(|index| index["url"].as_str().unwrap_or("-").to_owned()).collect()
}

/// The reasons and URLs of what was removed.
fn removed(report: &Value) -> BTreeSet<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let entries = report["removed"].as_array().unwrap().iter();
    entries.map(|entry| (text(&entry["reason"]), text(&entry["url"]))).collect()
}

fn age(dir: &Path, days: u32) {
    let script = format!("find \"$0\" -type f -exec touch -d '{days} days ago' {{}} +");
    exec::run(Command::new("sh").arg("-c").arg(script).arg(dir));
}

#[test]
fn indexes_are_listed_with_their_backups_and_removed_unless_a_mount_uses_them() {
    let scratch = Scratch::new();
    let states = source::small(scratch.path());
    let plain = Repository::new("3.2.1", |_| Mode::Gzip, &scratch.dir("plain"));
    let secret = Repository::new("0.8.22", |_| Mode::Symmetric("p".to_owned()), &scratch.dir("secret"));
    let secret = secret.option("--gpg-options=--s2k-count 1024").option("--file-prefix=host-");
    plain.backup(true, &states[0], TIME);
    secret.backup(true, &states[0], TIME);
    let dupfs = Dupfs::new(&scratch.dir("home"));
    let empty = json(&dupfs, &[]);
    assert_eq!(keys(&empty), ["bytes", "count", "directory", "indexes"]);
    assert_eq!((&empty["count"], &empty["bytes"]), (&0.into(), &0.into()));

    let reader = dupfs.clone().passphrase("p");
    reader.run("ls", &["-lR", &plain.url()]);
    reader.run("ls", &["-lR", "--file-prefix=host-", &secret.url()]);
    let listing = json(&dupfs, &["ls"]);
    assert_eq!(urls(&listing), [plain.url(), secret.url()].into());
    let of = |listing: &Value, url: &str| {
        listing["indexes"].as_array().unwrap().iter().find(|index| index["url"] == url).unwrap().clone()
    };
    let index = of(&listing, &secret.url());
    let expected = ["bytes", "directory", "files", "in_use", "last_used", "last_used_epoch", "options", "url"];
    assert_eq!(keys(&index), expected);
    assert_eq!((&index["options"], &index["in_use"]), (&Value::from(vec!["--file-prefix=host-"]), &false.into()));
    let base = scratch.path().join("home/cache/dupfs");
    assert_eq!(listing["directory"], base.to_str().unwrap());
    let dir = |index: &Value| base.join(index["directory"].as_str().unwrap());
    let on_disk: Vec<u64> = fs::read_dir(dir(&index)).unwrap().map(|e| e.unwrap().metadata().unwrap().len()).collect();
    assert_eq!((&index["files"], &index["bytes"]), (&on_disk.len().into(), &on_disk.iter().sum::<u64>().into()));
    // No secret is in any file.
    for entry in fs::read_dir(dir(&index)).unwrap() {
        assert!(!fs::read(entry.unwrap().path()).unwrap().windows(6).any(|window| window == b"s2k-co"));
    }
    let text = String::from_utf8(dupfs.run("cache", &[])).unwrap();
    assert!(text.contains(&format!(" {} --file-prefix=host-\n", secret.url())), "{text}");
    assert!(text.ends_with(&format!("2 indexes, {} bytes in {}\n", listing["bytes"], base.display())), "{text}");
    assert!(on_terminal(&dupfs.command("cache"), &[]).output.contains(" KiB "));

    // The time of the last use, also of one that stores nothing.
    age(&base, 3);
    let old = of(&json(&dupfs, &[]), &plain.url())["last_used_epoch"].as_i64().unwrap();
    reader.run("ls", &[&plain.url()]);
    let used = of(&json(&dupfs, &[]), &plain.url())["last_used_epoch"].as_i64().unwrap();
    assert!(used > old + 2 * 86_400, "{old} {used}");

    // A mount uses its index.
    let mount = Mount::new(&reader, &plain.url(), &scratch.path().join("mnt"));
    assert_eq!(of(&json(&dupfs, &[]), &plain.url())["in_use"], true);
    let output = exec::output(dupfs.command("cache").args(["clear", "--json"]));
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(exec::tail(&output.stderr).contains("is in use; unmount the backup first"), "{output:?}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(keys(&report), ["bytes", "count", "directory", "dry_run", "in_use", "removed"]);
    assert_eq!(keys(&report["removed"][0]), ["bytes", "directory", "files", "reason", "url"]);
    assert_eq!(removed(&report), [("cleared".to_owned(), secret.url())].into());
    assert_eq!(report["in_use"].as_array().unwrap().len(), 1);
    assert!(!dir(&index).exists());
    let pruned = json(&dupfs, &["prune", "--unused", "0"]);
    assert_eq!((pruned["removed"].as_array().unwrap().len(), pruned["in_use"].as_array().unwrap().len()), (0, 1));
    assert!(fs::read_dir(mount.path().join("latest")).unwrap().count() > 2);
    mount.unmount();
    assert_eq!(of(&json(&dupfs, &[]), &plain.url())["in_use"], false);

    // One repository, by its URL or path.
    reader.run("ls", &["--file-prefix=host-", &secret.url()]);
    let path = plain.dir().to_str().unwrap();
    assert_eq!(removed(&json(&dupfs, &["clear", "--dry-run", path])), [("cleared".to_owned(), plain.url())].into());
    assert_eq!(urls(&json(&dupfs, &[])).len(), 2, "a dry run");
    assert_eq!(removed(&json(&dupfs, &["clear", path])), [("cleared".to_owned(), plain.url())].into());
    assert_eq!(urls(&json(&dupfs, &[])), [secret.url()].into());
    dupfs.run("cache", &["clear"]);
    assert_eq!(fs::read_dir(&base).unwrap().count(), 0);
    // What was removed is made again.
    reader.run("ls", &["-lR", &plain.url()]);

    for (args, code, part) in [
        (vec!["clear", "s3://other/bucket"], 3, "dupfs cache ls"),
        (vec!["wipe"], 2, "wipe"),
        (vec!["prune", "--unused", "soon"], 2, "--unused"),
        (vec!["ls", "--dry-run"], 2, "--dry-run"),
    ] {
        let (got, error) = dupfs.fails("cache", &args);
        assert!(got == Some(code) && error.contains(part), "{args:?}: {got:?} {error}");
    }
    let homeless = Dupfs::new(&scratch.dir("home")).variable("HOME", "").variable("XDG_CACHE_HOME", "");
    assert_eq!(homeless.fails("cache", &[]).0, Some(2));
    let mut child = dupfs.command("cache").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.signal(), &*output.stderr), (Some(libc::SIGPIPE), &b""[..]));
}

#[test]
fn prune_removes_what_no_backup_needs_and_nothing_outside() {
    let scratch = Scratch::new();
    let states = source::small(scratch.path());
    let here = Repository::new("3.2.1", |_| Mode::Plain, &scratch.dir("here"));
    let gone = Repository::new("3.2.1", |_| Mode::Plain, &scratch.dir("gone"));
    let base = scratch.path().join("indexes");
    let dupfs = Dupfs::new(&scratch.dir("home")).option(&format!("--cache-dir={}", base.display()));
    for repo in [&here, &gone] {
        repo.backup(true, &states[0], TIME);
        dupfs.run("ls", &["-lR", &repo.url()]);
    }
    fs::rename(gone.dir(), scratch.path().join("moved")).unwrap();
    // An index of a version that recorded no backup, a link in the place of one, and other things.
    let unknown = base.join("00000000000000000000000000000001");
    fs::create_dir(&unknown).unwrap();
    fs::write(unknown.join("tree-1"), "a tree").unwrap();
    let outside = scratch.dir("outside");
    fs::write(outside.join("tree-1"), "precious").unwrap();
    symlink(&outside, base.join("00000000000000000000000000000002")).unwrap();
    fs::write(base.join("notes"), "mine").unwrap();
    // A file of an older version in an index that is needed.
    let listing = json(&dupfs, &[]);
    assert_eq!(urls(&listing), [here.url(), gone.url(), "-".to_owned()].into());
    let kept = listing["indexes"].as_array().unwrap().iter().find(|index| index["url"] == here.url()).unwrap();
    let kept = base.join(kept["directory"].as_str().unwrap());
    fs::write(kept.join("seg-old"), b"dupfsIDX\x01\0\0\0sgarbage").unwrap();

    let dry = json(&dupfs, &["prune", "--dry-run"]);
    let expected: BTreeSet<_> =
        [("outdated-files".to_owned(), here.url()), ("unknown".to_owned(), "-".to_owned())].into();
    assert_eq!((removed(&dry), &dry["dry_run"]), (expected.clone(), &true.into()));
    assert!(unknown.exists() && kept.join("seg-old").exists());
    assert_eq!(removed(&json(&dupfs, &["prune"])), expected);
    assert!(!unknown.exists() && !kept.join("seg-old").exists() && kept.exists());
    // The disk with it may be connected again; not after a month.
    assert_eq!(removed(&json(&dupfs, &["prune"])), BTreeSet::new());
    age(&base, 31);
    assert_eq!(removed(&json(&dupfs, &["prune"])), [("gone".to_owned(), gone.url())].into());
    assert_eq!(removed(&json(&dupfs, &["prune", "--unused", "32d"])), BTreeSet::new());
    let text = String::from_utf8(dupfs.run("cache", &["prune", "--unused", "30d"])).unwrap();
    assert!(text.starts_with("removed ") && text.contains(&format!(" {} (unused, ", here.url())), "{text}");
    let mut left: Vec<_> = fs::read_dir(&base).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["00000000000000000000000000000002", "notes"]);
    assert_eq!(fs::read_to_string(outside.join("tree-1")).unwrap(), "precious");
}
