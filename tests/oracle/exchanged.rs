//! Manifests and signature archives that an attacker with write access to the store, but without a key, has exchanged for
//! those of other sets of the same backup.

use std::fs;
use std::path::Path;

use super::sets_problems::messages;
use crate::support::dated_sets::{DAY, now};
use crate::support::duplicity::{Mode, Repository, stamp};
use crate::support::exec::{self, Dupfs};
use crate::support::gpg::Home;
use crate::support::maker::Maker;
use crate::support::mount::Mount;
use crate::support::{Scratch, fixtures, source};

const TIMES: [i64; 3] = [1_700_000_000, 1_700_003_600, 1_700_007_200];
const PASSPHRASE: &str = "the owner's passphrase";

/// Requires that `sets --check` finds no manifest or signature archive that is not of its set, and reads all archives.
pub fn no_false_alarm(dupfs: &Dupfs, url: &str) {
    let (_, report) = checked(dupfs, url);
    for kind in ["signature-exchanged", "signature-unreadable", "manifest-exchanged"] {
        assert_eq!(messages(&report, kind), Vec::<String>::new(), "{url}");
    }
}

/// The exit code and the report of `sets --check`.
fn checked(dupfs: &Dupfs, url: &str) -> (Option<i32>, serde_json::Value) {
    let output = exec::output(dupfs.command("sets").args(["--check", "--json", url]));
    let report = serde_json::from_slice(&output.stdout);
    (output.status.code(), report.unwrap_or_else(|e| panic!("{e}: {}", exec::tail(&output.stderr))))
}

/// The names in `dir` with `kind` in them, by the times of their sets.
fn objects(dir: &Path, kind: &str) -> Vec<String> {
    let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.filter(|name| name.contains(kind)).collect();
    names.sort_by_key(|name| name.split('.').rfind(|part| part.starts_with("20")).map(str::to_owned));
    names
}

/// A copy of the store `dir` at `to`, in which the object at `place` among those of `kind` has the content of that at `other`.
fn exchanged(dir: &Path, to: &Path, kind: &str, place: usize, other: usize) -> String {
    let _ = fs::remove_dir_all(to);
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
    let names = objects(dir, kind);
    fs::copy(dir.join(&names[other]), to.join(&names[place])).unwrap();
    format!("file://{}", to.display())
}

/// The metadata of all paths of the snapshot of `time`.
fn listing(dupfs: &Dupfs, url: &str, time: &str) -> (String, String) {
    let output = exec::output(dupfs.command("ls").args(["-R", "-l", "--json", "--time", time, url]));
    let stderr = exec::tail(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    (String::from_utf8(output.stdout).unwrap(), stderr)
}

/// Each signature archive in the place of each other: the snapshot is the genuine one, and the exchange is reported.
fn every_archive_exchanged(dupfs: &Dupfs, dir: &Path, scratch: &Path) {
    let dupfs = dupfs.clone().option("--no-index");
    let url = format!("file://{}", dir.display());
    let (code, report) = checked(&dupfs, &url);
    assert_eq!(code, Some(0), "{report:#}");
    no_false_alarm(&dupfs, &url);
    let names = objects(dir, ".sigtar");
    assert_eq!(names.len(), 3, "{names:?}");
    let time = |name: &str| name.split('.').rfind(|part| part.starts_with("20")).unwrap().to_owned();
    for place in 0..3 {
        let (genuine, _) = listing(&dupfs, &url, &time(&names[place]));
        for other in (0..3).filter(|other| *other != place) {
            let forged = exchanged(dir, &scratch.join("exchanged"), ".sigtar", place, other);
            let name = &names[place];
            let expected = format!("{name}: is not the signature archive of");
            let (shown, log) = listing(&dupfs, &forged, &time(name));
            assert!(log.contains(&expected), "{name} from {}: {log}", names[other]);
            assert_eq!(shown, genuine, "{name} from {}", names[other]);
            let (code, report) = checked(&dupfs, &forged);
            assert_eq!(code, Some(6), "{report:#}");
            let [line] = &messages(&report, "signature-exchanged")[..] else { panic!("{report:#}") };
            assert!(line.contains(&expected), "{line}");
        }
    }
    let forged = exchanged(dir, &scratch.join("exchanged"), ".sigtar", 2, 1);
    let mount = Mount::new(&dupfs, &forged, &scratch.join("mnt"));
    fs::read_dir(mount.path().join("latest")).unwrap().for_each(|entry| drop(entry.unwrap()));
    assert!(mount.log().contains("is not the signature archive of"), "{}", mount.log());
    mount.unmount();
}

/// A backup by `version` with three sets, signed if `signed`, and the program to read it, which then requires signatures.
fn backup(version: &str, mode: impl FnOnce(&Home) -> Mode, signed: bool, scratch: &Scratch) -> (Repository, Dupfs) {
    let mut repo = Repository::new(version, mode, &scratch.dir("r"));
    let mut dupfs = repo.reader();
    if signed {
        let listing = exec::run(repo.gpg_home().gpg("").args(["--with-colons", "--list-secret-keys"]));
        let listing = String::from_utf8(listing).unwrap();
        let signer = listing.lines().find(|line| line.starts_with("fpr:")).unwrap().split(':').nth(9).unwrap();
        repo = repo.option(&format!("--sign-key={signer}"));
        let public = repo.gpg_home().path().join("owner.secret.asc");
        dupfs = dupfs.option("--sign-key").option(signer).option("--verify-key").option(public.to_str().unwrap());
    }
    for (index, (state, time)) in source::small(scratch.path()).iter().zip(TIMES).enumerate() {
        exec::run(repo.backup_command(index == 0, state, time).env("SIGN_PASSPHRASE", "owner passphrase"));
    }
    (repo, dupfs)
}

fn owner(home: &Home) -> Mode {
    Mode::Key(home.generate("owner", "future-default", "owner passphrase"))
}

/// `duplicity replicate` encrypts all signature archives before the volumes and manifests.
fn replicated(version: &str) {
    let scratch = Scratch::new();
    let (repo, dupfs) = backup(version, |_| Mode::Symmetric(PASSPHRASE.to_owned()), false, &scratch);
    let replica = format!("file://{}", scratch.dir("replica").display());
    exec::run(repo.command("replicate").args([&repo.url(), &replica]));
    let (code, report) = checked(&dupfs, &replica);
    assert_eq!((code, report["sets"].as_array().unwrap().len()), (Some(0), 3), "{report:#}");
    no_false_alarm(&dupfs, &replica);
}

fn archives_of_other_sets(version: &str, mode: impl FnOnce(&Home) -> Mode, signed: bool) {
    let scratch = Scratch::new();
    let (repo, dupfs) = backup(version, mode, signed, &scratch);
    every_archive_exchanged(&dupfs, repo.dir(), scratch.path());
}

#[test]
fn signature_archives_of_other_sets_are_refused() {
    archives_of_other_sets("0.8.22", owner, true);
    // The long runs include each combination.
    if std::env::var_os("DUPFS_TEST_ROUNDS").is_some() {
        for version in crate::support::duplicity::VERSIONS {
            archives_of_other_sets(version, owner, true);
            archives_of_other_sets(version, owner, false);
            archives_of_other_sets(version, |_| Mode::Symmetric(PASSPHRASE.to_owned()), false);
        }
        replicated("0.8.22");
        replicated("1.2.3");
    }
}

/// Manifests without a list of files, by duplicity 0.6: some exchanges contradict the ends of the volumes. After the others
/// some names are those of the other set, but no wrong content is served for them.
#[test]
fn some_signature_archives_of_other_sets_are_refused_without_a_list_of_files() {
    let scratch = Scratch::new();
    let dupfs = Dupfs::new(&scratch.dir("home")).option("--no-index");
    let key = dupfs.clone().passphrase("old key").secret_key(&fixtures::path("old-key.secret.asc"));
    let passphrase = dupfs.passphrase("fixture passphrase");
    for (dupfs, name) in [(&key, "duplicity-0.6.23-key"), (&passphrase, "duplicity-0.6.23-sym")] {
        let dir = fixtures::path(name);
        no_false_alarm(dupfs, &fixtures::url(name));
        for (place, other, is_found) in
            [(0, 1, true), (0, 2, true), (1, 0, false), (1, 2, true), (2, 0, false), (2, 1, false)]
        {
            let forged = exchanged(&dir, &scratch.path().join("exchanged"), ".sigtar", place, other);
            let (code, report) = checked(dupfs, &forged);
            let found = messages(&report, "signature-exchanged").len();
            let expected = if is_found { (Some(6), 1) } else { (Some(0), 0) };
            assert_eq!((code, found), expected, "{name}: {place} from {other}: {report:#}");
        }
    }
}

/// The same files change in two sets, so that only the times of the archives distinguish them.
#[test]
fn a_signature_archive_with_the_same_files_is_detected_by_its_time() {
    let scratch = Scratch::new();
    let mut maker = Maker::new(&scratch.path().join("source"), 1_400_000_000);
    maker.file("dir/data", "first");
    maker.file("full only", "");
    let make = Repository::new("0.8.22", owner, &scratch.dir("r"));
    let signer = exec::run(make.gpg_home().gpg("").args(["--with-colons", "--list-secret-keys"]));
    let signer = String::from_utf8(signer).unwrap();
    let signer = signer.lines().find(|line| line.starts_with("fpr:")).unwrap().split(':').nth(9).unwrap().to_owned();
    let repo = make.option(&format!("--sign-key={signer}"));
    let now = now();
    let times = [now, now + DAY / 2, now + DAY];
    for (index, time) in times.into_iter().enumerate() {
        maker.chmod("dir/data", [0o644, 0o640, 0o600][index]);
        let mut command = repo.backup_command(index == 0, maker.root(), time);
        command.arg(format!("--gpg-options=--faked-system-time {time}")).env("SIGN_PASSPHRASE", "owner passphrase");
        exec::run(&mut command);
    }
    let dupfs = repo.reader().option("--no-index");
    let public = repo.gpg_home().path().join("owner.secret.asc");
    let strict =
        dupfs.clone().option("--sign-key").option(&signer).option("--verify-key").option(public.to_str().unwrap());
    for dupfs in [&dupfs, &strict] {
        let (code, report) = checked(dupfs, &repo.url());
        assert_eq!(code, Some(0), "{report:#}");
    }
    for (place, other, reason) in [(1, 2, "and the set was completed at"), (2, 1, "and the set was begun at")] {
        let forged = exchanged(repo.dir(), &scratch.path().join("exchanged"), ".sigtar", place, other);
        let time = stamp(times[place]);
        let (genuine, log) = listing(&strict, &repo.url(), &time);
        assert!(!log.contains("is not the signature archive"), "{log}");
        // Without a required signature the time is no reason to refuse it, but it is reported.
        let (_, log) = listing(&dupfs, &forged, &time);
        assert!(log.contains(reason) && log.contains("--sign-key refuses it"), "{log}");
        let (shown, log) = listing(&strict, &forged, &time);
        assert!(log.contains(reason) && log.contains("is rebuilt from the headers"), "{log}");
        assert_eq!(shown, genuine);
        for dupfs in [&dupfs, &strict] {
            let (code, report) = checked(dupfs, &forged);
            assert_eq!(code, Some(6), "{report:#}");
            assert!(messages(&report, "signature-exchanged")[0].contains(reason), "{report:#}");
        }
    }
}

/// The hashes in the manifest of another set are not those of the volumes, so nothing of the other set is served.
#[test]
fn manifests_of_other_sets_serve_no_file_of_them() {
    let scratch = Scratch::new();
    let (repo, dupfs) = backup("3.2.1", |_| Mode::Symmetric(PASSPHRASE.to_owned()), false, &scratch);
    let dupfs = dupfs.option("--no-index");
    for (place, other) in [(1, 2), (2, 1), (0, 1), (1, 0)] {
        let forged = exchanged(repo.dir(), &scratch.path().join("exchanged"), ".manifest", place, other);
        let (code, report) = checked(&dupfs, &forged);
        assert_eq!(code, Some(6), "{place} from {other}: {report:#}");
        assert_eq!(messages(&report, "signature-exchanged").len(), 1, "{report:#}");
        let [line] = &messages(&report, "manifest-exchanged")[..] else { panic!("{report:#}") };
        assert!(line.contains(&stamp(TIMES[place])) && line.contains(&stamp(TIMES[other])), "{line}");
        // Exchanged together, the two agree.
        fs::copy(
            repo.dir().join(&objects(repo.dir(), ".sigtar")[other]),
            scratch.path().join("exchanged").join(&objects(repo.dir(), ".sigtar")[place]),
        )
        .unwrap();
        let (code, report) = checked(&dupfs, &forged);
        assert_eq!((code, messages(&report, "manifest-exchanged").len()), (Some(6), 1), "{report:#}");
        let time = stamp(TIMES[place]);
        let output = exec::output(dupfs.command("cat").args(["--time", &time, &forged, "dir/edited"]));
        assert_eq!((output.status.code(), output.stdout.len()), (Some(6), 0), "{place} from {other}");
        let stderr = exec::tail(&output.stderr);
        assert!(stderr.contains("is not the one in the manifest") || stderr.contains("is not in the"), "{stderr}");
    }
}
