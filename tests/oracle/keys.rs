//! Volumes with every option of gpg: compressions, ciphers, several and hidden recipients, signatures, and a rotated
//! key.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use crate::check;
use crate::support::Scratch;
use crate::support::duplicity::{Mode, Repository, stamp};
use crate::support::exec;
use crate::support::gpg::Key;
use crate::support::mount::Mount;
use crate::support::source;

const TIMES: [i64; 3] = [1_700_000_000, 1_700_003_600, 1_700_007_200];

/// A full set and two increments with `options`, compared.
fn stored_with(what: &str, repo: &Repository, scratch: &Scratch) {
    let states = source::small(scratch.path());
    for (i, (state, time)) in states.iter().zip(TIMES).enumerate() {
        repo.backup(i == 0, state, time);
    }
    let sources = states.each_ref().map(PathBuf::as_path);
    check::every_snapshot(what, repo, &TIMES, &sources, scratch.path());
}

fn symmetric(options: &str) {
    let scratch = Scratch::new();
    let repo = Repository::new("0.8.22", |_| Mode::Symmetric("pass phrase".to_owned()), &scratch.dir("r"));
    stored_with(options, &repo.option(&format!("--gpg-options={options}")), &scratch);
}

#[test]
fn compressed_by_bzip2() {
    symmetric("--compress-algo=bzip2");
}

#[test]
#[ignore = "slow: scripts/test --all"]
fn compressed_by_zlib_under_3des() {
    symmetric("--compress-algo=zlib --cipher-algo=3DES");
}

#[test]
#[ignore = "slow: scripts/test --all"]
fn not_compressed_under_camellia() {
    symmetric("--compress-algo=none --cipher-algo=CAMELLIA256");
}

#[test]
#[ignore = "slow: scripts/test --all"]
fn armoured_under_twofish() {
    symmetric("--armor --cipher-algo=TWOFISH --s2k-digest-algo=SHA512");
}

#[test]
#[ignore = "slow: scripts/test --all"]
fn without_compression_by_duplicity_3() {
    let scratch = Scratch::new();
    let repo = Repository::new("3.2.1", |_| Mode::Symmetric("pass phrase".to_owned()), &scratch.dir("r"));
    stored_with("--no-compression", &repo.option("--no-compression"), &scratch);
}

#[test]
fn to_two_keys_of_which_either_opens_it_and_signed_by_one() {
    let scratch = Scratch::new();
    let mut others = None;
    let make = |home: &crate::support::gpg::Home| {
        let first = home.generate("first", "rsa2048", "same passphrase");
        others = Some(home.generate("second", "future-default", "same passphrase"));
        Mode::Key(first)
    };
    let repo = Repository::new("0.8.22", make, &scratch.dir("r"));
    let second: Key = others.unwrap();
    let repo = repo
        .option(&format!("--encrypt-key={}", second.fingerprint))
        .option(&format!("--sign-key={}", second.fingerprint));
    let states = source::small(scratch.path());
    for (i, (state, time)) in states.iter().zip(TIMES).enumerate() {
        exec::run(repo.backup_command(i == 0, state, time).env("SIGN_PASSPHRASE", "same passphrase"));
    }
    let sources = states.each_ref().map(PathBuf::as_path);
    check::every_snapshot("the first of two keys", &repo, &TIMES, &sources, scratch.path());
    let home = scratch.dir("home-second");
    let reader = exec::Dupfs::new(&home).passphrase("same passphrase").secret_key(&second.secret);
    check::every_snapshot_by("the second of two keys", &repo, &reader, &TIMES, &sources, scratch.path());
}

#[test]
fn to_a_hidden_recipient() {
    let scratch = Scratch::new();
    let make = |home: &crate::support::gpg::Home| Mode::Key(home.generate("hidden", "rsa2048", "hidden passphrase"));
    let repo = Repository::new("0.8.22", make, &scratch.dir("r"))
        .option("--gpg-options=--throw-keyids --trust-model always --pinentry-mode loopback");
    stored_with("a hidden recipient", &repo, &scratch);
}

#[test]
fn the_gpg_and_the_keyring_that_options_name_open_a_backup() {
    let scratch = Scratch::new();
    let mut keyring = None;
    let make = |home: &crate::support::gpg::Home| {
        keyring = Some(home.path().to_owned());
        Mode::Key(home.generate("user", "rsa2048", "pass phrase"))
    };
    let repo = Repository::new("0.8.22", make, &scratch.dir("r"));
    let states = source::small(scratch.path());
    repo.backup(true, &states[0], TIMES[0]);
    let homedir = format!("--gpg-options=--batch --homedir={}", keyring.unwrap().display());
    // A program that leaves a trace, and is gpg otherwise.
    let (program, trace) = (scratch.path().join("own gpg"), scratch.path().join("trace"));
    std::fs::write(&program, format!("#!/bin/sh\necho called >>'{}'\nexec gpg \"$@\"\n", trace.display())).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let binary = format!("--gpg-binary={}", program.display());

    let dupfs = || exec::Dupfs::new(&scratch.dir("home")).passphrase("pass phrase");
    let (code, error) = dupfs().option(&binary).fails("cat", &[&repo.url(), "a file"]);
    assert_eq!(code, Some(5), "without the keyring: {error}");
    assert_eq!(dupfs().option(&homedir).run("cat", &[&repo.url(), "a file"]), b"hello\n");
    assert!(!trace.exists());
    assert_eq!(dupfs().option(&homedir).option(&binary).run("cat", &[&repo.url(), "a file"]), b"hello\n");
    assert!(trace.exists(), "another gpg was asked");
}

#[test]
fn a_key_rotated_in_the_middle_of_a_chain() {
    let scratch = Scratch::new();
    let mut made = None;
    let make = |home: &crate::support::gpg::Home| {
        made = Some(home.generate("new", "future-default", "same passphrase"));
        Mode::Key(home.generate("old", "rsa2048", "same passphrase"))
    };
    let mut repo = Repository::new("2.2.4", make, &scratch.dir("r"));
    let states = source::small(scratch.path());
    repo.backup(true, &states[0], TIMES[0]);
    let old_only = repo.reader();
    let new_key = made.unwrap();
    let both = repo.reader().secret_key(&new_key.secret);
    repo.set_mode(Mode::Key(new_key));
    repo.backup(false, &states[1], TIMES[1]);
    repo.backup(false, &states[2], TIMES[2]);
    let sources = states.each_ref().map(PathBuf::as_path);
    check::every_snapshot_by("old and new key", &repo, &both, &TIMES, &sources, scratch.path());

    // With the old key alone the full set can be read, and the rest is not silently absent.
    let full = crate::support::duplicity::stamp(TIMES[0]);
    let got = exec::run(old_only.command("cat").args(["--time", &full, &repo.url(), "a file"]));
    assert_eq!(got, b"hello\n");
    let latest = crate::support::duplicity::stamp(TIMES[2]);
    let (code, error) = old_only.fails("cat", &["--time", &latest, &repo.url(), "a file"]);
    assert_eq!(code, Some(5), "{error}");
}

#[test]
fn wrong_passphrase_is_one_line_and_exit_code_5() {
    let scratch = Scratch::new();
    let states = source::small(scratch.path());
    let repo = Repository::new("0.8.22", |_| Mode::Symmetric("the right one".to_owned()), &scratch.dir("r"));
    repo.backup(true, &states[0], TIMES[0]);
    let dupfs = exec::Dupfs::new(&scratch.dir("home")).passphrase("a wrong one");
    let mnt = scratch.dir("mnt");
    let (code, error) = dupfs.fails("mount", &[&repo.url(), mnt.to_str().unwrap()]);
    crate::support::mount::release(&mnt);
    assert_eq!(code, Some(5), "{error}");
    assert_eq!(error.trim_end().lines().count(), 1, "one line was promised:\n{error}");
    assert!(!error.contains("a wrong one"), "the passphrase is shown:\n{error}");
    // Nothing is known of the volumes, and the exit code is that of the reason with `--check` too.
    for options in [&[][..], &["--check"]] {
        let output = exec::output(dupfs.command("sets").arg("--json").args(options).arg(repo.url()));
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let problem = &report["problems"][0];
        assert_eq!(
            (&problem["severity"], &problem["kind"]),
            (&"error".into(), &"manifest-unreadable".into()),
            "{report}"
        );
        assert_eq!(output.status.code(), Some(5), "{options:?}");
    }

    // Several passphrases are tried in turn.
    let file = scratch.path().join("passphrases");
    std::fs::write(&file, "a wrong one\nthe right one\nanother\n").unwrap();
    let dupfs = exec::Dupfs::new(&scratch.dir("home")).option("--passphrase-file").option(file.to_str().unwrap());
    assert_eq!(exec::run(dupfs.command("cat").args([&repo.url(), "a file"])), b"hello\n");
    assert_eq!(states.len(), 3);
}

/// A full set with a passphrase; a chain to one key whose last set is to another; a full set with another passphrase.
#[test]
fn each_set_needs_its_own_key_or_passphrase() {
    let scratch = Scratch::new();
    let mut repo = Repository::new("3.2.1", |_| Mode::Symmetric("first".to_owned()), &scratch.dir("r"));
    let source = scratch.dir("source");
    let keys = ["old", "new"].map(|name| repo.gpg_home().generate(name, "future-default", "first"));
    let [old, new] = keys.each_ref().map(|key| key.secret.clone());
    let [old_key, new_key] = keys;
    let times: Vec<i64> = (0..5).map(|i| TIMES[0] + i * 3600).collect();
    let state = |i: usize| format!("state {i}").into_bytes();
    let backup = |repo: &Repository, i: usize, full: bool| {
        let file = source.join("file");
        std::fs::write(&file, state(i)).unwrap();
        let written = SystemTime::UNIX_EPOCH + Duration::from_secs(1_400_000_000 + i as u64);
        std::fs::File::options().write(true).open(&file).unwrap().set_modified(written).unwrap();
        repo.backup(full, &source, times[i]);
    };
    backup(&repo, 0, true);
    repo.set_mode(Mode::Key(old_key));
    backup(&repo, 1, true);
    backup(&repo, 2, false);
    repo.set_mode(Mode::Key(new_key));
    backup(&repo, 3, false);
    repo.set_mode(Mode::Symmetric("second".to_owned()));
    backup(&repo, 4, true);

    let url = repo.url();
    let dupfs = exec::Dupfs::new(&scratch.dir("home")).option("--no-index");
    let first = dupfs.clone().passphrase("first");
    // The dupfs to read with, and for each snapshot the content or a part of the reason.
    let wrong = "the passphrase that was given is wrong";
    let to_key = "encrypted to key 0x";
    type Expected<'a> = [Result<(), &'a str>; 5];
    let cases: [(&str, exec::Dupfs, Expected<'_>); 5] = [
        ("the first passphrase", first.clone(), [Ok(()), Err(to_key), Err(to_key), Err(to_key), Err(wrong)]),
        ("the old key", first.clone().secret_key(&old), [Ok(()), Ok(()), Ok(()), Err(to_key), Err(wrong)]),
        ("the new key", first.clone().secret_key(&new), [Ok(()), Err(to_key), Err(to_key), Err(to_key), Err(wrong)]),
        ("both keys", first.secret_key(&old).secret_key(&new), [Ok(()), Ok(()), Ok(()), Ok(()), Err(wrong)]),
        (
            "the second passphrase",
            dupfs.clone().passphrase("second"),
            [Err(wrong), Err(to_key), Err(to_key), Err(to_key), Ok(())],
        ),
    ];
    for (what, dupfs, expected) in cases {
        let mount = Mount::new(&dupfs, &url, &scratch.path().join("mnt"));
        for (i, expected) in expected.iter().enumerate() {
            let name = stamp(times[i]);
            let read = std::fs::read(mount.path().join("snapshots").join(&name).join("file"));
            let output = exec::output(dupfs.command("cat").args(["--time", &name, &url, "file"]));
            let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
            match expected {
                Ok(()) => {
                    assert_eq!(read.unwrap(), state(i), "{what}, {name}");
                    assert_eq!((output.stdout, stderr), (state(i), String::new()), "{what}, {name}");
                }
                Err(reason) => {
                    assert_eq!(read.unwrap_err().raw_os_error(), Some(libc::ENOKEY), "{what}, {name}");
                    assert_eq!(output.status.code(), Some(5), "{what}, {name}: {stderr}");
                    assert!(stderr.contains(reason) && stderr.contains("duplicity-"), "{what}, {name}: {stderr}");
                }
            }
        }
        let latest_opens = expected[4].is_ok();
        let log = mount.log();
        assert_eq!(log.contains("other snapshots can be read, such as snapshots/"), !latest_opens, "{what}: {log}");
        mount.unmount();
        // One line for each reason.
        let output = exec::output(dupfs.command("sets").arg(&url));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(output.status.code(), Some(5), "{what}: {text}");
        for reason in expected.iter().filter_map(|expected| expected.err()) {
            assert!(text.contains(reason), "{what}: {reason}: {text}");
        }
    }

    // The last set of the only chain does not open with the old key, and only that set opens with the new one.
    let lone = scratch.dir("lone");
    for entry in std::fs::read_dir(repo.dir()).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if times[1..4].iter().any(|time| name.contains(&stamp(*time))) {
            std::fs::copy(entry.path(), lone.join(name)).unwrap();
        }
    }
    let lone = format!("file://{}", lone.display());
    let mount = Mount::new(&dupfs.clone().passphrase("first").secret_key(&old), &lone, &scratch.path().join("mnt"));
    let newest = mount.path().join("snapshots").join(stamp(times[2]));
    assert_eq!(std::fs::read(newest.join("file")).unwrap(), state(2));
    mount.unmount();
    let (code, stderr) = dupfs.passphrase("first").secret_key(&new).fails("cat", &[&lone, "file"]);
    let of_base = format!("duplicity-full-signatures.{}.sigtar.gpg: encrypted to key 0x", stamp(times[1]));
    assert!(code == Some(5) && stderr.contains(&of_base), "{code:?} {stderr}");
}
