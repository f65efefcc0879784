//! The directory of this machine that is compared. Each directory in it is opened from its parent by one name without following
//! links, so nothing outside of it is read.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{self, AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::vfs::NodeKind;

/// The type of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LocalKind {
    /// A type that a backup can have.
    Of(NodeKind),
    /// A socket, or an unknown type.
    Other,
}

/// An object of this machine.
#[derive(Clone, Debug)]
pub(super) struct LocalObject {
    pub(super) kind: LocalKind,
    /// The low 12 mode bits.
    pub(super) perm: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) size: u64,
    /// Whole seconds since 1970.
    pub(super) mtime: i64,
    /// Major and minor number of a device.
    pub(super) rdev: (u32, u32),
    /// The target of a symbolic link.
    pub(super) target: Vec<u8>,
}

/// The compared directory.
#[derive(Debug)]
pub(super) struct LocalTree {
    root: OwnedFd,
}

impl LocalTree {
    /// Opens the directory at `path`, which may be a symbolic link, and returns its own attributes too.
    pub(super) fn open(path: &Path) -> io::Result<(Self, LocalObject)> {
        let root = open_directory(path)?;
        let own = of_stat(&fs::fstat(&root)?, Vec::new());
        Ok((Self { root }, own))
    }

    /// Opens the directory that `names` lead to.
    pub(super) fn open_dir(&self, names: &[Vec<u8>]) -> io::Result<OwnedFd> {
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC;
        let mut opened = self.root.try_clone()?;
        for name in names {
            opened = fs::openat(opened.as_fd(), OsStr::from_bytes(name), flags, Mode::empty())?;
        }
        Ok(opened)
    }
}

/// Opens a directory by its path.
pub(super) fn open_directory(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    Ok(fs::open(path, flags, Mode::empty())?)
}

/// The names in a directory, sorted.
pub(super) fn names(dir: BorrowedFd<'_>) -> io::Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if !matches!(name.as_slice(), b"." | b"..") {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// The object `name` in `dir`; `None` if there is none.
pub(super) fn stat(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<Option<LocalObject>> {
    let name = OsStr::from_bytes(name);
    let stat = match fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => stat,
        Err(Errno::NOENT) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let target = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Symlink => fs::readlinkat(dir, name, Vec::new())?.into_bytes(),
        _ => Vec::new(),
    };
    Ok(Some(of_stat(&stat, target)))
}

/// Opens regular file `name` in `dir`; `None` if it is no regular file any more.
pub(super) fn open_file(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<Option<File>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match fs::openat(dir, OsStr::from_bytes(name), flags, Mode::empty()) {
        Ok(file) => file,
        Err(Errno::NOENT | Errno::LOOP) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let is_file = FileType::from_raw_mode(fs::fstat(&file)?.st_mode) == FileType::RegularFile;
    Ok(is_file.then(|| File::from(file)))
}

fn of_stat(stat: &Stat, target: Vec<u8>) -> LocalObject {
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => LocalKind::Of(NodeKind::File),
        FileType::Directory => LocalKind::Of(NodeKind::Dir),
        FileType::Symlink => LocalKind::Of(NodeKind::Symlink),
        FileType::Fifo => LocalKind::Of(NodeKind::Fifo),
        FileType::CharacterDevice => LocalKind::Of(NodeKind::CharDevice),
        FileType::BlockDevice => LocalKind::Of(NodeKind::BlockDevice),
        FileType::Socket | FileType::Unknown => LocalKind::Other,
    };
    LocalObject {
        kind,
        perm: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        size: u64::try_from(stat.st_size).unwrap_or_default(),
        mtime: stat.st_mtime,
        rdev: (fs::major(stat.st_rdev), fs::minor(stat.st_rdev)),
        target,
    }
}
