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

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, fchmod, fstat, mkdirat, openat, renameat, statat, unlinkat};

use super::framed_file::{VERSION_HEADER, is_older_version};
use dupfs_base::escape_bytes;

/// Prefix of the names of files that are being written.
const UNFINISHED: &str = ".new-";
/// Age after which an unfinished file is removed: its writer has ended.
const MAX_UNFINISHED_AGE: Duration = Duration::from_secs(3600);
/// Length of the name of a repository's directory, which is its identity in hexadecimal digits.
const IDENTITY_DIGITS: usize = 32;
const DIR_FLAGS: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// The open directory of an index.
#[derive(Debug)]
pub(super) struct IndexDirectory {
    dir: OwnedFd,
    display_path: String,
}

impl IndexDirectory {
    /// Opens directory `name` in `base`; both are created if they do not exist. Removes files of older versions from all
    /// indexes in `base`.
    ///
    /// # Errors
    /// Any I/O error, and if either is a symbolic link or belongs to another user.
    pub(super) fn open(base: &Path, name: &str) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(base)?;
        let base_dir = openat(CWD, base, DIR_FLAGS, Mode::empty())?;
        let me = rustix::process::geteuid().as_raw();
        if !matches!(fstat(&base_dir)?.st_uid, owner if owner == me || owner == 0) {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "the directory belongs to another user"));
        }
        match mkdirat(&base_dir, name, Mode::RWXU) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(e) => return Err(e.into()),
        }
        let dir = openat(&base_dir, name, DIR_FLAGS, Mode::empty())?;
        let stat = fstat(&dir)?;
        if stat.st_uid != me {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "the directory of the index belongs to another user",
            ));
        }
        if stat.st_mode & 0o077 != 0 {
            fchmod(&dir, Mode::RWXU)?;
        }
        let directory = Self { dir, display_path: display_path(base, name) };
        directory.remove_older_versions();
        directory.remove_abandoned();
        for other in indexes_in(&base_dir).unwrap_or_default().into_iter().filter(|other| other != name) {
            if let Ok(dir) = openat(&base_dir, other.as_str(), DIR_FLAGS, Mode::empty()) {
                Self { dir, display_path: display_path(base, &other) }.remove_older_versions();
            }
        }
        Ok(directory)
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

    /// The time since file `name` was written.
    pub(super) fn age(&self, name: &str) -> Option<Duration> {
        let stat = statat(&self.dir, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        let written = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(u64::try_from(stat.st_mtime).ok()?))?;
        SystemTime::now().duration_since(written).ok()
    }

    /// Removes every file of an older version, also unfinished ones: it may contain what an index must not contain any more.
    fn remove_older_versions(&self) {
        let is_older = |name: &String| {
            let mut head = [0; VERSION_HEADER];
            let read = self.open_file(name).and_then(|mut file| file.read_exact(&mut head));
            read.is_ok() && is_older_version(&head)
        };
        let mut names = self.list("").unwrap_or_default();
        names.retain(is_older);
        if !names.is_empty() {
            log::info!("{}: removing {} files of an older version of the index", self.display_path, names.len());
        }
        names.iter().for_each(|name| self.remove_file(name));
    }

    fn remove_abandoned(&self) {
        for name in self.list(UNFINISHED).unwrap_or_default() {
            if self.age(&name).is_some_and(|age| age > MAX_UNFINISHED_AGE) {
                self.remove_file(&name);
            }
        }
    }
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
