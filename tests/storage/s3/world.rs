//! A server, a proxy in front of it, and the program with its credentials.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::support::exec::Dupfs;
use crate::support::mount::Mount;
use crate::support::proxy::{Proxy, Request};
use crate::support::s3::{KEY_ID, S3Server, SECRET};
use crate::support::tree::{Rules, Tree, assert_same};
use crate::support::{Scratch, fixtures};

/// The passphrase of all symmetrically encrypted files in tests/fixtures.
pub const PASSPHRASE: &str = "fixture passphrase";

/// The server, the proxy, and a directory of the test's own.
pub struct World {
    pub server: S3Server,
    pub proxy: Proxy,
    pub scratch: Scratch,
}

impl World {
    /// A server with the empty bucket `bucket`.
    pub fn new() -> Self {
        Self::on(S3Server::start())
    }

    /// The same, for buckets that are written through the server only: rclone then caches listings briefly. Without
    /// that, it keeps a processor busy after an upload and may not answer.
    pub fn written_by_clients() -> Self {
        Self::on(S3Server::start_with(&["--dir-cache-time", "10ms"], "http"))
    }

    fn on(server: S3Server) -> Self {
        Self { proxy: Proxy::start(&server.address), server, scratch: Scratch::new() }
    }

    /// Returns the directory of `place` (a bucket and a prefix) on the disk of the server, and creates it if it is
    /// missing.
    pub fn disk(&self, place: &str) -> PathBuf {
        let dir = self.server.root.path().join(place);
        fs::create_dir_all(&dir).unwrap();
        dir
    }

    /// Puts the files of a fixture into `place`.
    pub fn put_fixture(&self, fixture: &str, place: &str) {
        put(&fixtures::path(fixture), &self.disk(place));
    }

    /// The program without credentials and without access to any: no file of this machine and no metadata service.
    pub fn stranger(&self) -> Dupfs {
        let dupfs = self.without_access("home");
        // Requests are counted as for a first mount.
        dupfs.option("--timeout=5").option("--cache-size=0").option("--no-index")
    }

    /// The program with the home directory `home` of the scratch directory, and without access to any credentials.
    fn without_access(&self, home: &str) -> Dupfs {
        let dupfs = Dupfs::new(&self.scratch.dir(home));
        dupfs.variable("AWS_EC2_METADATA_DISABLED", "true").variable("BOTO_CONFIG", "/dev/null")
    }

    /// The program with credentials in its environment.
    pub fn client(&self) -> Dupfs {
        signing(self.stranger(), SECRET)
    }

    /// The same, with the proxy as the service.
    pub fn reader(&self) -> Dupfs {
        self.client().option(&self.endpoint())
    }

    /// The program with credentials and an index, and with the proxy as the service.
    pub fn indexed_reader(&self) -> Dupfs {
        let dupfs = self.without_access("indexed");
        signing(dupfs, SECRET).option(&self.endpoint())
    }

    /// The option that names the proxy as the service.
    pub fn endpoint(&self) -> String {
        format!("--s3-endpoint-url=http://{}", self.proxy.address)
    }

    /// Mounts `s3://place`.
    pub fn mount(&self, dupfs: &Dupfs, place: &str) -> Mount {
        Mount::new(dupfs, &format!("s3://{place}"), &self.scratch.dir("mnt"))
    }
}

/// Adds credentials to the environment.
pub fn signing(dupfs: Dupfs, secret: &str) -> Dupfs {
    dupfs.variable("AWS_ACCESS_KEY_ID", KEY_ID).variable("AWS_SECRET_ACCESS_KEY", secret)
}

/// Copies the files in `from` to `to`.
pub fn put(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// The names in the mount's `snapshots`, sorted.
pub fn snapshots(mount: &Mount) -> Vec<String> {
    let list = fs::read_dir(mount.path().join("snapshots")).unwrap();
    let mut names: Vec<_> = list.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Requires that every snapshot of `actual` equals the one of `expected`.
pub fn assert_same_snapshots(what: &str, expected: &Mount, actual: &Mount, count: usize) {
    let stamps = snapshots(expected);
    assert_eq!((stamps.len(), &stamps), (count, &snapshots(actual)), "{what}: the snapshots listed");
    for stamp in stamps {
        let [want, have] = [expected, actual].map(|mount| Tree::walk(&mount.path().join("snapshots").join(&stamp)));
        let mtimes = want.entries.iter().map(|(path, entry)| (path.clone(), entry.mtime));
        let rules = Rules { sane: true, link_mtimes: mtimes.collect(), ..Rules::default() };
        assert!(want.entries.len() >= 3, "{what}: snapshot {stamp} is empty");
        assert_same(&format!("{what}, snapshot {stamp}"), &want, &have, &rules);
    }
}

/// The file names of the objects fetched, each once, in order.
pub fn fetched(log: &[Request]) -> Vec<String> {
    let gets = log.iter().filter(|request| !is_listing(request));
    let mut names: Vec<_> = gets.map(|request| name_of(request).to_owned()).collect();
    names.sort();
    names.dedup();
    names
}

/// Returns true for a request for a listing.
pub fn is_listing(request: &Request) -> bool {
    request.target.contains("list-type=2")
}

/// Returns true for a fetch of a volume.
pub fn is_volume(request: &Request) -> bool {
    !is_listing(request) && name_of(request).contains(".difftar")
}

fn name_of(request: &Request) -> &str {
    request.target.split('?').next().unwrap().rsplit('/').next().unwrap()
}

/// Waits until `holds` returns true.
pub fn eventually(what: &str, limit: Duration, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < limit, "{what}: not so after {limit:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
