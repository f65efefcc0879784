//! What gpg can do to a volume: compressions, ciphers, several and hidden recipients, signatures, and a rotated key.

use std::path::PathBuf;

use crate::check;
use crate::support::Scratch;
use crate::support::duplicity::{Mode, Repository};
use crate::support::exec;
use crate::support::gpg::Key;
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
fn compressed_by_zlib_under_3des() {
    symmetric("--compress-algo=zlib --cipher-algo=3DES");
}

#[test]
fn not_compressed_under_camellia() {
    symmetric("--compress-algo=none --cipher-algo=CAMELLIA256");
}

#[test]
fn armoured_under_twofish() {
    symmetric("--armor --cipher-algo=TWOFISH --s2k-digest-algo=SHA512");
}

#[test]
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
    assert!(!error.contains("a wrong one"), "the passphrase is told:\n{error}");

    // Several passphrases are tried in turn.
    let file = scratch.path().join("passphrases");
    std::fs::write(&file, "a wrong one\nthe right one\nanother\n").unwrap();
    let dupfs = exec::Dupfs::new(&scratch.dir("home")).option("--passphrase-file").option(file.to_str().unwrap());
    assert_eq!(exec::run(dupfs.command("cat").args([&repo.url(), "a file"])), b"hello\n");
    assert_eq!(states.len(), 3);
}
