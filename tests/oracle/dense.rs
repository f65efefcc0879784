//! The densest honest backup: a file of zeros, whose volume expands 460 times with gzip, and 25,000 times with the bzip2 of
//! gpg. The limits that stop decompression bombs leave it readable in every way.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::Stdio;

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::support::Scratch;
use crate::support::duplicity::{Mode, Repository, stamp};
use crate::support::exec::Dupfs;
use crate::support::mount::Mount;

const TIME: i64 = 1_700_000_000;
const PASSPHRASE: &str = "the owner's passphrase";
const LEN: u64 = 200_000_000;

/// Requires that `input` has exactly [`LEN`] zeros.
fn require_zeros(what: &str, mut input: impl Read) {
    let (mut buf, mut len) = (vec![0xff; 1 << 20], 0);
    loop {
        let n = input.read(&mut buf).unwrap_or_else(|error| panic!("{what}: {error} after {len} bytes"));
        if n == 0 {
            break;
        }
        assert!(buf[..n].iter().all(|byte| *byte == 0), "{what}: another byte after {len}");
        len += n as u64;
    }
    assert_eq!(len, LEN, "{what}");
}

fn require_file(what: &str, path: &Path) {
    assert_eq!(fs::metadata(path).unwrap_or_else(|error| panic!("{what}: {error}")).len(), LEN, "{what}: the size");
    require_zeros(what, File::open(path).unwrap());
}

/// Requires that `dupfs cat` gives the zeros of the repository at `url`.
fn require_cat(what: &str, dupfs: &Dupfs, url: &str) {
    let mut child = dupfs.command("cat").args([url, "zeros"]).stdout(Stdio::piped()).spawn().unwrap();
    require_zeros(what, child.stdout.take().unwrap());
    assert!(child.wait().unwrap().success(), "{what}");
}

/// Removes the objects of `dir` whose names have `part` in them.
fn remove(dir: &Path, part: &str) {
    let objects: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    let removed = objects.iter().filter(|path| path.to_string_lossy().contains(part)).map(fs::remove_file);
    assert!(removed.map(Result::unwrap).count() > 0, "{part}");
}

#[test]
fn a_file_of_zeros_is_readable_in_every_way() {
    let by_gpg = (Mode::Symmetric(PASSPHRASE.to_owned()), "--gpg-options=--compress-algo=bzip2");
    let by_gzip = (Mode::Gzip, "--no-print-statistics");
    // The long runs include gzip, whose ratio is far below that of bzip2.
    let runs = if std::env::var_os("DUPFS_TEST_ROUNDS").is_some() { 2 } else { 1 };
    for (mode, option) in [by_gpg, by_gzip].into_iter().take(runs) {
        let name = if matches!(mode, Mode::Gzip) { "gzip" } else { "gpg" };
        let scratch = Scratch::new();
        let source = scratch.dir("source");
        File::create(source.join("zeros")).unwrap().set_len(LEN).unwrap();
        let mut packed = GzEncoder::new(File::create(source.join("packed.gz")).unwrap(), Compression::fast());
        io::copy(&mut io::repeat(0).take(LEN), &mut packed).unwrap();
        packed.finish().unwrap().flush().unwrap();
        let repo = Repository::new("3.2.1", |_| mode, &scratch.dir("r")).option(option);
        repo.backup(true, &source, TIME);
        fs::write(source.join("later"), b"later\n").unwrap();
        repo.backup(false, &source, TIME + 3600);
        let stored: u64 = fs::read_dir(repo.dir()).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum();
        assert!(stored < LEN / 100, "{name}: {stored} bytes are stored");

        let dupfs = repo.reader().option("--no-index");
        let mount = Mount::new(&dupfs, &repo.url(), &scratch.path().join("mnt"));
        let at = |path: &str| mount.path().join(path);
        require_file(name, &at("latest/zeros"));
        for path in ["at/now/zeros".to_owned(), format!("versions/zeros/{}", stamp(TIME))] {
            assert_eq!(fs::metadata(at(&path)).unwrap().len(), LEN, "{name}: {path}");
        }
        require_file(&format!("{name}, unpacked"), &at("unpacked/latest/packed"));
        mount.unmount();

        require_cat(&format!("{name}, cat"), &dupfs, &repo.url());
        require_cat(&format!("{name}, any hash"), &dupfs.clone().option("--ignore-volume-hash"), &repo.url());
        remove(repo.dir(), "manifest");
        require_cat(&format!("{name}, without manifests"), &dupfs.clone().option("--rebuild"), &repo.url());
    }
}

#[test]
fn a_file_of_zeros_is_readable_without_signature_archives() {
    let scratch = Scratch::new();
    let source = scratch.dir("source");
    File::create(source.join("zeros")).unwrap().set_len(LEN).unwrap();
    let repo = Repository::new("0.8.22", |_| Mode::Symmetric(PASSPHRASE.to_owned()), &scratch.dir("r"));
    repo.backup(true, &source, TIME);
    remove(repo.dir(), "sigtar");
    require_cat("without a signature archive", &repo.reader().option("--no-index"), &repo.url());
}
