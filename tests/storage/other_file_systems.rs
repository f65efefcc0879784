//! Backups in directories of file systems whose inode numbers change: sshfs, mergerfs, exFAT, `rclone mount`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use dupfs_base::{ByteRange, RequestContext};
use dupfs_read::storage::{LocalStore, ObjectInfo, ObjectStore, StorageError};

use crate::rclone::read;
use crate::support::exec::{Dupfs, output, run, tail};
use crate::support::mount::Mount;
use crate::support::remote_servers::debian_rclone;
use crate::support::{Scratch, fixtures, s3};

/// The program of a file system.
#[derive(Clone, Debug, PartialEq, Eq)]
enum FileSystemKind {
    /// sshfs without a network.
    Sshfs,
    /// mergerfs over two directories, between which the files are distributed.
    Mergerfs,
    /// exFAT in a file, by a loop device.
    Exfat,
    /// `rclone mount` of a directory, by this program.
    Rclone(PathBuf),
}

/// A mounted file system, which is unmounted when it is dropped.
struct OtherFileSystem {
    kind: FileSystemKind,
    dir: tempfile::TempDir,
}

impl OtherFileSystem {
    /// Mounts a new one without files.
    fn new(kind: FileSystemKind) -> Self {
        let dir = tempfile::Builder::new().prefix("dupfs-").tempdir().unwrap();
        for name in ["files", "more", "mount"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        // sshfs starts it instead of ssh.
        let server = dir.path().join("ssh");
        fs::write(&server, "#!/bin/sh\nexec /usr/lib/openssh/sftp-server\n").unwrap();
        fs::set_permissions(&server, fs::Permissions::from_mode(0o755)).unwrap();
        let image = fs::File::create(dir.path().join("image")).unwrap();
        image.set_len(16 << 20).unwrap();
        let other = Self { kind, dir };
        if other.kind == FileSystemKind::Exfat {
            run(Command::new("mkfs.exfat").arg(other.dir.path().join("image")));
        }
        other.mount();
        other
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("mount")
    }

    fn mount(&self) {
        let (dir, mount) = (self.dir.path(), self.path());
        let mut command = match &self.kind {
            FileSystemKind::Sshfs => {
                let mut command = Command::new("sshfs");
                command.arg(format!("host:{}", dir.join("files").display())).arg(mount);
                command.arg("-o").arg(format!("ssh_command={}", dir.join("ssh").display()));
                command
            }
            FileSystemKind::Mergerfs => {
                let mut command = Command::new("mergerfs");
                command.arg(format!("{0}/files:{0}/more", dir.display())).arg(mount);
                command
            }
            FileSystemKind::Exfat => {
                let mut command = Command::new("mount");
                command.args(["-t", "exfat-fuse", "-o", "loop"]).arg(dir.join("image")).arg(mount);
                command
            }
            FileSystemKind::Rclone(program) => {
                let mut command = Command::new(program);
                command.args(["mount", "--daemon", "--read-only"]).arg(dir.join("files")).arg(mount);
                command.env("RCLONE_CONFIG", "/dev/null");
                command
            }
        };
        run(&mut command);
        let begun = Instant::now();
        while fs::metadata(self.path()).unwrap().dev() == fs::metadata(dir).unwrap().dev() {
            assert!(begun.elapsed() < Duration::from_secs(60), "{:?} is not mounted", self.kind);
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Fails if a file of it stays open.
    fn unmount(&self) {
        let begun = Instant::now();
        loop {
            let output = output(Command::new("umount").arg(self.path()));
            if output.status.success() {
                return;
            }
            // A stream in the background may still close its file.
            assert!(begun.elapsed() < Duration::from_secs(30), "{:?}: {}", self.kind, tail(&output.stderr));
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Writes a file with this time: through the mount, or below it where the mount is read-only. mergerfs has every second
    /// new file in its second directory.
    fn put(&self, name: &str, bytes: &[u8], modified: SystemTime) {
        let dir = match self.kind {
            FileSystemKind::Exfat => self.path(),
            FileSystemKind::Mergerfs => {
                let [files, more] = ["files", "more"].map(|name| self.dir.path().join(name));
                let count = |dir: &Path| fs::read_dir(dir).unwrap().count();
                if more.join(name).exists() || (!files.join(name).exists() && count(&more) < count(&files)) {
                    more
                } else {
                    files
                }
            }
            FileSystemKind::Sshfs | FileSystemKind::Rclone(_) => self.dir.path().join("files"),
        };
        // As rsync writes it: another inode.
        let new = dir.join("new");
        let mut file = fs::File::create(&new).unwrap();
        file.write_all(bytes).unwrap();
        file.set_modified(modified).unwrap();
        drop(file);
        fs::rename(new, dir.join(name)).unwrap();
    }

    /// Mounts it again, and finds its files in the reverse order of their inode numbers, which are others afterwards.
    fn renumber(&self) {
        let inode = |name: &OsString| fs::metadata(self.path().join(name)).unwrap().ino();
        let names = fs::read_dir(self.path()).unwrap().map(|entry| entry.unwrap().file_name());
        let mut before: Vec<_> = names.map(|name| (inode(&name), name)).collect();
        before.sort_unstable_by(|a, b| b.cmp(a));
        self.unmount();
        self.mount();
        let after: Vec<_> = before.iter().map(|(_, name)| (inode(name), name.clone())).collect();
        // Those of rclone follow from the names.
        let is_rclone = matches!(self.kind, FileSystemKind::Rclone(_));
        assert!((after == before) == is_rclone, "{:?}: {before:?} and then {after:?}", self.kind);
    }

    /// Makes the kernel forget all inodes, as it does when memory is short. Files are found in another order afterwards.
    fn forget(&self, names: &[&str]) {
        run(Command::new("mount").args(["-i", "-o", "remount,ro"]).arg(self.path()));
        for name in names.iter().rev() {
            let _ = fs::metadata(self.path().join(name)).unwrap();
        }
    }
}

impl Drop for OtherFileSystem {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).stderr(std::process::Stdio::null()).status();
    }
}

/// The names and contents of the regular files below `root`; of a file that cannot be read, the error.
fn contents(root: &Path) -> BTreeMap<PathBuf, io::Result<Vec<u8>>> {
    let mut out = BTreeMap::new();
    let mut dirs = vec![root.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).unwrap().map(Result::unwrap) {
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                dirs.push(entry.path());
            } else if kind.is_file() {
                out.insert(entry.path().strip_prefix(root).unwrap().to_owned(), fs::read(entry.path()));
            }
        }
    }
    out
}

/// A volume of the same size, sound in itself, in which a part of a file is replaced by zeros. `content` is the part.
fn forged(volume: &[u8], content: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    flate2::read::MultiGzDecoder::new(volume).read_to_end(&mut plain).unwrap();
    let at = plain.windows(content.len()).position(|part| part == content).unwrap();
    plain[at..at + content.len()].fill(0);
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(&plain).unwrap();
    let packed = encoder.finish().unwrap();
    // The rest is a field of the header.
    let field = volume.len().checked_sub(packed.len() + 2).unwrap();
    let mut out = packed[..10].to_vec();
    out[3] |= 4;
    out.extend(u16::try_from(field).unwrap().to_le_bytes());
    out.extend(vec![0; field]);
    out.extend(&packed[10..]);
    assert_eq!(out.len(), volume.len());
    out
}

fn fetched(mount: &Mount) -> u64 {
    let cost = run(Command::new("getfattr").args(["-n", "user.dupfs.cost", "--only-values"]).arg(mount.path()));
    let cost = String::from_utf8(cost).unwrap();
    let number = cost.split(" bytes fetched").next().unwrap().rsplit(' ').next().unwrap().to_owned();
    number.parse().unwrap_or_else(|_| panic!("{cost}"))
}

fn drop_caches() {
    fs::write("/proc/sys/vm/drop_caches", "3").unwrap();
}

/// A backup on another file system is read as one on the usual ones, also after the file system was mounted again, and the index
/// is of use for the next mount. A volume that was replaced by one of the same size and time is damage.
fn a_backup_is_read_as_from_a_usual_directory(kind: FileSystemKind) {
    let fixture = fixtures::path("duplicity-0.8.15-python2.7-gz");
    let other = OtherFileSystem::new(kind);
    let mut names: Vec<_> =
        fs::read_dir(&fixture).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    for name in &names {
        let file = fixture.join(name);
        other.put(name, &fs::read(&file).unwrap(), fs::metadata(&file).unwrap().modified().unwrap());
    }
    let scratch = Scratch::new();
    let local = Mount::new(&Dupfs::new(&scratch.dir("local")), fixture.to_str().unwrap(), &scratch.dir("m0"));
    let expected = contents(&local.path().join("snapshots"));
    assert!(expected.len() > 20 && expected.values().all(Result::is_ok), "{}", expected.len());
    // Without a cache each read opens the volumes again. The file system is not listed while it is not mounted.
    let dupfs = Dupfs::new(scratch.path()).option("--cache-size=0").option("--memory=64M").option("--refresh=0");
    let url = other.path().to_str().unwrap().to_owned();
    let differs = |mount: &Mount| {
        let found = contents(&mount.path().join("snapshots"));
        assert!(found.keys().eq(expected.keys()));
        let mut failed = Vec::new();
        for (path, bytes) in &found {
            match bytes {
                Ok(bytes) => assert!(bytes == expected[path].as_ref().unwrap(), "{}: wrong bytes", path.display()),
                Err(error) => failed.push(format!("{}: {error}", path.display())),
            }
        }
        failed
    };
    let mount = Mount::new(&dupfs, &url, &scratch.dir("m1"));
    assert_eq!(differs(&mount), [""; 0], "{}", mount.log());
    other.renumber();
    drop_caches();
    assert_eq!(differs(&mount), [""; 0], "{}", mount.log());
    mount.unmount();
    other.renumber();
    let mount = Mount::new(&dupfs, &url, &scratch.dir("m2"));
    run(Command::new("ls").arg("-R").arg(mount.path().join("latest/")).stdout(std::process::Stdio::null()));
    let bytes = fetched(&mount);
    assert!(bytes < 10_000, "{bytes} bytes although the index has the trees");

    let name = "duplicity-full.20261122T131028Z.vol1.difftar.gz";
    let (volume, modified) =
        (fs::read(fixture.join(name)).unwrap(), fs::metadata(fixture.join(name)).unwrap().modified().unwrap());
    let mut plain = Vec::new();
    flate2::read::MultiGzDecoder::new(&volume[..]).read_to_end(&mut plain).unwrap();
    let contents = expected.values().map(|bytes| bytes.as_ref().unwrap());
    let parts = contents.filter_map(|bytes| bytes.get(8192..12_288));
    let part = parts.into_iter().find(|part| plain.windows(part.len()).any(|other| other == *part)).unwrap();
    other.put(name, &forged(&volume, part), modified);
    other.unmount();
    other.mount();
    drop_caches();
    let reads = |mount: Mount| {
        assert_ne!(differs(&mount), [""; 0], "the volume is not damaged");
        assert!(mount.log().contains(name), "{}", mount.log());
        mount.unmount();
    };
    reads(mount);
    reads(Mount::new(&dupfs, &url, &scratch.dir("m3")));
    other.put(name, &volume, modified);
    let mount = Mount::new(&dupfs, &url, &scratch.dir("m4"));
    assert_eq!(differs(&mount), [""; 0], "{}", mount.log());
    mount.unmount();
}

#[test]
fn a_backup_on_sshfs_is_read() {
    a_backup_is_read_as_from_a_usual_directory(FileSystemKind::Sshfs);
}

#[test]
fn a_backup_on_mergerfs_is_read() {
    a_backup_is_read_as_from_a_usual_directory(FileSystemKind::Mergerfs);
}

#[test]
fn a_backup_on_exfat_is_read() {
    a_backup_is_read_as_from_a_usual_directory(FileSystemKind::Exfat);
}

#[test]
fn a_backup_on_a_mount_of_rclone_is_read() {
    a_backup_is_read_as_from_a_usual_directory(FileSystemKind::Rclone(debian_rclone()));
}

#[test]
#[ignore = "slow: scripts/test --all"]
fn a_backup_on_a_mount_of_the_newest_rclone_is_read() {
    a_backup_is_read_as_from_a_usual_directory(FileSystemKind::Rclone(s3::rclone()));
}

fn find(store: &LocalStore, name: &str) -> ObjectInfo {
    store.list(&RequestContext::unlimited()).unwrap().into_iter().find(|o| &*o.name == name).unwrap()
}

#[test]
fn links_to_files_on_another_file_system_are_the_same_files_after_it_was_mounted_again() {
    let other = OtherFileSystem::new(FileSystemKind::Exfat);
    let usual = tempfile::tempdir().unwrap();
    let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_001);
    for name in ["one", "two", "three"] {
        other.put(name, name.as_bytes(), modified);
        symlink(other.path().join(name), usual.path().join(name)).unwrap();
    }
    let store = LocalStore::open(usual.path()).unwrap();
    let objects = ["one", "two", "three"].map(|name| find(&store, name));
    other.renumber();
    for object in &objects {
        assert_eq!(read(&store, object).unwrap(), object.name.as_bytes());
        assert_eq!(find(&store, &object.name), *object);
    }
}

#[test]
#[ignore = "slow: scripts/test --all"]
fn files_on_sshfs_are_the_same_although_their_inode_numbers_change() {
    let names = ["one", "two", "three", "four"];
    let sshfs = OtherFileSystem::new(FileSystemKind::Sshfs);
    names.iter().for_each(|name| sshfs.put(name, name.as_bytes(), SystemTime::now()));
    let store = LocalStore::open(&sshfs.path()).unwrap();
    let objects = names.map(|name| find(&store, name));
    let inode = |name: &str| fs::metadata(sshfs.path().join(name)).unwrap().ino();
    let before = names.map(inode);
    sshfs.forget(&names);
    assert_ne!(names.map(inode), before, "the inode numbers did not change, so this test shows nothing");
    for (name, object) in names.iter().zip(&objects) {
        assert_eq!(read(&store, object).unwrap(), name.as_bytes());
        assert_eq!(find(&store, name), *object);
    }
    fs::write(sshfs.dir.path().join("files/one"), "another length").unwrap();
    let replaced = |error: &StorageError| error.to_string().contains("was replaced or changed");
    let begun = Instant::now();
    let all = ByteRange { start: 0, end: u64::MAX };
    // sshfs caches attributes for some seconds.
    while !matches!(store.open(&objects[0], all, &RequestContext::unlimited()), Err(error) if replaced(&error)) {
        assert!(begun.elapsed() < Duration::from_secs(60), "the change was not seen");
        std::thread::sleep(Duration::from_millis(100));
    }
}
