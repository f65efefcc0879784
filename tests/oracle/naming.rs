//! File names: short, old, with another separator, prefixed, replicated; mixed suffixes; unusual roots.

use std::path::{Path, PathBuf};

use crate::check;
use crate::support::Scratch;
use crate::support::duplicity::{Mode, Repository, stamp};
use crate::support::exec;
use crate::support::maker::Maker;
use crate::support::mount::Mount;
use crate::support::source;
use crate::support::tree::{Rules, Tree, assert_same};

/// The times of the three sets, the last two around the end of summer time in New York.
const TIMES: [i64; 3] = [1_699_000_000, 1_699_160_000, 1_699_170_000];

fn chain(repo: &Repository, states: &[PathBuf; 3], zone: &str) {
    for (i, (state, time)) in states.iter().zip(TIMES).enumerate() {
        exec::run(repo.backup_command(i == 0, state, time).env("TZ", zone));
    }
}

fn written_with(what: &str, version: &str, options: &[&str], zone: &str, expected_name: &str) {
    let scratch = Scratch::new();
    let states = source::small(scratch.path());
    let mut repo = Repository::new(version, |_| Mode::Gzip, &scratch.dir("r"));
    for option in options {
        repo = repo.option(option);
    }
    chain(&repo, &states, zone);
    let written = names(repo.dir());
    assert!(written.iter().any(|n| n.contains(expected_name)), "{what}: no {expected_name} among {written:?}");
    let prefixes = options.iter().filter(|o| o.starts_with("--file-prefix"));
    let reader = prefixes.fold(repo.reader(), |reader, option| reader.option(option));
    let sources = states.each_ref().map(PathBuf::as_path);
    check::every_snapshot_by(what, &repo, &reader, &TIMES, &sources, scratch.path());
}

fn names(dir: &Path) -> Vec<String> {
    std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn short_names() {
    written_with("short names", "0.8.22", &["--short-filenames"], "UTC", "di.");
}

#[test]
fn old_names_in_local_time_across_a_change_of_the_clock() {
    written_with("old names", "0.8.22", &["--old-filenames"], "America/New_York", "-04:00");
}

#[test]
fn old_names_with_another_separator_and_a_zone_of_half_hours() {
    // -03:30 is written as -04:30, and meant as -4 hours plus 30 minutes (FORMAT.md section 1).
    let options = ["--old-filenames", "--time-separator=_"];
    written_with("separator", "0.8.22", &options, "America/St_Johns", "_");
}

#[test]
fn prefixes_of_their_own_for_each_kind_of_file() {
    let options = [
        "--file-prefix=all_",
        "--file-prefix-manifest=man_",
        "--file-prefix-archive=arc_",
        "--file-prefix-signature=sig_",
    ];
    written_with("prefixes 0.8.22", "0.8.22", &options, "UTC", "all_arc_duplicity-full");
    written_with("prefixes 3.2.1", "3.2.1", &options, "UTC", "all_sig_duplicity-new");
}

#[test]
fn two_repositories_in_one_directory_distinguished_by_prefix() {
    let scratch = Scratch::new();
    let states = source::small(scratch.path());
    let one = Repository::new("0.8.22", |_| Mode::Gzip, &scratch.dir("1")).option("--file-prefix=one-");
    let two = Repository::new("3.2.1", |_| Mode::Gzip, &scratch.dir("2")).option("--file-prefix=two-");
    one.backup(true, &states[0], TIMES[0]);
    two.backup(true, &states[1], TIMES[1]);
    for name in names(two.dir()) {
        std::fs::copy(two.dir().join(&name), one.dir().join(&name)).unwrap();
    }
    let reader = one.reader().option("--file-prefix=one-");
    check::every_snapshot_by("prefix one-", &one, &reader, &TIMES[..1], &[&states[0]], scratch.path());
    let mount = Mount::new(&one.reader().option("--file-prefix=two-"), &one.url(), &scratch.dir("mnt-two"));
    assert_eq!(check::snapshots(&mount), [stamp(TIMES[1])]);
    mount.unmount();
}

#[test]
fn replicated_repositories() {
    let scratch = Scratch::new();
    let states = source::small(scratch.path());
    let original = Repository::new("0.8.22", |_| Mode::Gzip, &scratch.dir("r"));
    chain(&original, &states, "UTC");
    let replica = Repository::new("0.8.22", |_| Mode::Gzip, &scratch.dir("replica"));
    let mut command = replica.command("replicate");
    exec::run(command.arg(original.url()).arg(replica.url()));
    let written = names(replica.dir());
    assert!(written.iter().any(|n| n.ends_with(".manifest.gz")), "no compressed manifest among {written:?}");
    let sources = states.each_ref().map(PathBuf::as_path);
    check::every_snapshot("replica", &replica, &TIMES, &sources, scratch.path());
}

#[test]
fn each_set_of_a_chain_stored_in_another_way() {
    for version in ["0.8.22", "3.2.1"] {
        let scratch = Scratch::new();
        let states = source::small(scratch.path());
        let mut repo = Repository::new(version, |_| Mode::Gzip, &scratch.dir("r"));
        repo.backup(true, &states[0], TIMES[0]);
        repo.set_mode(Mode::Plain);
        repo.backup(false, &states[1], TIMES[1]);
        repo.set_mode(Mode::Symmetric("mixed".to_owned()));
        repo.backup(false, &states[2], TIMES[2]);
        let sources = states.each_ref().map(PathBuf::as_path);
        check::every_snapshot(&format!("mixed suffixes, {version}"), &repo, &TIMES, &sources, scratch.path());
    }
}

#[test]
fn a_single_file_as_the_source() {
    for (version, size) in [("0.8.22", 100), ("3.2.1", 200_000)] {
        let scratch = Scratch::new();
        let mut maker = Maker::new(&scratch.dir("s"), 1_400_000_000);
        maker.file("alone", crate::support::noise(1, size));
        let repo = Repository::new(version, |_| Mode::Gzip, &scratch.dir("r"));
        repo.backup(true, &maker.at("alone"), TIMES[0]);
        maker.edit("alone", |c| c.extend(b"more"));
        repo.backup(false, &maker.at("alone"), TIMES[1]);

        let mount = Mount::new(&repo.reader(), &repo.url(), &scratch.dir("mnt"));
        for time in &TIMES[..2] {
            let dest = scratch.path().join(format!("restored-{time}"));
            repo.restore(&time.to_string(), &dest, &[]);
            let restored = Tree::walk(&dest);
            let shown = Tree::walk(&mount.path().join("snapshots").join(stamp(*time)));
            assert_same(
                &format!("single file, {version}"),
                &restored,
                &shown,
                &Rules { sane: true, ..Rules::default() },
            );
        }
        mount.unmount();
    }
}

#[test]
fn an_empty_directory_as_the_source() {
    for (version, mode) in [("0.8.22", Mode::Plain), ("3.2.1", Mode::Gzip)] {
        let scratch = Scratch::new();
        let mut maker = Maker::new(&scratch.dir("s"), 1_400_000_000);
        maker.dir("empty", 0o750);
        let source = maker.at("empty");
        let repo = Repository::new(version, |_| mode, &scratch.dir("r"));
        repo.backup(true, &source, TIMES[0]);
        repo.backup(false, &source, TIMES[1]);
        check::every_snapshot("empty source", &repo, &TIMES[..2], &[&source, &source], scratch.path());
    }
}

#[test]
fn foreign_files_beside_the_backup_are_ignored() {
    let scratch = Scratch::new();
    let states = source::small(scratch.path());
    let repo = Repository::new("3.2.1", |_| Mode::Gzip, &scratch.dir("r"));
    chain(&repo, &states, "UTC");
    let sources = states.each_ref().map(PathBuf::as_path);
    check::every_snapshot("without foreign files", &repo, &TIMES, &sources, scratch.path());
    // duplicity 3.2.1 itself crashes on these, so its restores are made before they are added.
    let volume = names(repo.dir()).into_iter().find(|n| n.ends_with("vol1.difftar.gz")).unwrap();
    let manifest = names(repo.dir()).into_iter().find(|n| n.contains("-full.") && n.ends_with(".manifest")).unwrap();
    let par2 = [format!("{volume}.par2"), format!("{volume}.vol000+200.par2"), format!("{manifest}.par2")];
    for foreign in par2.iter().map(String::as_str).chain(["lockfile.lock", "notes.txt", "duplicity-full.manifest"]) {
        std::fs::write(repo.dir().join(foreign), "not duplicity's").unwrap();
    }
    std::fs::create_dir(repo.dir().join("duplicity-full.20200101T000000Z.manifest.d")).unwrap();
    let mount = Mount::new(&repo.reader(), &repo.url(), &scratch.dir("mnt-2"));
    assert_eq!(check::snapshots(&mount), TIMES.map(stamp));
    for time in TIMES {
        let restored = Tree::walk(&scratch.path().join(format!("restored-{time}")));
        let shown = Tree::walk(&mount.path().join("snapshots").join(stamp(time)));
        assert_same("beside foreign files", &restored, &shown, &Rules::default());
    }
    mount.unmount();
}
