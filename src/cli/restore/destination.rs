//! The directories that are written to. Each is opened from its parent by one name without following links, so nothing is
//! written outside of the destination. Objects are made under temporary names and then given their own.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use dupfs_base::{escape_bytes, hex, io_reason};
use md5::{Digest, Md5};
use rustix::fs::{self, AtFlags, FileType, Gid, Mode, OFlags, RawMode, RenameFlags, Timespec, Timestamps, Uid};
use rustix::io::Errno;

use super::wanted_tree::RESERVED_PREFIX;
use crate::cli::error::CliError;
use crate::cli::exit::CommandExit;
use crate::vfs::{Attr, NodeKind};

/// The exit code for a failure to write in the destination.
pub(super) fn write_exit(error: &io::Error) -> CommandExit {
    match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => CommandExit::Denied,
        _ => CommandExit::Failed,
    }
}

/// The failure to restore anything in the directory `path`.
pub(super) fn failed(path: &Path, error: &io::Error) -> CliError {
    let (exit, remedy) = match error.kind() {
        io::ErrorKind::NotFound => (CommandExit::NotFound, "; create the directories above the destination (mkdir -p)"),
        io::ErrorKind::NotADirectory => (CommandExit::Failed, "; give the name of a new or empty directory"),
        io::ErrorKind::PermissionDenied => {
            (write_exit(error), "; choose another destination, or run this as a user who may write there")
        }
        io::ErrorKind::ReadOnlyFilesystem => (write_exit(error), "; choose another destination"),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            (write_exit(error), "; free space there, or choose another destination")
        }
        _ => (write_exit(error), ""),
    };
    let shown = escape_bytes(path.as_os_str().as_bytes());
    CliError::new(exit, format!("{shown}: nothing can be restored here: {}{remedy}", io_reason(error)))
}

/// The attributes to give to restored objects.
#[derive(Clone, Copy, Debug)]
pub(super) struct AttributePolicy {
    /// Set owners: only root may.
    pub(super) owners: bool,
}

/// The temporary name of an object. It depends only on the object's name, so the next run finds what an interrupted one left.
pub(super) fn temporary_name(name: &[u8]) -> String {
    format!("{RESERVED_PREFIX}-{}", hex(&Md5::digest(name)))
}

/// Opens directory `name` in `parent` without following a link.
pub(super) fn open_dir(parent: BorrowedFd<'_>, name: &[u8]) -> io::Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC;
    Ok(fs::openat(parent, OsStr::from_bytes(name), flags, Mode::empty())?)
}

/// Creates directory `name` in `parent`, or opens the existing one. With `force`, an object that is no directory is removed.
pub(super) fn make_dir(parent: BorrowedFd<'_>, name: &[u8], force: bool) -> io::Result<OwnedFd> {
    let shown = OsStr::from_bytes(name);
    match fs::mkdirat(parent, shown, Mode::RWXU) {
        Ok(()) => return open_dir(parent, name),
        Err(Errno::EXIST) => {}
        Err(error) => return Err(error.into()),
    }
    match open_dir(parent, name) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOTDIR | libc::ELOOP)) => {
            if !force {
                let line = "exists and is no directory (a link is not followed); --force replaces it";
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, line));
            }
            fs::unlinkat(parent, shown, AtFlags::empty())?;
            fs::mkdirat(parent, shown, Mode::RWXU)?;
            open_dir(parent, name)
        }
        result => result,
    }
}

/// Creates the temporary file for `name`, after removing one that an earlier run left.
pub(super) fn create_temporary(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<OwnedFd> {
    let temporary = temporary_name(name);
    remove_temporary(dir, name)?;
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::RDWR | OFlags::CLOEXEC;
    Ok(fs::openat(dir, temporary.as_str(), flags, Mode::RUSR | Mode::WUSR)?)
}

/// Opens the temporary file for `name` that an earlier run of this user left. `None` if there is none, or another object.
pub(super) fn open_temporary(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<Option<OwnedFd>> {
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match fs::openat(dir, temporary_name(name).as_str(), flags, Mode::empty()) {
        Ok(file) => file,
        Err(Errno::NOENT | Errno::LOOP | Errno::ISDIR | Errno::NXIO | Errno::ACCESS) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    // No other user can have it open for writing, and no other name leads to it.
    let stat = fs::fstat(&file)?;
    let is_private = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
        && Mode::from_raw_mode(stat.st_mode) == Mode::RUSR | Mode::WUSR
        && stat.st_nlink == 1
        && stat.st_uid == rustix::process::geteuid().as_raw();
    Ok(is_private.then_some(file))
}

/// Removes the temporary object for `name`, if there is one, unless it is a file of at least `min_len` bytes.
pub(super) fn remove_short_temporary(dir: BorrowedFd<'_>, name: &[u8], min_len: u64) -> io::Result<()> {
    match fs::statat(dir, temporary_name(name).as_str(), AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) if u64::try_from(stat.st_size).is_ok_and(|len| len >= min_len) => Ok(()),
        Ok(_) => remove_temporary(dir, name),
        Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Removes the temporary object for `name`, if there is one.
pub(super) fn remove_temporary(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
    match fs::unlinkat(dir, temporary_name(name).as_str(), AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Gives the temporary object of `name` its name. Without `force` nothing is replaced.
pub(super) fn place(dir: BorrowedFd<'_>, name: &[u8], force: bool) -> io::Result<()> {
    let (temporary, shown) = (temporary_name(name), OsStr::from_bytes(name));
    let temporary = temporary.as_str();
    if force {
        return Ok(fs::renameat(dir, temporary, dir, shown)?);
    }
    match fs::renameat_with(dir, temporary, dir, shown, RenameFlags::NOREPLACE) {
        // This file system does not support the flag. A new link never replaces anything either.
        Err(Errno::INVAL | Errno::NOSYS) => {
            fs::linkat(dir, temporary, dir, shown, AtFlags::empty())?;
            Ok(fs::unlinkat(dir, temporary, AtFlags::empty())?)
        }
        result => Ok(result?),
    }
}

/// Makes the temporary object for `name`, a link, pipe or device, with all its attributes.
pub(super) fn make_special(
    dir: BorrowedFd<'_>,
    name: &[u8],
    attr: &Attr,
    target: Option<&[u8]>,
    policy: AttributePolicy,
) -> io::Result<()> {
    remove_temporary(dir, name)?;
    let temporary = temporary_name(name);
    let temporary = temporary.as_str();
    if let Some(target) = target {
        fs::symlinkat(OsStr::from_bytes(target), dir, temporary)?;
    } else {
        let kind = match attr.kind {
            NodeKind::CharDevice => FileType::CharacterDevice,
            NodeKind::BlockDevice => FileType::BlockDevice,
            NodeKind::File | NodeKind::Dir | NodeKind::Symlink | NodeKind::Fifo => FileType::Fifo,
        };
        let device = fs::makedev(attr.rdev.0, attr.rdev.1);
        fs::mknodat(dir, temporary, kind, Mode::RUSR | Mode::WUSR, device)?;
    }
    if policy.owners {
        let (uid, gid) = owner(attr);
        fs::chownat(dir, temporary, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    }
    if target.is_none() {
        // Not by name: another process could have replaced the object by a link.
        let object = fs::openat(dir, temporary, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        fs::chmod(format!("/proc/self/fd/{}", object.as_raw_fd()), mode(attr))?;
    }
    Ok(fs::utimensat(dir, temporary, &times(attr), AtFlags::SYMLINK_NOFOLLOW)?)
}

/// Sets owner, mode and time of an open file or directory, in the order in which none undoes another.
pub(super) fn set_attributes(object: BorrowedFd<'_>, attr: &Attr, policy: AttributePolicy) -> io::Result<()> {
    if policy.owners {
        let (uid, gid) = owner(attr);
        fs::fchown(object, Some(uid), Some(gid))?;
    }
    fs::fchmod(object, mode(attr))?;
    Ok(fs::futimens(object, &times(attr))?)
}

/// An existing object, as far as it decides whether it is the wanted one.
#[derive(Debug)]
pub(super) enum Existing {
    Nothing,
    /// A regular file with one name, open for reading, and its size.
    File(OwnedFd, u64),
    /// A link, and its target.
    Link(Vec<u8>),
    /// A pipe or device, and its device number.
    Special(FileType, (u32, u32)),
    Other,
}

/// Returns what exists as `name` in `dir`.
pub(super) fn existing(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<Existing> {
    let shown = OsStr::from_bytes(name);
    let stat = match fs::statat(dir, shown, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => stat,
        Err(Errno::NOENT) => return Ok(Existing::Nothing),
        Err(error) => return Err(error.into()),
    };
    Ok(match FileType::from_raw_mode(stat.st_mode) {
        FileType::Symlink => Existing::Link(fs::readlinkat(dir, shown, Vec::new())?.into_bytes()),
        FileType::RegularFile => {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let file = fs::openat(dir, shown, flags, Mode::empty())?;
            let stat = fs::fstat(file.as_fd())?;
            match (FileType::from_raw_mode(stat.st_mode), u64::try_from(stat.st_size)) {
                (FileType::RegularFile, Ok(size)) if stat.st_nlink == 1 => Existing::File(file, size),
                _ => Existing::Other,
            }
        }
        kind @ (FileType::Fifo | FileType::CharacterDevice | FileType::BlockDevice) => {
            let number =
                if kind == FileType::Fifo { (0, 0) } else { (fs::major(stat.st_rdev), fs::minor(stat.st_rdev)) };
            Existing::Special(kind, number)
        }
        FileType::Directory | FileType::Socket | FileType::Unknown => Existing::Other,
    })
}

/// Free bytes of the file system of `dir` for this user.
pub(super) fn free_bytes(dir: BorrowedFd<'_>) -> io::Result<u64> {
    let stat = fs::fstatvfs(dir)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

fn mode(attr: &Attr) -> Mode {
    Mode::from_raw_mode(RawMode::from(attr.perm & 0o7777))
}

fn owner(attr: &Attr) -> (Uid, Gid) {
    (Uid::from_raw(attr.uid), Gid::from_raw(attr.gid))
}

fn times(attr: &Attr) -> Timestamps {
    let time = Timespec { tv_sec: attr.mtime, tv_nsec: 0 };
    Timestamps { last_access: time, last_modification: time }
}
