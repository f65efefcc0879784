//! Creation of source trees: contents, owners, times, special files. Needs root.

use std::fs;
use std::os::unix::fs::{PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, makedev, mknodat, utimensat};

use super::exec;

/// A directory that becomes a source tree, and the operations that make and edit it.
pub struct Maker {
    root: PathBuf,
    clock: i64,
}

impl Maker {
    /// A new empty tree at `root`; files get modification times from `clock` on, one second apart.
    pub fn new(root: &Path, clock: i64) -> Self {
        fs::create_dir_all(root).unwrap();
        Self { root: root.to_owned(), clock }
    }

    /// A copy of `other` with all its metadata, to be edited.
    pub fn copy_of(other: &Self, root: &Path, clock: i64) -> Self {
        exec::run(Command::new("cp").arg("-a").arg(&other.root).arg(root));
        Self { root: root.to_owned(), clock }
    }

    /// The directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The path of `name`.
    pub fn at(&self, name: impl AsRef<Path>) -> PathBuf {
        self.root.join(name)
    }

    /// Writes a file (and the directories above it) with a new modification time.
    pub fn file(&mut self, name: impl AsRef<Path>, content: impl AsRef<[u8]>) {
        let path = self.at(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        self.touch_path(&path);
    }

    /// Edits a file's content, and with it its modification time.
    pub fn edit(&mut self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let path = self.at(name);
        let mut content = fs::read(&path).unwrap();
        change(&mut content);
        fs::write(&path, content).unwrap();
        self.touch_path(&path);
    }

    /// Makes a directory.
    pub fn dir(&mut self, name: impl AsRef<Path>, mode: u32) {
        let path = self.at(name);
        fs::create_dir_all(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        self.touch_path(&path);
    }

    /// Makes a symbolic link.
    pub fn link(&mut self, name: &str, target: impl AsRef<Path>) {
        let path = self.at(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(target, &path).unwrap();
        self.touch_path(&path);
    }

    /// Makes a fifo.
    pub fn fifo(&mut self, name: &str, mode: u32) {
        self.node(name, FileType::Fifo, mode, 0, 0);
    }

    /// Makes a device or fifo.
    pub fn node(&mut self, name: &str, kind: FileType, mode: u32, major: u32, minor: u32) {
        let path = self.at(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let dev = if kind == FileType::Fifo { 0 } else { makedev(major, minor) };
        mknodat(CWD, &path, kind, Mode::from_raw_mode(mode), dev).expect("mknod: the oracle's tests run as root");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        self.touch_path(&path);
    }

    /// Changes a mode.
    pub fn chmod(&self, name: &str, mode: u32) {
        fs::set_permissions(self.at(name), fs::Permissions::from_mode(mode)).unwrap();
    }

    /// Changes an owner; a link's own.
    pub fn chown(&self, name: &str, uid: u32, gid: u32) {
        lchown(self.at(name), Some(uid), Some(gid)).expect("chown: the oracle's tests run as root");
    }

    /// Sets a modification time; a link's own.
    pub fn mtime(&self, name: impl AsRef<Path>, seconds: i64, nanos: i64) {
        set_mtime(&self.at(name), seconds, nanos);
    }

    /// A new modification time.
    pub fn touch(&mut self, name: &str) {
        let path = self.at(name);
        self.touch_path(&path);
    }

    /// Removes `name`, a file or a directory.
    pub fn remove(&self, name: &str) {
        let path = self.at(name);
        let is_dir = fs::symlink_metadata(&path).unwrap().is_dir();
        if is_dir { fs::remove_dir_all(&path) } else { fs::remove_file(&path) }.unwrap();
    }

    /// Renames, keeping all metadata.
    pub fn rename(&self, from: &str, to: &str) {
        fs::rename(self.at(from), self.at(to)).unwrap();
    }

    fn touch_path(&mut self, path: &Path) {
        self.clock += 1;
        set_mtime(path, self.clock, 0);
    }
}

/// Sets the modification time of `path` itself.
pub fn set_mtime(path: &Path, seconds: i64, nanos: i64) {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanos };
    let times = Timestamps { last_access: time, last_modification: time };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}
