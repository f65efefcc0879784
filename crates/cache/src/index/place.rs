//! The directory that holds a repository's index: the user's alone, and no link leads out of it.
//!
//! Files in it never change: they are written under a name that no reader looks for and renamed once they are complete, so
//! that any number of processes may read and write.

use std::fs::{DirBuilder, File};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, fchmod, fstat, mkdirat, openat, renameat, statat, unlinkat};

use super::file::{VERSION_HEADER, is_former};
use dupfs_base::escape_bytes;

/// What files that are being written are called.
const UNFINISHED: &str = ".new-";
/// Files that were being written when their writer ended.
const ABANDONED: Duration = Duration::from_secs(3600);
/// Length of a repository's identity, which is the name of its directory, in hexadecimal digits.
const IDENTITY_DIGITS: usize = 32;
const DIR_FLAGS: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// An open directory.
#[derive(Debug)]
pub(super) struct Place {
    dir: OwnedFd,
    shown: String,
}

impl Place {
    /// The directory `name` in `base`; both are made if they are not there. Files of former versions are removed from all
    /// indexes in `base`.
    ///
    /// # Errors
    /// Any; also if either is a symbolic link, or somebody else's.
    pub(super) fn open(base: &Path, name: &str) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(base)?;
        let above = openat(CWD, base, DIR_FLAGS, Mode::empty())?;
        let me = rustix::process::geteuid().as_raw();
        if !matches!(fstat(&above)?.st_uid, owner if owner == me || owner == 0) {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "the directory belongs to another user"));
        }
        match mkdirat(&above, name, Mode::RWXU) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(e) => return Err(e.into()),
        }
        let dir = openat(&above, name, DIR_FLAGS, Mode::empty())?;
        let stat = fstat(&dir)?;
        if stat.st_uid != me {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "its directory belongs to another user"));
        }
        if stat.st_mode & 0o077 != 0 {
            fchmod(&dir, Mode::RWXU)?;
        }
        let place = Self { dir, shown: shown(base, name) };
        place.remove_former();
        place.remove_abandoned();
        for other in indexes_in(&above).unwrap_or_default().into_iter().filter(|other| other != name) {
            if let Ok(dir) = openat(&above, other.as_str(), DIR_FLAGS, Mode::empty()) {
                Self { dir, shown: shown(base, &other) }.remove_former();
            }
        }
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

    /// Removes every file of a former version, also unfinished ones: it may hold what an index must not hold any more.
    fn remove_former(&self) {
        let former = |name: &String| {
            let mut head = [0; VERSION_HEADER];
            let read = self.read(name).and_then(|mut file| file.read_exact(&mut head));
            read.is_ok() && is_former(&head)
        };
        let mut names = self.list("").unwrap_or_default();
        names.retain(former);
        if !names.is_empty() {
            log::info!("{}: {} files of a former version of the index are removed", self.shown, names.len());
        }
        names.iter().for_each(|name| self.remove(name));
    }

    fn remove_abandoned(&self) {
        for name in self.list(UNFINISHED).unwrap_or_default() {
            if self.age(&name).is_some_and(|age| age > ABANDONED) {
                self.remove(&name);
            }
        }
    }
}

fn shown(base: &Path, name: &str) -> String {
    escape_bytes(base.join(name).as_os_str().as_encoded_bytes())
}

/// Names of the directories in `base` that are indexes of repositories.
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
#[path = "place/tests.rs"]
mod tests;
