use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, PoisonError};
use std::time::{Duration, Instant};

use std::sync::Mutex;

use super::*;
use crate::vfs::{FsStats, Opened};
use dupfs_base::sync::lock;
use dupfs_base::{CancelToken, HasKind, RequestContext};
use dupfs_cache::CacheConfig;
use dupfs_test_tar::{TestHeader, noise, put, put_entry};
use dupfs_unpack::{MemoryPointStore, UnpackLimits};

/// Lifetime of attributes and names below.
const FOREVER: Duration = Duration::from_secs(24 * 3600);
const SNAPSHOTS: Ino = 2;
const SNAPSHOT: Ino = (1 << 40) | 1;
const FIRST: Ino = (1 << 40) | 10;
/// Reads that reach here wait until the test releases them: the pass has reached a member before it, and not the end of the archive.
const BLOCKED_FROM: u64 = 700_000;

/// A snapshot with a few files.
struct Below {
    files: Vec<(&'static str, Vec<u8>)>,
    blocked: Mutex<bool>,
    wake: Condvar,
    /// Reads that wait.
    waiting: AtomicUsize,
}

impl Below {
    fn release(&self) {
        *lock(&self.blocked) = false;
        self.wake.notify_all();
    }

    fn file(&self, ino: Ino) -> Result<&[u8], FsError> {
        let at = ino.checked_sub(FIRST).and_then(|at| usize::try_from(at).ok());
        at.and_then(|at| self.files.get(at)).map(|(_, bytes)| bytes.as_slice()).ok_or_else(FsError::not_found)
    }
}

impl FileSystem for Below {
    fn lookup(&self, parent: Ino, name: &[u8], context: &RequestContext) -> Result<Attr, FsError> {
        let file = |name| (FIRST..).zip(&self.files).find(|(_, (file, _))| file.as_bytes() == name).map(|(ino, _)| ino);
        let ino = match (parent, name) {
            (ROOT_INO, b"snapshots") => Some(SNAPSHOTS),
            (SNAPSHOTS, b"s") => Some(SNAPSHOT),
            (SNAPSHOT, name) => file(name),
            _ => None,
        };
        self.getattr(ino.ok_or_else(FsError::not_found)?, context)
    }

    fn getattr(&self, ino: Ino, _: &RequestContext) -> Result<Attr, FsError> {
        let size = self.file(ino).map_or(0, |bytes| bytes.len() as u64);
        let kind = if ino < FIRST { NodeKind::Dir } else { NodeKind::File };
        let (perm, nlink, uid, gid, blocks, mtime, rdev) = (0o755, 1, 0, 0, 0, 0, (0, 0));
        let (attr_ttl, entry_ttl) = (FOREVER, FOREVER);
        Ok(Attr { ino, kind, perm, nlink, uid, gid, size, blocks, mtime, rdev, exact: true, attr_ttl, entry_ttl })
    }

    fn readlink(&self, _: Ino, _: &RequestContext) -> Result<Vec<u8>, FsError> {
        Err(FsError::not_found())
    }

    fn parent(&self, _: Ino, _: &RequestContext) -> Result<Ino, FsError> {
        Ok(SNAPSHOTS)
    }

    fn readdir(
        &self,
        _: Ino,
        _: u64,
        _: &RequestContext,
        _: &mut dyn FnMut(DirEntry<'_>) -> bool,
    ) -> Result<(), FsError> {
        Ok(())
    }

    fn open(&self, _: Ino, _: &RequestContext) -> Result<Opened, FsError> {
        Ok(Opened { handle: 1, keep_cache: true, direct_io: false })
    }

    fn read(&self, ino: Ino, _: u64, offset: u64, size: usize, context: &RequestContext) -> Result<Vec<u8>, FsError> {
        let bytes = self.file(ino)?;
        let start = usize::try_from(offset).unwrap().min(bytes.len());
        let end = (start + size).min(bytes.len());
        let mut blocked = lock(&self.blocked);
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let mut stopped = context.check();
        while *blocked && end as u64 > BLOCKED_FROM && stopped.is_ok() {
            let step = Duration::from_millis(5);
            blocked = self.wake.wait_timeout(blocked, step).unwrap_or_else(PoisonError::into_inner).0;
            stopped = context.check();
        }
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        stopped.map_err(|reason| FsError::failed(reason.kind(), reason.to_string()))?;
        Ok(bytes[start..end].to_vec())
    }

    fn release(&self, _: Ino, _: u64) {}

    fn getxattr(&self, _: Ino, _: &[u8], _: &RequestContext) -> Result<Option<Vec<u8>>, FsError> {
        Ok(None)
    }

    fn stats(&self) -> FsStats {
        FsStats { total_bytes: 0, files: 0 }
    }
}

struct Mounted {
    below: Arc<Below>,
    fs: UnpackedFs,
}

impl Mounted {
    fn new(files: Vec<(&'static str, Vec<u8>)>) -> Self {
        let below =
            Arc::new(Below { files, blocked: Mutex::new(true), wake: Condvar::new(), waiting: AtomicUsize::new(0) });
        let cache = CacheConfig { memory_bytes: 4 << 20, spill: None };
        let unpacker = Unpacker::new(cache, UnpackLimits::default(), Arc::new(MemoryPointStore::new(1 << 20)));
        let fs = UnpackedFs::new(Arc::clone(&below) as _, unpacker, OwnerOptions::default());
        Self { below, fs }
    }

    /// As the kernel finds a path whose names it may not cache.
    fn find(&self, path: &str) -> Result<Attr, FsError> {
        let snapshot = self.fs.lookup(TOP_INO, b"s", &RequestContext::unlimited())?;
        path.split('/')
            .try_fold(snapshot, |dir, name| self.fs.lookup(dir.ino, name.as_bytes(), &RequestContext::unlimited()))
    }

    fn size(&self, path: &str) -> Result<u64, FsError> {
        Ok(self.fs.getattr(self.find(path)?.ino, &RequestContext::unlimited())?.size)
    }

    fn open(&self, path: &str) -> Result<(Ino, u64), FsError> {
        let ino = self.find(path)?.ino;
        Ok((ino, self.fs.open(ino, &RequestContext::unlimited())?.handle))
    }

    fn read(&self, (ino, handle): (Ino, u64)) -> Result<Vec<u8>, FsError> {
        let read = self.fs.read(ino, handle, 0, 1 << 20, &RequestContext::unlimited());
        self.fs.release(ino, handle);
        read
    }

    fn cat(&self, path: &str) -> Result<Vec<u8>, FsError> {
        self.read(self.open(path)?)
    }

    fn list(&self, path: &str) -> Vec<String> {
        let mut names = Vec::new();
        let dir = self.find(path).unwrap().ino;
        let listed = self.fs.readdir(dir, 0, &RequestContext::unlimited(), &mut |entry| {
            names.push(String::from_utf8(entry.name.to_vec()).unwrap());
            true
        });
        listed.unwrap();
        names
    }

    fn target(&self, path: &str) -> Result<Vec<u8>, FsError> {
        self.fs.readlink(self.find(path)?.ino, &RequestContext::unlimited())
    }
}

fn gz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn tar(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, data) in members {
        put_entry(&mut out, name.as_bytes(), b'0', data);
    }
    out.resize(out.len() + 1024, 0);
    out
}

/// A tar file with `first`, which the pass reaches while it is blocked, and `then`, which it reaches after its release.
fn appended(first: &[(&str, &[u8])], then: &[(&str, &[u8])]) -> Mounted {
    let filler = vec![7; 1 << 20];
    Mounted::new(vec![("big.tar", tar(&[first, &[("filler", &filler)], then].concat()))])
}

fn assert_replaced<T: std::fmt::Debug>(read: Result<T, FsError>) {
    let error = read.unwrap_err();
    assert!(error.to_string().contains("replaces what was read"), "{error}");
}

#[test]
fn a_compressed_member_replaced_while_it_was_read_is_the_new_one_when_reopened() {
    let (old, new) = (gz(b"old"), gz(b"the new one"));
    let mounted = appended(&[("dump.gz", &old)], &[("dump.gz", &new)]);
    let open = mounted.open("big.tar/dump").unwrap();
    mounted.below.release();
    assert_replaced(mounted.read(open));
    assert_eq!(mounted.cat("big.tar/dump").unwrap(), b"the new one");
    assert_eq!(mounted.size("big.tar/dump").unwrap(), 11);
}

#[test]
fn the_size_of_a_compressed_member_that_was_replaced_is_never_shown_for_the_new_one() {
    let (old, new) = (gz(b"old"), gz(b"the new one"));
    let mounted = appended(&[("dump.gz", &old)], &[("dump.gz", &new)]);
    let ino = mounted.find("big.tar/dump").unwrap().ino;
    let handle = mounted.fs.open(ino, &RequestContext::unlimited()).unwrap().handle;
    mounted.fs.release(ino, handle);
    mounted.below.release();
    // A request meanwhile waits, and gets the new member's or an error.
    if let Ok(attr) = mounted.fs.getattr(ino, &RequestContext::unlimited()) {
        assert_eq!(attr.size, 11);
    }
    assert_eq!(mounted.size("big.tar/dump").unwrap(), 11);
}

#[test]
fn the_suffix_hint_is_checked_again_for_a_member_that_replaces_another() {
    let log = gz(b"lines of a log");
    let mounted = appended(&[("log.gz", b""), ("bad.gz", &log)], &[("log.gz", &log), ("bad.gz", b"no gzip")]);
    let empty = mounted.open("big.tar/log.gz").unwrap();
    let good = mounted.open("big.tar/bad").unwrap();
    mounted.below.release();
    assert_replaced(mounted.read(empty));
    assert_replaced(mounted.read(good));
    assert_eq!(mounted.cat("big.tar/log").unwrap(), b"lines of a log");
    assert_eq!(mounted.cat("big.tar/log.gz").unwrap(), log);
    assert_eq!(mounted.cat("big.tar/bad.gz").unwrap(), b"no gzip");
    assert_eq!(mounted.size("big.tar/bad").unwrap(), 7);
}

#[test]
fn attributes_are_those_of_the_member_that_replaces_another() {
    let packed = gz(b"same");
    let filler = vec![7; 1 << 20];
    let mut bytes = Vec::new();
    put_entry(&mut bytes, b"dump.gz", b'0', &packed);
    put_entry(&mut bytes, b"filler", b'0', &filler);
    let mut later = TestHeader::new(b"dump.gz", b'0', packed.len() as u64);
    put(&mut bytes, later.octal(100, 8, 0o600).octal(136, 12, 1_800_000_000), &packed);
    let mounted = Mounted::new(vec![("big.tar", bytes)]);
    assert_eq!(mounted.find("big.tar/dump").unwrap().attr_ttl, Duration::ZERO);
    mounted.below.release();
    let ino = mounted.find("big.tar").unwrap().ino;
    mounted.fs.readdir(ino, 0, &RequestContext::unlimited(), &mut |_| true).unwrap();
    let attr = mounted.find("big.tar/dump").unwrap();
    assert_eq!((attr.perm, attr.mtime), (0o600, 1_800_000_000));
}

#[test]
fn an_archive_replaced_while_it_was_in_use_is_the_new_one_when_entered_again() {
    let old = tar(&[("a", b"old a"), ("f", b"old"), ("f.gz", &gz(b"packed old"))]);
    let new = tar(&[("f", b"the new one"), ("f.gz", &gz(b"packed new"))]);
    let mounted = appended(&[("inner.tar", &old)], &[("inner.tar", &new)]);
    let plain = mounted.open("big.tar/inner.tar/f").unwrap();
    let packed = mounted.open("big.tar/inner.tar/f~gz").unwrap();
    mounted.below.release();
    assert_replaced(mounted.fs.getattr(plain.0, &RequestContext::unlimited()).and_then(|_| mounted.read(plain)));
    assert_replaced(mounted.read(packed));
    assert_eq!(mounted.cat("big.tar/inner.tar/f").unwrap(), b"the new one");
    assert_eq!(mounted.size("big.tar/inner.tar/f").unwrap(), 11);
    assert_eq!(mounted.cat("big.tar/inner.tar/f~gz").unwrap(), b"packed new");
    assert_eq!(mounted.find("big.tar/inner.tar/a").unwrap_err().errno(), libc::ENOENT);
    // Numbers of removed objects are never reused.
    assert_ne!(mounted.find("big.tar/inner.tar/f").unwrap().ino, plain.0);
}

#[test]
fn a_later_member_takes_over_the_short_name_that_is_its_own() {
    let packed = gz(b"packed");
    let mounted = appended(&[("log.gz", &packed), ("fake.gz", b"no gzip")], &[("log", b"plain"), ("fake", b"other")]);
    let open = mounted.open("big.tar/log").unwrap();
    mounted.below.release();
    assert_replaced(mounted.read(open));
    assert_eq!(mounted.cat("big.tar/log").unwrap(), b"plain");
    assert_eq!(mounted.cat("big.tar/fake").unwrap(), b"other");
    assert_eq!(mounted.cat("big.tar/log~gz").unwrap(), b"packed");
    assert_eq!(mounted.size("big.tar/log~gz").unwrap(), 6);
}

#[test]
fn a_file_that_is_not_compressed_cedes_its_short_name_to_a_later_one() {
    let mounted = appended(&[("fake.gz", b"no gzip")], &[("fake", b"other")]);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(300));
            mounted.below.release();
        });
        assert_eq!(mounted.cat("big.tar/fake").unwrap(), b"other");
    });
    assert_eq!(mounted.cat("big.tar/fake.gz").unwrap(), b"no gzip");
}

#[test]
fn names_shown_as_final_stay_while_a_table_is_read_again() {
    let mounted = appended(&[("f", b"old"), ("f.gz", &gz(b"old"))], &[("f", b"new"), ("f.gz", &gz(b"packed"))]);
    mounted.below.release();
    let dir = mounted.find("big.tar").unwrap().ino;
    mounted.fs.readdir(dir, 0, &RequestContext::unlimited(), &mut |_| true).unwrap();
    let inos = ["f", "f~gz"].map(|name| mounted.find(&format!("big.tar/{name}")).unwrap().ino);
    mounted.fs.files.sources.close_unused();
    *lock(&mounted.below.blocked) = true;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(300));
            mounted.below.release();
        });
        // The kernel has the numbers still.
        for (ino, content) in inos.iter().zip([&b"new"[..], b"packed"]) {
            let handle = mounted.fs.open(*ino, &RequestContext::unlimited()).unwrap().handle;
            assert_eq!(mounted.read((*ino, handle)).unwrap(), content);
        }
    });
}

#[test]
fn a_lookup_of_the_stored_name_does_not_change_the_shown_one() {
    let packed = gz(b"packed");
    let mounted = appended(&[("log.gz", &packed)], &[]);
    mounted.below.release();
    assert_eq!(mounted.cat("big.tar/log.gz").unwrap(), packed);
    assert_eq!(mounted.size("big.tar/log").unwrap(), 6);
    assert_eq!(mounted.cat("big.tar/log").unwrap(), b"packed");
}

#[test]
fn a_symbolic_link_is_served_once_nothing_can_replace_it() {
    let filler = vec![7; 1 << 20];
    let mut bytes = Vec::new();
    put(&mut bytes, TestHeader::new(b"link", b'2', 0).bytes(157, b"old"), b"");
    put_entry(&mut bytes, b"filler", b'0', &filler);
    put(&mut bytes, TestHeader::new(b"link", b'2', 0).bytes(157, b"the-new-one"), b"");
    let mounted = Mounted::new(vec![("big.tar", bytes)]);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(300));
            mounted.below.release();
        });
        let found = mounted.find("big.tar/link").unwrap();
        assert_eq!(mounted.target("big.tar/link").unwrap(), b"the-new-one");
        // The kernel cuts the target that it caches to the size that was reported.
        assert_eq!(found.size, 11);
    });
}

#[test]
fn damage_around_an_archive_ends_its_listing_in_an_error_and_makes_no_name_missing() {
    let inner = tar(&[("a", b"one"), ("b", b"two")]);
    let sound = gz(&tar(&[("inner.tar", &inner), ("z", &noise(1_000_000))]));
    assert!(sound.len() as u64 > BLOCKED_FROM, "{} bytes", sound.len());
    let mut bad = sound.clone();
    let crc = bad.len() - 8;
    bad[crc] ^= 1;
    for (packed, is_sound) in [(sound, true), (bad, false)] {
        let mounted = Mounted::new(vec![("outer.tar.gz", packed)]);
        let dir = mounted.find("outer.tar.gz/inner.tar").unwrap().ino;
        mounted.below.release();
        let mut names = Vec::new();
        let end = mounted.fs.readdir(dir, 0, &RequestContext::unlimited(), &mut |entry| {
            names.push(entry.name.to_vec());
            true
        });
        assert_eq!((names, end.is_ok()), (vec![b"a".to_vec(), b"b".to_vec()], is_sound));
        let missing = mounted.fs.lookup(dir, b"c", &RequestContext::unlimited()).unwrap_err();
        assert_eq!(missing.kind() == ErrorKind::NotFound, is_sound, "{missing}");
    }
}

#[test]
fn a_compressed_file_has_its_stored_bytes_under_its_stored_name() {
    let (plain, packed) = (b"lines of a dump".as_slice(), gz(b"lines of a dump"));
    let inner = tar(&[("dump.gz", &packed), ("link/dump.gz.xz", b"no xz")]);
    let files = vec![("dump.gz", packed.clone()), ("a.tar", inner.clone()), ("b.tar.gz", gz(&inner))];
    let mounted = Mounted::new(files);
    for dir in ["", "a.tar/", "b.tar.gz/"] {
        let (stored, shown) = (format!("{dir}dump.gz"), format!("{dir}dump"));
        for _ in 0..2 {
            assert_eq!(mounted.cat(&stored).unwrap(), packed, "{stored}");
            assert_eq!(mounted.cat(&shown).unwrap(), plain, "{shown}");
        }
        assert_eq!(mounted.size(&stored).unwrap(), packed.len() as u64);
        assert_eq!(mounted.size(&shown).unwrap(), plain.len() as u64);
        let inos = [&stored, &shown].map(|path| mounted.find(path).unwrap().ino);
        assert_ne!(inos[0], inos[1], "one number for two contents");
        assert_eq!(mounted.find(&stored).unwrap().kind, NodeKind::File);
        // A directory it is not.
        let below = mounted.fs.lookup(inos[0], b"x", &RequestContext::unlimited());
        assert!(below.is_err(), "{below:?}");
    }
    assert_eq!(mounted.list("a.tar"), ["dump", "link"]);
    assert_eq!(mounted.cat("a.tar/link/dump.gz.xz").unwrap(), b"no xz");
    assert_eq!(mounted.find("a.tar/other.gz").unwrap_err().errno(), libc::ENOENT);
}

#[test]
fn a_link_in_an_archive_leads_to_the_stored_bytes() {
    let packed = gz(b"dump");
    let mut bytes = Vec::new();
    put(&mut bytes, TestHeader::new(b"latest.gz", b'2', 0).bytes(157, b"dump-7.gz"), b"");
    put_entry(&mut bytes, b"dump-7.gz", b'0', &packed);
    bytes.resize(bytes.len() + 1024, 0);
    let mounted = Mounted::new(vec![("a.tar", bytes)]);
    let target = String::from_utf8(mounted.target("a.tar/latest.gz").unwrap()).unwrap();
    assert_eq!(mounted.cat(&format!("a.tar/{target}")).unwrap(), packed);
}

#[test]
fn the_stored_name_of_a_member_that_is_replaced_gives_an_error_and_then_the_new_bytes() {
    let (old, new) = (gz(b"old"), gz(b"the new one"));
    let mounted = appended(&[("dump.gz", &old)], &[("dump.gz", &new)]);
    let open = mounted.open("big.tar/dump.gz").unwrap();
    mounted.below.release();
    assert_replaced(mounted.read(open));
    assert_eq!(mounted.cat("big.tar/dump.gz").unwrap(), new);
    assert_eq!(mounted.size("big.tar/dump.gz").unwrap(), new.len() as u64);
}

#[test]
fn files_with_nothing_but_dots_before_the_suffix_have_a_name() {
    let members = tar(&[("d/...gz", &gz(b"two")), ("d/..xz", b"no xz"), ("d/n.gz", &gz(b"n"))]);
    let mounted = Mounted::new(vec![("..gz", gz(b"one")), ("a.tar", members)]);
    assert_eq!(mounted.cat(".~gz").unwrap(), b"one");
    assert_eq!(mounted.cat("..gz").unwrap(), gz(b"one"));
    assert_eq!(mounted.cat("a.tar/d/..~gz").unwrap(), b"two");
    assert_eq!(mounted.cat("a.tar/d/..xz").unwrap(), b"no xz");
    assert_eq!(mounted.list("a.tar/d"), ["..~gz", "..xz", "n"]);
}

#[test]
fn a_request_that_is_cancelled_returns_at_once_and_its_pass_ends() {
    let mounted = appended(&[("a", b"a")], &[("b", b"b")]);
    let dir = mounted.find("big.tar").unwrap().ino;
    for kind in ["listing", "lookup", "read"] {
        let token = CancelToken::new();
        let context = RequestContext::new(None, token.clone());
        std::thread::scope(|scope| {
            let fs = &mounted.fs;
            let open = mounted.open("big.tar/a").unwrap();
            let waiting = scope.spawn(move || match kind {
                "listing" => fs.readdir(dir, 0, &context, &mut |_| true),
                "lookup" => fs.lookup(dir, b"missing", &context).map(drop),
                _ => fs.read(open.0, open.1, 0, 100, &context).map(drop),
            });
            let started = Instant::now();
            while mounted.below.waiting.load(Ordering::SeqCst) == 0 {
                assert!(started.elapsed() < Duration::from_secs(20), "{kind}: no pass waits");
                std::thread::yield_now();
            }
            let cancelled = Instant::now();
            token.cancel();
            assert_eq!(waiting.join().unwrap().unwrap_err().errno(), libc::EINTR, "{kind}");
            mounted.fs.release(open.0, open.1);
            while mounted.below.waiting.load(Ordering::SeqCst) > 0 {
                assert!(cancelled.elapsed() < Duration::from_secs(1), "{kind}: the pass continues");
                std::thread::yield_now();
            }
        });
    }
    mounted.below.release();
    assert_eq!(mounted.list("big.tar"), ["a", "filler", "b"]);
}
