//! Mounts of an in-memory file system through the kernel.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use crate::memory::{BIG, LATE, LATE_LONG, MTIME, MemoryFs, pattern};
use dupfs::fuse::{MountEnd, MountError, MountPoint, MountSettings, Mounted, mount_at, unmount};
use tempfile::TempDir;

/// A served mount. It is unmounted when the test ends, also on failure.
struct Served {
    dir: TempDir,
    fs: Arc<MemoryFs>,
    server: Option<thread::JoinHandle<Result<MountEnd, MountError>>>,
    stop: Box<dyn Fn() + Send>,
}

fn settings() -> MountSettings {
    MountSettings {
        url: "file:///backups/my, site".to_owned(),
        allow_other: false,
        default_permissions: false,
        noexec: false,
        deadline: Duration::from_secs(20),
    }
}

impl Served {
    fn new() -> Self {
        Self::with(settings())
    }

    fn with(settings: MountSettings) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let fs = Arc::new(MemoryFs::sample());
        let point = MountPoint::check(dir.path(), false).unwrap();
        let mounted = Mounted::mount(Arc::clone(&fs) as _, &point, &settings).unwrap();
        let stop = Box::new(mounted.stopper());
        let server = Some(thread::spawn(move || mounted.wait()));
        Self { dir, fs, server, stop }
    }

    fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(name)
    }

    fn ended(&mut self) -> Result<MountEnd, MountError> {
        self.server.take().unwrap().join().unwrap()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.fs.release_stuck();
        if let Some(server) = self.server.take() {
            (self.stop)();
            let _ = server.join();
        }
        let _ = unmount(self.dir.path(), true);
    }
}

fn errno(result: io::Result<impl std::fmt::Debug>) -> i32 {
    result.unwrap_err().raw_os_error().unwrap()
}

#[test]
fn stat_shows_every_attribute() {
    let served = Served::new();
    let file = fs::metadata(served.path("hello.txt")).unwrap();
    assert!(file.is_file());
    assert_eq!((file.len(), file.blocks(), file.nlink(), file.mtime()), (13, 1, 1, MTIME));
    assert_eq!(file.mode() & 0o7777, 0o644);
    let dir = fs::metadata(served.dir.path()).unwrap();
    assert!(dir.is_dir());
    assert_eq!((dir.ino(), dir.nlink()), (1, 7));
    let null = fs::symlink_metadata(served.path("null")).unwrap();
    assert!(null.file_type().is_char_device());
    assert_eq!(null.rdev(), fs::metadata("/dev/null").unwrap().rdev());
    assert!(fs::symlink_metadata(served.path("pipe")).unwrap().file_type().is_fifo());
    assert!(fs::symlink_metadata(served.path("link")).unwrap().is_symlink());
    assert_eq!(errno(fs::metadata(served.path("none"))), libc::ENOENT);
    assert_eq!(errno(fs::metadata(served.path("hello.txt/x"))), libc::ENOTDIR);
}

#[test]
fn a_listing_has_every_name_once_as_raw_bytes() {
    let served = Served::new();
    let names: Vec<_> = fs::read_dir(served.dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(names.contains(&OsStr::from_bytes(b"lat-\xe9").to_owned()));
    assert_eq!(names.len(), 12);

    // With and without the attributes of readdirplus, a first time and from the kernel's cache.
    for _ in 0..2 {
        let listed: BTreeMap<_, _> = fs::read_dir(served.path("many"))
            .unwrap()
            .map(|e| e.unwrap())
            .map(|e| (e.file_name().into_string().unwrap(), e.metadata().unwrap().len()))
            .collect();
        assert_eq!(listed.len(), 3000);
        assert_eq!(listed["file-02999"], 4);
    }
    let count = Command::new("ls").arg("-aU").arg(served.path("many")).output().unwrap().stdout;
    assert_eq!(count.split(|&b| b == b'\n').filter(|n| !n.is_empty()).count(), 3002);
}

#[test]
fn content_links_and_attributes_are_read() {
    let served = Served::new();
    assert_eq!(fs::read(served.path("hello.txt")).unwrap(), b"hello, world\n");
    assert_eq!(fs::read_link(served.path("link")).unwrap(), Path::new("sub/deep.bin"));
    assert!(fs::read(served.path("link")).unwrap() == pattern(BIG));
    let mut file = File::open(served.path("sub/deep.bin")).unwrap();
    let mut tail = Vec::new();
    file.seek(SeekFrom::End(-10)).unwrap();
    file.read_to_end(&mut tail).unwrap();
    assert_eq!(tail, pattern(BIG)[BIG - 10..]);
    let mut middle = [0; 5000];
    file.read_exact_at(&mut middle, 1_234_567).unwrap();
    assert_eq!(middle[..], pattern(BIG)[1_234_567..1_239_567]);

    let attribute = |name: &str| {
        let mut value = [0; 100];
        rustix::fs::getxattr(served.path("hello.txt"), name, &mut value[..]).map(|n| value[..n].to_vec())
    };
    assert_eq!(attribute("user.dupfs.set"), Ok(b"2".to_vec()));
    assert_eq!(attribute("user.dupfs.volumes"), Ok(b"vol1".to_vec()));
    assert_eq!(attribute("user.other"), Err(rustix::io::Errno::NODATA));
    let mut short = [0; 1];
    let found = rustix::fs::getxattr(served.path("hello.txt"), "user.dupfs.volumes", &mut short[..]);
    assert_eq!(found, Err(rustix::io::Errno::RANGE));
    // None is listed, so that copies do not include them.
    for _ in 0..2 {
        let mut list = [0; 100];
        let listed = rustix::fs::listxattr(served.path("hello.txt"), &mut list[..]);
        assert_eq!(listed, Err(rustix::io::Errno::OPNOTSUPP));
    }
}

#[test]
fn a_copy_by_cp_is_the_same() {
    let served = Served::new();
    let to = tempfile::tempdir().unwrap();
    for name in ["hello.txt", "sub", "link", "pipe", "many"] {
        let status = Command::new("cp").arg("-a").arg(served.path(name)).arg(to.path()).status().unwrap();
        assert!(status.success());
    }
    assert!(fs::read(to.path().join("sub/deep.bin")).unwrap() == pattern(BIG));
    assert_eq!(fs::metadata(to.path().join("sub/deep.bin")).unwrap().mtime(), MTIME);
    assert_eq!(fs::read_dir(to.path().join("many")).unwrap().count(), 3000);
    // The kernel sends releases at any time after close.
    let give_up = Instant::now() + Duration::from_secs(5);
    while served.fs.open_handles.load(Ordering::SeqCst) > 0 && Instant::now() < give_up {
        thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(served.fs.open_handles.load(Ordering::SeqCst), 0);
}

#[test]
fn the_mount_is_read_only_and_identifies_itself() {
    let served = Served::new();
    assert_eq!(errno(File::create(served.path("new"))), libc::EROFS);
    assert_eq!(errno(fs::remove_file(served.path("hello.txt"))), libc::EROFS);
    let stat = rustix::fs::statvfs(served.dir.path()).unwrap();
    assert_eq!((stat.f_namemax, stat.f_bsize, stat.f_bavail), (255, 4096, 0));
    assert_eq!(stat.f_blocks * stat.f_frsize, 10_000_000_u64.div_ceil(4096) * 4096);
    let entry = mount_at(served.dir.path()).unwrap().unwrap();
    assert_eq!(entry.kind, "fuse.dupfs");
    assert_eq!(entry.source, "dupfs:file:///backups/my%2C site");
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let line = table.lines().find(|l| l.contains(served.dir.path().to_str().unwrap())).unwrap();
    for flag in ["ro", "nosuid", "nodev", "noatime"] {
        assert!(line.split([' ', ',']).any(|word| word == flag), "{flag} in {line}");
    }
}

#[test]
fn names_and_sizes_are_answered_while_every_reader_waits() {
    let served = Served::new();
    let readers: Vec<_> = (0..40)
        .map(|n| {
            let path = served.path(format!("odd/slow-{n:02}"));
            thread::spawn(move || fs::read(path).unwrap())
        })
        .collect();
    thread::sleep(Duration::from_millis(200));
    let started = Instant::now();
    assert_eq!(fs::read_dir(served.path("many")).unwrap().count(), 3000);
    assert_eq!(fs::metadata(served.path("hello.txt")).unwrap().len(), 13);
    assert_eq!(fs::read(served.path("hello.txt")).unwrap().len(), 13);
    assert_eq!(fs::metadata(served.path("odd/unsized")).unwrap().len(), 12);
    assert!(started.elapsed() < Duration::from_millis(1100), "{:?}", started.elapsed());
    for reader in readers {
        assert_eq!(reader.join().unwrap(), b"exactly this");
    }
}

#[test]
fn a_listing_resolves_no_size_and_stat_shows_the_exact_one() {
    let served = Served::new();
    assert_eq!(fs::read_dir(served.path("odd")).unwrap().count(), 48);
    let plain = Command::new("ls").arg(served.path("odd")).output().unwrap();
    assert!(plain.status.success());
    assert_eq!(served.fs.sizes_resolved.load(Ordering::SeqCst), 0);
    let long = Command::new("ls").arg("-l").arg(served.path("odd")).output().unwrap();
    let long = String::from_utf8(long.stdout).unwrap();
    let line = long.lines().find(|l| l.ends_with(" unsized")).unwrap();
    assert!(line.contains(" 12 "), "{line}");
    assert!(served.fs.sizes_resolved.load(Ordering::SeqCst) > 0);
    assert_eq!(fs::read(served.path("odd/unsized")).unwrap(), b"exactly this");
    let mut mapped = Vec::new();
    File::open(served.path("odd/unsized")).unwrap().read_to_end(&mut mapped).unwrap();
    assert_eq!(mapped, b"exactly this");
}

#[test]
fn each_failure_has_its_errno_and_affects_nothing_else() {
    let served = Served::new();
    assert_eq!(errno(fs::read(served.path("odd/damaged"))), libc::EIO);
    assert_eq!(errno(fs::read(served.path("odd/no-key"))), libc::ENOKEY);
    assert_eq!(errno(fs::read(served.path("odd/cold"))), libc::EREMOTE);
    assert_eq!(errno(fs::read(served.path("odd/panics"))), libc::EIO);
    assert_eq!(fs::read(served.path("hello.txt")).unwrap(), b"hello, world\n");
}

#[test]
fn a_request_without_an_answer_times_out_and_the_late_answer_is_dropped() {
    let served = Served::with(MountSettings { deadline: Duration::from_millis(700), ..settings() });
    let started = Instant::now();
    assert_eq!(errno(fs::read(served.path("odd/stuck"))), libc::ETIMEDOUT);
    let took = started.elapsed();
    assert!(took >= Duration::from_millis(700) && took < Duration::from_secs(5), "{took:?}");
    served.fs.release_stuck();
    thread::sleep(Duration::from_millis(100));
    assert_eq!(fs::read(served.path("odd/stuck")).unwrap(), b"exactly this");
}

#[test]
fn unmounting_from_outside_ends_it_cleanly() {
    let mut served = Served::new();
    let status = Command::new("umount").arg(served.dir.path()).status().unwrap();
    assert!(status.success());
    assert_eq!(served.ended().unwrap(), MountEnd::Unmounted);
    assert_eq!(mount_at(served.dir.path()).unwrap(), None);
}

#[test]
fn a_stop_unmounts() {
    let mut served = Served::new();
    (served.stop)();
    assert_eq!(served.ended().unwrap(), MountEnd::Stopped);
    assert_eq!(mount_at(served.dir.path()).unwrap(), None);
}

#[test]
fn a_stop_while_a_file_is_open_detaches_the_mount_and_serves_the_file_to_its_end() {
    let mut served = Served::new();
    let mut file = File::open(served.path("sub/deep.bin")).unwrap();
    (served.stop)();
    let give_up = Instant::now() + Duration::from_secs(5);
    while mount_at(served.dir.path()).unwrap().is_some() && Instant::now() < give_up {
        thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(mount_at(served.dir.path()).unwrap(), None);
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).unwrap();
    assert!(bytes == pattern(BIG));
    drop(file);
    assert_eq!(served.ended().unwrap(), MountEnd::Stopped);
}

#[test]
fn a_second_stop_ends_the_mount_although_a_file_is_open() {
    let mut served = Served::new();
    let file = File::open(served.path("sub/deep.bin")).unwrap();
    (served.stop)();
    (served.stop)();
    assert_eq!(served.ended().unwrap(), MountEnd::Detached);
    drop(file);
}

#[test]
fn a_mount_point_in_use_is_refused() {
    let served = Served::new();
    match MountPoint::check(served.dir.path(), false) {
        Err(error @ MountError::InUse { .. }) => assert!(error.to_string().contains("dupfs umount"), "{error}"),
        other => panic!("{other:?}"),
    }
}

/// A shell's `program < file` requests no attributes between lookup and read, so the kernel still used the bound as
/// the size. Zeros were read beyond the end of the file, because readahead beyond the end was answered before the
/// data in front of it.
#[test]
fn a_file_of_unknown_size_is_read_to_its_end_and_no_further() {
    let served = Served::new();
    let mut file = File::open(served.path("odd/late")).unwrap();
    let (mut found, mut piece) = (Vec::new(), vec![0; 1_000_000]);
    loop {
        let len = file.read(&mut piece).unwrap();
        if len == 0 {
            break;
        }
        found.extend_from_slice(&piece[..len]);
    }
    assert_eq!(found.len(), LATE);
    assert!(found == pattern(LATE));
}

/// Sends `file` to a new file in the kernel, in pieces of `len` bytes, calling `between` after the first one.
fn send(file: &File, len: usize, between: impl FnOnce()) -> Vec<u8> {
    let mut copy = tempfile::tempfile().unwrap();
    let mut between = Some(between);
    while rustix::fs::sendfile(&copy, file, None, len).unwrap() > 0 {
        if let Some(between) = between.take() {
            between();
        }
    }
    copy.seek(SeekFrom::Start(0)).unwrap();
    let mut bytes = Vec::new();
    copy.read_to_end(&mut bytes).unwrap();
    bytes
}

#[test]
fn a_file_of_unknown_size_is_sent_to_its_end_and_no_further() {
    let served = Served::new();
    for (name, len) in [("late", LATE), ("late-long", LATE_LONG)] {
        let sent = send(&File::open(served.path("odd").join(name)).unwrap(), 1 << 20, || {});
        assert_eq!(sent.len(), len);
        assert!(sent == pattern(len));
    }
}

#[test]
fn a_listing_without_attributes_does_not_cut_a_file_that_is_being_sent() {
    let served = Served::new();
    let file = File::open(served.path("unlisted/big")).unwrap();
    assert_eq!(file.metadata().unwrap().len(), BIG as u64);
    let list = || assert_eq!(fs::read_dir(served.path("unlisted")).unwrap().count(), 1);
    let sent = send(&file, 1 << 20, list);
    assert_eq!(sent.len(), BIG);
    assert!(sent == pattern(BIG));
}

#[test]
fn a_listing_that_ends_in_an_error_shows_the_names_before_it() {
    let served = Served::new();
    for (dir, count) in [("none", 0), ("few", 3), ("lots", 300)] {
        let (names, errors): (Vec<_>, Vec<_>) =
            fs::read_dir(served.path("torn").join(dir)).unwrap().partition(Result::is_ok);
        assert_eq!(names.len(), count, "{dir}");
        assert_eq!(errors.len(), 1, "{dir}");
        let long = Command::new("ls").arg("-l").arg(served.path("torn").join(dir)).output().unwrap();
        assert!(!long.status.success());
        assert_eq!(String::from_utf8(long.stdout).unwrap().matches("known-").count(), count, "{dir}");
    }
}

#[test]
fn a_name_that_the_kernel_cannot_list_is_an_error_and_not_the_end() {
    let served = Served::new();
    let mut names = Vec::new();
    let mut listing = fs::read_dir(served.path("torn/long")).unwrap();
    let error = loop {
        match listing.next().expect("it ended without an error") {
            Ok(entry) => names.push(entry.file_name()),
            Err(error) => break error,
        }
    };
    assert_eq!(names, ["before"]);
    assert_eq!(error.raw_os_error(), Some(libc::EOPNOTSUPP));
}
