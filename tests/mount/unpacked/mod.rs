//! `unpacked/` through the kernel over a real backup, compared with the output of GNU tar, gunzip, bunzip2, xz, zstd
//! and unzip.
//!
//! Needs root (owners, devices), duplicity, /dev/fuse, the archivers, MariaDB and psql, which `scripts/test` installs.

mod databases;
mod decoder_memory;
mod fairness;
mod hostile;
mod programs;
mod secrecy;
mod trees;
mod unknown_sizes;
mod zips;

use std::ffi::OsStr;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use memchr::memmem;

use crate::support::duplicity::{Mode, Repository};
use crate::support::mount::Mount;
use crate::support::{Scratch, exec};

const TIME: i64 = 1_700_000_000;

/// A backup of `source`, mounted.
struct Backup {
    mount: Option<Mount>,
    scratch: Scratch,
}

impl Backup {
    /// Backs up the files that `make` writes into a directory, and mounts the backup.
    fn of(make: impl FnOnce(&Path)) -> Self {
        Self::with_options(&[], make)
    }

    /// As [`Self::of`], with more options of `dupfs mount`.
    fn with_options(options: &[&str], make: impl FnOnce(&Path)) -> Self {
        let scratch = Scratch::new();
        make(&scratch.dir("source"));
        let repo = Repository::new("3.2.1", |_| Mode::Symmetric("p".to_owned()), &scratch.dir("r"));
        repo.backup(true, &scratch.dir("source"), TIME);
        let reader = options.iter().fold(repo.reader(), |reader, option| reader.option(option));
        let mount = Mount::new(&reader, &repo.url(), &scratch.path().join("mnt"));
        Self { mount: Some(mount), scratch }
    }

    /// `name` below `unpacked/latest`.
    fn at(&self, name: &str) -> PathBuf {
        self.scratch.path().join("mnt/unpacked/latest").join(name)
    }

    /// `name` in the source.
    fn source(&self, name: &str) -> PathBuf {
        self.scratch.path().join("source").join(name)
    }

    /// An empty directory for it alone.
    fn empty(&self, name: &str) -> PathBuf {
        self.scratch.dir(name)
    }

    /// Returns the log of the mount.
    fn log(&self) -> String {
        self.mount.as_ref().unwrap().log()
    }

    /// Unmounts, and requires that `secret` is nowhere in the cache directory.
    fn end(mut self, secret: &[u8]) {
        self.mount.take().unwrap().unmount();
        for file in files_below(&self.scratch.dir("r").join("dupfs-home")) {
            let bytes = fs::read(&file).unwrap();
            assert!(memmem::find(&bytes, secret).is_none(), "{} holds decoded data", file.display());
        }
    }
}

fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().unwrap().is_dir() {
            found.extend(files_below(&entry.path()));
        } else if entry.file_type().unwrap().is_file() {
            found.push(entry.path());
        }
    }
    found
}

/// Runs a program in `dir` and requires success.
fn run(dir: &Path, program: &str, args: &[&str]) -> Vec<u8> {
    exec::run(Command::new(program).args(args).current_dir(dir).env("LC_ALL", "C.UTF-8").env("TZ", "UTC"))
}

/// Returns the output of `program` for the input `bytes`.
fn pipe(bytes: &[u8], program: &str, args: &[&str]) -> Vec<u8> {
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("cannot start {program}: {error}; scripts/test installs it"));
    let mut stdin = child.stdin.take().unwrap();
    let bytes = bytes.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&bytes));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success(), "{program} {args:?}");
    output.stdout
}

/// Sorted names in `dir`.
fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let mut names: Vec<String> = entries.map(|e| text(&e.unwrap().file_name())).collect();
    names.sort();
    names
}

/// A name, readable.
fn text(name: &OsStr) -> String {
    name.to_string_lossy().into_owned()
}
