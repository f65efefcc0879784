//! The directory that holds a repository's index: the user's alone, and no link leads out of it.
//!
//! Files in it never change: they are written under a name that no reader looks for and renamed once they are complete, so
//! that any number of processes may read and write.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, fchmod, fstat, mkdirat, openat, renameat, statat, unlinkat};

use dupfs_base::escape_bytes;

/// What files that are being written are called.
const UNFINISHED: &str = ".new-";
/// Files that were being written when their writer ended.
const ABANDONED: Duration = Duration::from_secs(3600);

/// An open directory.
#[derive(Debug)]
pub(super) struct Place {
    dir: OwnedFd,
    shown: String,
}

impl Place {
    /// The directory `name` in `base`; both are made if they are not there.
    ///
    /// # Errors
    /// Any; also if either is a symbolic link, or somebody else's.
    pub(super) fn open(base: &Path, name: &str) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(base)?;
        let dir_flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let above = openat(CWD, base, dir_flags, Mode::empty())?;
        let me = rustix::process::geteuid().as_raw();
        if !matches!(fstat(&above)?.st_uid, owner if owner == me || owner == 0) {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "the directory belongs to another user"));
        }
        match mkdirat(&above, name, Mode::RWXU) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(e) => return Err(e.into()),
        }
        let dir = openat(&above, name, dir_flags, Mode::empty())?;
        let stat = fstat(&dir)?;
        if stat.st_uid != me {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "its directory belongs to another user"));
        }
        if stat.st_mode & 0o077 != 0 {
            fchmod(&dir, Mode::RWXU)?;
        }
        let shown = escape_bytes(base.join(name).as_os_str().as_encoded_bytes());
        let place = Self { dir, shown };
        place.remove_abandoned();
        Ok(place)
    }

    /// The directory's path, for log lines.
    pub(super) fn shown(&self) -> &str {
        &self.shown
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

    /// Opens file `name` for reading: a regular file of this user's, not a link to one.
    pub(super) fn read(&self, name: &str) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = File::from(openat(&self.dir, name, flags, Mode::empty())?);
        let stat = fstat(&file)?;
        let regular = file.metadata()?.is_file();
        if !regular || stat.st_uid != rustix::process::geteuid().as_raw() {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "not a regular file of this user's"));
        }
        Ok(file)
    }

    /// Writes file `name`: all of it or nothing.
    pub(super) fn write(&self, name: &str, fill: impl FnOnce(&File) -> io::Result<()>) -> io::Result<()> {
        let mut random = [0u8; 8];
        getrandom::fill(&mut random).map_err(|e| io::Error::other(e.to_string()))?;
        let unfinished = format!("{UNFINISHED}{:016x}", u64::from_ne_bytes(random));
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = File::from(openat(&self.dir, &unfinished, flags, Mode::RUSR | Mode::WUSR)?);
        let written = fill(&file).and_then(|()| Ok(renameat(&self.dir, &unfinished, &self.dir, name)?));
        if written.is_err() {
            self.remove(&unfinished);
        }
        written
    }

    /// Removes file `name`; it is no loss if that fails.
    pub(super) fn remove(&self, name: &str) {
        if let Err(e) = unlinkat(&self.dir, name, AtFlags::empty()) {
            log::debug!("{}/{name}: cannot be removed: {e}", self.shown);
        }
    }

    /// How long ago file `name` was written.
    pub(super) fn age(&self, name: &str) -> Option<Duration> {
        let stat = statat(&self.dir, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        let written = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(u64::try_from(stat.st_mtime).ok()?))?;
        SystemTime::now().duration_since(written).ok()
    }

    fn remove_abandoned(&self) {
        for name in self.list(UNFINISHED).unwrap_or_default() {
            if self.age(&name).is_some_and(|age| age > ABANDONED) {
                self.remove(&name);
            }
        }
    }
}
