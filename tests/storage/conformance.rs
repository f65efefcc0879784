//! Tests of the contract of [`dupfs_read::storage::ObjectStore`] for every store.

use std::fs::{self, File};
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use dupfs_base::{ByteRange, ErrorKind, RequestContext};
use dupfs_read::storage::{CountingStore, FaultyStore, LocalStore, MemoryStore, ObjectInfo, ObjectStore, StorageError};

use crate::support::remote_servers::{RemoteServer, debian_rclone};
use crate::support::s3::{self, S3Server};

/// A place that tests can write to, and a store that reads it.
trait Fixture {
    fn store(&self) -> Arc<dyn ObjectStore>;
    fn put(&self, name: &str, bytes: &[u8]);
    fn remove(&self, name: &str);
}

struct Memory(Arc<MemoryStore>);

impl Fixture for Memory {
    fn store(&self) -> Arc<dyn ObjectStore> {
        Arc::clone(&self.0) as Arc<dyn ObjectStore>
    }
    fn put(&self, name: &str, bytes: &[u8]) {
        self.0.put(name, bytes);
    }
    fn remove(&self, name: &str) {
        self.0.remove(name);
    }
}

/// A store under all decorators, without faults.
struct Decorated(Memory);

impl Fixture for Decorated {
    fn store(&self) -> Arc<dyn ObjectStore> {
        let faulty = FaultyStore::new(self.0.store(), Vec::new());
        Arc::new(CountingStore::new(faulty))
    }
    fn put(&self, name: &str, bytes: &[u8]) {
        self.0.put(name, bytes);
    }
    fn remove(&self, name: &str) {
        self.0.remove(name);
    }
}

struct Local(tempfile::TempDir);

impl Fixture for Local {
    fn store(&self) -> Arc<dyn ObjectStore> {
        Arc::new(LocalStore::open(self.0.path()).unwrap())
    }
    fn put(&self, name: &str, bytes: &[u8]) {
        let temporary = self.0.path().join(".new");
        fs::write(&temporary, bytes).unwrap();
        fs::rename(&temporary, self.0.path().join(name)).unwrap();
    }
    fn remove(&self, name: &str) {
        fs::remove_file(self.0.path().join(name)).unwrap();
    }
}

struct S3 {
    server: S3Server,
    prefix: &'static str,
}

impl S3 {
    fn new(prefix: &'static str) -> Self {
        let server = S3Server::start();
        fs::create_dir_all(server.bucket().join(prefix)).unwrap();
        Self { server, prefix }
    }
}

impl Fixture for S3 {
    fn store(&self) -> Arc<dyn ObjectStore> {
        let location = self.server.location(&self.server.address, &format!("bucket/{}", self.prefix));
        dupfs_read::storage::open(&location, &self.server.options()).unwrap()
    }
    fn put(&self, name: &str, bytes: &[u8]) {
        let temporary = self.server.root.path().join("new");
        fs::write(&temporary, bytes).unwrap();
        fs::rename(&temporary, self.server.bucket().join(self.prefix).join(name)).unwrap();
    }
    fn remove(&self, name: &str) {
        fs::remove_file(self.server.bucket().join(self.prefix).join(name)).unwrap();
    }
}

/// A directory that a server on this machine offers, read by rclone.
struct Remote {
    server: RemoteServer,
    rclone: PathBuf,
    /// Seconds that were given to files as their times.
    time: AtomicU64,
}

impl Remote {
    fn new(server: RemoteServer, rclone: PathBuf) -> Self {
        Self { server, rclone, time: AtomicU64::new(1_700_000_000) }
    }
}

impl Fixture for Remote {
    fn store(&self) -> Arc<dyn ObjectStore> {
        dupfs_read::storage::open(&self.server.location(), &self.server.options(&self.rclone)).unwrap()
    }
    fn put(&self, name: &str, bytes: &[u8]) {
        let temporary = self.server.root().join(".new");
        fs::write(&temporary, bytes).unwrap();
        // Servers report times in seconds: a file that is replaced twice in a second looks the same.
        let time = UNIX_EPOCH + Duration::from_secs(self.time.fetch_add(1, Ordering::Relaxed));
        File::options().write(true).open(&temporary).unwrap().set_modified(time).unwrap();
        fs::rename(&temporary, self.server.root().join(name)).unwrap();
    }
    fn remove(&self, name: &str) {
        fs::remove_file(self.server.root().join(name)).unwrap();
    }
}

fn find(store: &dyn ObjectStore, name: &str) -> ObjectInfo {
    let list = store.list(&RequestContext::unlimited()).unwrap();
    list.into_iter().find(|o| &*o.name == name).unwrap_or_else(|| panic!("{name} is not listed"))
}

fn read(store: &dyn ObjectStore, object: &ObjectInfo, start: u64, end: u64) -> Result<Vec<u8>, StorageError> {
    let mut out = Vec::new();
    let mut stream = store.open(object, ByteRange { start, end }, &RequestContext::unlimited())?;
    stream.read_to_end(&mut out).map_err(|e| StorageError::recover(&object.name, &e))?;
    assert_eq!(stream.read(&mut [0; 8]).unwrap(), 0, "the end stays the end");
    Ok(out)
}

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|i| u8::try_from(i * 7 % 251).unwrap()).collect()
}

fn a_listing_names_every_object_with_its_size(fixture: &dyn Fixture) {
    let store = fixture.store();
    assert_eq!(store.list(&RequestContext::unlimited()).unwrap(), []);
    let names = ["duplicity-full.20240101T000000Z.vol1.difftar.gpg", "a b+c%20", "ü", "empty", "x&y=z#1?"];
    for (i, name) in names.iter().enumerate() {
        fixture.put(name, &bytes(i * 1000));
    }
    fixture.put("empty", b"");
    let mut listed: Vec<_> = store
        .list(&RequestContext::unlimited())
        .unwrap()
        .into_iter()
        .map(|o| (o.name.to_string(), o.size, o.archived))
        .collect();
    listed.sort();
    let mut wanted: Vec<_> = names.iter().enumerate().map(|(i, n)| ((*n).to_owned(), 1000 * i as u64, None)).collect();
    wanted[3].1 = 0;
    wanted.sort();
    assert_eq!(listed, wanted);
    for (i, name) in names.iter().enumerate().filter(|(_, n)| **n != "empty") {
        assert_eq!(read(&*store, &find(&*store, name), 0, u64::MAX).unwrap(), bytes(i * 1000), "{name}");
    }
}

fn every_range_is_right_and_cut_at_the_end(fixture: &dyn Fixture) {
    let all = bytes(300_000);
    fixture.put("o", &all);
    let store = fixture.store();
    let object = find(&*store, "o");
    for (start, end) in
        [(0, 1), (0, 300_000), (1, 2), (299_999, 300_000), (299_990, 400_000), (65_536, 131_072), (7, 7)]
    {
        let want = &all[start.min(all.len())..end.min(all.len())];
        assert_eq!(read(&*store, &object, start as u64, end as u64).unwrap(), want, "{start}..{end}");
    }
    assert_eq!(read(&*store, &object, 300_000, 300_001).unwrap(), b"");
    assert_eq!(read(&*store, &object, u64::MAX - 1, u64::MAX).unwrap(), b"");
    assert_eq!(read(&*store, &object, 9, 3).unwrap(), b"", "an inverted range is empty");
    fixture.put("empty", b"");
    assert_eq!(read(&*store, &find(&*store, "empty"), 0, 10).unwrap(), b"");
}

fn a_replaced_object_is_an_error_and_not_a_mixture(fixture: &dyn Fixture) {
    fixture.put("o", &bytes(50_000));
    let store = fixture.store();
    let before = find(&*store, "o");
    let mut other = bytes(50_000);
    other.reverse();
    fixture.put("o", &other);
    assert!(read(&*store, &before, 0, u64::MAX).is_err());
    let after = find(&*store, "o");
    assert_ne!(before.version, after.version);
    assert_eq!(read(&*store, &after, 0, u64::MAX).unwrap(), other);
    assert_eq!(find(&*store, "o"), after, "a version is stable");
}

fn an_object_that_was_listed_and_is_gone_is_missing(fixture: &dyn Fixture) {
    fixture.put("o", &bytes(10));
    let store = fixture.store();
    let object = find(&*store, "o");
    fixture.remove("o");
    let error = read(&*store, &object, 0, 10).unwrap_err();
    assert_eq!((error.kind, &*error.object), (ErrorKind::Missing, "o"));
    assert!(!error.to_string().contains('\n'));
    assert_eq!(store.list(&RequestContext::unlimited()).unwrap(), []);
}

fn many_threads_read_at_once(fixture: &dyn Fixture) {
    for i in 0..4 {
        fixture.put(&format!("o{i}"), &bytes(100_000 + i));
    }
    let store = fixture.store();
    let objects: Vec<_> = (0..4).map(|i| find(&*store, &format!("o{i}"))).collect();
    std::thread::scope(|scope| {
        for thread in 0..16_u64 {
            let (store, objects) = (&store, &objects);
            scope.spawn(move || {
                for i in 0..10 {
                    let object = &objects[(thread as usize + i) % 4];
                    let start = thread * 5000;
                    let want = &bytes(object.size as usize)[start as usize..];
                    assert_eq!(read(&**store, object, start, u64::MAX).unwrap(), want);
                }
            });
        }
    });
}

fn a_stream_that_is_dropped_early_costs_nothing(fixture: &dyn Fixture) {
    fixture.put("o", &bytes(500_000));
    let store = fixture.store();
    let object = find(&*store, "o");
    for _ in 0..200 {
        let mut stream =
            store.open(&object, ByteRange { start: 10, end: u64::MAX }, &RequestContext::unlimited()).unwrap();
        let mut some = [0; 10];
        stream.read_exact(&mut some).unwrap();
        assert_eq!(some, bytes(500_000)[10..20]);
    }
    assert_eq!(read(&*store, &object, 0, u64::MAX).unwrap(), bytes(500_000));
}

macro_rules! conformance {
    ($(#[$attribute:meta])? $store:ident, $make:expr) => {
        mod $store {
            use super::*;
            conformance!(@ $(#[$attribute])? $make, a_listing_names_every_object_with_its_size, every_range_is_right_and_cut_at_the_end,
                a_replaced_object_is_an_error_and_not_a_mixture, an_object_that_was_listed_and_is_gone_is_missing,
                many_threads_read_at_once, a_stream_that_is_dropped_early_costs_nothing);
        }
    };
    (@ #[$attribute:meta] $make:expr, $($case:ident),*) => {
        $(#[test] #[$attribute] fn $case() { super::$case(&$make); })*
    };
    (@ $make:expr, $($case:ident),*) => {
        $(#[test] fn $case() { super::$case(&$make); })*
    };
}

conformance!(memory, Memory(Arc::new(MemoryStore::new())));
conformance!(decorated, Decorated(Memory(Arc::new(MemoryStore::new()))));
conformance!(local, Local(tempfile::tempdir().unwrap()));
conformance!(s3_bucket, S3::new(""));
conformance!(s3_prefix, S3::new("some/prefix x"));
conformance!(webdav, Remote::new(RemoteServer::webdav(), s3::rclone()));
conformance!(
    #[ignore = "slow: scripts/test --all"]
    webdav_debian,
    Remote::new(RemoteServer::webdav(), debian_rclone())
);
conformance!(
    #[ignore = "slow: scripts/test --all"]
    ftp,
    Remote::new(RemoteServer::ftp(), s3::rclone())
);
conformance!(
    #[ignore = "slow: scripts/test --all"]
    ftp_debian,
    Remote::new(RemoteServer::ftp(), debian_rclone())
);
conformance!(
    #[ignore = "slow: scripts/test --all"]
    sftp,
    Remote::new(RemoteServer::ssh(), s3::rclone())
);
conformance!(
    #[ignore = "slow: scripts/test --all"]
    sftp_debian,
    Remote::new(RemoteServer::ssh(), debian_rclone())
);
conformance!(
    #[ignore = "slow: scripts/test --all"]
    sftp_password,
    Remote::new(RemoteServer::ssh().with_password(), s3::rclone())
);
