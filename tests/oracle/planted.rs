//! Sets that an attacker with write access to the store has added: without a key, or old ones under names with a new
//! time.

use std::fs;
use std::path::Path;

use super::sets_problems::{messages, sets_report};
use crate::support::Scratch;
use crate::support::dated_sets::{DAY, now};
use crate::support::duplicity::{Mode, Repository, stamp};
use crate::support::exec::{self, Dupfs};
use crate::support::mount::Mount;
use crate::support::source;

const TIMES: [i64; 3] = [1_700_000_000, 1_700_003_600, 1_700_007_200];
const PASSPHRASE: &str = "the owner's passphrase";

#[test]
fn encryption_that_ends_is_reported_and_latest_does_not_follow() {
    let scratch = Scratch::new();
    let states = source::small(scratch.path());
    let mut repo = Repository::new("3.2.1", |_| Mode::Symmetric(PASSPHRASE.to_owned()), &scratch.dir("r"));
    repo.backup(true, &states[0], TIMES[0]);
    let dupfs = repo.reader().option("--no-index");
    repo.set_mode(Mode::Gzip);
    // duplicity still needs the passphrase for the manifest of the previous set.
    exec::run(repo.backup_command(false, &states[1], TIMES[1]).env("PASSPHRASE", PASSPHRASE));
    let (url, first, second) = (repo.url(), stamp(TIMES[0]), stamp(TIMES[1]));
    let read = |dupfs: &Dupfs, more: &[&str]| dupfs.run("cat", &[more, &[&*url, "dir/edited"]].concat());
    let (old, new) = (fs::read(states[0].join("dir/edited")).unwrap(), fs::read(states[1].join("dir/edited")).unwrap());
    assert!(old != new);

    let report = sets_report(&dupfs, &url);
    assert_eq!((&report["latest"], &report["doubtful_sets"]), (&first.clone().into(), &serde_json::json!([1])));
    assert_eq!(
        (&report["sets"][0]["encryption"], &report["sets"][1]["encryption"]),
        (&"openpgp".into(), &"none".into())
    );
    let [line] = &messages(&report, "not-encrypted")[..] else { panic!("{report:#}") };
    assert!(
        line.contains(&second) && line.contains(&format!("stays at {first}")) && line.contains("--time now"),
        "{line}"
    );
    assert_eq!(read(&dupfs, &[]), old);
    assert_eq!(read(&dupfs, &["--time", "now"]), new);
    assert_eq!(read(&dupfs, &["--time", &second]), new);

    let mount = Mount::new(&dupfs, &url, &scratch.path().join("mnt"));
    assert_eq!(mount.link("latest"), format!("snapshots/{first}"));
    assert_eq!(mount.link("at/now"), format!("../snapshots/{second}"));
    assert_eq!(fs::read(mount.path().join("snapshots").join(&second).join("dir/edited")).unwrap(), new);
    assert!(mount.log().contains(line.as_str()), "{}", mount.log());
    mount.unmount();

    // With the option nothing of it is read or shown.
    let strict = dupfs.option("--require-encryption");
    let report = sets_report(&strict, &url);
    assert_eq!(report["sets"].as_array().unwrap().len(), 1, "{report:#}");
    assert!(messages(&report, "not-encrypted")[0].contains("--require-encryption"), "{report:#}");
    assert_eq!(read(&strict, &["--time", "now"]), old);
    let mount = Mount::new(&strict, &url, &scratch.path().join("mnt"));
    let names: Vec<_> = fs::read_dir(mount.path().join("snapshots")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, [&*first]);
    mount.unmount();
    let lone = scratch.dir("lone");
    for name in names_of(repo.dir(), &second) {
        fs::copy(repo.dir().join(&name), lone.join(name.replace(&format!("inc.{first}.to."), "full."))).unwrap();
    }
    let (code, error) = strict.fails("ls", &[&format!("file://{}", lone.display())]);
    assert_eq!(code, Some(6), "{error}");
    assert!(error.contains("--require-encryption refuses such sets"), "{error}");
}

/// The names in `dir` that contain `part`.
fn names_of(dir: &Path, part: &str) -> Vec<String> {
    let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.contains(part)).collect()
}

#[test]
fn an_old_set_under_a_new_time_is_reported_and_refused_with_a_signature() {
    let scratch = Scratch::new();
    let states = source::small(scratch.path());
    let make =
        |home: &crate::support::gpg::Home| Mode::Key(home.generate("owner", "future-default", "owner passphrase"));
    let repo = Repository::new("0.8.22", make, &scratch.dir("r"));
    let home = repo.gpg_home().path().to_owned();
    let listing = exec::run(repo.gpg_home().gpg("").args(["--with-colons", "--list-secret-keys"]));
    let listing = String::from_utf8(listing).unwrap();
    let fingerprint = listing.lines().find(|line| line.starts_with("fpr:")).unwrap().split(':').nth(9).unwrap();
    let repo = repo.option(&format!("--sign-key={fingerprint}"));
    let now = now();
    exec::run(repo.backup_command(true, &states[0], now).env("SIGN_PASSPHRASE", "owner passphrase"));
    let (url, old, new) = (repo.url(), stamp(now), stamp(now + 3 * DAY));
    let public = home.join("owner.secret.asc");
    let dupfs = repo.reader().option("--no-index");
    let strict =
        dupfs.clone().option("--sign-key").option(fingerprint).option("--verify-key").option(public.to_str().unwrap());
    for dupfs in [&dupfs, &strict] {
        assert_eq!(messages(&sets_report(dupfs, &url), "backdated"), Vec::<String>::new());
        let output = exec::output(dupfs.command("cat").args([&url, "a file"]));
        assert_eq!((&*output.stdout, &*output.stderr), (&b"hello\n"[..], &b""[..]));
    }

    for name in names_of(repo.dir(), &old) {
        fs::copy(repo.dir().join(&name), repo.dir().join(name.replace(&old, &new))).unwrap();
    }
    let report = sets_report(&dupfs, &url);
    let [line] = &messages(&report, "backdated")[..] else { panic!("{report:#}") };
    assert!(line.contains(&new) && line.contains("the set was renamed"), "{line}");
    let output = exec::output(dupfs.command("cat").args([&url, "a file"]));
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.stdout, b"hello\n");
    assert_eq!(stderr.matches("the set was renamed").count(), 1, "{stderr}");
    let mount = Mount::new(&dupfs, &url, &scratch.path().join("mnt"));
    assert!(mount.log().contains("the set was renamed"), "{}", mount.log());
    mount.unmount();

    let (code, error) = strict.fails("cat", &["--time", &new, &url, "a file"]);
    assert_eq!(code, Some(6), "{error}");
    assert!(error.contains("--sign-key refuses it"), "{error}");
    assert_eq!(strict.run("cat", &["--time", &old, &url, "a file"]), b"hello\n");
    let report = sets_report(&strict, &url);
    assert!(messages(&report, "manifest-unreadable")[0].contains("the set was renamed"), "{report:#}");
}
