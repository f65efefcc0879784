//! Session keys from the user's gpg: agent and passphrase, nothing written, refusals and deadlines.

use super::{Home, KEY_PASSPHRASE, decode, options, payload};
use dupfs_base::{ErrorKind, HasKind};
use dupfs_read::codec::{CodecError, DecodeOptions, Decoder, GpgOptions, KeyOptions, Keys};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

fn asking(home: &Path, binary: &Path, passphrases: &[&str], deadline: Duration) -> Decoder {
    let gpg = GpgOptions { binary: binary.into(), home: Some(home.into()), deadline, ..GpgOptions::default() };
    let keys = Keys::load(KeyOptions { gpg: Some(gpg), ..options(&[], passphrases) }).unwrap();
    Decoder::new(keys, DecodeOptions::default())
}

fn by_gpg(home: &Home, passphrases: &[&str]) -> Decoder {
    asking(home.path(), Path::new("gpg"), passphrases, Duration::from_secs(60))
}

/// Returns every file of a gpg home with its content; sockets and directories by name only.
fn contents(dir: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let mut out = BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let (path, kind) = {
            let e = entry.unwrap();
            (e.path(), e.file_type().unwrap())
        };
        if kind.is_dir() {
            out.extend(contents(&path));
        }
        // The agent that gpg starts has its sockets there while it runs.
        let socket = path.file_name().unwrap().to_string_lossy().starts_with("S.");
        if !socket {
            let bytes = kind.is_file().then(|| std::fs::read(&path).unwrap());
            out.insert(path, bytes);
        }
    }
    out
}

#[test]
fn keys_in_the_users_keyring_open_objects_and_nothing_in_it_changes() {
    let (home, plain) = (Home::new(), payload(100_000));
    home.import("rsa.secret.asc").import("cv25519.secret.asc").import("elgamal.secret.asc");
    let objects: Vec<(&str, Vec<u8>)> = ["rsa", "cv25519", "elgamal"]
        .into_iter()
        .flat_map(|name| [(name, &["-e"][..]), (name, &["-e", "--armor"]), (name, &["-e", "--throw-keyids"])])
        .map(|(name, args)| (name, home.gpg(&[&["-r", &format!("dupfs {name}")], args].concat(), &plain)))
        .collect();
    let small = home.gpg(&["-r", "dupfs rsa", "-e"], b"small");
    // gpg-agent rewrites a newly imported key into its own format at the first use.
    for (_, object) in &objects {
        let args = ["--pinentry-mode", "loopback", "--passphrase-fd", "0", "-d"];
        assert!(home.gpg(&args, &[KEY_PASSPHRASE.as_bytes(), b"\n", object].concat()) == plain);
    }
    let before = contents(home.path());
    for (name, object) in &objects {
        let decoder = by_gpg(&home, &["wrong", KEY_PASSPHRASE]);
        let out = decode(&decoder, "vol1.difftar.gpg", object);
        assert!(out.unwrap_or_else(|e| panic!("{name}: {e}")) == plain, "{name}");
        // The session key is cached: gpg is no longer needed.
        assert!(decode(&decoder, "vol1.difftar.gpg", object).unwrap() == plain);
    }
    assert_eq!(decode(&by_gpg(&home, &[]), "x.gpg", &small).unwrap(), b"small");
    let after = contents(home.path());
    let changed = |path: &&PathBuf| before.get(*path) != after.get(*path);
    let changed: Vec<_> = before.keys().chain(after.keys()).filter(changed).collect();
    assert!(changed.is_empty(), "changed in the gpg home: {changed:?}");
}

#[test]
fn options_name_a_keyring_elsewhere() {
    let (home, plain) = (Home::new(), payload(1_000));
    home.import("rsa.secret.asc");
    let object = home.gpg(&["-r", "dupfs rsa", "-e"], &plain);
    let ring = home.path().join("elsewhere.kbx");
    std::fs::rename(home.path().join("pubring.kbx"), &ring).unwrap();
    let decoder = |arguments: Vec<OsString>| {
        let gpg = GpgOptions { home: Some(home.path().into()), arguments, ..GpgOptions::default() };
        let keys = Keys::load(KeyOptions { gpg: Some(gpg), ..options(&[], &[]) }).unwrap();
        Decoder::new(keys, DecodeOptions::default())
    };
    let error = decode(&decoder(Vec::new()), "vol1.gpg", &object).unwrap_err();
    assert!(error.to_string().contains("gpg has no keyring here"), "{error}");
    let named = vec!["--no-default-keyring".into(), "--keyring".into(), ring.into()];
    assert!(decode(&decoder(named), "vol1.gpg", &object).unwrap() == plain);
    assert!(!home.path().join("pubring.kbx").exists());
}

#[test]
fn the_refusal_of_gpg_is_reported_with_the_key_ids() {
    let (home, plain) = (Home::new(), payload(1_000));
    home.import("cv25519.secret.asc").import("rsa.public.asc");
    let to_rsa = home.gpg(&["-r", "dupfs rsa", "-e"], &plain);
    let error = decode(&by_gpg(&home, &[]), "vol1.gpg", &to_rsa).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::KeyMissing);
    assert!(error.to_string().contains("0xB54B6D31383DE26B"), "{error}");
    assert!(error.to_string().contains("(gpg: No secret key)"), "{error}");
    let to_locked = home.gpg(&["-r", "dupfs cv25519", "-e"], &plain);
    let error = decode(&by_gpg(&home, &["wrong"]), "vol1.gpg", &to_locked).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::KeyMissing);
    let expected =
        "; gpg has the key, and the passphrase is wrong (gpg: Bad passphrase); give the right one in PASSPHRASE";
    assert!(error.to_string().contains(expected), "{error}");
}

/// gpg itself reports "No secret key" in both cases, as if the key were missing.
#[test]
fn a_failing_agent_and_a_failing_prompt_are_not_reported_as_a_missing_key() {
    let (home, plain) = (Home::new(), payload(1_000));
    home.import("cv25519.secret.asc");
    let object = home.gpg(&["-r", "dupfs cv25519", "-e"], &plain);
    let restart = || {
        let kill = Command::new("gpgconf").arg("--homedir").arg(home.path()).args(["--kill", "all"]).status();
        assert!(kill.unwrap().success());
    };
    std::fs::write(home.path().join("gpg-agent.conf"), "pinentry-program /nonexistent/pinentry\n").unwrap();
    restart();
    let error = decode(&by_gpg(&home, &[]), "vol1.gpg", &object).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::KeyMissing);
    let expected = "gpg has the key but could not ask for its passphrase (gpg: No pinentry): export GPG_TTY=$(tty), or set \
                    PASSPHRASE";
    assert!(error.to_string().contains(expected), "{error}");
    // The remedy works.
    std::fs::write(home.path().join("gpg-agent.conf"), "allow-loopback-pinentry\n").unwrap();
    restart();
    assert!(decode(&by_gpg(&home, &[KEY_PASSPHRASE]), "vol1.gpg", &object).unwrap() == plain);
    restart();
    std::fs::write(home.path().join("gpg.conf"), "agent-program /bin/false\n").unwrap();
    for passphrases in [&[][..], &[KEY_PASSPHRASE]] {
        let error = decode(&by_gpg(&home, passphrases), "vol1.gpg", &object).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::KeyMissing);
        let message = error.to_string();
        assert!(message.contains("failed to start agent '/bin/false'"), "{message}");
        assert!(
            message.contains("run gpg-agent --daemon to see why") && !message.contains("not available"),
            "{message}"
        );
    }
}

#[test]
fn without_a_keyring_or_gpg_nothing_is_created_and_the_error_names_the_cause() {
    let (home, plain) = (Home::new(), payload(1_000));
    let file = super::key("rsa.public.asc");
    let object = home.gpg(&["--recipient-file", file.to_str().unwrap(), "-e"], &plain);
    let nowhere = home.path().join("nothing-here");
    let decoder = asking(&nowhere, Path::new("gpg"), &[], Duration::from_secs(60));
    let error = decode(&decoder, "vol1.gpg", &object).unwrap_err();
    assert!(error.to_string().contains("gpg has no keyring here"), "{error}");
    assert!(!nowhere.exists());
    home.import("rsa.public.asc");
    let decoder = asking(home.path(), Path::new("/nonexistent/gpg"), &[], Duration::from_secs(60));
    let error = decode(&decoder, "vol1.gpg", &object).unwrap_err();
    assert!(error.to_string().contains("there is no working /nonexistent/gpg"), "{error}");
    std::fs::write(home.path().join("secring.gpg"), b"").unwrap();
    let error = decode(&by_gpg(&home, &[]), "vol1.gpg", &object).unwrap_err();
    assert!(error.to_string().contains("convert its old secret keyring"), "{error}");
    assert!(!home.path().join(".gpg-v21-migrated").exists());
}

#[test]
fn a_gpg_that_does_not_answer_is_abandoned_at_the_deadline() {
    use std::os::unix::fs::PermissionsExt;
    let (home, plain) = (Home::new(), payload(1_000));
    let object = home.import("rsa.public.asc").gpg(&["-r", "dupfs rsa", "-e"], &plain);
    let script = home.path().join("slow-gpg");
    std::fs::write(&script, "#!/bin/sh\ncase $1 in --version) echo 'gpg (GnuPG) 2.2.40';; *) exec sleep 30;; esac\n")
        .unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o700)).unwrap();
    let decoder = asking(home.path(), &script, &[], Duration::from_millis(300));
    let started = Instant::now();
    for _ in 0..3 {
        let error = decode(&decoder, "vol1.gpg", &object).unwrap_err();
        assert!(matches!(error, CodecError::GpgTimeout { .. }), "{error}");
        assert_eq!(error.kind(), ErrorKind::Timeout);
    }
    assert!(started.elapsed() < Duration::from_secs(5), "the refusal is remembered for a while");
}
