//! Stores that an attacker with write access but without a key has changed: content that does not match its name.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;

use crate::support::duplicity::{Mode, Repository};
use crate::support::mount::Mount;
use crate::support::source;
use crate::support::{Scratch, exec};

const TIME: i64 = 1_700_000_000;
const PASSPHRASE: &str = "the owner's passphrase";

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = GzEncoder::new(Vec::new(), Compression::fast());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

/// The objects in `dir` whose name has `part` in it.
fn objects(dir: &Path, part: &str) -> Vec<PathBuf> {
    let all = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    all.filter(|path| path.to_string_lossy().contains(part)).collect()
}

/// The objects of a gzip backup of another tree under the names of an encrypted backup: volumes and signature
/// archives are gzip, and `manifest` makes the stored manifest from its text.
fn forgery(scratch: &Scratch, manifest: fn(&[u8]) -> Vec<u8>, suffix: &str) -> PathBuf {
    let states = source::small(scratch.path());
    let repo = Repository::new("3.2.1", |_| Mode::Gzip, &scratch.dir("forger"));
    repo.backup(true, &states[1], TIME);
    for object in objects(repo.dir(), "duplicity") {
        let bytes = fs::read(&object).unwrap();
        let name = object.to_string_lossy().into_owned();
        let (stem, bytes) = match name.strip_suffix(".gz") {
            Some(stem) => (stem.to_owned(), bytes),
            None => (name.clone(), manifest(&bytes)),
        };
        fs::remove_file(&object).unwrap();
        fs::write(format!("{stem}{suffix}"), bytes).unwrap();
    }
    repo.dir().to_owned()
}

#[test]
fn plaintext_under_encrypted_names_is_damage() {
    for (manifest, suffix) in
        [(gzip as fn(&[u8]) -> Vec<u8>, ".gpg"), (gzip, ".GPG"), (|text| text.to_vec(), ".gpg"), (gzip, ".Gpg")]
    {
        let scratch = Scratch::new();
        let forged = forgery(&scratch, manifest, suffix);
        let url = format!("file://{}", forged.display());
        let dupfs = exec::Dupfs::new(&scratch.dir("home")).passphrase(PASSPHRASE).option("--no-index");
        for (command, operands) in [("cat", vec![&*url, "dir/edited"]), ("ls", vec![&*url])] {
            let (code, stderr) = dupfs.fails(command, &operands);
            assert_eq!(code, Some(6), "{command}, {suffix}: {stderr}");
            assert!(stderr.contains("named as encrypted"), "{command}, {suffix}: {stderr}");
        }
        let mount = Mount::new(&dupfs, &url, &scratch.path().join("mnt"));
        let error = fs::read_dir(mount.path().join("latest")).map(drop).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EIO), "{suffix}: {error}");
        mount.unmount();
        let output = exec::output(dupfs.command("sets").arg(&url));
        let shown = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(!shown.contains("no problems found"), "{suffix}: {shown}");
        assert!(shown.contains("named as encrypted"), "{suffix}: {shown}");
    }
}

#[test]
fn forged_parts_of_a_genuine_backup_are_not_used() {
    let scratch = Scratch::new();
    let forged = forgery(&scratch, gzip, ".gpg");
    let states = source::small(&scratch.dir("owner"));
    let repo = Repository::new("3.2.1", |_| Mode::Symmetric(PASSPHRASE.to_owned()), &scratch.dir("r"));
    repo.backup(true, &states[0], TIME);
    let dupfs = repo.reader().option("--no-index");
    let listing = |dupfs: &exec::Dupfs| dupfs.run("ls", &["-R", "-l", "--json", &repo.url()]);
    let genuine = listing(&dupfs);

    // The signature archive: the tree is the genuine one, from the volumes.
    let [signatures] = &objects(repo.dir(), "sigtar")[..] else { panic!("one signature archive") };
    let stored = fs::read(signatures).unwrap();
    let planted = fs::read(forged.join(signatures.file_name().unwrap())).unwrap();
    let mut plain = Vec::new();
    GzDecoder::new(&*planted).read_to_end(&mut plain).unwrap();
    for content in [planted, plain] {
        fs::write(signatures, content).unwrap();
        let entries = |listing: &[u8]| -> Vec<(String, String)> {
            let all: serde_json::Value = serde_json::from_slice(listing).unwrap();
            let all = all.as_array().unwrap().iter();
            let mut all: Vec<_> =
                all.map(|entry| (entry["path"].to_string(), format!("{} {}", entry["type"], entry["mode"]))).collect();
            all.sort();
            all
        };
        assert_eq!(entries(&listing(&dupfs)), entries(&genuine), "a planted signature archive is listed");
    }
    fs::write(signatures, stored).unwrap();

    // A volume: reads of its content are errors.
    for volume in objects(repo.dir(), "difftar") {
        let Ok(planted) = fs::read(forged.join(volume.file_name().unwrap())) else { continue };
        fs::write(&volume, planted).unwrap();
    }
    let (code, stderr) = dupfs.fails("cat", &[&repo.url(), "dir/edited"]);
    assert_eq!(code, Some(6), "{stderr}");
}

/// No key opens it, and the tree is still shown.
#[test]
fn a_signature_archive_with_another_passphrase_is_replaced_by_the_volumes() {
    let scratch = Scratch::new();
    let states = source::small(&scratch.dir("owner"));
    let repo = Repository::new("3.2.1", |_| Mode::Symmetric(PASSPHRASE.to_owned()), &scratch.dir("r"));
    repo.backup(true, &states[0], TIME);
    let dupfs = repo.reader().option("--no-index");
    let genuine = dupfs.run("ls", &["-R", &repo.url()]);
    let [signatures] = &objects(repo.dir(), "sigtar")[..] else { panic!("one signature archive") };
    let (plain, planted) = (scratch.path().join("plain"), scratch.path().join("planted"));
    fs::write(&plain, b"").unwrap();
    let mut gpg = repo.gpg_home().gpg("another passphrase");
    exec::run(gpg.arg("--output").arg(&planted).arg("--symmetric").arg(&plain));
    fs::copy(&planted, signatures).unwrap();
    let output = exec::output(dupfs.command("ls").args(["-R", &repo.url()]));
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.stdout == genuine, "{stderr}");
    assert!(
        stderr.contains("the passphrase that was given is wrong") && stderr.contains("rebuilt from the headers"),
        "{stderr}"
    );
}
