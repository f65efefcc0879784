//! The peak memory of the program for objects that were made to take much of it: by every command, plain and encrypted,
//! with a small `--memory`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use dupfs_test_tar::{TestHeader, put, put_entry};

use crate::crafted::{Deflated, DeflatedPiece, SIGNATURE, sha1};
use crate::support::mount::Mount;
use crate::support::{Scratch, exec, fixtures};

/// The option of every run.
const MEMORY: &str = "--memory=128M";
/// Upper bound of the peak of any process, in bytes.
const MAX_PEAK: u64 = 256 << 20;
/// Runs a program and writes the peak of its resident memory to a file, in KiB.
const MEASURE: &str = "import os, subprocess, sys\n\
    child = subprocess.Popen(sys.argv[2:])\n\
    _, status, usage = os.wait4(child.pid, 0)\n\
    open(sys.argv[1], 'w').write(str(usage.ru_maxrss))\n\
    sys.exit(os.waitstatus_to_exitcode(status) % 256)";

/// The time of the set at `position`.
fn time(position: usize) -> String {
    format!("202601{:02}T{:02}0000Z", position / 24 + 1, position % 24)
}

/// A directory of objects that are all encrypted or all compressed.
struct Backup {
    scratch: Scratch,
    is_encrypted: bool,
}

/// The objects of a full set that differ from those of a sound one.
#[derive(Default)]
struct Planted {
    manifest: Option<Deflated>,
    signatures: Option<Deflated>,
    /// Entries after that of `f` in the first volume.
    members: Vec<DeflatedPiece>,
}

/// The expected result of a run.
struct Expected {
    /// The exit code.
    code: i32,
    /// Standard output has this text.
    output: &'static str,
    /// Standard error has this text, on one line.
    message: &'static str,
}

impl Expected {
    const fn new(code: i32, output: &'static str, message: &'static str) -> Self {
        Self { code, output, message }
    }
}

impl Backup {
    fn new(is_encrypted: bool) -> Self {
        Self { scratch: Scratch::new(), is_encrypted }
    }

    fn dir(&self) -> PathBuf {
        self.scratch.dir("repo")
    }

    /// Stores an object. Returns its hash.
    fn put(&self, name: &str, content: &Deflated) -> String {
        let (suffix, stored) = if self.is_encrypted { (".gpg", content.encrypted()) } else { (".gz", content.gzip()) };
        fs::write(self.dir().join(format!("{name}{suffix}")), &stored).unwrap();
        sha1(&stored)
    }

    /// Stores a full set with `f` in its first volume and `g` in its second.
    fn put_full(&self, time: &str, planted: Planted) {
        let volumes = ["f", "g"].map(|path| {
            let mut plain = Vec::new();
            if path == "f" {
                put(&mut plain, &mut TestHeader::new(b"snapshot/./", b'5', 0), b"");
            }
            put_entry(&mut plain, format!("snapshot/{path}").as_bytes(), b'0', b"hello\n");
            Deflated::new(&plain)
        });
        let [mut first, second] = volumes;
        planted.members.iter().for_each(|piece| first.push(piece));
        let hashes = [(1, first), (2, second)]
            .map(|(number, volume)| self.put(&format!("duplicity-full.{time}.vol{number}.difftar"), &volume));
        let [f, g] = [("f", &hashes[0]), ("g", &hashes[1])].map(|(path, hash)| entry(path, path, hash));
        let manifest = Deflated::new(format!("Hostname h\nLocaldir /d\nVolume 1:\n{f}Volume 2:\n{g}").as_bytes());
        self.put(&format!("duplicity-full.{time}.manifest"), &planted.manifest.unwrap_or(manifest));
        let mut signatures = root();
        for path in ["f", "g"] {
            put_entry(&mut signatures, format!("signature/{path}").as_bytes(), b'0', SIGNATURE);
        }
        signatures.resize(signatures.len() + 1024, 0);
        let signatures = planted.signatures.unwrap_or_else(|| Deflated::new(&signatures));
        self.put(&format!("duplicity-full-signatures.{time}.sigtar"), &signatures);
    }

    /// Stores an increment after the set of `from` in which `f` is the delta whose parts are `parts`.
    fn put_increment(&self, from: &str, to: &str, signature: &[u8], parts: &Deflated) {
        let hash = self.put(&format!("duplicity-inc.{from}.to.{to}.vol1.difftar"), parts);
        let manifest = format!("Hostname h\nLocaldir /d\nVolume 1:\n{}", entry("f", "f", &hash));
        self.put(&format!("duplicity-inc.{from}.to.{to}.manifest"), &Deflated::new(manifest.as_bytes()));
        let mut signatures = root();
        put_entry(&mut signatures, b"signature/f", b'0', signature);
        signatures.resize(signatures.len() + 1024, 0);
        self.put(&format!("duplicity-new-signatures.{from}.to.{to}.sigtar"), &Deflated::new(&signatures));
    }

    fn dupfs(&self) -> exec::Dupfs {
        let dupfs = exec::Dupfs::new(&self.scratch.dir("home")).option("--no-index").option(MEMORY);
        if self.is_encrypted { dupfs.secret_key(&fixtures::path("keys/rsa.secret.asc")) } else { dupfs }
    }

    fn url(&self) -> String {
        format!("file://{}", self.dir().display())
    }

    /// Runs a command to its end and compares its result and its peak of memory.
    fn check(&self, command: &str, operands: &[&str], expected: &Expected) {
        self.check_within(MAX_PEAK, command, operands, expected);
    }

    fn check_within(&self, max_peak: u64, command: &str, operands: &[&str], expected: &Expected) {
        let peak = self.peak(command, operands, expected);
        assert!(peak < max_peak, "{command} {operands:?}: {peak} bytes");
    }

    /// Runs a command to its end and compares its result. Returns its peak of memory in bytes.
    fn peak(&self, command: &str, operands: &[&str], expected: &Expected) -> u64 {
        let start = Instant::now();
        let peak = self.scratch.path().join("peak");
        let inner = self.dupfs();
        let inner = inner.command(command);
        let mut outer = Command::new("python3");
        outer.args(["-c", MEASURE]).arg(&peak).arg(inner.get_program()).args(inner.get_args());
        outer.arg(self.url()).args(operands);
        for (name, value) in inner.get_envs() {
            match value {
                Some(value) => outer.env(name, value),
                None => outer.env_remove(name),
            };
        }
        let output = exec::output(&mut outer);
        let (out, err) = (exec::tail(&output.stdout), exec::tail(&output.stderr));
        let peak = fs::read_to_string(&peak).unwrap().parse::<u64>().unwrap() << 10;
        let time = start.elapsed();
        println!("{command} {operands:?}: {} MiB, {time:?}, {:?}\n{out}\n{err}", peak >> 20, output.status.code());
        let found = expected.message.is_empty() || err.lines().any(|line| line.contains(expected.message));
        assert!(
            output.status.code() == Some(expected.code) && out.contains(expected.output) && found,
            "{command} {operands:?}: {:?}\n{out}\n{err}",
            output.status
        );
        peak
    }

    /// Mounts it and runs `read` with its latest snapshot. Returns the log.
    fn check_mount(&self, read: impl FnOnce(&Path)) -> String {
        let mount = Mount::new(&self.dupfs(), &self.url(), &self.scratch.path().join("mnt"));
        read(&mount.path().join("latest"));
        let peak = mount.peak_memory();
        let log = mount.log();
        println!("mount: {} MiB\n{log}", peak >> 20);
        assert!(peak < MAX_PEAK, "mount: {peak} bytes");
        mount.unmount();
        log
    }
}

/// The lines of a volume in a manifest, after its number.
fn entry(start: &str, end: &str, hash: &str) -> String {
    format!("    StartingPath   {start}  \n    EndingPath     {end}  \n    Hash SHA1 {hash}\n")
}

/// The beginning of a signature archive.
fn root() -> Vec<u8> {
    let mut out = Vec::new();
    put(&mut out, &mut TestHeader::new(b"snapshot/", b'5', 0), b"");
    out
}

/// `count` entries whose long names are a number and then `tail`.
fn long_names(kind: &str, count: u32, tail: &[u8], data: &[u8]) -> Vec<DeflatedPiece> {
    let len = kind.len() + 8 + tail.len();
    let mut header = Vec::new();
    put(&mut header, &mut TestHeader::new(b"././@LongLink", b'L', len as u64 + 1), b"");
    let header = DeflatedPiece::new(&header);
    let mut rest = tail[500.min(tail.len())..].to_vec();
    rest.resize(rest.len() + (len + 1).next_multiple_of(512) - len, 0);
    let rest = DeflatedPiece::new(&rest);
    (0..count)
        .flat_map(|number| {
            let name = [format!("{kind}/{number:07}").as_bytes(), &tail[..500.min(tail.len())]].concat();
            let mut entry = Vec::new();
            put(&mut entry, &mut TestHeader::new(&name, b'0', data.len() as u64), data);
            [header.clone(), DeflatedPiece::new(&name), rest.clone(), DeflatedPiece::new(&entry)]
        })
        .collect()
}

fn signatures(entries: &[DeflatedPiece]) -> Option<Deflated> {
    let mut out = Deflated::new(&root());
    entries.iter().for_each(|piece| out.push(piece));
    out.put(&[0; 1024]);
    Some(out)
}

/// `ls` shows both files, with `message`; both are read, and so they are in a mount. `sets --check` ends with `sets_codes` for
/// the plain and the encrypted form: it compares only encrypted archives with their manifests.
fn check_that_volumes_replace_the_signatures(entries: &[DeflatedPiece], message: &'static str, sets_codes: [i32; 2]) {
    for (is_encrypted, sets_code) in [false, true].into_iter().zip(sets_codes) {
        let backup = Backup::new(is_encrypted);
        backup.put_full(&time(0), Planted { signatures: signatures(entries), ..Planted::default() });
        let report = if sets_code == 0 { "1 archive" } else { "it was exchanged" };
        backup.check("sets", &["--check"], &Expected::new(sets_code, report, ""));
        backup.check("ls", &[], &Expected::new(0, "f\ng\n", message));
        backup.check("cat", &["f", "g"], &Expected::new(0, "hello\nhello\n", message));
        let log = backup.check_mount(|latest| {
            assert_eq!(fs::read_dir(latest).unwrap().count(), 2);
            assert_eq!(fs::read(latest.join("g")).unwrap(), b"hello\n");
        });
        assert!(log.contains(message), "{log}");
    }
}

const HEADER: &str = "an extension header at byte 512 is larger than the 65536 bytes that are accepted";
const REBUILT: &str = "raise --memory; the tree of this set is rebuilt from the headers in its volumes";

#[test]
fn a_signature_archive_with_names_of_500_000_directories() {
    check_that_volumes_replace_the_signatures(&long_names("snapshot", 20, &b"/a".repeat(500_000), b""), HEADER, [0, 0]);
}

#[test]
fn a_signature_archive_with_names_of_a_million_bytes() {
    check_that_volumes_replace_the_signatures(
        &long_names("signature", 3000, &[b'n'; 1_000_000], SIGNATURE),
        HEADER,
        [0, 0],
    );
}

#[test]
#[ignore = "slow: scripts/test --all"]
fn a_signature_archive_with_names_of_2000_directories() {
    check_that_volumes_replace_the_signatures(&long_names("snapshot", 2000, &b"/a".repeat(2000), b""), REBUILT, [0, 6]);
}

#[test]
#[ignore = "slow: scripts/test --all"]
fn a_signature_archive_with_names_of_the_greatest_length_of_a_header() {
    for is_encrypted in [false, true] {
        let entries = long_names("signature", 20_000, &[b'n'; 65_000], SIGNATURE);
        let backup = Backup::new(is_encrypted);
        backup.put_full(&time(0), Planted { signatures: signatures(&entries), ..Planted::default() });
        let message = "it has a path of more than 4095 bytes, which is left out; duplicity writes no such path";
        // The encrypted archive is not that of its manifest, so the tree is rebuilt.
        let (code, output) = if is_encrypted { (0, "f\ng\n") } else { (6, "") };
        backup.check("ls", &[], &Expected::new(code, output, message));
        let log = backup.check_mount(|latest| {
            let shown = fs::read_dir(latest).unwrap().filter(Result::is_ok).count();
            assert_eq!(shown, if is_encrypted { 2 } else { 0 });
        });
        assert!(log.contains(message), "{log}");
    }
}

/// Nothing of the first volume is served, which gives `errno`; the other is not affected.
fn check_a_volume(members: impl Fn() -> Vec<DeflatedPiece>, message: &'static str, errno: i32) {
    for is_encrypted in [false, true] {
        let backup = Backup::new(is_encrypted);
        backup.put_full(&time(0), Planted { members: members(), ..Planted::default() });
        backup.check("sets", &["--check"], &Expected::new(0, "1 archive", ""));
        backup.check("ls", &[], &Expected::new(0, "f\ng\n", ""));
        backup.check("cat", &["f", "g"], &Expected::new(6, "hello\n", message));
        let log = backup.check_mount(|latest| {
            let error = fs::read(latest.join("f")).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(errno), "{error}");
            assert_eq!(fs::read(latest.join("g")).unwrap(), b"hello\n");
        });
        assert!(log.contains(message), "{log}");
    }
}

#[test]
fn a_volume_with_names_of_a_million_bytes() {
    let message = "an extension header at byte 1536 is larger than the 65536 bytes that are accepted";
    check_a_volume(|| long_names("snapshot", 5000, &[b'n'; 1_000_000], b""), message, libc::EIO);
}

#[test]
#[ignore = "slow: scripts/test --all"]
fn a_volume_with_names_of_the_greatest_length_of_a_header() {
    let message = "its tables of paths take";
    check_a_volume(|| long_names("snapshot", 20_000, &[b'n'; 65_000], b""), message, libc::EOPNOTSUPP);
}

/// Eight sets whose manifest is `manifest`: the tree is shown, and no file can be read.
fn check_manifests(sets: usize, manifest: impl Fn() -> Deflated, message: &'static str) {
    for is_encrypted in [false, true] {
        let backup = Backup::new(is_encrypted);
        for position in 0..sets {
            let planted = Planted { manifest: Some(manifest()), ..Planted::default() };
            backup.put_full(&time(position), planted);
        }
        backup.check("sets", &["--check"], &Expected::new(6, message, ""));
        backup.check("ls", &[], &Expected::new(0, "f\ng\n", ""));
        backup.check("cat", &["f"], &Expected::new(6, "", message));
        let log = backup.check_mount(|latest| {
            for snapshot in fs::read_dir(latest.parent().unwrap().join("snapshots")).unwrap() {
                let error = fs::read(snapshot.unwrap().path().join("f")).unwrap_err();
                assert_eq!(error.raw_os_error(), Some(libc::EIO), "{error}");
            }
        });
        assert!(log.contains(message), "{log}");
    }
}

/// A manifest of `count` volumes, with two paths of `len` bytes each.
fn manifest_of_long_paths(count: u32, len: usize) -> Deflated {
    let path = DeflatedPiece::new(&vec![b'p'; len]);
    let [end, hash] = [b"\n    EndingPath     ".to_vec(), format!("\n    Hash SHA1 {}\n", "0".repeat(40)).into_bytes()]
        .map(|bytes| DeflatedPiece::new(&bytes));
    let mut out = Deflated::new(b"Hostname h\nLocaldir /d\n");
    for number in 1..=count {
        out.put(format!("Volume {number}:\n    StartingPath   ").as_bytes());
        for piece in [&path, &end, &path, &hash] {
            out.push(piece);
        }
    }
    out
}

#[test]
fn manifests_with_paths_of_500_000_bytes() {
    let message = "a line at byte 33 is larger than the 65536 bytes that are accepted";
    check_manifests(8, || manifest_of_long_paths(510, 500_000), message);
}

#[test]
#[ignore = "slow: scripts/test --all"]
fn manifests_with_paths_of_the_greatest_length_of_a_line() {
    let message = "the manifest is damaged at byte 33: volume 1: a path is longer than any that duplicity writes";
    check_manifests(8, || manifest_of_long_paths(500, 65_000), message);
}

#[test]
#[ignore = "slow: scripts/test --all"]
fn a_manifest_of_a_million_volumes() {
    let manifest = || {
        let mut out = Deflated::new(b"Hostname h\nLocaldir /d\n");
        for thousand in 0..1000 {
            let volume = |number| format!("Volume {number}:\n{}", entry("a", "a", &format!("{number:040}")));
            let volumes: String = (thousand * 1000 + 1..=thousand * 1000 + 1000).map(volume).collect();
            out.put(volumes.as_bytes());
        }
        out
    };
    check_manifests(1, manifest, "and the store has 2 of them");
}

#[test]
fn deltas_of_16_million_copies_of_one_byte() {
    const OPS: u32 = 16_000_000;
    const PART: usize = 65_536;
    // Copies of one byte each, from other places in turn, so that none continues the one before.
    let unit = b"\x45\x05\x01\x45\x01\x01";
    let total = 4 + 3 * OPS as usize + 1;
    let mut delta = b"rs\x026".to_vec();
    delta.extend(unit.iter().cycle().take(3 * OPS as usize));
    delta.push(0);
    assert_eq!(delta.len(), total);
    let mut parts = Deflated::new(b"");
    // All parts but the first and the last have one of three contents.
    let mut middle: Vec<(Vec<u8>, DeflatedPiece)> = Vec::new();
    for (number, part) in (1..).zip(delta.chunks(PART)) {
        let mut header = Vec::new();
        let name = format!("multivol_diff/f/{number}");
        put(&mut header, &mut TestHeader::new(name.as_bytes(), b'0', part.len() as u64), b"");
        parts.put(&header);
        if !middle.iter().any(|(known, _)| known == part) {
            let mut padded = part.to_vec();
            padded.resize(part.len().next_multiple_of(512), 0);
            middle.push((part.to_vec(), DeflatedPiece::new(&padded)));
        }
        let piece = middle.iter().find(|(known, _)| known == part).map(|(_, piece)| piece);
        parts.push(piece.unwrap());
    }
    let block = 1_u32 << 20;
    let mut signature = [&b"rs\x016"[..], &block.to_be_bytes(), &8_u32.to_be_bytes()].concat();
    signature.resize(signature.len() + 12 * OPS.div_ceil(block) as usize, 0);
    for is_encrypted in [false, true] {
        let backup = Backup::new(is_encrypted);
        backup.put_full(&time(0), Planted::default());
        for position in 1..5 {
            backup.put_increment(&time(position - 1), &time(position), &signature, &parts);
        }
        let message = "which are smaller than any of librsync";
        backup.check("sets", &["--check"], &Expected::new(0, "", ""));
        backup.check("ls", &["-l"], &Expected::new(6, "f\n", message));
        backup.check("cat", &["f", "g"], &Expected::new(6, "hello\n", message));
        let log = backup.check_mount(|latest| {
            for path in ["f", "g"] {
                let read = fs::read(latest.join(path)).map_err(|error| error.raw_os_error());
                assert_eq!(read, if path == "f" { Err(Some(libc::EIO)) } else { Ok(b"hello\n".to_vec()) });
            }
        });
        assert!(log.contains(message), "{log}");
    }
}

/// `count` entries of empty files, compressed in pieces of 10,000.
fn empty_files(kind: &str, count: u32, data: &[u8]) -> Vec<DeflatedPiece> {
    pieces_of_files(kind, count, data).map(|plain| DeflatedPiece::new(&plain)).collect()
}

/// `count` entries of empty files in pieces of 10,000.
fn pieces_of_files(kind: &str, count: u32, data: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    (0..count).step_by(10_000).map(move |from| {
        let mut plain = Vec::new();
        for number in from..(from + 10_000).min(count) {
            let name = format!("{kind}/f{number:08}");
            put_entry(&mut plain, name.as_bytes(), b'0', data);
        }
        plain
    })
}

/// `restore` needs little more for a million files than the tree of their snapshot.
#[test]
#[ignore = "slow: scripts/test --all"]
fn a_million_files_are_restored_with_24_bytes_for_each() {
    const FILES: u32 = 1_000_000;
    let backup = Backup::new(false);
    let mut archive = Deflated::new(&root());
    pieces_of_files("signature", FILES, SIGNATURE).for_each(|plain| archive.push(&DeflatedPiece::fast(&plain)));
    archive.put(&[0; 1024]);
    backup.put_full(&time(0), Planted { signatures: Some(archive), ..Planted::default() });
    let tree = backup.peak("ls", &["f00500000"], &Expected::new(0, "f00500000\n", ""));
    let restore = backup.peak("restore", &["--dry-run"], &Expected::new(0, ": 1000000 files (", ""));
    let for_each = restore.saturating_sub(tree) / u64::from(FILES);
    assert!(for_each <= 28, "{for_each} bytes for each file");
}

/// The tables of an ordinary backup of many files are not refused, although they take more than `--memory`.
#[test]
#[ignore = "slow: scripts/test --all"]
fn a_backup_of_20_million_files_is_listed() {
    const FILES: u32 = 20_000_000;
    let backup = Backup::new(false);
    let mut archive = Deflated::new(&root());
    pieces_of_files("signature", FILES, SIGNATURE).for_each(|plain| archive.push(&DeflatedPiece::fast(&plain)));
    archive.put(&[0; 1024]);
    backup.put_full(&time(0), Planted { signatures: Some(archive), ..Planted::default() });
    // 250 bytes for each file.
    let max_peak = 250 * u64::from(FILES);
    backup.check_within(max_peak, "ls", &[], &Expected::new(0, "\nf19999998\nf19999999\n", ""));
}

#[test]
#[ignore = "slow: scripts/test --all"]
fn verification_of_three_million_files_that_no_signature_archive_lists() {
    let backup = Backup::new(false);
    backup.put_full(&time(0), Planted { members: empty_files("snapshot", 3_000_000, b""), ..Planted::default() });
    let output = "do not agree on 3000000 paths, the first is f00000000 (a volume names it, and it is not in the \
                  signature archive)";
    backup.check("verify", &[], &Expected::new(6, output, ""));
    backup.check("verify", &["--json"], &Expected::new(6, "\"more_paths\": 2900000", ""));
}

/// The signature archive of a full set with `count` files that no volume has.
fn signatures_of_lost_files(count: u32) -> Option<Deflated> {
    let mut stored = Vec::new();
    for path in ["f", "g"] {
        put_entry(&mut stored, format!("signature/{path}").as_bytes(), b'0', SIGNATURE);
    }
    let lost = empty_files("signature", count, SIGNATURE);
    signatures(&[vec![DeflatedPiece::new(&stored)], lost].concat())
}

#[test]
fn verification_of_files_that_no_volume_has() {
    let backup = Backup::new(false);
    backup.put_full(&time(0), Planted { signatures: signatures_of_lost_files(10_003), ..Planted::default() });
    backup.check("verify", &[], &Expected::new(6, "... and 3 more, which are not listed\n", ""));
    backup.check("verify", &[], &Expected::new(6, "damaged: 10003\n", ""));
    backup.check("verify", &["--json"], &Expected::new(6, "\"more_findings\": 3", ""));
}

#[test]
#[ignore = "slow: scripts/test --all"]
fn verification_of_files_that_no_volume_has_in_300_snapshots() {
    let backup = Backup::new(false);
    backup.put_full(&time(0), Planted { signatures: signatures_of_lost_files(10_000), ..Planted::default() });
    let mut volume = Vec::new();
    put_entry(&mut volume, b"snapshot/f", b'0', b"hello\n");
    for position in 1..300 {
        backup.put_increment(&time(position - 1), &time(position), SIGNATURE, &Deflated::new(&volume));
    }
    backup.check("verify", &[], &Expected::new(6, "  snapshots: 300, which are not listed\n", ""));
    backup.check("verify", &["--json"], &Expected::new(6, "\"more_snapshots\": 300", ""));
}

/// The lists of the sets that make up each snapshot would take memory by the square of their number.
#[test]
#[ignore = "slow: scripts/test --all"]
fn a_chain_of_12_000_sets_and_one_with_thousands_of_branches() {
    let stamp = |n: u32| format!("20260101T{:02}{:02}{:02}Z", n / 3600, n / 60 % 60, n % 60);
    for branches in [false, true] {
        let backup = Backup::new(false);
        backup.put_full(&stamp(0), Planted::default());
        for n in 1..12_000 {
            let from = if branches && n > 6000 { 6000 } else { n - 1 };
            let names = ["duplicity-inc", "duplicity-new-signatures"]
                .map(|kind| format!("{kind}.{}.to.{}", stamp(from), stamp(n)));
            let [set, signatures] = names;
            let manifest = format!("Volume 1:\n{}", entry(".", "g", &"0".repeat(40)));
            for (name, bytes) in [
                (format!("{set}.manifest"), manifest.as_bytes()),
                (format!("{set}.vol1.difftar.gz"), b"x"),
                (format!("{signatures}.sigtar.gz"), b"x"),
            ] {
                fs::write(backup.dir().join(name), bytes).unwrap();
            }
        }
        backup.check(
            "sets",
            &[],
            &Expected::new(0, if branches { "it is shown here" } else { "no problems found" }, ""),
        );
        let mount = Mount::new(&backup.dupfs(), &backup.url(), &backup.scratch.path().join("mnt"));
        let first = mount.path().join("snapshots").join(stamp(0)).join("f");
        assert_eq!(fs::read(first).unwrap(), b"hello\n");
        assert_eq!(mount.log().contains("more increments build on the same sets"), branches);
        let peak = mount.peak_memory();
        println!("mount: {} MiB", peak >> 20);
        assert!(peak < MAX_PEAK, "mount: {peak} bytes");
        mount.unmount();
    }
}
