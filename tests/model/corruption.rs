//! Random single-byte corruptions and truncations over all files of small encrypted repositories, written by duplicity:
//! every directory, attribute and read is right or an error. Nothing panics or hangs, and nothing is missing without
//! an error. In a part of the rounds `verify` has to report each file that cannot be read, and only the object that was
//! damaged.
//!
//! DUPFS_TEST_ROUNDS sets their number (300 by default), DUPFS_TEST_SEED the choice.

use dupfs_base::RequestContext;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use crate::support::duplicity::{Mode, Repository};
use crate::support::{Scratch, dump, noise};
use dupfs::cli::RequestTimeout;
use dupfs::cli::open::{RepositoryOptions, ViewOptions, open_file_system};
use dupfs::cli::printer::Printer;
use dupfs::cli::verify::{self, VerifyOptions};
use dupfs::vfs::{Attr, FileSystem, FsError, Ino, NodeKind, Opened, ROOT_INO, TreeFs};
use dupfs_read::codec::{KeyOptions, Secret};
use dupfs_read::storage::MemoryStore;
use serde_json::Value;

/// Upper bound of the duration of one round.
const LIMIT: Duration = Duration::from_secs(120);
const SYMMETRIC: &str = "symmetric passphrase";

#[test]
fn random_corruptions_give_right_bytes_or_errors() {
    let scratch = Scratch::new();
    let states = sources(&scratch);
    // Cheap key derivations: this test is not about the strength of a passphrase.
    let to_key =
        Repository::new("0.8.22", |home| Mode::Key(home.generate("c", "future-default", "")), &scratch.dir("k"));
    let symmetric = Repository::new("3.2.1", |_| Mode::Symmetric(SYMMETRIC.to_owned()), &scratch.dir("s"))
        .option("--gpg-options=--s2k-count 1024 --compress-algo=zlib");
    let secret = to_key.gpg_home().path().join("c.secret.asc");
    let originals: Vec<_> = [(to_key, Some(secret)), (symmetric, None)]
        .into_iter()
        .map(|(repo, secret)| Original::new(&repo, secret, &states))
        .collect();
    let originals = Arc::new(originals);

    let rounds = number("DUPFS_TEST_ROUNDS", 300);
    let seed = number("DUPFS_TEST_SEED", u64::from(std::process::id()));
    eprintln!("{rounds} rounds from DUPFS_TEST_SEED={seed}");
    let next = Arc::new(AtomicU64::new(0));
    let (send, receive) = mpsc::channel();
    for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
        let (originals, next, send) = (Arc::clone(&originals), Arc::clone(&next), send.clone());
        std::thread::spawn(move || {
            loop {
                let round = next.fetch_add(1, Ordering::Relaxed);
                if round >= rounds {
                    return;
                }
                let corruption = Corruption::of(seed.wrapping_add(round), &originals);
                let outcome = catch_unwind(AssertUnwindSafe(|| corruption.examine(&originals)));
                if send.send((round, corruption, outcome)).is_err() {
                    return;
                }
            }
        });
    }
    drop(send);
    tally(&receive, rounds, seed);
}

/// A round with its corruption and its result. The outer result is the panic, if there was one.
type Outcome = (u64, Corruption, std::thread::Result<Result<RoundCounts, String>>);

fn tally(receive: &mpsc::Receiver<Outcome>, rounds: u64, seed: u64) {
    let (mut total, mut wrong, mut unharmed, start) = (RoundCounts::default(), Vec::new(), 0, Instant::now());
    for _ in 0..rounds {
        let (round, corruption, outcome) = receive
            .recv_timeout(LIMIT)
            .unwrap_or_else(|_| panic!("a round hangs: none of those running ended within {LIMIT:?} (seed {seed})"));
        match outcome {
            Ok(Ok(seen)) => {
                total.right += seen.right;
                total.errors += seen.errors;
                total.refused += seen.refused;
                total.verified += seen.verified;
                total.found += seen.found;
                unharmed += u64::from(seen.errors + seen.refused == 0);
            }
            Ok(Err(what)) => wrong.push(format!("DUPFS_TEST_SEED={} {corruption:?}: {what}", seed + round)),
            Err(_) => wrong.push(format!("DUPFS_TEST_SEED={} {corruption:?}: panicked", seed + round)),
        }
    }
    eprintln!("{total:?}, {unharmed} rounds without any error, {:?}", start.elapsed());
    let shown = wrong.iter().take(20).map(String::as_str).collect::<Vec<_>>().join("\n  ");
    assert!(wrong.is_empty(), "{} of {rounds} rounds:\n  {shown}", wrong.len());
    assert!(total.errors > rounds && total.right > rounds, "{total:?}: this proved nothing");
    assert!(total.verified > rounds / 10 && total.found > total.verified / 2, "{total:?}: verify proved nothing");
    assert!(total.refused < rounds / 10, "{total:?}: one damaged file must not close the whole repository");
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().unwrap_or_else(|_| panic!("{name}={value} is no number")))
}

/// A small tree in three states: files in one part and in many, two volumes, deltas, deletions, a link.
fn sources(scratch: &Scratch) -> [PathBuf; 3] {
    let build = |state: u64| {
        let dir = scratch.dir(&format!("state-{state}"));
        let write = |name: &str, content: Vec<u8>, when: u64| {
            let path = dir.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, content).unwrap();
            let time = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_400_000_000 + when);
            fs::File::open(&path).unwrap().set_modified(time).unwrap();
        };
        let mut edited = noise(2, 150_000);
        for edit in 0..usize::try_from(state).unwrap() {
            edited.splice(70_000 * edit..70_000 * edit + 10, noise(10 + state, 500));
        }
        write("dir/big", noise(1, 1_150_000), 0);
        write("dir/edited", edited, state);
        write("dir/empty", Vec::new(), 0);
        write("dump.sql", dump(1, 80_000 + 5000 * usize::try_from(state).unwrap()), state);
        write("hello", b"hello\n".to_vec(), 0);
        match state {
            1 => write("new/in/one", noise(3, 66_000), 1),
            2 => write("new", noise(4, 3000), 2),
            _ => {}
        }
        std::os::unix::fs::symlink("hello", dir.join("link")).unwrap();
        dir
    };
    [0, 1, 2].map(build)
}

/// An encrypted repository, and the nodes that it shows when it is intact.
struct Original {
    objects: BTreeMap<String, Arc<[u8]>>,
    secret: Option<PathBuf>,
    healthy: BTreeMap<Vec<u8>, Node>,
}

/// The expected state of a path in the mount.
#[derive(Clone)]
pub(crate) struct Node {
    attr: Attr,
    pub(crate) content: Vec<u8>,
    children: Vec<Vec<u8>>,
}

/// The counts of one round.
#[derive(Debug, Default)]
struct RoundCounts {
    right: u64,
    errors: u64,
    refused: u64,
    /// Verifications.
    verified: u64,
    /// Those of them that found damage.
    found: u64,
    /// The snapshot and the path of each file that cannot be read.
    unreadable: BTreeSet<(String, String)>,
}

impl Original {
    fn new(repo: &Repository, secret: Option<PathBuf>, states: &[PathBuf; 3]) -> Self {
        for (i, (state, time)) in states.iter().zip([1_700_000_000, 1_700_000_100, 1_700_000_200]).enumerate() {
            repo.backup(i == 0, state, time);
        }
        let read =
            |entry: fs::DirEntry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap().into());
        let objects = fs::read_dir(repo.dir()).unwrap().map(|e| read(e.unwrap())).collect();
        let mut original = Self { objects, secret, healthy: BTreeMap::new() };
        let fs = original.open(original.store(), false).expect("the repository opens while it is well");
        let mut healthy = BTreeMap::new();
        record(&*fs, ROOT_INO, Vec::new(), &mut healthy);
        original.healthy = healthy;
        original.is_like(states);
        original
    }

    /// Requires that the intact repository shows the files of the sources. Otherwise a comparison with it would prove
    /// nothing.
    fn is_like(&self, states: &[PathBuf; 3]) {
        for (state, time) in states.iter().zip(["20231114T221320Z", "20231114T221500Z", "20231114T221640Z"]) {
            let mut files = 0;
            for (path, node) in self.healthy.iter().filter(|(_, n)| n.attr.kind == NodeKind::File) {
                let path = String::from_utf8(path.clone()).unwrap();
                if let Some(name) = path.strip_prefix(&format!("/snapshots/{time}/")) {
                    assert_eq!(fs::read(state.join(name)).unwrap(), node.content, "{path}");
                    files += 1;
                }
            }
            assert_eq!(files, count_files(state), "files of {time}");
        }
    }

    fn store(&self) -> MemoryStore {
        let store = MemoryStore::new();
        for (name, bytes) in &self.objects {
            store.put(name, Arc::clone(bytes));
        }
        store
    }

    /// Opens the repository; if it `is_early`, content is served as early as it can be proved.
    fn open(&self, store: MemoryStore, is_early: bool) -> Result<Arc<TreeFs>, String> {
        let keys = KeyOptions {
            secret_keys: self.secret.iter().cloned().collect(),
            passphrases: vec![Secret::from(SYMMETRIC.to_owned())],
            ..KeyOptions::default()
        };
        let prove_after = is_early.then_some(Duration::ZERO);
        let options = RepositoryOptions { keys, memory: 64 << 20, prove_after, ..RepositoryOptions::default() };
        open_file_system(Arc::new(store), options, ViewOptions::default(), RequestTimeout::default())
            .map_err(|e| e.to_string())
    }
}

fn count_files(dir: &Path) -> usize {
    let entries = fs::read_dir(dir).unwrap().map(Result::unwrap);
    entries
        .map(|e| match e.file_type().unwrap() {
            t if t.is_dir() => count_files(&e.path()),
            t => usize::from(t.is_file()),
        })
        .sum()
}

/// One damage to one object.
#[derive(Debug)]
struct Corruption {
    original: usize,
    object: String,
    /// The offset of the changed byte, or the new end of the object.
    at: usize,
    /// The mask that is xored with the byte; `None` for a truncation.
    flip: Option<u8>,
    /// True if content is served as early as it can be proved.
    is_early: bool,
    /// True if files are also read without asking for their sizes before.
    is_unsized: bool,
    /// `Some` if the damaged repository is verified too: true with `--deep`.
    deep: Option<bool>,
}

impl Corruption {
    /// Each object is as likely as any other, so that the small ones are hit as often as the volumes.
    fn of(seed: u64, originals: &[Original]) -> Self {
        let random: Vec<u64> = noise(seed.wrapping_add(1), 48)
            .chunks(8)
            .skip(2)
            .map(|c| u64::from_le_bytes(c.try_into().unwrap()))
            .collect();
        let below = |value: u64, limit: usize| usize::try_from(value % u64::try_from(limit).unwrap()).unwrap();
        let original = below(random[0], originals.len());
        let objects = &originals[original].objects;
        let (object, bytes) = objects.iter().nth(below(random[1], objects.len())).unwrap();
        let flip = (!random[3].is_multiple_of(4)).then(|| u8::try_from(random[3] >> 8 & 0xff).unwrap().max(1));
        let is_early = random[3] >> 16 & 1 == 1;
        let is_unsized = random[3] >> 20 & 1 == 1;
        let deep = (random[3] >> 17 & 3 == 0).then_some(random[3] >> 19 & 1 == 1);
        Self { original, object: object.clone(), at: below(random[2], bytes.len()), flip, is_early, is_unsized, deep }
    }

    /// Opens the damaged repository and reads all of it.
    fn examine(&self, originals: &[Original]) -> Result<RoundCounts, String> {
        let original = &originals[self.original];
        let mut bytes = original.objects[&self.object].to_vec();
        match self.flip {
            Some(flip) => bytes[self.at] ^= flip,
            None => bytes.truncate(self.at),
        }
        let store = || {
            let store = original.store();
            store.put(&self.object, bytes.clone());
            store
        };
        let mut seen = RoundCounts::default();
        match original.open(store(), self.is_early) {
            Err(error) if error.is_empty() || error.contains('\n') => {
                return Err(format!("no one-line error: {error:?}"));
            }
            Err(_) => seen.refused = 1,
            Ok(fs) => {
                if self.is_unsized {
                    read_unsized(&*fs, ROOT_INO, Vec::new(), &original.healthy, &mut seen)?;
                }
                examine(&*fs, ROOT_INO, Vec::new(), &original.healthy, &mut seen)?;
                if let Some(deep) = self.deep {
                    self.verify(&*original.open(store(), false)?, deep, &mut seen)?;
                }
            }
        }
        Ok(seen)
    }

    /// Verifies the damaged repository, and compares the report with the files that could not be read.
    fn verify(&self, fs: &TreeFs, deep: bool, seen: &mut RoundCounts) -> Result<(), String> {
        let options = VerifyOptions { deep, json: true, ..VerifyOptions::default() };
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut printer = Printer::new(&mut out, &mut err, false);
        let end = verify::run(fs, fs.repository(), options, RequestTimeout::default(), &mut printer);
        let end = end.map_err(|error| format!("verify: {error}"))?;
        let report: Value = serde_json::from_slice(&out).map_err(|error| error.to_string())?;
        let findings = report["findings"].as_array().unwrap();
        seen.verified += 1;
        seen.found += u64::from(!findings.is_empty());
        if (report["sound"] == true) != findings.is_empty() || (end.exit.code() == 0) != findings.is_empty() {
            return Err(format!("verify ends with {:?}: {report}", end.exit));
        }
        for (snapshot, path) in &seen.unreadable {
            let is_reported = findings.iter().any(|finding| {
                let is_affected = finding["snapshots"].as_array().unwrap().iter().any(|name| name == snapshot);
                let paths = finding["paths"].as_array();
                is_affected && paths.is_none_or(|paths| paths.iter().any(|listed| listed["path"] == path.as_str()))
            });
            if !is_reported {
                return Err(format!("verify does not report {path} of {snapshot}, which cannot be read: {report}"));
            }
        }
        match findings.iter().find(|finding| finding["object"].as_str().is_some_and(|object| object != self.object)) {
            Some(other) => Err(format!("verify reports an object that is whole: {other}")),
            None => Ok(()),
        }
    }
}

impl RoundCounts {
    /// Adds a regular file in `snapshots/` that cannot be read.
    fn add_unreadable(&mut self, path: &[u8], node: &Node) {
        let path = String::from_utf8(path.to_vec()).unwrap();
        let place = path.strip_prefix("/snapshots/").and_then(|place| place.split_once('/'));
        if let Some((snapshot, path)) = place.filter(|_| node.attr.kind == NodeKind::File) {
            self.unreadable.insert((snapshot.to_owned(), path.to_owned()));
        }
    }
}

fn listing(fs: &dyn FileSystem, ino: Ino) -> Result<Vec<Vec<u8>>, FsError> {
    let mut names = Vec::new();
    fs.readdir(ino, 0, &RequestContext::unlimited(), &mut |entry| {
        names.push(entry.name.to_vec());
        true
    })?;
    names.sort();
    Ok(names)
}

/// Reads the files below `ino` before anything asks for their sizes.
fn read_unsized(
    fs: &dyn FileSystem,
    ino: Ino,
    path: Vec<u8>,
    healthy: &BTreeMap<Vec<u8>, Node>,
    seen: &mut RoundCounts,
) -> Result<(), String> {
    let want = &healthy[&path];
    let place = path.escape_ascii();
    if want.attr.kind == NodeKind::File {
        let opened = fs.open_unsized(ino, &RequestContext::unlimited());
        let read = opened.and_then(|opened| read_opened(fs, ino, opened, want.content.len()));
        return match right_or_error(read, &format!("read {place} without its size"), seen)? {
            Some(bytes) if bytes != want.content => {
                Err(format!("read {place} without its size: {} bytes", bytes.len()))
            }
            Some(_) | None => Ok(()),
        };
    }
    for name in &want.children {
        // Other failures are found when everything is examined.
        if let Ok(attr) = fs.lookup(ino, name, &RequestContext::unlimited()) {
            read_unsized(fs, attr.ino, below(&path, name), healthy, seen)?;
        }
    }
    Ok(())
}

/// Reads an open file of `size` bytes, and one more if there is one, and closes it.
fn read_opened(fs: &dyn FileSystem, ino: Ino, opened: Opened, size: usize) -> Result<Vec<u8>, FsError> {
    let bytes = fs.read(ino, opened.handle, 0, size + 1, &RequestContext::unlimited());
    fs.release(ino, opened.handle);
    bytes
}

pub(crate) fn content(fs: &dyn FileSystem, attr: &Attr) -> Result<Vec<u8>, FsError> {
    match attr.kind {
        NodeKind::Symlink => fs.readlink(attr.ino, &RequestContext::unlimited()),
        NodeKind::File => {
            let opened = fs.open(attr.ino, &RequestContext::unlimited())?;
            read_opened(fs, attr.ino, opened, usize::try_from(attr.size).unwrap())
        }
        NodeKind::Dir | NodeKind::Fifo | NodeKind::CharDevice | NodeKind::BlockDevice => Ok(Vec::new()),
    }
}

/// Attributes of a directory in `versions/` whose state at some time is not known: only the user of the mount may
/// enter it, and its modification time may be later than that of `attr`.
fn closed(attr: Attr, right: Attr) -> Attr {
    let mtime = attr.mtime.min(right.mtime);
    lasting(Attr { perm: 0o700, uid: attr.uid, gid: attr.gid, mtime, ..right })
}

fn below(path: &[u8], name: &[u8]) -> Vec<u8> {
    [path, b"/", name].concat()
}

pub(crate) fn record(fs: &dyn FileSystem, ino: Ino, path: Vec<u8>, nodes: &mut BTreeMap<Vec<u8>, Node>) {
    let attr = fs.getattr(ino, &RequestContext::unlimited()).unwrap();
    let children = if attr.kind == NodeKind::Dir { listing(fs, ino).unwrap() } else { Vec::new() };
    for name in &children {
        let child = fs.lookup(ino, name, &RequestContext::unlimited()).unwrap();
        record(fs, child.ino, below(&path, name), nodes);
    }
    let content = content(fs, &attr).unwrap();
    nodes.insert(path, Node { attr, content, children });
}

fn examine(
    fs: &dyn FileSystem,
    ino: Ino,
    path: Vec<u8>,
    healthy: &BTreeMap<Vec<u8>, Node>,
    seen: &mut RoundCounts,
) -> Result<(), String> {
    let want = &healthy[&path];
    let place = path.escape_ascii();
    let Some(attr) = right_or_error(fs.getattr(ino, &RequestContext::unlimited()), &format!("stat {place}"), seen)?
    else {
        seen.add_unreadable(&path, want);
        return Ok(());
    };
    let unknown = path.starts_with(b"/versions/") && lasting(attr) == closed(attr, want.attr);
    if lasting(attr) != lasting(want.attr) && !unknown {
        return Err(format!("stat {place}: {attr:?}, right is {:?}", want.attr));
    }
    let read = right_or_error(content(fs, &attr), &format!("read {place}"), seen)?;
    if read.is_none() {
        seen.add_unreadable(&path, want);
    }
    if let Some(bytes) = read.filter(|bytes| *bytes != want.content) {
        let at = bytes.iter().zip(&want.content).take_while(|(a, b)| a == b).count();
        return Err(format!(
            "read {place}: {} bytes, right are {}; first wrong at {at}",
            bytes.len(),
            want.content.len()
        ));
    }
    if attr.kind != NodeKind::Dir {
        return Ok(());
    }
    let Some(names) = right_or_error(listing(fs, ino), &format!("readdir {place}"), seen)? else { return Ok(()) };
    if names != want.children {
        return Err(format!("readdir {place}: {} names, right are {}", names.len(), want.children.len()));
    }
    for name in names {
        let child = below(&path, &name);
        let looked_up = right_or_error(
            fs.lookup(ino, &name, &RequestContext::unlimited()),
            &format!("lookup {}", child.escape_ascii()),
            seen,
        )?;
        if let Some(attr) = looked_up {
            examine(fs, attr.ino, child, healthy, seen)?;
        }
    }
    Ok(())
}

/// Attributes without their cache durations and the link count of directories, which is 1 until the directory is
/// read.
fn lasting(attr: Attr) -> Attr {
    let nlink = if attr.kind == NodeKind::Dir { 1 } else { attr.nlink };
    Attr { nlink, attr_ttl: Duration::ZERO, entry_ttl: Duration::ZERO, ..attr }
}

/// Counts the result. An error must not be that the object does not exist.
fn right_or_error<T>(result: Result<T, FsError>, what: &str, seen: &mut RoundCounts) -> Result<Option<T>, String> {
    match result {
        Ok(value) => {
            seen.right += 1;
            Ok(Some(value))
        }
        Err(error) if error.errno() == libc::ENOENT => Err(format!("{what}: ENOENT for what exists: {error}")),
        Err(_) => {
            seen.errors += 1;
            Ok(None)
        }
    }
}
