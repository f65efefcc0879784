//! The densest ordinary backup: a file of zeros, whose volume expands 460 times with gzip, and 25,000 times with the
//! bzip2 of gpg. The limits that stop decompression bombs leave it readable in every way.

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
/// More than the limits allow every object, however small it is.
const LEN: u64 = 300_000_000;

/// Requires that `input` has exactly [`LEN`] zeros.
fn require_zeros(what: &str, mut input: impl Read) {
    let (mut buf, mut len) = (vec![0xff; 1 << 20], 0);
    let zeros = vec![0; buf.len()];
    loop {
        let n = input.read(&mut buf).unwrap_or_else(|error| panic!("{what}: {error} after {len} bytes"));
        if n == 0 {
            break;
        }
        assert!(buf[..n] == zeros[..n], "{what}: another byte after {len}");
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

/// Moves the objects of `dir` whose names have `part` in them to `to`.
fn set_aside(dir: &Path, part: &str, to: &Path) {
    let objects: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    let moved = objects.iter().filter(|path| path.to_string_lossy().contains(part));
    let moved = moved.map(|path| fs::rename(path, to.join(path.file_name().unwrap())).unwrap());
    assert!(moved.count() > 0, "{part}");
}

/// The long runs (`DUPFS_TEST_ROUNDS`) include bzip2 and plain gzip.
#[test]
fn a_file_of_zeros_is_readable_in_every_way() {
    let encrypted = || Mode::Symmetric(PASSPHRASE.to_owned());
    let mut forms = vec![("zlib", encrypted(), "--gpg-options=--compress-algo=zlib")];
    if std::env::var_os("DUPFS_TEST_ROUNDS").is_some() {
        forms.push(("bzip2", encrypted(), "--gpg-options=--compress-algo=bzip2"));
        forms.push(("gzip", Mode::Gzip, "--no-print-statistics"));
    }
    for (name, mode, option) in forms {
        let scratch = Scratch::new();
        let source = scratch.dir("source");
        File::create(source.join("zeros")).unwrap().set_len(LEN).unwrap();
        let mut packed = GzEncoder::new(File::create(source.join("packed.gz")).unwrap(), Compression::fast());
        io::copy(&mut io::repeat(0).take(LEN), &mut packed).unwrap();
        packed.finish().unwrap().flush().unwrap();
        let repo = Repository::new("0.8.22", |_| mode, &scratch.dir("r")).option(option);
        repo.backup(true, &source, TIME);
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

        let aside = scratch.dir("aside");
        set_aside(repo.dir(), "sigtar", &aside);
        require_cat(&format!("{name}, without signature archives"), &dupfs, &repo.url());
        set_aside(&aside, "sigtar", repo.dir());
        set_aside(repo.dir(), "manifest", &aside);
        require_cat(&format!("{name}, without manifests"), &dupfs.clone().option("--rebuild"), &repo.url());
    }
}
