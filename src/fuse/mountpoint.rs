//! Checks of the mount point and of this machine's FUSE before mounting. They need no secret and change nothing.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{Access, FlockOperation, flock};
use rustix::io::Errno;

use super::mount_error::MountError;
use super::mountinfo::{MountEntry, mount_on};

const DEVICE: &str = "/dev/fuse";
/// Upper bound of the time that the daemon of a mount takes to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// Upper bound of the time that another process takes to mount on a directory.
const CLAIM_TIMEOUT: Duration = Duration::from_secs(10);

const FUSE_CONF: &str = "/etc/fuse.conf";

/// A directory that can be mounted on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountPoint {
    path: PathBuf,
    /// True if autofs waits there for the mount.
    autofs: bool,
}

impl MountPoint {
    /// Checks that `path` is a directory on which this user can mount and nothing else is mounted, autofs excepted; and
    /// that it is empty unless `nonempty`.
    ///
    /// # Errors
    /// [`MountError`] naming what is wrong and the remedy.
    pub fn check(path: &Path, nonempty: bool) -> Result<Self, MountError> {
        // The table of mounts first: any other call would block on a mount whose daemon hangs.
        let autofs = match mounted_on(path)? {
            Some(mount) if mount.kind == "autofs" => true,
            Some(mount) if is_stale(&mount) => return Err(MountError::Stale(path.to_owned())),
            Some(mount) => return Err(in_use(path, &mount)),
            None => false,
        };
        let meta = fs::metadata(path).map_err(|error| unusable(path, &error))?;
        if !meta.is_dir() {
            return Err(MountError::NotADirectory(path.to_owned()));
        }
        let path = path.canonicalize().map_err(|error| unusable(path, &error))?;
        if !is_root() {
            check_owner(&path, &meta)?;
        }
        if !nonempty && !autofs {
            check_empty(&path)?;
        }
        Ok(Self { path, autofs })
    }

    /// The directory: absolute and without links.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Checks once more that nothing is mounted there, and keeps other processes of dupfs from mounting there until the
    /// result is dropped. [`Self::check`] may have been long ago: there was a backup to open, or a passphrase to enter.
    ///
    /// # Errors
    /// [`MountError::InUse`] if another process has mounted there meanwhile.
    pub(super) fn claim(&self) -> Result<Option<MountClaim>, MountError> {
        if self.autofs {
            // To open the directory would wait for the mount. autofs starts one process for it.
            return Ok(None);
        }
        // A directory that may not be read or locked is used without a lock.
        let dir = fs::File::open(&self.path).ok();
        let started = Instant::now();
        while let Some(Err(Errno::WOULDBLOCK)) =
            dir.as_ref().map(|dir| flock(dir, FlockOperation::NonBlockingLockExclusive))
        {
            if started.elapsed() >= CLAIM_TIMEOUT {
                return Err(MountError::refused(
                    &self.path,
                    "another process has it locked (flock), as to mount on it",
                ));
            }
            thread::sleep(Duration::from_millis(20));
        }
        match mounted_on(&self.path)? {
            Some(mount) => Err(in_use(&self.path, &mount)),
            None => Ok(dir.map(|dir| MountClaim { _dir: dir })),
        }
    }

    /// Checks that neither `dir` (described in the error by `what`, such as "the backup") nor the mount point contains the
    /// other. A directory that does not exist overlaps nothing.
    ///
    /// # Errors
    /// [`MountError::Overlap`].
    pub fn check_overlap(&self, what: &str, dir: &Path) -> Result<(), MountError> {
        let Some(real) = canonical_prefix(dir) else { return Ok(()) };
        if real.starts_with(&self.path) || self.path.starts_with(&real) {
            return Err(MountError::Overlap { path: self.path.clone(), what: what.into(), dir: dir.to_owned() });
        }
        Ok(())
    }
}

/// The right to mount on a directory, as long as it exists: a lock on the directory.
#[derive(Debug)]
pub(super) struct MountClaim {
    _dir: fs::File,
}

/// Checks that this user can use FUSE on this machine.
///
/// # Errors
/// [`MountError`] naming what is missing and the remedy.
pub fn check_device(allow_other: bool) -> Result<(), MountError> {
    if let Err(error) = OpenOptions::new().read(true).write(true).open(DEVICE) {
        return Err(no_device(&error));
    }
    if is_root() {
        return Ok(());
    }
    if !fusermount_exists() {
        let reason = "there is no fusermount3, which mounts for users other than root: install the package fuse3";
        return Err(MountError::Forbidden(reason.into()));
    }
    if allow_other && !user_allow_other(fs::read_to_string(FUSE_CONF)) {
        let reason = "-o allow_other is for root only on this machine: add a line user_allow_other to /etc/fuse.conf, \
                      or mount without it";
        return Err(MountError::Forbidden(reason.into()));
    }
    Ok(())
}

pub(super) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn mounted_on(path: &Path) -> Result<Option<MountEntry>, MountError> {
    mount_on(path).map_err(|error| MountError::failed(path, error))
}

/// Returns true if it is a FUSE mount whose daemon has exited. Attributes may still be in the kernel's cache, so it calls
/// statvfs, which the kernel never caches. A daemon that does not answer has not exited.
///
/// The kernel does not release a process before a request that a daemon has accepted is answered: if the daemon stops at
/// that moment, this timeout does not help.
pub(super) fn is_stale(mount: &MountEntry) -> bool {
    if !mount.kind.starts_with("fuse") {
        return false;
    }
    let (tx, rx) = channel();
    let target = mount.target.clone();
    // Not joined: a stopped daemon would block this process, too.
    let asked = thread::Builder::new().spawn(move || tx.send(rustix::fs::statvfs(&target).err()));
    asked.is_ok() && rx.recv_timeout(ANSWER_TIMEOUT) == Ok(Some(Errno::NOTCONN))
}

fn unusable(path: &Path, error: &io::Error) -> MountError {
    match error.raw_os_error() {
        Some(libc::ENOTCONN) => MountError::Stale(path.to_owned()),
        Some(libc::ENOENT) => MountError::Absent(path.to_owned()),
        Some(libc::ENOTDIR) => MountError::NotADirectory(path.to_owned()),
        Some(libc::EACCES) => MountError::refused(path, "this user may not enter it: choose a directory of your own"),
        _ => MountError::refused(path, error.to_string()),
    }
}

fn in_use(path: &Path, mount: &MountEntry) -> MountError {
    let remedy = if mount.is_dupfs() { "dupfs umount" } else { "umount" };
    MountError::InUse {
        path: path.to_owned(),
        source_name: format!("{} (type {})", mount.source, mount.kind).into(),
        remedy: format!("{remedy} {}", path.display()).into(),
    }
}

/// fusermount3's rule for users other than root: the directory must be writable, and their own if it is sticky.
fn check_owner(path: &Path, meta: &fs::Metadata) -> Result<(), MountError> {
    let sticky = meta.mode() & 0o1000 != 0;
    if sticky && meta.uid() != rustix::process::geteuid().as_raw() {
        return Err(MountError::refused(path, "it belongs to another user: choose a directory of your own"));
    }
    if rustix::fs::access(path, Access::WRITE_OK).is_err() {
        let reason = "this user may not write to it, as fusermount3 demands: choose a directory of your own";
        return Err(MountError::refused(path, reason));
    }
    Ok(())
}

fn check_empty(path: &Path) -> Result<(), MountError> {
    match fs::read_dir(path) {
        Ok(mut names) => match names.next() {
            None => Ok(()),
            Some(_) => Err(MountError::NotEmpty(path.to_owned())),
        },
        Err(error) => Err(unusable(path, &error)),
    }
}

/// The longest part of `dir` that exists, without symbolic links, plus the rest as it is.
fn canonical_prefix(dir: &Path) -> Option<PathBuf> {
    if let Ok(real) = dir.canonicalize() {
        return Some(real);
    }
    let parent = dir.parent().filter(|p| !p.as_os_str().is_empty())?;
    Some(canonical_prefix(parent)?.join(dir.file_name()?))
}

fn no_device(error: &io::Error) -> MountError {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            let reason = if is_root() {
                "root may not open /dev/fuse: in a container, start it with --device /dev/fuse --cap-add SYS_ADMIN"
            } else {
                "may not open /dev/fuse: have root run chmod 666 /dev/fuse (its usual mode), or mount as root"
            };
            MountError::Forbidden(reason.into())
        }
        _ => MountError::NoDevice(
            format!(
                "FUSE is not available, /dev/fuse: {error}: load it with modprobe fuse, or in a container start it with \
                 --device /dev/fuse --cap-add SYS_ADMIN; dupfs cat and dupfs ls work without it"
            )
            .into(),
        ),
    }
}

/// Searches for the helper in the same places as the FUSE crate.
fn fusermount_exists() -> bool {
    if let Some(chosen) = std::env::var_os("FUSERMOUNT_PATH") {
        return Path::new(&chosen).exists();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::env::split_paths(&path).chain(["/sbin", "/bin"].map(PathBuf::from));
    dirs.into_iter().any(|dir| dir.join("fusermount3").exists() || dir.join("fusermount").exists())
}

/// Returns true if fuse.conf lets users other than root set allow_other, or if it cannot be read and fusermount3 has to
/// decide.
fn user_allow_other(conf: io::Result<String>) -> bool {
    match conf {
        Ok(text) => text.lines().any(|line| line.split('#').next().unwrap_or_default().trim() == "user_allow_other"),
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlap_is_found_in_both_directions_and_through_links() {
        let tmp = tempfile::tempdir().unwrap();
        let backup = tmp.path().join("backup");
        let inside = backup.join("mnt");
        let beside = tmp.path().join("backup-mnt");
        for dir in [&inside, &beside] {
            fs::create_dir_all(dir).unwrap();
        }
        let link = tmp.path().join("link");
        std::os::unix::fs::symlink(&backup, &link).unwrap();

        let overlaps = |mountpoint: &Path, dir: &Path| {
            MountPoint::check(mountpoint, true).unwrap().check_overlap("the backup", dir).is_err()
        };
        assert!(overlaps(&inside, &backup));
        assert!(overlaps(&inside, &link));
        assert!(overlaps(&backup, &inside));
        assert!(overlaps(&backup, &backup));
        assert!(overlaps(&backup, &backup.join("not/yet/there")));
        assert!(!overlaps(&beside, &backup));
        assert!(!overlaps(&backup, &beside));
    }

    #[test]
    fn each_unusable_mount_point_has_its_own_error() {
        let tmp = tempfile::tempdir().unwrap();
        let file = tmp.path().join("file");
        fs::write(&file, b"x").unwrap();
        assert!(matches!(MountPoint::check(&tmp.path().join("none"), false), Err(MountError::Absent(_))));
        assert!(matches!(MountPoint::check(&file, false), Err(MountError::NotADirectory(_))));
        assert!(matches!(MountPoint::check(tmp.path(), false), Err(MountError::NotEmpty(_))));
        assert!(MountPoint::check(tmp.path(), true).is_ok());
        assert!(matches!(MountPoint::check(Path::new("/proc"), false), Err(MountError::InUse { .. })));
    }

    #[test]
    fn fuse_conf_is_read_as_fusermount_reads_it() {
        assert!(user_allow_other(Ok("mount_max = 10\n  user_allow_other # yes\n".to_owned())));
        assert!(!user_allow_other(Ok("#user_allow_other\n".to_owned())));
        assert!(!user_allow_other(Err(io::ErrorKind::NotFound.into())));
        assert!(user_allow_other(Err(io::ErrorKind::PermissionDenied.into())));
    }
}
