//! Backups on S3, compared with the same files on a local disk and with `duplicity restore`.

use std::fs;
use std::path::Path;

use super::world::{PASSPHRASE, World, assert_same_snapshots, is_volume, snapshots};
use crate::support::duplicity::{Mode, Repository, stamp};
use crate::support::exec::{self, Dupfs};
use crate::support::fixtures;
use crate::support::mount::Mount;
use crate::support::s3::{KEY_ID, SECRET};
use crate::support::source;
use crate::support::tree::{Kind, Rules, Tree, assert_same};

/// Adds the keys of a backup.
type WithKeys = fn(Dupfs) -> Dupfs;

fn old_key(dupfs: Dupfs) -> Dupfs {
    dupfs.passphrase("old key").secret_key(&fixtures::path("old-key.secret.asc"))
}

fn symmetric(dupfs: Dupfs) -> Dupfs {
    dupfs.passphrase(PASSPHRASE)
}

/// Mounts `fixture` from S3 at `place` and from the disk, and compares every snapshot.
fn compare(world: &World, fixture: &str, place: &str, keys: fn(Dupfs) -> Dupfs, count: usize) {
    world.put_fixture(fixture, place);
    let local = Dupfs::new(&world.scratch.dir("home-local"));
    let local = Mount::new(&keys(local), &fixtures::url(fixture), &world.scratch.dir("mnt-local"));
    let remote = world.mount(&keys(world.reader()), place);
    assert_same_snapshots(fixture, &local, &remote, count);
    remote.unmount();
    local.unmount();
}

#[test]
fn chains_of_old_versions_are_the_same_as_from_a_disk() {
    let world = World::new();
    compare(&world, "duplicity-0.6.23-sym", "bucket/sym", symmetric, 3);
    compare(&world, "duplicity-0.6.23-key", "bucket/deep/er/pre fix+\u{fc}", old_key, 3);
    compare(&world, "duplicity-0.7.13-gz", "under_score/x", |d| d, 3);
}

#[test]
fn each_command_answers_from_a_bucket_as_from_a_disk() {
    let world = World::new();
    let fixtures: [(&str, WithKeys); 2] = [("duplicity-0.6.23-sym", symmetric), ("duplicity-0.7.13-gz", |d| d)];
    for (fixture, keys) in fixtures {
        world.put_fixture(fixture, &format!("bucket/{fixture}"));
        let local = keys(Dupfs::new(&world.scratch.dir("home-local")).option("--no-index"));
        let remote = keys(world.reader());
        let (bucket, disk) = (format!("s3://bucket/{fixture}"), fixtures::url(fixture));
        let [from_bucket, from_disk] =
            ["bucket", "disk"].map(|name| world.scratch.path().join(format!("{fixture}-{name}")));
        let run = |dupfs: &Dupfs, command: &str, (url, dest): (&str, &Path), arguments: &[&str]| {
            let arguments = arguments.iter().map(|argument| match *argument {
                "URL" => url,
                "DEST" => dest.to_str().unwrap(),
                argument => argument,
            });
            let output = exec::output(dupfs.command(command).args(arguments));
            let text =
                String::from_utf8_lossy(&output.stdout).replace(url, "URL").replace(dest.to_str().unwrap(), "DEST");
            (output.status.code(), text)
        };
        let cases: [(&str, &[&str]); 10] = [
            ("sets", &["--check", "URL"]),
            ("sets", &["--json", "URL"]),
            ("ls", &["-lR", "--numeric-owner", "URL"]),
            ("ls", &["--json", "--time=20261122T131028Z", "URL"]),
            ("find", &["--all", "--json", "URL", "*"]),
            ("cat", &["URL", "etc/shadow"]),
            ("restore", &["URL", "DEST"]),
            ("verify", &["--deep", "URL"]),
            ("verify", &["--json", "URL"]),
            ("verify", &["--json", "--compare-data", "--compare=/etc", "URL"]),
        ];
        for (command, arguments) in cases {
            let shown = run(&remote, command, (&bucket, &from_bucket), arguments);
            let expected = run(&local, command, (&disk, &from_disk), arguments);
            assert_eq!(shown, expected, "{fixture}: {command} {arguments:?}");
            assert!(matches!(shown.0, Some(0 | 1)) && !shown.1.is_empty() || command == "cat", "{command}: {shown:?}");
        }
        let [have, want] = [&from_bucket, &from_disk].map(|dest| Tree::walk(dest));
        assert!(want.entries.len() > 3);
        assert_same(fixture, &want, &have, &Rules::default());
    }
}

#[test]
fn history_and_diff_are_the_same_as_from_a_disk_and_fetch_no_volume() {
    let world = World::new();
    world.put_fixture("duplicity-0.6.23-sym", "bucket/sym");
    let local = symmetric(Dupfs::new(&world.scratch.dir("home-local")));
    let remote = symmetric(world.reader());
    for (command, operands, lines) in [
        ("history", &["--numeric-owner", "srv/assets"][..], 2),
        ("history", &["--json", "--all", "srv"], 5),
        ("diff", &["now"], 2),
        ("diff", &["--json", "20261122T131028Z", "20261122T131036Z"], 5),
        ("diff", &["20261122T131028Z"], 10),
    ] {
        // One name is not UTF-8.
        let run = |dupfs: &Dupfs, url: &str| {
            String::from_utf8_lossy(&dupfs.run(command, &[&[url], operands].concat())).into_owned()
        };
        let shown = run(&remote, "s3://bucket/sym");
        assert_eq!(shown, run(&local, &fixtures::url("duplicity-0.6.23-sym")), "{command} {operands:?}");
        assert!(shown.lines().count() >= lines, "{command} {operands:?}: {shown}");
    }
    let log = world.proxy.log();
    assert!(log.len() > 10 && !log.iter().any(is_volume), "{log:?}");
}

#[test]
fn chains_by_python_2_are_the_same_as_from_a_disk() {
    let world = World::new();
    compare(&world, "duplicity-0.8.15-python2.7-gz", "Upper-Case/host1", |d| d, 3);
    compare(&world, "duplicity-0.8.15-python2.7-key", "dotted.bucket.name/Host.1", old_key, 3);
}

#[test]
fn every_cipher_of_gpg_is_the_same_as_from_a_disk() {
    let world = World::new();
    for fixture in ["gpg1-aes128-sym", "gpg1-3des-sym", "gpg24-ocb-sym", "gpg22-armor-bzip2-sym"] {
        compare(&world, fixture, &format!("bucket/{fixture}"), symmetric, 1);
    }
}

#[test]
fn a_backup_at_the_root_of_a_bucket_is_found_among_thousands_of_foreign_keys() {
    let world = World::new();
    let root = world.disk("bucket");
    for i in 0..1200 {
        fs::write(root.join(format!("a-photo-{i}.jpg")), "x").unwrap();
        fs::write(root.join(format!("z-photo-{i}.jpg")), "x").unwrap();
    }
    for name in
        ["duplicity-full.txt", "duplicity-full.20261122T131029Z.vol1.difftar.gz.part", "DUPLICITY", "odd\u{fc} +%&"]
    {
        fs::write(root.join(name), "x").unwrap();
    }
    world.put_fixture("duplicity-0.7.13-gz", "bucket/other-host");
    compare(&world, "duplicity-0.6.23-gz", "bucket", |d| d, 3);
    let pages = world.proxy.log().iter().filter(|r| r.target.contains("continuation-token")).count();
    assert!(pages >= 2, "only {pages} further pages were listed");
}

/// duplicity with the environment of this repository, and with the settings of its S3 backend.
fn duplicity_on_s3(world: &World, repo: &Repository, what: &str) -> std::process::Command {
    let mut command = repo.command(what);
    command.env("AWS_ACCESS_KEY_ID", KEY_ID).env("AWS_SECRET_ACCESS_KEY", SECRET);
    command.env("AWS_EC2_METADATA_DISABLED", "true").env("AWS_DEFAULT_REGION", "us-east-1");
    command.arg(format!("--s3-endpoint-url=http://{}", world.server.address));
    command
}

#[test]
fn a_backup_written_to_s3_by_duplicity_is_mounted_as_duplicity_restores_it() {
    const TIMES: [i64; 3] = [1_700_000_000, 1_700_003_600, 1_700_007_200];
    let world = World::written_by_clients();
    let url = "boto3+s3://bucket/host/daily";
    let key = |home: &crate::support::gpg::Home| Mode::Key(home.generate("backup", "rsa2048", "key passphrase"));
    let repo = Repository::new("3.2.1", key, &world.scratch.dir("r"));
    let states = source::small(world.scratch.path());
    for (i, (state, time)) in states.iter().zip(TIMES).enumerate() {
        let mut command = duplicity_on_s3(&world, &repo, if i == 0 { "full" } else { "incremental" });
        command.args(["--allow-source-mismatch", "--no-print-statistics", "--volsize=1"]);
        exec::run(command.arg(format!("--current-time={time}")).arg(state).arg(url));
    }
    let written: Vec<_> = fs::read_dir(world.disk("bucket/host/daily")).unwrap().collect();
    assert!(written.len() >= 10, "duplicity wrote {written:?}");

    let home = Dupfs::new(&world.scratch.dir("home")).option(&world.endpoint());
    let reader = super::world::signing(home, SECRET).passphrase("key passphrase");
    let reader = reader.secret_key(&world.scratch.path().join("r/gnupg/backup.secret.asc"));
    let mount = Mount::new(&reader, url, &world.scratch.dir("mnt"));
    assert_eq!(snapshots(&mount), TIMES.map(stamp));
    for (time, source) in TIMES.into_iter().zip(&states) {
        let dest = world.scratch.path().join(format!("restored-{time}"));
        let mut command = duplicity_on_s3(&world, &repo, "restore");
        exec::run(command.args(["--force", "--time", &time.to_string(), url]).arg(&dest));
        compare_with_restore(&format!("snapshot {time}"), &mount, time, &dest, source);
        let dest = world.scratch.path().join(format!("ours-{time}"));
        reader.run("restore", &["--time", &time.to_string(), url, dest.to_str().unwrap()]);
        assert_same("dupfs restore", &Tree::walk(source), &Tree::walk(&dest), &Rules::default());
    }
    mount.unmount();
}

/// The modification times of links, which restore does not set, are taken from the source.
fn compare_with_restore(what: &str, mount: &Mount, time: i64, restored: &Path, source: &Path) {
    let source = Tree::walk(source);
    let links = source.entries.iter().filter(|(_, e)| e.kind == Kind::Link).map(|(p, e)| (p.clone(), e.mtime));
    let rules = Rules { link_mtimes: links.collect(), sane: true, ..Rules::default() };
    let restored = Tree::walk(restored);
    let shown = Tree::walk(&mount.path().join("snapshots").join(stamp(time)));
    assert_same(what, &restored, &shown, &rules);
    assert_same(what, &source, &restored, &Rules::default());
}
