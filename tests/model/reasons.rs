//! Tests that an error gives its true cause: damaged manifests, forged deltas, and entries that the kernel would
//! refuse.

use std::sync::Arc;

use dupfs::cli::RequestTimeout;
use dupfs::cli::open::{RepositoryOptions, ViewOptions, open_file_system};
use dupfs::vfs::{FileSystem, FsError, Ino, ROOT_INO};
use dupfs_base::{ErrorKind, HasKind, RequestContext};
use dupfs_read::storage::MemoryStore;
use dupfs_test_tar::{TestHeader, put_entry, put_extension};

use crate::support::Scratch;
use crate::support::exec::{self, Dupfs};

const T0: &str = "20260101T000000Z";
const T1: &str = "20260102T000000Z";
const MANIFEST: &str = "duplicity-full.20260101T000000Z.manifest";

/// Returns the signature of a file of `size` bytes, with checksums that no test compares.
fn signature(size: u64) -> Vec<u8> {
    let block_len = (size / 64).clamp(512, u64::from(u32::MAX));
    let sums = size.div_ceil(block_len) as usize;
    [b"rs\x016", &(block_len as u32).to_be_bytes()[..], &8_u32.to_be_bytes(), &vec![0; 12 * sums]].concat()
}

/// A delta that copies each of `ranges`, given as offset and length.
fn copies(ranges: &[(u64, u64)]) -> Vec<u8> {
    let op = |(offset, len): &(u64, u64)| [&[0x54][..], &offset.to_be_bytes(), &len.to_be_bytes()].concat();
    [b"rs\x026", &ranges.iter().flat_map(op).collect::<Vec<u8>>()[..], &[0]].concat()
}

/// A signature archive with the root and then `entries`: name, type and data of each.
fn sigtar(entries: &[(&str, u8, Vec<u8>)]) -> Vec<u8> {
    let mut out = Vec::new();
    put_entry(&mut out, b"snapshot/", b'5', b"");
    entries.iter().for_each(|(name, type_flag, data)| put_entry(&mut out, name.as_bytes(), *type_flag, data));
    out.extend([0; 1024]);
    out
}

fn volume(entries: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut out = Vec::new();
    entries.iter().for_each(|(name, data)| put_entry(&mut out, name.as_bytes(), b'0', data));
    out
}

fn hash(bytes: &[u8]) -> String {
    <sha1::Sha1 as sha1::Digest>::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn entry(number: u64, start: &str, end: &str, bytes: &[u8]) -> String {
    let hash = hash(bytes);
    format!("Volume {number}:\n    StartingPath   {start}\n    EndingPath     {end}\n    Hash SHA1 {hash}\n")
}

/// Stores an unencrypted set of one volume with `entries`.
fn put_set(
    store: &MemoryStore,
    start: Option<&str>,
    time: &str,
    signatures: Option<Vec<u8>>,
    entries: &[(&str, Vec<u8>)],
) {
    let (set, archive) = match start {
        None => (format!("full.{time}"), format!("full-signatures.{time}")),
        Some(start) => (format!("inc.{start}.to.{time}"), format!("new-signatures.{start}.to.{time}")),
    };
    let bytes = volume(entries);
    store.put(&format!("duplicity-{set}.manifest"), entry(1, ".", "\u{10ffff}", &bytes).into_bytes());
    store.put(&format!("duplicity-{set}.vol1.difftar"), bytes);
    if let Some(signatures) = signatures {
        store.put(&format!("duplicity-{archive}.sigtar"), signatures);
    }
}

fn open(store: MemoryStore) -> Arc<dyn FileSystem> {
    let options = RepositoryOptions { memory: 16 << 20, ..RepositoryOptions::default() };
    open_file_system(Arc::new(store), options, ViewOptions::default(), RequestTimeout::default()).unwrap()
}

fn find(fs: &dyn FileSystem, snapshot: &str, name: &str) -> Result<Ino, FsError> {
    let mut ino = ROOT_INO;
    for name in ["snapshots", snapshot].into_iter().chain(name.split('/')) {
        ino = fs.lookup(ino, name.as_bytes(), &RequestContext::unlimited())?.ino;
    }
    Ok(ino)
}

fn read(fs: &dyn FileSystem, snapshot: &str, name: &str) -> Result<Vec<u8>, FsError> {
    let (context, ino) = (RequestContext::unlimited(), find(fs, snapshot, name)?);
    let size = usize::try_from(fs.getattr(ino, &context)?.size).unwrap();
    let handle = fs.open(ino, &context)?.handle;
    fs.read(ino, handle, 0, size, &context)
}

/// One full set of the files a, b and c, each in a separate volume. `edit` changes the manifest.
fn three_volumes(edit: impl Fn(String) -> String) -> Arc<dyn FileSystem> {
    let store = MemoryStore::new();
    let names = ["a", "b", "c"];
    store.put(
        &format!("duplicity-full-signatures.{T0}.sigtar"),
        sigtar(&[
            ("signature/a", b'0', signature(1)),
            ("signature/b", b'0', signature(1)),
            ("signature/c", b'0', signature(1)),
        ]),
    );
    let mut manifest = String::new();
    for (number, name) in (1..).zip(names) {
        let bytes = volume(&[(&format!("snapshot/{name}"), name.as_bytes().to_vec())]);
        manifest += &entry(number, name, name, &bytes);
        store.put(&format!("duplicity-full.{T0}.vol{number}.difftar"), bytes);
    }
    store.put(MANIFEST, edit(manifest).into_bytes());
    open(store)
}

/// The entry of a volume, up to the next one.
fn cut_entry(manifest: &str, number: u64) -> String {
    let start = manifest.find(&format!("Volume {number}:")).unwrap();
    let end = manifest[start + 1..].find("Volume").map_or(manifest.len(), |at| start + 1 + at);
    manifest[..start].to_owned() + &manifest[end..]
}

/// The manifest without line `n`, from 0, of those that begin with `beginning`.
fn cut_line(manifest: &str, beginning: &str, n: usize) -> String {
    let start = manifest.match_indices(beginning).nth(n).unwrap().0;
    let end = start + manifest[start..].find('\n').unwrap() + 1;
    manifest[..start].to_owned() + &manifest[end..]
}

#[test]
fn the_error_for_a_file_lost_by_a_damaged_manifest_names_the_manifest_and_the_damage() {
    type Edit = fn(String) -> String;
    let cases: [(&str, Edit, &str, &str); 12] = [
        (
            "kind of hash",
            |m| m.replacen("SHA1", "SHA9", 2).replacen("SHA9", "SHA1", 1),
            "b",
            "volume 2: the kind of hash is unknown",
        ),
        ("no hash", |m| cut_line(&m, "    Hash", 1), "b", "volume 2 has no hash although others have"),
        (
            "block number",
            |m| m.replace("EndingPath     b", "EndingPath     b 1x"),
            "b",
            "volume 2: a block number is malformed",
        ),
        (
            "block number 0",
            |m| m.replace("EndingPath     b", "EndingPath     b 0"),
            "b",
            "volume 2: a block number is malformed",
        ),
        ("number 0", |m| m.replace("Volume 2:", "Volume 0:"), "b", "a volume's number is malformed"),
        ("entry gone", |m| cut_entry(&m, 2), "b", "volume 2 has no entry"),
        (
            "out of order",
            |m| listed_in_another_order(&m) + &cut_entry(&cut_entry(&m, 1), 3),
            "c",
            "volume 3 is listed before lower numbers",
        ),
        (
            "wrong end",
            |m| m.replace("EndingPath     a", "EndingPath     b"),
            "b",
            "volume 1 ends at a, but its entry states b",
        ),
        (
            "last entry gone",
            |m| cut_entry(&m, 3),
            "c",
            "has lost its end, because the store has volume 3, which it does not list",
        ),
        ("last number damaged", |m| m.replace("Volume 3:", "Volume x:"), "c", "a volume's number is malformed"),
        (
            "overlapping",
            |m| m.replace("EndingPath     a", "EndingPath     c"),
            "b",
            "volume 2 ends at b, before volume 1, which ends at c",
        ),
        (
            "descending",
            |m| m.replace("EndingPath     b", "EndingPath     0"),
            "b",
            "volume 2 ends at 0, before volume 1, which ends at a",
        ),
    ];
    for (case, edit, lost, reason) in cases {
        let fs = three_volumes(edit);
        let error = read(&*fs, T0, lost).unwrap_err();
        let message = error.to_string();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{case}: {message}");
        assert!(message.contains(MANIFEST) && message.contains(reason), "{case}: {message}");
        for name in ["a", "b", "c"].into_iter().filter(|name| *name != lost) {
            match read(&*fs, T0, name) {
                Ok(content) => assert_eq!(content, name.as_bytes(), "{case}"),
                // The ranges of both volumes are uncertain.
                Err(error) => assert!(case == "overlapping" && error.to_string().contains(MANIFEST), "{case}: {error}"),
            }
        }
    }
}

/// A manifest that lists the volumes 1, 3, 2.
fn listed_in_another_order(manifest: &str) -> String {
    let third = &manifest[manifest.find("Volume 3").unwrap()..];
    cut_entry(&cut_entry(manifest, 2), 3) + third + &cut_entry(&cut_entry(manifest, 1), 3)
}

#[test]
fn files_of_volumes_that_are_listed_in_another_order_are_read() {
    let fs = three_volumes(|m| listed_in_another_order(&m));
    for name in ["a", "b", "c"] {
        assert_eq!(read(&*fs, T0, name).unwrap(), name.as_bytes());
    }
}

/// The error for a file that a resumed backup has only in its signature archive does not name the manifest.
#[test]
fn the_error_for_a_file_without_data_does_not_blame_an_intact_manifest() {
    let store = MemoryStore::new();
    let signatures = sigtar(&[("signature/a", b'0', signature(1)), ("signature/ghost", b'0', signature(1))]);
    put_set(&store, None, T0, Some(signatures), &[("snapshot/a", b"a".to_vec())]);
    let message = read(&*open(store), T0, "ghost").unwrap_err().to_string();
    assert!(message.contains("lists it but has no data for it") && !message.contains("manifest"), "{message}");
}

#[test]
fn a_delta_that_copies_beyond_its_base_is_an_error_at_the_first_read() {
    for (ranges, blamed) in [([(0, 5000), (0, 0)], T1), ([(0, 500), (900, 120)], T1)] {
        let store = MemoryStore::new();
        let size = ranges.iter().map(|(_, len)| len).sum();
        let base = sigtar(&[("signature/f", b'0', signature(1000))]);
        put_set(&store, None, T0, Some(base), &[("snapshot/f", vec![7; 1000])]);
        let newer = sigtar(&[("signature/f", b'0', signature(size))]);
        put_set(&store, Some(T0), T1, Some(newer), &[("diff/f", copies(&ranges))]);
        let fs = open(store);
        for attempt in ["first", "second"] {
            let message = read(&*fs, T1, "f").unwrap_err().to_string();
            assert!(message.contains(&format!("its delta in inc {T0} to {blamed}")), "{attempt} read: {message}");
            assert!(message.contains("copies") && !message.contains("interrupted"), "{attempt} read: {message}");
        }
        assert_eq!(read(&*fs, T0, "f").unwrap(), [7; 1000]);
    }
}

/// The kernel would answer EIO to such a size without a log line.
#[test]
fn a_file_longer_than_any_file_system_allows_is_an_error() {
    let store = MemoryStore::new();
    put_set(
        &store,
        None,
        T0,
        Some(sigtar(&[("signature/f", b'0', signature(1000))])),
        &[("snapshot/f", vec![7; 1000])],
    );
    // Without a signature archive nothing else bounds the size.
    put_set(&store, Some(T0), T1, None, &[("diff/f", copies(&[(0, 1 << 62), (1, 1 << 62)]))]);
    let fs = open(store);
    let error = fs.getattr(find(&*fs, T1, "f").unwrap(), &RequestContext::unlimited()).unwrap_err();
    assert_eq!((error.kind(), error.errno()), (ErrorKind::Corrupt, libc::EIO));
    assert!(
        error.to_string().contains("f: its delta in inc") && error.to_string().contains("9223372036854775808"),
        "{error}"
    );
}

#[test]
fn a_link_whose_target_the_kernel_refuses_is_an_error() {
    let store = MemoryStore::new();
    let mut signatures = Vec::new();
    put_entry(&mut signatures, b"snapshot/", b'5', b"");
    for (name, len) in [("long", 4095), ("longer", 4096)] {
        put_extension(&mut signatures, b'K', &[vec![b'x'; len], vec![0]].concat());
        let mut header = TestHeader::new(format!("snapshot/{name}").as_bytes(), b'2', 0);
        header.bytes(157, &[b'x'; 100]);
        signatures.extend(header.finish());
    }
    signatures.extend([0; 1024]);
    put_set(&store, None, T0, Some(signatures), &[]);
    let fs = open(store);
    let target = |name: &str| fs.readlink(find(&*fs, T0, name).unwrap(), &RequestContext::unlimited());
    assert_eq!(target("long").unwrap().len(), 4095);
    let error = target("longer").unwrap_err();
    assert_eq!((error.kind(), error.errno()), (ErrorKind::Unsupported, libc::EOPNOTSUPP));
    assert!(error.to_string().starts_with("longer: the target of this symbolic link has 4096 bytes"), "{error}");
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut encoder, bytes).unwrap();
    encoder.finish().unwrap()
}

/// A gzip volume that was compressed again has another hash and the same content; a plain volume with another hash proves nothing.
#[test]
fn an_intact_volume_with_another_hash_is_read_on_request_with_one_warning() {
    let scratch = Scratch::new();
    let dupfs = Dupfs::new(scratch.path());
    let plain = volume(&[("snapshot/a", b"first".to_vec()), ("snapshot/b", b"other".to_vec())]);
    let signatures = sigtar(&[("signature/a", b'0', signature(5)), ("signature/b", b'0', signature(5))]);
    let damaged = [&gzip(&plain)[..40], &[0xff; 9], &gzip(&plain)[49..]].concat();
    for (suffix, stored, is_whole) in [(".gz", gzip(&plain), true), (".gz", damaged, false), ("", plain.clone(), false)]
    {
        let dir = scratch.dir(&format!("r{suffix}-{is_whole}"));
        let put = |name: &str, bytes: &[u8]| std::fs::write(dir.join(name), bytes).unwrap();
        put(&format!("duplicity-full-signatures.{T0}.sigtar"), &signatures);
        put(MANIFEST, entry(1, ".", "b", b"another volume").as_bytes());
        put(&format!("duplicity-full.{T0}.vol1.difftar{suffix}"), &stored);
        let url = dir.to_str().unwrap();
        let (code, error) = dupfs.fails("cat", &[url, "a"]);
        assert_eq!(code, Some(6), "{error}");
        assert!(error.contains("its SHA-1 hash is not the one in the manifest"), "{error}");
        assert_eq!(error.contains("give --ignore-volume-hash to read it as it is"), is_whole, "{error}");
        let ignoring = dupfs.clone().option("--ignore-volume-hash");
        let output = exec::output(ignoring.command("cat").args([url, "a", "b"]));
        let stderr = String::from_utf8_lossy(&output.stderr);
        if is_whole {
            assert!(output.status.success(), "{stderr}");
            assert_eq!(output.stdout, b"firstother");
            assert_eq!(stderr.matches("(--ignore-volume-hash)").count(), 1, "{stderr}");
            assert!(
                stderr.contains(&format!("duplicity-full.{T0}.vol1.difftar{suffix}: read although its hash")),
                "{stderr}"
            );
        } else {
            assert_eq!((output.status.code(), output.stdout.len()), (Some(6), 0), "{stderr}");
        }
        // Bytes read with the option do not count as verified later.
        assert_eq!(dupfs.fails("cat", &[url, "a"]).0, Some(6));
    }
}

/// With `--ignore-volume-hash` the index has the member table of an object that is not the manifest's. It must not be used
/// for the right object of the same name and length.
#[test]
fn an_index_made_from_another_volume_is_not_used_for_the_right_one() {
    let scratch = Scratch::new();
    let dir = scratch.dir("r");
    let dupfs = Dupfs::new(scratch.path()).option("--ignore-volume-hash");
    let stored = |a: usize, b: usize| {
        let plain = volume(&[("snapshot/a", vec![b'a'; a]), ("snapshot/b", vec![b'b'; b])]);
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
        std::io::Write::write_all(&mut encoder, &plain).unwrap();
        encoder.finish().unwrap()
    };
    let (right, other) = (stored(5, 500), stored(500, 5));
    assert_eq!(right.len(), other.len());
    let signatures = sigtar(&[("signature/a", b'0', signature(5)), ("signature/b", b'0', signature(5))]);
    std::fs::write(dir.join(format!("duplicity-full-signatures.{T0}.sigtar")), &signatures).unwrap();
    std::fs::write(dir.join(MANIFEST), entry(1, ".", "b", &right)).unwrap();
    for (stored, a) in [(&other, 500), (&right, 5), (&other, 500)] {
        std::fs::write(dir.join(format!("duplicity-full.{T0}.vol1.difftar.gz")), stored).unwrap();
        let output = exec::output(dupfs.command("cat").args([dir.to_str().unwrap(), "a"]));
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), output.stdout), (Some(0), vec![b'a'; a]), "{stderr}");
        assert_eq!(stderr.contains("(--ignore-volume-hash)"), a == 500, "{stderr}");
    }
}

/// The signature of `content` in one block.
fn signature_of(content: &[u8]) -> Vec<u8> {
    let (mut low, mut high) = (0u32, 0u32);
    for byte in content {
        low = low.wrapping_add(u32::from(*byte) + 31);
        high = high.wrapping_add(low);
    }
    let weak = (high << 16) | (low & 0xffff);
    let strong = <md4::Md4 as md4::Digest>::digest(content);
    [b"rs\x016", &512_u32.to_be_bytes()[..], &8_u32.to_be_bytes(), &weak.to_be_bytes(), &strong[..8]].concat()
}

/// The source had `\u{fc}` in UTF-8 and in Latin-1, and the increment was made in a Latin-1 locale. It gives both
/// files the same name, and its deletion of one hid the other (FORMAT.md 4.3, last row).
#[test]
fn a_deletion_in_the_same_set_does_not_hide_an_object_of_that_name() {
    let literal = |content: &[u8]| [b"rs\x026", &[content.len() as u8][..], content, &[0]].concat();
    for (case, stored) in [("right", "latin-1, state 1"), ("other", "another content!")] {
        let store = MemoryStore::new();
        let full = sigtar(&[("signature/\u{fc}", b'0', signature_of(b"utf-8, state 0"))]);
        put_set(&store, None, T0, Some(full), &[("snapshot/\u{fc}", b"utf-8, state 0".to_vec())]);
        let newer = [("signature/\u{fc}", b'0', signature_of(b"latin-1, state 1")), ("deleted/\u{fc}", b'0', vec![])];
        let entries = [("diff/\u{fc}", literal(stored.as_bytes())), ("deleted/\u{fc}", vec![])];
        put_set(&store, Some(T0), T1, Some(sigtar(&newer)), &entries);
        let fs = open(store);
        assert_eq!(read(&*fs, T0, "\u{fc}").unwrap(), b"utf-8, state 0");
        let newest = read(&*fs, T1, "\u{fc}");
        if case == "right" {
            assert_eq!(newest.unwrap(), stored.as_bytes());
        } else {
            let message = newest.unwrap_err().to_string();
            assert!(message.contains("stores several objects under this name"), "{message}");
        }
    }
}

#[test]
fn the_error_for_a_damaged_object_names_a_second_copy() {
    let store = MemoryStore::new();
    let signatures = sigtar(&[("signature/a", b'0', signature(1))]);
    put_set(&store, None, T0, Some(signatures), &[("snapshot/a", b"a".to_vec())]);
    store.put(&format!("{MANIFEST}.gz"), gzip(&store.bytes(MANIFEST).unwrap()));
    store.put(MANIFEST, b"rubbish".as_slice());
    let message = read(&*open(store), T0, "a").unwrap_err().to_string();
    assert!(message.contains(&format!("{MANIFEST}: ")), "{message}");
    assert!(
        message.contains(&format!("the set also has {MANIFEST}.gz: move the damaged one away to use that")),
        "{message}"
    );
}

/// Each copy in duplicity's archive directory that is not used is refused with its own reason.
#[test]
fn the_refusal_of_a_copy_in_the_archive_directory_gives_its_own_fault() {
    let scratch = Scratch::new();
    let dupfs = Dupfs::new(scratch.path());
    let plain = volume(&[("snapshot/a", b"a".to_vec())]);
    let (stored, archive) = (scratch.dir("stored"), scratch.dir("archive/job"));
    let signatures = sigtar(&[("signature/a", b'0', signature(1))]);
    std::fs::write(stored.join(format!("duplicity-full-signatures.{T0}.sigtar.gz")), gzip(&signatures)).unwrap();
    std::fs::write(stored.join(format!("duplicity-full.{T0}.vol1.difftar.gz")), gzip(&plain)).unwrap();
    let manifest = entry(1, ".", "a", &gzip(&plain));
    std::fs::write(stored.join(MANIFEST), &manifest).unwrap();
    let url = stored.to_str().unwrap();
    let with_copies = |name: &str, copy: &[u8]| {
        std::fs::write(archive.join(name), copy).unwrap();
        let dupfs = dupfs.clone().option("--archive-dir").option(archive.parent().unwrap().to_str().unwrap());
        let output =
            exec::output(dupfs.option("--name").option("job").option("--no-index").command("cat").args([url, "a"]));
        std::fs::remove_file(archive.join(name)).unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(0), &b"a"[..]), "{stderr}");
        stderr
    };
    assert_eq!(with_copies(MANIFEST, manifest.as_bytes()), "");
    for (copy, reason) in [
        (manifest.replace("SHA1", "SHA9"), "the kind of hash is unknown"),
        (manifest.replace("EndingPath     a", "EndingPath     a 0"), "a block number is malformed"),
        (manifest.replace("Volume 1:", "Volume 2:"), "it does not list volume 1, which the backup has"),
        (manifest.clone() + "Filelist 0\n", "and duplicity-full.20260101T000000Z.manifest has"),
    ] {
        let stderr = with_copies(MANIFEST, copy.as_bytes());
        assert!(stderr.contains(&format!("{MANIFEST}: ignored: ")) && stderr.contains(reason), "{reason}: {stderr}");
        assert_eq!(stderr.matches("ignored: duplicity").count(), 0, "{stderr}");
    }
    // The error names the copy of a manifest that the backup has lost.
    std::fs::write(archive.join(MANIFEST), &manifest).unwrap();
    std::fs::remove_file(stored.join(MANIFEST)).unwrap();
    let (dir, url) = (archive.parent().unwrap().to_str().unwrap(), stored.to_str().unwrap());
    let (code, stderr) = dupfs.fails("cat", &["--archive-dir", dir, "--name", "job", url, "a"]);
    let expected = format!("{MANIFEST} is the manifest that the backup lacks of full {T0}: copy it into the backup");
    assert!(
        code == Some(3) && stderr.contains(&expected) && !stderr.contains("has no file of this backup"),
        "{stderr}"
    );
    std::fs::copy(archive.join(MANIFEST), stored.join(MANIFEST)).unwrap();
    let name = format!("duplicity-full-signatures.{T0}.sigtar.gz");
    std::fs::write(archive.join(MANIFEST), &manifest).unwrap();
    let stderr = with_copies(&name, &gzip(b"another archive"));
    assert!(stderr.contains(&format!("its checksum and length are not those of {name}")), "{stderr}");
}

/// A wrong part number only makes the search longer. An end that excludes a volume of the file is reported.
#[test]
fn a_wrong_end_of_a_volume_is_not_an_interrupted_backup() {
    let content: Vec<u8> = (0..4 * 65_536 + 10_u32).map(|i| (i / 7) as u8).collect();
    let part = |number: usize| {
        let start = (number - 1) * 65_536;
        (format!("multivol_snapshot/f/{number}"), content[start..content.len().min(start + 65_536)].to_vec())
    };
    let volume_of = |parts: std::ops::RangeInclusive<usize>| {
        let entries: Vec<(String, Vec<u8>)> = parts.map(part).collect();
        volume(&entries.iter().map(|(name, data)| (name.as_str(), data.clone())).collect::<Vec<_>>())
    };
    let volumes = [volume_of(1..=2), volume_of(3..=5)];
    let wrong = "volume 1 ends at part 2 of f, but its entry states g";
    for (first, last, reason) in [("f 2", "f", ""), ("f 3", "f", ""), ("f 1", "f", ""), ("g", "z", wrong)] {
        let store = MemoryStore::new();
        let signatures = sigtar(&[("signature/f", b'0', signature(content.len() as u64))]);
        store.put(&format!("duplicity-full-signatures.{T0}.sigtar"), signatures);
        for (number, bytes) in (1..).zip(&volumes) {
            store.put(&format!("duplicity-full.{T0}.vol{number}.difftar"), bytes.clone());
        }
        let manifest = entry(1, ".", first, &volumes[0]) + &entry(2, "f 3", last, &volumes[1]);
        store.put(MANIFEST, manifest.into_bytes());
        match read(&*open(store), T0, "f") {
            Ok(found) => assert!(reason.is_empty() && found == content, "{first}"),
            Err(error) => {
                let message = error.to_string();
                assert!(
                    message.contains(MANIFEST) && message.contains(wrong) && !reason.is_empty(),
                    "{first}: {message}"
                );
            }
        }
    }
}

/// librsync copies whole blocks of 512 bytes or more, so a small delta cannot have millions of pieces.
#[test]
fn a_delta_of_pieces_smaller_than_any_block_is_refused() {
    for (len, honest) in [(1, false), (512, true)] {
        let store = MemoryStore::new();
        let ranges: Vec<(u64, u64)> = (0..3000).map(|i| (i % 2 * 1024, len)).collect();
        let base = sigtar(&[("signature/f", b'0', signature(2048))]);
        put_set(&store, None, T0, Some(base), &[("snapshot/f", vec![7; 2048])]);
        let newer = sigtar(&[("signature/f", b'0', signature(3000 * len))]);
        put_set(&store, Some(T0), T1, Some(newer), &[("diff/f", copies(&ranges))]);
        let fs = open(store);
        match read(&*fs, T1, "f") {
            Ok(content) => assert!(honest && content == vec![7; 3000 * 512], "pieces of {len} bytes"),
            Err(error) => {
                assert!(!honest && error.kind() == ErrorKind::Corrupt, "pieces of {len} bytes: {error}");
                assert!(error.to_string().contains("which are smaller than any of librsync"), "{error}");
            }
        }
        assert_eq!(read(&*fs, T0, "f").unwrap(), [7; 2048]);
    }
}

#[test]
fn an_overlong_path_is_left_out_with_an_error_and_hides_no_other() {
    let store = MemoryStore::new();
    let mut signatures = Vec::new();
    put_entry(&mut signatures, b"snapshot/", b'5', b"");
    put_extension(&mut signatures, b'L', &[&b"signature/"[..], &[b'n'; 5000], &[0]].concat());
    put_entry(&mut signatures, b"signature/n", b'0', &signature(1));
    put_entry(&mut signatures, b"signature/zz", b'0', &signature(1));
    signatures.extend([0; 1024]);
    put_set(&store, None, T0, Some(signatures), &[("snapshot/zz", b"z".to_vec())]);
    let fs = open(store);
    assert_eq!(read(&*fs, T0, "zz").unwrap(), b"z");
    let context = RequestContext::unlimited();
    let root = fs.parent(find(&*fs, T0, "zz").unwrap(), &context).unwrap();
    let mut names = Vec::new();
    let listed = fs.readdir(root, 0, &context, &mut |entry| {
        names.push(entry.name.to_vec());
        true
    });
    assert!(names.contains(&b"zz".to_vec()) && names.iter().all(|name| name.len() < 5000));
    let error = listed.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("a path of more than 4095 bytes"), "{error}");
}
