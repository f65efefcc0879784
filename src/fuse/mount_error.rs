//! The reasons why a mount cannot be made, each with the remedy.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use dupfs_base::{ErrorKind, HasKind, without_errno};

/// A mount that cannot be made or served.
#[derive(Clone, Debug, thiserror::Error)]
pub enum MountError {
    /// The mount point does not exist.
    #[error("mount point {} does not exist: create it with mkdir", .0.display())]
    Absent(PathBuf),
    /// The mount point is a file or something else that nothing can be mounted on.
    #[error("mount point {} is not a directory: choose an empty one", .0.display())]
    NotADirectory(PathBuf),
    /// The mount point shows names that the mount would hide.
    #[error("mount point {} is not empty: choose an empty directory, or hide what is in it with -o nonempty", .0.display())]
    NotEmpty(PathBuf),
    /// This user may not access the mount point or mount on it.
    #[error("mount point {}: {reason}", path.display())]
    Refused {
        /// The mount point.
        path: PathBuf,
        /// The reason, and the remedy.
        reason: Arc<str>,
    },
    /// Something is mounted there already.
    #[error("mount point {} is in use: {source_name} is mounted there (unmount it with: {remedy})", path.display())]
    InUse {
        /// The mount point.
        path: PathBuf,
        /// The source and type of the mount.
        source_name: Arc<str>,
        /// The command that unmounts it.
        remedy: Arc<str>,
    },
    /// A FUSE mount is there whose daemon has exited.
    #[error("mount point {path} is a stale mount, its daemon has exited: clear it with: dupfs umount {path} (or fusermount3 -u {path})", path = .0.display())]
    Stale(PathBuf),
    /// The mount point and a directory that serving reads contain one another, which would deadlock.
    #[error("mount point {} and {what} {} overlap, which would deadlock: choose a mount point elsewhere", path.display(), dir.display())]
    Overlap {
        /// The mount point.
        path: PathBuf,
        /// A description of the directory, such as "the backup".
        what: Arc<str>,
        /// The directory.
        dir: PathBuf,
    },
    /// `/dev/fuse` is missing or does not work.
    #[error("{0}")]
    NoDevice(Arc<str>),
    /// The user may not mount: `/dev/fuse`, `fusermount3` or `/etc/fuse.conf` forbids it.
    #[error("{0}")]
    Forbidden(Arc<str>),
    /// This process may not mount, and fusermount3 could not mount for it.
    #[error("may not mount on {}: {reason}; {remedy}", path.display())]
    NotPermitted {
        /// The mount point.
        path: PathBuf,
        /// The message of the kernel or of fusermount3 in one line.
        reason: Arc<str>,
        /// The remedy.
        remedy: &'static str,
    },
    /// The kernel refused.
    #[error("cannot mount on {}: {reason}", path.display())]
    Failed {
        /// The mount point.
        path: PathBuf,
        /// The reason in one line.
        reason: Arc<str>,
    },
    /// Serving failed.
    #[error("the mount on {} failed: {reason}", path.display())]
    Broken {
        /// The mount point.
        path: PathBuf,
        /// The reason in one line.
        reason: Arc<str>,
    },
}

/// The remedy of a process without the right to mount, which is most often in a container.
const IN_A_CONTAINER: &str = "in a container, start it with --device /dev/fuse --cap-add SYS_ADMIN";

/// The remedy of a process that may not gain rights, so that fusermount3 has not those of root.
const NO_NEW_PRIVILEGES: &str =
    "NoNewPrivileges= forbids fusermount3 to become root: run as root, or in a unit of systemd without that setting";

impl MountError {
    pub(super) fn refused(path: &Path, reason: impl AsRef<str>) -> Self {
        Self::Refused { path: path.to_owned(), reason: reason.as_ref().into() }
    }

    pub(super) fn failed(path: &Path, reason: impl std::fmt::Display) -> Self {
        Self::Failed { path: path.to_owned(), reason: one_line(&reason.to_string()).into() }
    }

    /// The meaning of a failure to mount on `path`, by its errno or kind. Of fusermount3 the FUSE crate passes on its
    /// message only, and one kind: `PermissionDenied` without an errno if fuse.conf forbids `allow_other`.
    pub(super) fn of_mounting(path: &Path, error: &std::io::Error, method: MountMethod) -> Self {
        match (error.raw_os_error(), error.kind(), method) {
            (Some(libc::EPERM | libc::EACCES), ..) => {
                let reason = one_line(&error.to_string()).into();
                Self::NotPermitted { path: path.to_owned(), reason, remedy: IN_A_CONTAINER }
            }
            (None, std::io::ErrorKind::PermissionDenied, _) => Self::Forbidden(
                "-o allow_other is for root only on this machine: add a line user_allow_other to /etc/fuse.conf".into(),
            ),
            (None, std::io::ErrorKind::Other, MountMethod::Helper) => {
                Self::of_helper(path, &one_line(&error.to_string()))
            }
            _ => Self::failed(path, error),
        }
    }

    /// The meaning of a message of fusermount3. It ends with the text of an errno, or is one of those of the program itself,
    /// which begin with fixed words. Paths in it, which are in the middle, decide nothing.
    fn of_helper(path: &Path, message: &str) -> Self {
        let reason: Arc<str> = message.into();
        let path = path.to_owned();
        let text = message.split_once(": ").map_or(message, |(_, text)| text);
        let ends_with = |errno| {
            let error = std::io::Error::from_raw_os_error(errno).to_string();
            message.ends_with(&format!(": {}", without_errno(&error)))
        };
        if text.starts_with("user has no write access") || [libc::EPERM, libc::EACCES].into_iter().any(ends_with) {
            // This does not fail since Linux 3.5.
            let is_bound = rustix::thread::no_new_privs().unwrap_or(false);
            Self::NotPermitted { path, reason, remedy: if is_bound { NO_NEW_PRIVILEGES } else { IN_A_CONTAINER } }
        } else if text.starts_with("mounting over filesystem type") {
            Self::Refused { path, reason: format!("{message}: choose a directory on another file system").into() }
        } else if text.starts_with("too many FUSE filesystems mounted") {
            Self::Forbidden(format!("{message}: unmount one, or raise mount_max in /etc/fuse.conf").into())
        } else if text.contains("/dev/fuse") && [libc::ENOENT, libc::ENODEV, libc::ENXIO].into_iter().any(ends_with) {
            Self::NoDevice(format!("FUSE is not available: {message}; load it with modprobe fuse").into())
        } else if ends_with(libc::ENOENT) {
            Self::Absent(path)
        } else {
            Self::Failed { path, reason }
        }
    }

    pub(super) fn broken(path: &Path, reason: impl std::fmt::Display) -> Self {
        Self::Broken { path: path.to_owned(), reason: one_line(&reason.to_string()).into() }
    }
}

/// The way a mount was attempted, which gives its failure a meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MountMethod {
    /// By mount(2): the process has the capability.
    Direct,
    /// By fusermount3, as mount(2) answers `EPERM` to a process without the capability.
    Helper,
}

impl HasKind for MountError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Absent(_) => ErrorKind::NotFound,
            Self::NotADirectory(_) | Self::Overlap { .. } => ErrorKind::Invalid,
            Self::Refused { .. } | Self::Forbidden(_) | Self::NotPermitted { .. } => ErrorKind::Denied,
            Self::NoDevice(_) => ErrorKind::Unsupported,
            Self::NotEmpty(_) | Self::InUse { .. } | Self::Stale(_) | Self::Failed { .. } | Self::Broken { .. } => {
                ErrorKind::Io
            }
        }
    }
}

/// The output of a helper on one line.
pub(super) fn one_line(text: &str) -> String {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    fn of(error: &io::Error, method: MountMethod) -> MountError {
        MountError::of_mounting(Path::new("/mnt/not permitted"), error, method)
    }

    #[test]
    fn a_failure_to_mount_is_classified_by_errno_and_kind() {
        for errno in [libc::EPERM, libc::EACCES] {
            let error = of(&io::Error::from_raw_os_error(errno), MountMethod::Direct);
            assert!(matches!(error, MountError::NotPermitted { .. }), "{error}");
            assert_eq!(error.kind(), ErrorKind::Denied);
        }
        let refused = io::Error::other("fusermount3: mount failed: Operation not permitted\n");
        assert!(matches!(of(&refused, MountMethod::Helper), MountError::NotPermitted { .. }));
        for (message, kind) in [
            ("fusermount3: user has no write access to mountpoint /a: Operation not permitted/b", ErrorKind::Denied),
            ("fusermount3: mounting over filesystem type 0x01021994 is forbidden", ErrorKind::Denied),
            (
                "fusermount3: too many FUSE filesystems mounted; mount_max=1000 can be set in /etc/fuse.conf",
                ErrorKind::Denied,
            ),
            ("fusermount3: failed to open /dev/fuse: No such device", ErrorKind::Unsupported),
            ("fusermount3: failed to access mountpoint /a: Permission denied", ErrorKind::Denied),
            ("fusermount3: failed to access mountpoint /a: No such file or directory", ErrorKind::NotFound),
            ("fusermount3: failed to chdir to /Permission denied: Input/output error", ErrorKind::Io),
            ("fusermount3: mount failed: No space left on device", ErrorKind::Io),
        ] {
            assert_eq!(of(&io::Error::other(message), MountMethod::Helper).kind(), kind, "{message}");
        }
        let by_conf = io::Error::new(io::ErrorKind::PermissionDenied, "any words");
        assert!(matches!(of(&by_conf, MountMethod::Helper), MountError::Forbidden(_)));
    }

    #[test]
    fn words_in_a_message_do_not_classify_a_failure() {
        for words in ["EINVAL at /mnt/not permitted", "user_allow_other", "EPERM"] {
            let error = of(&io::Error::other(words), MountMethod::Direct);
            assert!(matches!(error, MountError::Failed { .. }), "{error}");
            assert_eq!(error.kind(), ErrorKind::Io);
        }
    }
}
