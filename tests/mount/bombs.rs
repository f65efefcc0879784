//! Backups with an object that was made to keep readers busy. A public key and write access to the store suffice for
//! it.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use dupfs_test_tar::{TestHeader, put, put_entry};
use flate2::Compression;

use crate::crafted::{Deflated, SIGNATURE, deflate_piece, encrypt, literal, outcome, sha1};
use crate::support::mount::Mount;
use crate::support::{Scratch, exec, fixtures};

const TIME: &str = "20260101T000000Z";
/// Far longer than any step.
const PLENTY: Duration = Duration::from_secs(60);

/// The objects of a full set with the files `f` in its first volume and `g` in its second, before they are packed.
struct Plain {
    manifest: Vec<u8>,
    signatures: Vec<u8>,
    volumes: [Vec<u8>; 2],
}

impl Plain {
    /// `hashes` are those of the volumes as they are stored.
    fn new(hashes: [String; 2]) -> Self {
        let mut manifest = b"Hostname h\nLocaldir /d\n".to_vec();
        for (number, (hash, path)) in (1..).zip(hashes.iter().zip(["f", "g"])) {
            let volume = format!(
                "Volume {number}:\n    StartingPath   {path}  \n    EndingPath     {path}  \n    Hash SHA1 {hash}\n"
            );
            manifest.extend(volume.bytes());
        }
        let mut signatures = Vec::new();
        put(&mut signatures, &mut TestHeader::new(b"snapshot/", b'5', 0), b"");
        for path in ["f", "g"] {
            put_entry(&mut signatures, format!("signature/{path}").as_bytes(), b'0', SIGNATURE);
        }
        signatures.resize(signatures.len() + 1024, 0);
        Self { manifest, signatures, volumes: Self::volumes() }
    }

    fn volumes() -> [Vec<u8>; 2] {
        let mut volumes = [Vec::new(), Vec::new()];
        put(&mut volumes[0], &mut TestHeader::new(b"snapshot/./", b'5', 0), b"");
        for (volume, path) in volumes.iter_mut().zip(["f", "g"]) {
            put_entry(volume, format!("snapshot/{path}").as_bytes(), b'0', b"hello\n");
        }
        volumes
    }

    fn store(&self, dir: &Path, suffixes: [&str; 2], mut pack: impl FnMut(&str, &[u8]) -> Vec<u8>) {
        let [of_manifest, suffix] = suffixes;
        let mut write = |name: String, plain: &[u8]| fs::write(dir.join(&name), pack(&name, plain)).unwrap();
        write(format!("duplicity-full.{TIME}.manifest{of_manifest}"), &self.manifest);
        write(format!("duplicity-full-signatures.{TIME}.sigtar{suffix}"), &self.signatures);
        for (number, volume) in (1..).zip(&self.volumes) {
            write(format!("duplicity-full.{TIME}.vol{number}.difftar{suffix}"), volume);
        }
    }
}

/// Three compressed packets, one within the other, around `plain` and more than 10^13 times `filler`.
fn nested_bomb(plain: &[u8], filler: u8) -> Vec<u8> {
    let (mut start, mut unit) = (literal(plain), vec![filler; 1 << 20]);
    for _ in 0..3 {
        start = [&[0xa3, 1][..], &deflate_piece(&start)].concat();
        let pieces = (1 << 20) / unit.len();
        unit = deflate_piece(&unit.repeat(pieces.max(1)));
    }
    [start, unit.repeat(200)].concat()
}

/// An encrypted backup in which the object with `bomb` in its name is a bomb, and a program that has the key.
fn encrypted_backup(scratch: &Scratch, bomb: &str) -> (exec::Dupfs, String) {
    let dir = scratch.dir("repo");
    let pack = |name: &str, plain: &[u8]| {
        let filler = if name.contains("manifest") { b'\n' } else { 0 };
        encrypt(&if name.contains(bomb) { nested_bomb(plain, filler) } else { literal(plain) })
    };
    let names = ["vol1", "vol2"];
    let mut stored = names.iter().zip(Plain::volumes()).map(|(name, volume)| pack(name, &volume));
    let stored = [stored.next().unwrap(), stored.next().unwrap()];
    Plain::new(stored.each_ref().map(|bytes| sha1(bytes))).store(&dir, [".gpg", ".gpg"], |name, plain| {
        match names.iter().position(|volume| name.contains(volume)) {
            Some(number) => stored[number].clone(),
            None => pack(name, plain),
        }
    });
    let size = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).max().unwrap();
    assert!(size < 2 << 20, "{size}");
    let dupfs = exec::Dupfs::new(&scratch.dir("home")).secret_key(&fixtures::path("keys/rsa.secret.asc"));
    (dupfs.option("--no-index"), format!("file://{}", dir.display()))
}

const REASON: &str = "damaged: compressed data within compressed data";

#[test]
fn a_manifest_that_is_a_bomb_is_damaged_for_every_command() {
    let scratch = Scratch::new();
    let (dupfs, url) = encrypted_backup(&scratch, "manifest");
    let reason = format!("duplicity-full.{TIME}.manifest.gpg: {REASON}");
    let (code, out, err) = outcome(&dupfs, "sets", &[&url]);
    assert!(code == Some(0) && out.contains(&reason), "{code:?} {out} {err}");
    let (code, out, err) = outcome(&dupfs, "sets", &["--check", &url]);
    assert!(code == Some(6) && out.contains(&reason), "{code:?} {out} {err}");
    let (code, out, err) = outcome(&dupfs, "ls", &[&url]);
    assert!(code == Some(0) && out == "f\ng\n" && err.contains(&reason), "{code:?} {out} {err}");
    for (command, operands) in [("ls", vec!["-l", &url]), ("cat", vec![&url, "f"])] {
        let (code, out, err) = outcome(&dupfs, command, &operands);
        assert!(code == Some(6) && err.contains(&reason), "{command}: {code:?} {out} {err}");
    }
    let mount = Mount::new(&dupfs, &url, &scratch.path().join("mnt"));
    let error = fs::read(mount.path().join("latest/f")).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EIO), "{error}");
    assert!(mount.log().contains(&reason), "{}", mount.log());
    mount.unmount();
}

#[test]
fn a_signature_archive_that_is_a_bomb_is_replaced_by_the_volumes() {
    let scratch = Scratch::new();
    let (dupfs, url) = encrypted_backup(&scratch, "sigtar");
    let (code, out, err) = outcome(&dupfs, "ls", &[&url]);
    let reason = format!("duplicity-full-signatures.{TIME}.sigtar.gpg: {REASON}");
    assert!(code == Some(0) && out == "f\ng\n" && err.contains(&reason), "{code:?} {out} {err}");
    assert_eq!(outcome(&dupfs, "cat", &[&url, "f"]).1, "hello\n");
    assert_eq!(outcome(&dupfs, "sets", &["--check", &url]).0, Some(0), "sets reads no signature archive");
    let mount = Mount::new(&dupfs, &url, &scratch.path().join("mnt"));
    assert_eq!(fs::read(mount.path().join("latest/g")).unwrap(), b"hello\n");
    mount.unmount();
}

#[test]
fn a_volume_that_is_a_bomb_affects_only_its_files() {
    let scratch = Scratch::new();
    let (dupfs, url) = encrypted_backup(&scratch, "vol1");
    let reason = format!("duplicity-full.{TIME}.vol1.difftar.gpg: {REASON}");
    let (code, out, err) = outcome(&dupfs, "cat", &[&url, "f", "g"]);
    assert!(code == Some(6) && out == "hello\n" && err.contains(&reason), "{code:?} {out} {err}");
    let (code, out, err) = outcome(&dupfs, "ls", &["-l", &url]);
    assert!(code == Some(6) && out.lines().count() == 2 && err.contains(&reason), "{code:?} {out} {err}");
    assert_eq!(outcome(&dupfs, "sets", &["--check", &url]).0, Some(0), "sets reads no volume");
    let mount = Mount::new(&dupfs, &url, &scratch.path().join("mnt"));
    for _ in 0..2 {
        let error = fs::read(mount.path().join("latest/f")).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EIO), "{error}");
        assert_eq!(fs::read(mount.path().join("latest/g")).unwrap(), b"hello\n");
    }
    assert!(mount.log().contains(&reason), "{}", mount.log());
    mount.unmount();
}

/// A gzip backup whose first volume is a tar archive followed by some 60 GB of zeros, which is within the limit on
/// expansion and beyond a short deadline. Its manifest has the right hash.
fn slow_backup(scratch: &Scratch) -> PathBuf {
    let dir = scratch.dir("repo");
    let gzip = |pieces: &[&[u8]]| [&b"\x1f\x8b\x08\0\0\0\0\0\0\x03"[..], &pieces.concat()].concat();
    let whole = |plain: &[u8]| {
        let mut out = flate2::write::GzEncoder::new(Vec::new(), Compression::fast());
        out.write_all(plain).unwrap();
        out.finish().unwrap()
    };
    let [first, second] = Plain::volumes();
    let slow = gzip(&[&deflate_piece(&first), &deflate_piece(&vec![0; 1 << 20]).repeat(60_000)]);
    let hashes = [sha1(&slow), sha1(&whole(&second))];
    Plain::new(hashes).store(&dir, ["", ".gz"], |name, plain| match name {
        name if name.contains("manifest") => plain.to_vec(),
        name if name.contains("vol1") => slow.clone(),
        _ => whole(plain),
    });
    dir
}

/// True if a thread of `pid` decodes a volume.
fn is_decoding(pid: u32) -> bool {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    threads
        .filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("comm")).ok())
        .any(|name| name.starts_with("dupfs-volume") || name.starts_with("dupfs-decrypt"))
}

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PLENTY, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_volume_that_takes_longer_than_the_deadline_stops_and_is_not_decoded_at_each_read() {
    let scratch = Scratch::new();
    let url = format!("file://{}", slow_backup(&scratch).display());
    let dupfs = exec::Dupfs::new(&scratch.dir("home")).option("--no-index").option("--deadline=2");
    // The beginning of the volume is proved by the signature.
    let beginning = outcome(&dupfs, "cat", &[&url, "f"]);
    assert_eq!((beginning.0, beginning.1.as_str()), (Some(0), "hello\n"), "{}", beginning.2);
    let dupfs = dupfs.option("--verify=volume");
    let volume = format!("duplicity-full.{TIME}.vol1.difftar.gz: ");
    for (command, operands) in [("cat", vec![&*url, "f"]), ("ls", vec!["-l", &url])] {
        let (code, out, err) = outcome(&dupfs, command, &operands);
        assert!(
            code == Some(6) && err.contains(&volume) && err.contains("deadline"),
            "{command}: {code:?} {out} {err}"
        );
    }
    let mount = Mount::new(&dupfs, &url, &scratch.path().join("mnt"));
    let read = |name: &str| fs::read(mount.path().join("latest").join(name)).map_err(|e| e.raw_os_error());
    assert_eq!(read("f"), Err(Some(libc::ETIMEDOUT)));
    // On a busy machine the delay until the next attempt may be over before the read. The delay doubles each time.
    wait_until("it is decoded again at each read", || {
        wait_until("a pass without waiters continues", || !is_decoding(mount.pid()));
        assert_eq!(read("f"), Err(Some(libc::ETIMEDOUT)));
        !is_decoding(mount.pid()) && mount.log().contains(&format!("{volume}decoding it was stopped after "))
    });
    assert_eq!(read("g").unwrap(), b"hello\n");

    mount.unmount();
}

#[test]
fn an_archive_without_encryption_proves_nothing_of_a_set_with_an_encrypted_manifest() {
    let scratch = Scratch::new();
    let dir = slow_backup(&scratch);
    let url = format!("file://{}", dir.display());
    let manifest = dir.join(format!("duplicity-full.{TIME}.manifest"));
    let encrypted = Deflated::new(&fs::read(&manifest).unwrap()).encrypted();
    fs::write(dir.join(format!("duplicity-full.{TIME}.manifest.gpg")), encrypted).unwrap();
    fs::remove_file(manifest).unwrap();
    // Anyone who can write to the store can have made the archive and the volume.
    let dupfs = exec::Dupfs::new(&scratch.dir("home")).option("--no-index").option("--deadline=2");
    let dupfs = dupfs.secret_key(&fixtures::path("keys/rsa.secret.asc"));
    let (code, out, err) = outcome(&dupfs, "cat", &[&url, "f"]);
    assert!(code == Some(6) && out.is_empty() && err.contains("deadline"), "{code:?} {out} {err}");
}
