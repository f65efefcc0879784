//! The directory of a repository's index. Only its user has access, and no symbolic link in it is followed.
//!
//! Files in it do not change. They are written under a temporary name and renamed when they are complete, so that any number
//! of processes can read and write.

use std::fs::{DirBuilder, File};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::fs::{
    AtFlags, CWD, Dir, FlockOperation, Mode, OFlags, Timespec, Timestamps, UTIME_NOW, fchmod, flock, fstat, mkdirat,
    openat, renameat, statat, unlinkat, utimensat,
};
use rustix::io::Errno;

use super::framed_file::{VERSION_HEADER, is_older_version};
use dupfs_base::escape_bytes;

/// Prefix of the names of files that are being written.
const UNFINISHED: &str = ".new-";
/// Age after which an unfinished file is removed: its writer has ended.
const MAX_UNFINISHED_AGE: Duration = Duration::from_secs(3600);
/// Length of the name of a repository's directory, which is its identity in hexadecimal digits.
const IDENTITY_DIGITS: usize = 32;
const DIR_FLAGS: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Prefixes of the names of files of an index.
const OWN_PREFIXES: [&str; 4] = ["tree-", "seg-", "about-", UNFINISHED];
/// Upper bound of the attempts to open an index that is being removed.
const MAX_LOCK_ATTEMPTS: u32 = 50;
/// The time between them.
const LOCK_INTERVAL: Duration = Duration::from_millis(20);

/// The result of an attempt to lock an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DirectoryLock {
    /// The lock was taken.
    Taken,
    /// A process uses the index, or removes it.
    Held,
}

/// The open directory of an index.
#[derive(Debug)]
pub(super) struct IndexDirectory {
    dir: OwnedFd,
    display_path: String,
}

impl IndexDirectory {
    /// Opens directory `name` in `base` for use; both are created if they do not exist. Removes files of older versions from
    /// all indexes in `base`.
    ///
    /// # Errors
    /// Any I/O error, and if either is a symbolic link or belongs to another user.
    pub(super) fn open(base: &Path, name: &str) -> io::Result<Self> {
        let base_dir = create_base(base)?;
        let directory = Self::open_locked(&base_dir, base, name)?;
        directory.remove_older_versions();
        directory.remove_abandoned();
        for other in indexes_in(&base_dir).unwrap_or_default().into_iter().filter(|other| other != name) {
            if let Ok(dir) = openat(&base_dir, other.as_str(), DIR_FLAGS, Mode::empty()) {
                Self { dir, display_path: display_path(base, &other) }.remove_older_versions();
            }
        }
        Ok(directory)
    }

    /// Creates or opens directory `name`, and marks it as in use until it is dropped.
    fn open_locked(base_dir: &OwnedFd, base: &Path, name: &str) -> io::Result<Self> {
        for attempt in 1..=MAX_LOCK_ATTEMPTS {
            match mkdirat(base_dir, name, Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(e) => return Err(e.into()),
            }
            let directory = match Self::open_in(base_dir, base, name) {
                Err(error) if is_missing(&error) && attempt < MAX_LOCK_ATTEMPTS => continue,
                directory => directory?,
            };
            // Locks that the file system does not have protect from nothing; a removal does no harm to the answers.
            let is_locked = flock(&directory.dir, FlockOperation::NonBlockingLockShared) != Err(Errno::WOULDBLOCK);
            let is_linked = fstat(&directory.dir)?.st_nlink > 0;
            if is_locked && is_linked || attempt >= MAX_LOCK_ATTEMPTS {
                return Ok(directory);
            }
            // It is being removed.
            drop(directory);
            std::thread::sleep(LOCK_INTERVAL);
        }
        Err(Errno::WOULDBLOCK.into())
    }

    /// Opens the existing directory `name` in `base`.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub(super) fn open_existing(base: &Path, name: &str) -> io::Result<Self> {
        Self::open_in(&open_base(base)?, base, name)
    }

    fn open_in(base_dir: &OwnedFd, base: &Path, name: &str) -> io::Result<Self> {
        let dir = openat(base_dir, name, DIR_FLAGS, Mode::empty())?;
        let stat = fstat(&dir)?;
        if stat.st_uid != rustix::process::geteuid().as_raw() {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "the directory of the index belongs to another user",
            ));
        }
        if stat.st_mode & 0o077 != 0 {
            fchmod(&dir, Mode::RWXU)?;
        }
        Ok(Self { dir, display_path: display_path(base, name) })
    }

    /// The names of the indexes in `base`, sorted.
    ///
    /// # Errors
    /// Any I/O error, and if `base` is a symbolic link or belongs to another user.
    pub(super) fn names_in(base: &Path) -> io::Result<Vec<String>> {
        let mut names = indexes_in(&open_base(base)?)?;
        names.sort();
        Ok(names)
    }

    /// Removes the empty directory `name` in `base`.
    ///
    /// # Errors
    /// Any I/O error, and if it is not empty.
    pub(super) fn remove_empty(base: &Path, name: &str) -> io::Result<()> {
        Ok(unlinkat(open_base(base)?, name, AtFlags::REMOVEDIR)?)
    }

    /// Takes the lock under which the index is removed, until it is dropped.
    ///
    /// # Errors
    /// Any I/O error.
    pub(super) fn lock_exclusive(&self) -> io::Result<DirectoryLock> {
        match flock(&self.dir, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => Ok(DirectoryLock::Held),
            locked => Ok(locked.map(|()| DirectoryLock::Taken)?),
        }
    }

    /// The names of all files that belong to an index.
    pub(super) fn own_files(&self) -> io::Result<Vec<String>> {
        let mut names = self.list("")?;
        names.retain(|name| OWN_PREFIXES.iter().any(|prefix| name.starts_with(prefix)));
        Ok(names)
    }

    /// The names of the files of older versions, and of those whose writer has ended.
    pub(super) fn outdated_files(&self) -> Vec<String> {
        [self.older_versions(), self.abandoned()].concat()
    }

    /// Bytes of the regular file `name`; `None` if it is another object.
    pub(super) fn len(&self, name: &str) -> Option<u64> {
        let stat = statat(&self.dir, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        let is_file = rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::RegularFile;
        u64::try_from(stat.st_size).ok().filter(|_| is_file)
    }

    /// Sets the time of file `name` to now. An error is logged only.
    pub(super) fn touch(&self, name: &str) {
        let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
        let times = Timestamps { last_access: now, last_modification: now };
        if let Err(e) = utimensat(&self.dir, name, &times, AtFlags::SYMLINK_NOFOLLOW) {
            log::debug!("{}/{name}: its time cannot be set: {e}", self.display_path);
        }
    }

    /// The path of the directory, for log lines.
    pub(super) fn display_path(&self) -> &str {
        &self.display_path
    }

    /// Names of the files that begin with `prefix`.
    pub(super) fn list(&self, prefix: &str) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.dir)? {
            let entry = entry?;
            if let Ok(name) = entry.file_name().to_str()
                && name.starts_with(prefix)
            {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }

    /// Opens file `name` for reading.
    ///
    /// # Errors
    /// Any I/O error, and if it is not a regular file, or belongs to another user.
    pub(super) fn open_file(&self, name: &str) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = File::from(openat(&self.dir, name, flags, Mode::empty())?);
        let stat = fstat(&file)?;
        let is_regular = file.metadata()?.is_file();
        if !is_regular || stat.st_uid != rustix::process::geteuid().as_raw() {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "not a regular file of this user"));
        }
        Ok(file)
    }

    /// Creates file `name`, whose content `fill` writes. After an error there is no such file.
    pub(super) fn create_file(&self, name: &str, fill: impl FnOnce(&File) -> io::Result<()>) -> io::Result<()> {
        let mut random = [0u8; 8];
        getrandom::fill(&mut random).map_err(|e| io::Error::other(e.to_string()))?;
        let unfinished = format!("{UNFINISHED}{:016x}", u64::from_ne_bytes(random));
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = File::from(openat(&self.dir, &unfinished, flags, Mode::RUSR | Mode::WUSR)?);
        let written = fill(&file).and_then(|()| Ok(renameat(&self.dir, &unfinished, &self.dir, name)?));
        if written.is_err() {
            self.remove_file(&unfinished);
        }
        written
    }

    /// Removes file `name`. An error is logged only: the file does no harm.
    pub(super) fn remove_file(&self, name: &str) {
        if let Err(e) = unlinkat(&self.dir, name, AtFlags::empty()) {
            log::debug!("{}/{name}: cannot be removed: {e}", self.display_path);
        }
    }

    /// The time at which file `name` was written or touched.
    pub(super) fn written_at(&self, name: &str) -> Option<SystemTime> {
        let stat = statat(&self.dir, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(u64::try_from(stat.st_mtime).ok()?))
    }

    /// The time since file `name` was written.
    pub(super) fn age(&self, name: &str) -> Option<Duration> {
        SystemTime::now().duration_since(self.written_at(name)?).ok()
    }

    /// The files of older versions, also unfinished ones.
    fn older_versions(&self) -> Vec<String> {
        let is_older = |name: &String| {
            let mut head = [0; VERSION_HEADER];
            let read = self.open_file(name).and_then(|mut file| file.read_exact(&mut head));
            read.is_ok() && is_older_version(&head)
        };
        let mut names = self.list("").unwrap_or_default();
        names.retain(is_older);
        names
    }

    /// The unfinished files whose writer has ended.
    fn abandoned(&self) -> Vec<String> {
        let mut names = self.list(UNFINISHED).unwrap_or_default();
        names.retain(|name| self.age(name).is_some_and(|age| age > MAX_UNFINISHED_AGE));
        names
    }

    /// Removes every file of an older version: it may contain what an index must not contain any more.
    fn remove_older_versions(&self) {
        let names = self.older_versions();
        if !names.is_empty() {
            log::info!("{}: removing {} files of an older version of the index", self.display_path, names.len());
        }
        names.iter().for_each(|name| self.remove_file(name));
    }

    fn remove_abandoned(&self) {
        self.abandoned().iter().for_each(|name| self.remove_file(name));
    }
}

/// Returns true if the error is that there is no such file or directory.
pub(super) fn is_missing(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

/// Opens the directory of all indexes, and creates it if it does not exist.
pub(super) fn create_base(base: &Path) -> io::Result<OwnedFd> {
    DirBuilder::new().recursive(true).mode(0o700).create(base)?;
    open_base(base)
}

/// Opens the directory of all indexes.
fn open_base(base: &Path) -> io::Result<OwnedFd> {
    let base_dir = openat(CWD, base, DIR_FLAGS, Mode::empty())?;
    let me = rustix::process::geteuid().as_raw();
    if !matches!(fstat(&base_dir)?.st_uid, owner if owner == me || owner == 0) {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "the directory belongs to another user"));
    }
    Ok(base_dir)
}

fn display_path(base: &Path, name: &str) -> String {
    escape_bytes(base.join(name).as_os_str().as_encoded_bytes())
}

/// Names in `base` that are those of indexes of repositories.
fn indexes_in(base: &OwnedFd) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(base)? {
        let entry = entry?;
        if let Ok(name) = entry.file_name().to_str()
            && name.len() == IDENTITY_DIGITS
            && name.bytes().all(|b| b.is_ascii_hexdigit())
        {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests;
