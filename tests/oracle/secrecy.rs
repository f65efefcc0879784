//! Secrets in a process that reads a backup: not in its environment, and passphrases once in its memory, in locked pages.

use std::fs::{self, File};
use std::io::Read;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::support::duplicity::{Mode, Repository};
use crate::support::exec;
use crate::support::mount::{Mount, release};
use crate::support::{Scratch, noise};

const TIME: i64 = 1_700_000_000;
const PASSPHRASE: &str = "zebra-quilt-4711-horse";
/// How long anything may take that is waited for.
const LIMIT: Duration = Duration::from_secs(60);

/// A secret in the memory of a process: its address, and true if its page is locked.
type Finding = (usize, bool);

/// The addresses of `secret` in the memory of the process `pid`.
fn find(pid: u32, secret: &[u8]) -> Vec<Finding> {
    let memory = File::open(format!("/proc/{pid}/mem")).expect("the oracle's tests run as root");
    let smaps = fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap();
    let mut found = Vec::new();
    let mut range: Option<Range<usize>> = None;
    for line in smaps.lines() {
        let hexadecimal = |text: &str| usize::from_str_radix(text, 16).ok();
        let ends = line.split(' ').next().and_then(|ends| ends.split_once('-'));
        if let Some((start, end)) = ends.and_then(|(start, end)| Some((hexadecimal(start)?, hexadecimal(end)?))) {
            range = Some(start..end);
        } else if let Some(flags) = line.strip_prefix("VmFlags:") {
            let range = range.take().unwrap();
            let mut bytes = vec![0; range.len()];
            if memory.read_exact_at(&mut bytes, range.start as u64).is_ok() {
                let locked = flags.split(' ').any(|flag| flag == "lo");
                let hits = bytes.windows(secret.len()).enumerate().filter(|(_, window)| *window == secret);
                found.extend(hits.map(|(at, _)| (range.start + at, locked)));
            }
        }
    }
    found
}

/// Waits until `secret` is in the memory of the process as `fits` says: derivations that still run have copies.
fn wait_for(what: &str, pid: u32, secret: &[u8], fits: impl Fn(&[Finding]) -> bool) {
    let start = Instant::now();
    loop {
        let found = find(pid, secret);
        if fits(&found) {
            return;
        }
        assert!(start.elapsed() < LIMIT, "{what}: {found:x?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn once_and_locked(found: &[Finding]) -> bool {
    matches!(found, [(_, true)])
}

/// The environment and the arguments of a process.
fn start_of(pid: u32) -> String {
    let text = |name: &str| fs::read(format!("/proc/{pid}/{name}")).unwrap();
    String::from_utf8_lossy(&[text("environ"), text("cmdline")].concat()).into_owned()
}

fn tree(scratch: &Scratch) -> PathBuf {
    let dir = scratch.dir("source");
    fs::write(dir.join("big"), noise(7, 5_000_000)).unwrap();
    fs::write(dir.join("small"), "hello\n").unwrap();
    dir
}

fn read_all(dir: &Path) {
    for name in ["big", "small"] {
        assert!(!fs::read(dir.join("latest").join(name)).unwrap().is_empty());
    }
}

const ENVIRONMENT: [(&str, &str); 4] = [
    ("AWS_SECRET_ACCESS_KEY", "aws-secret-9031"),
    ("AWS_SESSION_TOKEN", "aws-token-5150"),
    ("SIGN_PASSPHRASE", "sign-secret-8812"),
    ("FTP_PASSWORD", "ftp-secret-2600"),
];

fn assert_clean(what: &str, pid: u32) {
    let start = start_of(pid);
    assert!(start.contains("HOME=") && start.contains("dupfs"), "{what}: {start}");
    for secret in ENVIRONMENT.iter().map(|(_, value)| *value).chain([PASSPHRASE]) {
        assert!(!start.contains(secret), "{what}: {secret} in {start}");
    }
    for (_, unused) in &ENVIRONMENT[2..] {
        wait_for(what, pid, unused.as_bytes(), <[Finding]>::is_empty);
    }
}

#[test]
fn secrets_leave_the_environment_and_are_once_in_memory() {
    let scratch = Scratch::new();
    let repo = Repository::new("3.2.1", |_| Mode::Symmetric(PASSPHRASE.to_owned()), &scratch.dir("r"));
    repo.backup(true, &tree(&scratch), TIME);
    let dupfs = ENVIRONMENT.iter().fold(repo.reader(), |dupfs, (name, value)| dupfs.variable(name, value));
    let (url, mnt) = (repo.url(), scratch.dir("mnt"));

    let mount = Mount::new(&dupfs, &url, &mnt);
    read_all(mount.path());
    assert_clean("mount -f", mount.pid());
    wait_for("mount -f", mount.pid(), PASSPHRASE.as_bytes(), once_and_locked);
    mount.unmount();

    exec::run(dupfs.command("mount").args([&*url, mnt.to_str().unwrap()]));
    read_all(&mnt);
    let mut told = [0; 64];
    let len = rustix::fs::getxattr(&mnt, "user.dupfs.pid", &mut told).unwrap();
    let pid: u32 = std::str::from_utf8(&told[..len]).unwrap().split(' ').next().unwrap().parse().unwrap();
    let checked = std::panic::catch_unwind(|| {
        assert_clean("mount", pid);
        wait_for("mount", pid, PASSPHRASE.as_bytes(), once_and_locked);
    });
    release(&mnt);
    checked.unwrap();

    // It cannot end, because nobody reads what it writes.
    let mut cat = dupfs.command("cat").args([&url, "big"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut output = cat.stdout.take().unwrap();
    output.read_exact(&mut [0]).unwrap();
    let checked = std::panic::catch_unwind(|| {
        assert_clean("cat", cat.id());
        wait_for("cat", cat.id(), PASSPHRASE.as_bytes(), once_and_locked);
    });
    drop(output);
    cat.wait().unwrap();
    checked.unwrap();
}

#[test]
fn the_passphrase_of_a_secret_key_is_once_in_memory() {
    for algorithm in ["rsa2048", "future-default"] {
        let scratch = Scratch::new();
        let make = |home: &crate::support::gpg::Home| Mode::Key(home.generate("owner", algorithm, PASSPHRASE));
        let repo = Repository::new("0.8.22", make, &scratch.dir("r"));
        repo.backup(true, &tree(&scratch), TIME);
        let mount = Mount::new(&repo.reader(), &repo.url(), &scratch.dir("mnt"));
        read_all(mount.path());
        wait_for(algorithm, mount.pid(), PASSPHRASE.as_bytes(), once_and_locked);
        mount.unmount();
    }
}
