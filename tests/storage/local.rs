//! Properties that only a directory as a store has: links, FIFOs, permissions, files that change during a read.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, Instant};

use dupfs_base::{ByteRange, ErrorKind, RequestContext};
use dupfs_read::storage::{LocalStore, ObjectInfo, ObjectStore, StorageError, Traffic};

const ALL: ByteRange = ByteRange { start: 0, end: u64::MAX };

fn names(store: &LocalStore) -> Vec<String> {
    let mut names: Vec<_> =
        store.list(&RequestContext::unlimited()).unwrap().into_iter().map(|o| o.name.to_string()).collect();
    names.sort();
    names
}

fn find(store: &LocalStore, name: &str) -> ObjectInfo {
    store.list(&RequestContext::unlimited()).unwrap().into_iter().find(|o| &*o.name == name).unwrap()
}

fn fail(store: &LocalStore, object: &ObjectInfo) -> StorageError {
    match store.open(object, ALL, &RequestContext::unlimited()) {
        Err(e) => e,
        Ok(mut stream) => StorageError::recover("?", &stream.read_to_end(&mut Vec::new()).unwrap_err()),
    }
}

fn mkfifo(path: &Path) {
    assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
}

#[test]
fn only_files_and_links_to_files_are_listed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    fs::write(path.join("file"), "12345").unwrap();
    fs::create_dir(path.join("sub")).unwrap();
    fs::write(path.join("sub/inner"), "x").unwrap();
    symlink("file", path.join("link")).unwrap();
    symlink("nowhere", path.join("dangling")).unwrap();
    symlink("sub", path.join("dirlink")).unwrap();
    symlink("loop", path.join("loop")).unwrap();
    mkfifo(&path.join("fifo"));
    symlink("fifo", path.join("fifolink")).unwrap();
    let not_utf8: &std::ffi::OsStr = std::os::unix::ffi::OsStrExt::from_bytes(b"\xe9");
    fs::write(path.join(not_utf8), "x").unwrap();
    let store = LocalStore::open(path).unwrap();
    assert_eq!(names(&store), ["file", "link", "loop"]);
    assert_eq!(find(&store, "link").size, 5);
    assert_eq!(fail(&store, &find(&store, "loop")).kind, ErrorKind::Io, "what cannot be examined says so when read");
}

#[test]
fn a_prefix_with_slashes_names_the_directory_to_list_too() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("a/b")).unwrap();
    fs::write(dir.path().join("a/b/x-duplicity"), "12").unwrap();
    fs::write(dir.path().join("a/other"), "").unwrap();
    fs::write(dir.path().join("top"), "").unwrap();
    let open = || LocalStore::open(dir.path()).unwrap();
    let store = open().with_prefixes(&["a/b/x-", "gone/y", "plain"]).unwrap();
    assert_eq!(names(&store), ["a/b/x-duplicity", "top"]);
    let mut text = String::new();
    store
        .open(&find(&store, "a/b/x-duplicity"), ALL, &RequestContext::unlimited())
        .unwrap()
        .read_to_string(&mut text)
        .unwrap();
    assert_eq!(text, "12");
    for bad in ["../x", "/x", "a//b/x", "a/./x"] {
        assert_eq!(open().with_prefixes(&[bad]).unwrap_err().kind, ErrorKind::Invalid, "{bad}");
    }
    let mut outside = find(&store, "top");
    outside.name = "../top".into();
    assert_eq!(fail(&store, &outside).kind, ErrorKind::Invalid);
}

#[test]
fn a_fifo_instead_of_a_file_is_an_error_and_not_a_hang() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("o"), "x").unwrap();
    let store = LocalStore::open(dir.path()).unwrap();
    let object = find(&store, "o");
    fs::remove_file(dir.path().join("o")).unwrap();
    mkfifo(&dir.path().join("o"));
    let start = Instant::now();
    assert_eq!(fail(&store, &object).kind, ErrorKind::Io);
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_file_that_changes_while_it_is_read_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("o");
    let store = LocalStore::open(dir.path()).unwrap();
    let begin = || {
        fs::write(&path, vec![b'a'; 100_000]).unwrap();
        let mut stream = store.open(&find(&store, "o"), ALL, &RequestContext::unlimited()).unwrap();
        stream.read_exact(&mut [0; 1000]).unwrap();
        stream
    };
    let finish = |mut stream: Box<dyn Read + Send>| {
        StorageError::recover("?", &stream.read_to_end(&mut Vec::new()).unwrap_err())
    };
    let stream = begin();
    File::options().write(true).open(&path).unwrap().set_len(50_000).unwrap();
    assert_eq!(finish(stream).kind, ErrorKind::Io, "truncated");
    let stream = begin();
    std::thread::sleep(Duration::from_millis(20));
    File::options().write(true).open(&path).unwrap().write_all(b"bbbb").unwrap();
    assert!(finish(stream).to_string().contains("changed since"), "overwritten in place");
    let stream = begin();
    File::options().append(true).open(&path).unwrap().write_all(b"more").unwrap();
    assert!(finish(stream).to_string().contains("changed since"), "grown");
    let mut stream = begin();
    fs::remove_file(&path).unwrap();
    assert_eq!(stream.read_to_end(&mut Vec::new()).unwrap(), 99_000, "an unlinked file stays whole");
}

#[test]
fn faults_of_the_directory_are_reported_when_it_is_opened() {
    let dir = tempfile::tempdir().unwrap();
    let kind = |path: &Path| LocalStore::open(path).unwrap_err().kind;
    assert_eq!(kind(&dir.path().join("gone")), ErrorKind::NotFound);
    fs::write(dir.path().join("file"), "").unwrap();
    assert_eq!(kind(&dir.path().join("file")), ErrorKind::Invalid);
    let error = LocalStore::open(Path::new("surely/not/here")).unwrap_err().to_string();
    assert!(error.starts_with("file:///") && error.ends_with("surely/not/here: no such directory"), "{error}");
    let store = LocalStore::open(dir.path()).unwrap();
    assert!(store.url().starts_with("file:///"));
    drop(dir);
    assert_eq!(store.list(&RequestContext::unlimited()).unwrap_err().kind, ErrorKind::NotFound, "never an empty list");
}

/// Runs `work` as a user other than root, who may read everything.
fn without_privileges<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let uid = rustix::process::getuid();
    let nobody = rustix::fs::Uid::from_raw(65534);
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            if uid.is_root() {
                // For this thread only, which ends with the work.
                rustix::thread::set_thread_res_uid(uid, nobody, uid).unwrap();
            }
            work()
        });
        thread.join().unwrap()
    })
}

#[test]
fn permissions_are_denied_with_a_remedy() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    mode(path, 0o755);
    fs::write(path.join("o"), "x").unwrap();
    fs::create_dir(path.join("d")).unwrap();
    fs::write(path.join("d/inner"), "x").unwrap();
    let store = LocalStore::open(path).unwrap();
    let object = find(&store, "o");
    mode(&path.join("o"), 0);
    let error = without_privileges(|| fail(&store, &object));
    assert_eq!(error.kind, ErrorKind::Denied);
    assert_eq!(error.to_string(), "o: cannot open: permission denied; run as a user who may read it");
    for refused in [0o333, 0o444, 0] {
        mode(&path.join("d"), refused);
        let error = without_privileges(|| LocalStore::open(&path.join("d")).unwrap_err());
        assert_eq!(error.kind, ErrorKind::Denied, "{refused:o}: {error}");
    }
}

#[test]
fn only_bytes_that_were_read_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), vec![7; 1000]).unwrap();
    let store = LocalStore::open(dir.path()).unwrap();
    assert_eq!(store.traffic(), Traffic::default());
    let object = find(&store, "file");
    let mut stream = store.open(&object, ByteRange { start: 100, end: 900 }, &RequestContext::unlimited()).unwrap();
    stream.read_exact(&mut [0; 300]).unwrap();
    assert_eq!(store.traffic(), Traffic { list_requests: 1, get_requests: 1, retries: 0, bytes: 300 });
}
