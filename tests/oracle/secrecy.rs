//! Secrets in a process that reads a backup: not in its environment, and once in its memory, in locked pages.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use sequoia_openpgp::Packet;
use sequoia_openpgp::PacketPile;
use sequoia_openpgp::crypto::mpi::SecretKeyMaterial;
use sequoia_openpgp::packet::Key;
use sequoia_openpgp::packet::key::SecretKeyMaterial as StoredSecret;
use sequoia_openpgp::parse::Parse;

use crate::support::duplicity::{Mode, Repository};
use crate::support::exec;
use crate::support::gpg::Home;
use crate::support::memory::{once_and_locked, wait_for};
use crate::support::mount::{Mount, release};
use crate::support::{Scratch, noise};

const TIME: i64 = 1_700_000_000;
const PASSPHRASE: &str = "zebra-quilt-4711-horse";
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
    let [.., unused, password] = ENVIRONMENT.map(|(name, value)| (name, value.as_bytes()));
    wait_for(what, pid, &[unused], |_, found| found.is_empty());
    wait_for(what, pid, &[password], |_, found| once_and_locked(found));
}

#[test]
fn secrets_are_removed_from_the_environment_and_are_once_in_memory() {
    let scratch = Scratch::new();
    let repo = Repository::new("3.2.1", |_| Mode::Symmetric(PASSPHRASE.to_owned()), &scratch.dir("r"));
    repo.backup(true, &tree(&scratch), TIME);
    let dupfs = ENVIRONMENT.iter().fold(repo.reader(), |dupfs, (name, value)| dupfs.variable(name, value));
    let (url, mnt) = (repo.url(), scratch.dir("mnt"));

    let mount = Mount::new(&dupfs, &url, &mnt);
    read_all(mount.path());
    assert_clean("mount -f", mount.pid());
    wait_for("mount -f", mount.pid(), &[("passphrase", PASSPHRASE.as_bytes())], |_, found| once_and_locked(found));
    mount.unmount();

    exec::run(dupfs.command("mount").args([&*url, mnt.to_str().unwrap()]));
    read_all(&mnt);
    let mut value = [0; 64];
    let len = rustix::fs::getxattr(&mnt, "user.dupfs.pid", &mut value).unwrap();
    let pid: u32 = std::str::from_utf8(&value[..len]).unwrap().split(' ').next().unwrap().parse().unwrap();
    let checked = std::panic::catch_unwind(|| {
        assert_clean("mount", pid);
        wait_for("mount", pid, &[("passphrase", PASSPHRASE.as_bytes())], |_, found| once_and_locked(found));
    });
    release(&mnt);
    checked.unwrap();

    // It cannot end, because its output is not read.
    let mut cat = dupfs.command("cat").args([&url, "big"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut output = cat.stdout.take().unwrap();
    output.read_exact(&mut [0]).unwrap();
    let checked = std::panic::catch_unwind(|| {
        assert_clean("cat", cat.id());
        wait_for("cat", cat.id(), &[("passphrase", PASSPHRASE.as_bytes())], |_, found| once_and_locked(found));
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
        wait_for(algorithm, mount.pid(), &[("passphrase", PASSPHRASE.as_bytes())], |_, found| once_and_locked(found));
        mount.unmount();
    }
}

/// Returns the secret numbers of the decryption key in an export without a passphrase.
fn secret_numbers(exported: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let packets = PacketPile::from_bytes(exported).unwrap();
    let mut numbers = Vec::new();
    for packet in packets.descendants() {
        let Packet::SecretSubkey(Key::V4(key)) = packet else { continue };
        let StoredSecret::Unencrypted(secret) = key.secret() else { panic!("an export with a passphrase") };
        secret.map(|secret| match secret {
            SecretKeyMaterial::RSA { d, p, q, u } => {
                let all = [("d", d), ("p", p), ("q", q), ("u", u)];
                numbers.extend(all.map(|(name, number)| (name, number.value().to_vec())));
            }
            SecretKeyMaterial::ECDH { scalar } => numbers.push(("scalar", scalar.value().to_vec())),
            other => panic!("{other:?}"),
        });
    }
    numbers
}

/// The session keys of the volumes, as gpg shows them.
fn session_keys(repo: &Repository, passphrase: &str) -> Vec<Vec<u8>> {
    let objects = fs::read_dir(repo.dir()).unwrap().map(|entry| entry.unwrap().path());
    let volumes = objects.filter(|path| path.to_string_lossy().contains(".difftar."));
    let key = |path: PathBuf| {
        let mut gpg = repo.gpg_home().gpg(passphrase);
        gpg.args(["--status-fd=1", "--show-session-key", "--output=/dev/null", "--decrypt"]).arg(path);
        let status = String::from_utf8_lossy(&exec::run(&mut gpg)).into_owned();
        let hex = status.split("SESSION_KEY 9:").nth(1).unwrap()[..64].to_owned();
        (0..64).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    };
    volumes.map(key).collect()
}

#[test]
fn secret_numbers_are_wiped_and_session_keys_are_locked() {
    // The library of RSA keys has these numbers twice, the lowest digits first.
    const OF_LIBRARY: [&str; 4] = ["reversed d", "reversed p", "reversed q", "reversed u"];
    for (algorithm, passphrase) in [
        ("rsa2048", PASSPHRASE),
        ("rsa2048", ""),
        ("future-default", ""),
        ("nistp256", PASSPHRASE),
        ("brainpoolP256r1", ""),
    ] {
        let scratch = Scratch::new();
        let mut exported = Vec::new();
        let make = |home: &Home| {
            let mut key = home.generate("owner", algorithm, "");
            exported = exec::run(home.gpg("").args(["--export-secret-keys", "owner"]));
            if !passphrase.is_empty() {
                exec::run(home.gpg(passphrase).args(["--passwd", "owner"]));
                key.secret = scratch.path().join("protected.asc");
                let mut export = home.gpg(passphrase);
                export.args(["--armor", "--export-secret-keys", "owner"]);
                fs::write(&key.secret, exec::run(&mut export)).unwrap();
                key.passphrase = passphrase.to_owned();
            }
            Mode::Key(key)
        };
        let repo = Repository::new("0.8.22", make, &scratch.dir("r"));
        repo.backup(true, &tree(&scratch), TIME);
        let mount = Mount::new(&repo.reader(), &repo.url(), &scratch.dir("mnt"));
        read_all(mount.path());
        let mut secrets: Vec<(String, Vec<u8>)> = Vec::new();
        for (name, number) in secret_numbers(&exported) {
            let reversed = number.iter().rev().copied().collect();
            secrets.extend([(name.to_owned(), number), (format!("reversed {name}"), reversed)]);
        }
        let session_keys = session_keys(&repo, passphrase);
        assert!(secrets.len() >= 2 && session_keys.len() >= 5, "{algorithm}");
        secrets.extend(session_keys.into_iter().map(|key| ("session key".to_owned(), key)));
        let secrets: Vec<(&str, &[u8])> = secrets.iter().map(|(name, bytes)| (&**name, &**bytes)).collect();
        wait_for(algorithm, mount.pid(), &secrets, |name, found| match name {
            "session key" => once_and_locked(found),
            _ if OF_LIBRARY.contains(&name) => found.len() <= 2,
            _ => found.is_empty(),
        });
        mount.unmount();
    }
}
