//! Unmounting: umount(2) where it is allowed, else through fusermount3.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use rustix::io::Errno;
use rustix::mount::UnmountFlags;

use dupfs_base::{ErrorKind, HasKind, without_errno};

use super::mount_error::one_line;
use super::mountinfo::mount_on;
use super::mountpoint::is_stale;

/// The reason why a mount was not unmounted.
#[derive(Clone, Debug, thiserror::Error)]
pub enum UnmountError {
    /// Nothing is mounted there.
    #[error("nothing is mounted on {}; dupfs status shows all mounts", .0.display())]
    NotMounted(PathBuf),
    /// The mount is not of dupfs.
    #[error("{} is not a dupfs mount but {what}: use umount(8)", path.display())]
    Foreign {
        /// The mount point.
        path: PathBuf,
        /// Source and type of the mount.
        what: Arc<str>,
    },
    /// Files of the mount are open, or it is the working directory of a process.
    #[error(
        "{path} is in use: list the processes with fuser -vm {path}, or detach it now and let them finish: dupfs umount --lazy {path}",
        path = .0.display()
    )]
    Busy(PathBuf),
    /// The mount belongs to another user.
    #[error("may not unmount {}: it belongs to another user; ask them or root", .0.display())]
    Denied(PathBuf),
    /// Any other refusal.
    #[error("cannot unmount {}: {reason}", path.display())]
    Failed {
        /// The mount point.
        path: PathBuf,
        /// The reason in one line.
        reason: Arc<str>,
    },
}

impl HasKind for UnmountError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NotMounted(_) => ErrorKind::NotFound,
            Self::Foreign { .. } => ErrorKind::Invalid,
            Self::Denied(_) => ErrorKind::Denied,
            Self::Busy(_) | Self::Failed { .. } => ErrorKind::Io,
        }
    }
}

/// Unmounts the dupfs mount on `path`, also a stale one. `lazy` detaches it from the tree at once; open files stay valid.
///
/// # Errors
/// [`UnmountError`].
pub fn unmount(path: &Path, lazy: bool) -> Result<(), UnmountError> {
    let failed = |reason: String| UnmountError::Failed { path: path.to_owned(), reason: reason.into() };
    let Some(mount) = mount_on(path).map_err(|error| failed(error.to_string()))? else {
        return Err(UnmountError::NotMounted(path.to_owned()));
    };
    if !mount.is_dupfs() {
        let what = format!("{} (type {})", mount.source, mount.kind).into();
        return Err(UnmountError::Foreign { path: path.to_owned(), what });
    }
    let flags = if lazy { UnmountFlags::DETACH } else { UnmountFlags::empty() };
    match rustix::mount::unmount(&mount.target, flags | UnmountFlags::NOFOLLOW) {
        Ok(()) => Ok(()),
        Err(Errno::BUSY) => Err(UnmountError::Busy(path.to_owned())),
        Err(Errno::PERM) if mount.user_id.is_some_and(|owner| owner != rustix::process::getuid().as_raw()) => {
            Err(UnmountError::Denied(path.to_owned()))
        }
        Err(Errno::PERM) => through_helper(path, &mount.target, lazy),
        Err(error) => Err(failed(error.to_string())),
    }
}

/// Unmounts the dupfs mount on `path` if its daemon has ended. Anything else there is left as it is.
///
/// # Errors
/// [`UnmountError`].
pub fn unmount_stale(path: &Path) -> Result<(), UnmountError> {
    match mount_on(path) {
        Ok(Some(mount)) if mount.is_dupfs() && is_stale(&mount) => unmount(path, true),
        _ => Ok(()),
    }
}

/// Unmounts through fusermount3, which root has installed for mounts of other users.
fn through_helper(path: &Path, target: &Path, lazy: bool) -> Result<(), UnmountError> {
    let failed = |reason: String| UnmountError::Failed { path: path.to_owned(), reason: reason.into() };
    let mut missing = None;
    for program in ["fusermount3", "fusermount"] {
        let mut command = Command::new(program);
        command.arg("-u");
        if lazy {
            command.arg("-z");
        }
        command
            .arg("--")
            .arg(target)
            .stdin(Stdio::null())
            .env_remove("PASSPHRASE")
            .env_remove("SIGN_PASSPHRASE")
            .env("LC_ALL", "C");
        match command.output() {
            Ok(output) if output.status.success() => return Ok(()),
            Ok(output) => {
                let message = one_line(&String::from_utf8_lossy(&output.stderr));
                // The helper reports the errno by its text alone, at the end of the line.
                let busy = without_errno(&io::Error::from_raw_os_error(libc::EBUSY).to_string());
                return Err(if message.ends_with(&busy) {
                    UnmountError::Busy(path.to_owned())
                } else {
                    failed(message)
                });
            }
            Err(error) => missing = Some(format!("{program}: {error}")),
        }
    }
    Err(failed(missing.unwrap_or_else(|| "no fusermount3".to_owned())))
}
