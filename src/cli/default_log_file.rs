//! The log file of a daemon on a machine without a system log: readable by its user alone, bounded, made with the first message.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

use super::home_dir::home_dir;

/// Upper bound of the bytes of the file. The messages before are in a second file of at most this length.
const MAX_BYTES: u64 = 1 << 20;

/// The log file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DefaultLogFile {
    path: PathBuf,
}

impl DefaultLogFile {
    /// The log file of this user: `/var/log/dupfs.log` for root, else `dupfs/dupfs.log` in `$XDG_STATE_HOME` or
    /// `~/.local/state`. Returns `None` if it cannot be written.
    pub(super) fn of_this_user() -> Option<Self> {
        let variable = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let path = if rustix::process::geteuid().is_root() {
            PathBuf::from("/var/log/dupfs.log")
        } else {
            let home = || home_dir().map(|home| home.join(".local/state"));
            variable("XDG_STATE_HOME").or_else(home)?.join("dupfs/dupfs.log")
        };
        Some(Self { path }).filter(Self::is_writable)
    }

    /// The path.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns true if the file can be written or made, as far as that is known before.
    fn is_writable(&self) -> bool {
        match fs::symlink_metadata(&self.path) {
            Ok(file) => file.is_file() && access(&self.path, Access::WRITE_OK).is_ok(),
            Err(_) => {
                let existing = self.path.ancestors().skip(1).find(|dir| dir.exists());
                existing.is_some_and(|dir| access(dir, Access::WRITE_OK | Access::EXEC_OK).is_ok())
            }
        }
    }

    /// Appends `line`. The file is opened for each message, so that it may be removed or renamed at any time.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn append(&self, line: &str) -> io::Result<()> {
        let mut file = self.open()?;
        let len = file.metadata()?.len();
        if len > 0 && len.saturating_add(line.len() as u64) > MAX_BYTES {
            fs::rename(&self.path, self.path.with_extension("log.old"))?;
            file = self.open()?;
        }
        // One write, so that lines of several processes do not mix.
        file.write_all(line.as_bytes())
    }

    fn open(&self) -> io::Result<File> {
        if let Some(dir) = self.path.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        }
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY)
            .open(&self.path)?;
        let meta = file.metadata()?;
        if meta.is_file() && meta.uid() == rustix::process::geteuid().as_raw() {
            Ok(file)
        } else {
            Err(io::Error::other("not a file of this user"))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_file_is_private_and_bounded() {
        let tmp = tempfile::tempdir().unwrap();
        let log = DefaultLogFile { path: tmp.path().join("state/dupfs/dupfs.log") };
        assert!(log.is_writable() && !log.path.exists());
        let line = format!("{}\n", "x".repeat(999));
        for _ in 0..3000 {
            log.append(&line).unwrap();
        }
        assert_eq!(fs::metadata(&log.path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(log.path.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o700);
        let sizes: Vec<u64> =
            fs::read_dir(log.path.parent().unwrap()).unwrap().map(|e| e.unwrap().metadata().unwrap().len()).collect();
        assert!(sizes.len() == 2 && sizes.iter().all(|len| (1..=MAX_BYTES).contains(len)), "{sizes:?}");
    }

    #[test]
    fn a_symbolic_link_as_log_file_is_not_followed() {
        let tmp = tempfile::tempdir().unwrap();
        let log = DefaultLogFile { path: tmp.path().join("dupfs.log") };
        let other = tmp.path().join("other");
        fs::write(&other, "").unwrap();
        std::os::unix::fs::symlink(&other, &log.path).unwrap();
        assert!(!log.is_writable() && log.append("line\n").is_err());
        assert_eq!(fs::read(&other).unwrap(), b"");
    }
}
