//! Stores that an attacker with write access but without a key has changed: content that does not match its name.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
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

/// The archive of a set that was made seconds later, when only metadata had changed, contradicts neither the manifest nor
/// the clock.
#[test]
fn metadata_of_an_exchanged_signature_archive_is_replaced_by_that_of_the_volumes() {
    let scratch = Scratch::new();
    let source = scratch.dir("source");
    for (name, mode) in [("secret", 0o600), ("other", 0o644)] {
        fs::write(source.join(name), format!("content of {name}\n")).unwrap();
        fs::set_permissions(source.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    fs::create_dir(source.join("dir")).unwrap();
    let repo = Repository::new("3.2.1", |_| Mode::Symmetric(PASSPHRASE.to_owned()), &scratch.dir("r"));
    repo.backup(true, &source, TIME);
    fs::set_permissions(source.join("secret"), fs::Permissions::from_mode(0o666)).unwrap();
    fs::set_permissions(source.join("dir"), fs::Permissions::from_mode(0o777)).unwrap();
    repo.backup(true, &source, TIME + 60);
    let dupfs = repo.reader().option("--no-index");
    super::verify::finds_nothing(&dupfs, &repo.url());
    let modes = || -> Vec<(String, String)> {
        let listed = dupfs.run("ls", &["-l", "--json", "--time", &TIME.to_string(), &repo.url()]);
        let listed: serde_json::Value = serde_json::from_slice(&listed).unwrap();
        let entries = listed.as_array().unwrap().iter();
        entries.map(|entry| (entry["path"].as_str().unwrap().to_owned(), entry["mode"].to_string())).collect()
    };
    let mode = |modes: &[(String, String)], name: &str| {
        modes.iter().find(|(path, _)| path.ends_with(name)).map(|(_, mode)| mode.clone()).unwrap()
    };
    let genuine = modes();
    let mut archives = objects(repo.dir(), "sigtar");
    archives.sort();
    let [first, second] = &archives[..] else { panic!("two signature archives") };
    fs::copy(second, first).unwrap();
    let shown = modes();
    for name in ["secret", "other"] {
        assert_eq!(mode(&shown, name), mode(&genuine, name), "{name}");
    }
    // A directory has no data that a read could fetch: only `verify` compares it.
    assert_ne!(mode(&shown, "dir"), mode(&genuine, "dir"));
    let output = exec::output(dupfs.command("verify").args(["--json", &repo.url()]));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let [finding] = &report["findings"].as_array().unwrap()[..] else { panic!("one finding: {report}") };
    assert_eq!((&finding["kind"], &finding["damaged"]), (&"members".into(), &true.into()), "{finding}");
    let paths = finding["paths"].as_array().unwrap().iter();
    let paths: Vec<_> = paths.map(|path| path["path"].as_str().unwrap()).collect();
    assert_eq!(paths, ["dir", "secret"], "{finding}");
    assert_eq!(output.status.code(), Some(6), "{report}");
}
