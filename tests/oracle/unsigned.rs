//! Sets that an attacker with write access and the public key has added, read with `--sign-key`: `latest` stays on a
//! signed set.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::sets_problems::{messages, sets_report};
use crate::support::Scratch;
use crate::support::dated_sets::{DAY, now};
use crate::support::duplicity::{Mode, Repository, stamp};
use crate::support::exec::{self, Dupfs};
use crate::support::gpg::Home;
use crate::support::mount::Mount;
use crate::support::source;

const TIMES: [i64; 2] = [1_700_000_000, 1_700_003_600];
/// The time of the forged sets.
const FORGED: i64 = 1_700_007_200;
const PASSPHRASE: &str = "the owner's passphrase";
const PATH: &str = "dir/edited";

/// A signed full set and increment, and sets that an attacker could have made, each in a separate directory.
struct World {
    scratch: Scratch,
    /// The tree that forged sets have.
    other: PathBuf,
    repo: Repository,
    strict: Dupfs,
    /// The content of [`PATH`] in the signed increment.
    genuine: Vec<u8>,
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

impl World {
    fn new() -> Self {
        let scratch = Scratch::new();
        let states = source::small(scratch.path());
        let make = |home: &Home| {
            home.generate("attacker", "future-default", PASSPHRASE);
            Mode::Key(home.generate("owner", "future-default", PASSPHRASE))
        };
        let repo = Repository::new("0.8.22", make, &scratch.dir("r"));
        let owner = fingerprint(&repo, "owner");
        for (i, time) in TIMES.into_iter().enumerate() {
            let mut command = repo.backup_command(i == 0, &states[i], time);
            exec::run(command.arg(format!("--sign-key={owner}")).env("SIGN_PASSPHRASE", PASSPHRASE));
        }
        let public = repo.gpg_home().path().join("owner.secret.asc");
        let strict = ["--no-index", "--sign-key", &owner, "--verify-key", public.to_str().unwrap()];
        let strict = strict.into_iter().fold(repo.reader(), |dupfs, option| dupfs.option(option));
        let genuine = fs::read(states[1].join(PATH)).unwrap();
        Self { scratch, other: states[2].clone(), repo, strict, genuine }
    }

    /// Makes a set of the time [`FORGED`] by duplicity with `options`, and moves its objects to the directory `name`.
    fn forge(&self, name: &str, full: bool, options: &[String]) -> PathBuf {
        let before = names(self.repo.dir());
        let mut command = self.repo.backup_command(full, &self.other, FORGED);
        exec::run(command.args(options).env("SIGN_PASSPHRASE", PASSPHRASE));
        let dir = self.scratch.dir(name);
        for name in names(self.repo.dir()).into_iter().filter(|name| !before.contains(name)) {
            fs::rename(self.repo.dir().join(&name), dir.join(&name)).unwrap();
        }
        dir
    }

    /// Copies the signed sets to the directory `name` under times that begin at `time`.
    fn replay(&self, name: &str, time: i64) -> PathBuf {
        let dir = self.scratch.dir(name);
        for name in names(self.repo.dir()) {
            let new = TIMES
                .into_iter()
                .fold(name.clone(), |new, old| new.replace(&stamp(old), &stamp(old - TIMES[1] + time)));
            fs::copy(self.repo.dir().join(name), dir.join(new)).unwrap();
        }
        dir
    }

    /// The signed sets and those in `forged`, as one repository.
    fn with(&self, name: &str, forged: &[&Path]) -> PathBuf {
        let dir = self.scratch.dir(name);
        for from in [&[self.repo.dir()], forged].concat() {
            for name in names(from) {
                fs::copy(from.join(&name), dir.join(&name)).unwrap();
            }
        }
        dir
    }
}

fn fingerprint(repo: &Repository, name: &str) -> String {
    let listed = exec::run(repo.gpg_home().gpg("").args(["--with-colons", "--list-secret-keys", name]));
    let listed = String::from_utf8(listed).unwrap();
    listed.lines().find(|line| line.starts_with("fpr:")).unwrap().split(':').nth(9).unwrap().to_owned()
}

/// Requires that the set of the snapshot `newest` in the repository `dir` is refused for `reason`: `latest` stays,
/// and every other path to the set fails with that reason.
fn stays(world: &World, what: &str, dir: &Path, newest: &str, reason: &str) {
    let (dupfs, url) = (&world.strict, format!("file://{}", dir.display()));
    let signed = stamp(TIMES[1]);
    let report = sets_report(dupfs, &url);
    assert_eq!(report["latest"], *signed, "{what}: {report:#}");
    let [line] = &messages(&report, "not-signed")[..] else { panic!("{what}: {report:#}") };
    for part in [newest, reason, &format!("'latest' stays at {signed}"), &format!("snapshots/{newest}")] {
        assert!(line.contains(part), "{what}: {part}: {line}");
    }
    assert_eq!(messages(&report, "not-encrypted"), Vec::<String>::new(), "{what}: {report:#}");
    let output = exec::output(dupfs.command("cat").args([&url, PATH]));
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && output.stdout == world.genuine, "{what}: {stderr}");
    assert!(stderr.contains(line.as_str()), "{what}: {stderr}");
    // A replayed set may have a time in the future.
    let is_past = newest < &*stamp(now());
    let times = if is_past { vec!["now", newest] } else { vec![newest] };
    for time in times {
        for operands in [vec!["cat", PATH], vec!["ls"]] {
            let more = [&["--time", time, &*url], &operands[1..]].concat();
            let (code, error) = dupfs.fails(operands[0], &more);
            assert!(code == Some(6) && error.contains(reason), "{what}, {operands:?} --time {time}: {code:?} {error}");
        }
    }
    let mount = Mount::new(dupfs, &url, &world.scratch.path().join("mnt"));
    assert_eq!(mount.link("latest"), format!("snapshots/{signed}"), "{what}");
    if is_past {
        assert_eq!(mount.link("at/now"), format!("../snapshots/{newest}"), "{what}");
    }
    assert_eq!(fs::read(mount.path().join("latest").join(PATH)).unwrap(), world.genuine, "{what}");
    let error = fs::read(mount.path().join("snapshots").join(newest).join(PATH)).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EIO), "{what}: {error}");
    assert!(mount.log().contains(line.as_str()), "{what}: {}", mount.log());
    mount.unmount();
}

#[test]
fn latest_stays_on_a_signed_set() {
    let world = World::new();
    let attacker = fingerprint(&world.repo, "attacker");
    let (now, forged) = (now(), stamp(FORGED));
    let unsigned = "it is not signed, but every object must be signed by";
    let other = "it has no good signature of the right key";
    let by_attacker = format!("--sign-key={attacker}");
    let increment = world.forge("unsigned", false, &[]);
    for (what, objects, newest, reason) in [
        ("an unsigned increment", increment.clone(), forged.clone(), unsigned),
        ("an unsigned full set", world.forge("full", true, &[]), forged.clone(), unsigned),
        (
            "an increment of another signer",
            world.forge("other", false, std::slice::from_ref(&by_attacker)),
            forged.clone(),
            other,
        ),
        ("a replayed chain", world.replay("replay", now + 3 * DAY), stamp(now + 3 * DAY), "the set was renamed"),
    ] {
        let dir = world.with(&format!("with {what}"), &[&objects]);
        stays(&world, what, &dir, &newest, reason);
    }
    // Neither the manifest nor any other object is an OpenPGP message.
    let garbage = world.scratch.dir("garbage");
    for name in names(&increment) {
        fs::write(garbage.join(name), b"no message").unwrap();
    }
    stays(&world, "garbage", &world.with("with garbage", &[&garbage]), &forged, "named as encrypted");
    // Several forged sets are one line, with the reason for the newest.
    let replay = world.scratch.path().join("replay");
    let both = world.with("with several", &[&increment, &replay]);
    stays(&world, "several", &both, &stamp(now + 3 * DAY), "the set was renamed");

    // Without the option these sets cannot be distinguished from those of the owner.
    let url = format!("file://{}", world.scratch.path().join("with an unsigned increment").display());
    let plain = world.repo.reader().option("--no-index");
    assert_eq!(sets_report(&plain, &url)["latest"], *forged);
}

#[test]
fn a_forged_set_that_appears_during_a_mount_does_not_become_latest() {
    let world = World::new();
    let increment = world.forge("unsigned", false, &[]);
    let dir = world.with("store", &[]);
    let dupfs = world.strict.clone().option("--refresh=1");
    let mount = Mount::new(&dupfs, &format!("file://{}", dir.display()), &world.scratch.path().join("mnt"));
    for name in names(&increment) {
        fs::copy(increment.join(&name), dir.join(&name)).unwrap();
    }
    let start = Instant::now();
    // A lookup fails: there is nothing signed to make its tree of.
    let is_listed = || names(&mount.path().join("snapshots")).contains(&stamp(FORGED));
    while !is_listed() {
        assert!(start.elapsed() < Duration::from_secs(60), "the set is not shown\n{}", mount.log());
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(mount.link("latest"), format!("snapshots/{}", stamp(TIMES[1])));
    let log = mount.log();
    assert!(log.contains("it is not signed") && log.contains("'latest' stays at"), "{log}");
    mount.unmount();
}

#[test]
fn an_increment_builds_on_the_signed_set_of_two_with_one_time() {
    let world = World::new();
    // An unsigned full set of the time of the genuine full set's increment, and an unsigned base of the increment.
    let full = world.forge("full", true, &[]);
    let planted = world.scratch.dir("planted");
    for name in names(&full) {
        let to = name.replace("duplicity-full.", &format!("duplicity-inc.{}.to.", stamp(TIMES[0] - 60)));
        let to = to.replace("full-signatures.", &format!("new-signatures.{}.to.", stamp(TIMES[0] - 60)));
        fs::copy(full.join(&name), planted.join(to.replace(&stamp(FORGED), &stamp(TIMES[0])))).unwrap();
        fs::copy(full.join(&name), planted.join(name.replace(&stamp(FORGED), &stamp(TIMES[0] - 60)))).unwrap();
    }
    let dir = world.with("store", &[&planted]);
    let url = format!("file://{}", dir.display());
    let report = sets_report(&world.strict, &url);
    let newest = report["sets"].as_array().unwrap().iter().find(|set| set["time"] == stamp(TIMES[1])).unwrap();
    let lineage: Vec<String> = newest["lineage"]
        .as_array()
        .unwrap()
        .iter()
        .map(|index| &report["sets"][usize::try_from(index.as_u64().unwrap()).unwrap()])
        .map(|set| format!("{} {}", set["type"].as_str().unwrap(), set["time"].as_str().unwrap()))
        .collect();
    assert_eq!(lineage, [format!("full {}", stamp(TIMES[0])), format!("inc {}", stamp(TIMES[1]))], "{report:#}");
    assert_eq!(world.strict.run("cat", &[&url, PATH]), world.genuine);
    assert_eq!(world.strict.run("cat", &["--time", &stamp(TIMES[1]), &url, PATH]), world.genuine);
}

#[test]
fn a_backup_without_any_signed_set_is_refused() {
    let world = World::new();
    let attacker = fingerprint(&world.repo, "attacker");
    let forged = world.forge("full", true, &[format!("--sign-key={attacker}")]);
    let url = format!("file://{}", forged.display());
    let dir = world.scratch.dir("mnt");
    let mut mount: Command = world.strict.command("mount");
    let output = exec::output(mount.arg(&url).arg(&dir));
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(6), "{stderr}");
    assert!(stderr.contains("it has no good signature of the right key"), "{stderr}");
    let report = sets_report(&world.strict, &url);
    let [line] = &messages(&report, "not-signed")[..] else { panic!("{report:#}") };
    assert!(!line.contains("'latest' stays"), "{line}");
}
