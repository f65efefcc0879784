//! A mount from its making to its end.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use fuser::{Config, MountOption, Session, SessionACL};

use crate::vfs::FileSystem;

use super::adapter::Adapter;
use super::error::MountError;
use super::mountinfo::mount_at;
use super::mountpoint::{MountPoint, is_root};
use super::unmount::{UnmountError, unmount};

/// How long a request may wait before it is given up, unless the user says otherwise.
pub const DEFAULT_DEADLINE: Duration = Duration::from_secs(600);

/// How long files that are open when the mount is told to end are still served.
const GRACE: Duration = Duration::from_secs(30);

/// The kernel's read-ahead for the mount in KiB: measured best for sequential reads (PERF.md C); only root may set it.
const READ_AHEAD_KIB: &str = "2048";

/// How a mount is made.
#[derive(Clone, Debug)]
pub struct MountSettings {
    /// The store's URL without secrets: shown as the mount's source.
    pub url: String,
    /// Whether users other than the mounting one may look; implies `default_permissions`.
    pub allow_other: bool,
    /// Whether the kernel enforces the archived modes.
    pub default_permissions: bool,
    /// Whether programs in the mount cannot be run.
    pub noexec: bool,
    /// How long a request may wait.
    pub deadline: Duration,
}

/// How a mount ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Somebody unmounted it.
    Unmounted,
    /// It was told to stop and is unmounted.
    Stopped,
    /// It was told to stop while files were open: taken out of the tree, and ended before all of them were closed.
    Detached,
}

enum Event {
    Stop,
    Served(io::Result<()>),
}

/// A mount that is being served. Dropping it unmounts.
#[derive(Debug)]
pub struct Mounted {
    path: PathBuf,
    events: Receiver<Event>,
    sender: Sender<Event>,
    ended: bool,
}

impl Mounted {
    /// Mounts `fs` on `point` and serves it from threads of its own; returns once the mount answers.
    ///
    /// # Errors
    /// [`MountError`].
    pub fn mount(fs: Arc<dyn FileSystem>, point: &MountPoint, settings: &MountSettings) -> Result<Self, MountError> {
        let path = point.path();
        let failed = |error: io::Error| MountError::failed(path, error);
        let adapter = Adapter::new(fs, settings.deadline).map_err(failed)?;
        let session = Session::new(adapter, path, &config(settings)).map_err(|error| explain(path, &error))?;
        let (sender, events) = channel();
        let mounted = Self { path: path.to_owned(), events, sender: sender.clone(), ended: false };
        let serve = move || {
            // Nobody listens any more if the mount was dropped.
            let _ = sender.send(Event::Served(session.run()));
        };
        thread::Builder::new().name("dupfs-serve".into()).spawn(serve).map_err(failed)?;
        mounted.tune();
        mounted.verify()?;
        Ok(mounted)
    }

    /// The mount point.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A function that tells the mount to stop, from any thread and any number of times.
    pub fn stopper(&self) -> impl Fn() + Send + 'static {
        let sender = self.sender.clone();
        move || {
            // The mount has ended already if nobody listens.
            let _ = sender.send(Event::Stop);
        }
    }

    /// Serves until the mount is unmounted from outside or told to stop. A stop unmounts; if files are open, the mount is
    /// taken out of the tree, and they are served for a while longer, or until a second stop.
    ///
    /// # Errors
    /// [`MountError::Broken`] when serving failed.
    pub fn wait(mut self) -> Result<End, MountError> {
        match self.events.recv() {
            Ok(Event::Served(result)) => {
                self.ended = true;
                return self.outcome(result, End::Unmounted);
            }
            Ok(Event::Stop) | Err(_) => {}
        }
        match unmount(&self.path, false) {
            Ok(()) | Err(UnmountError::NotMounted(_)) => {}
            Err(error) => {
                log::warn!(
                    "{error}; it is taken out of the tree now, and what is open is served for {} s more",
                    GRACE.as_secs()
                );
                if let Err(error) = unmount(&self.path, true) {
                    log::error!("{error}");
                }
            }
        }
        match self.events.recv_timeout(GRACE) {
            Ok(Event::Served(result)) => {
                self.ended = true;
                self.outcome(result, End::Stopped)
            }
            Ok(Event::Stop) | Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => Ok(End::Detached),
        }
    }

    /// How serving ended. A thread that takes a request from the kernel in the very moment of the unmount is told
    /// `ECONNABORTED` instead of the usual `ENODEV`.
    fn outcome(&self, result: io::Result<()>, end: End) -> Result<End, MountError> {
        match result {
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => match mount_at(&self.path) {
                Ok(Some(mount)) if mount.is_dupfs() => Err(MountError::broken(&self.path, error)),
                Ok(_) | Err(_) => Ok(end),
            },
            result => result.map(|()| end).map_err(|error| MountError::broken(&self.path, error)),
        }
    }

    /// Widens the read-ahead. The number of the mount's device is taken from the table of mounts, which asks no daemon.
    fn tune(&self) {
        if !is_root() {
            return;
        }
        if let Ok(Some(mount)) = mount_at(&self.path) {
            let file = format!("/sys/class/bdi/{}/read_ahead_kb", mount.device);
            if let Err(error) = std::fs::write(&file, READ_AHEAD_KIB) {
                log::debug!("{file}: {error}");
            }
        }
    }

    fn verify(&self) -> Result<(), MountError> {
        let mount = mount_at(&self.path).map_err(|error| MountError::failed(&self.path, error))?;
        if !mount.is_some_and(|mount| mount.is_dupfs()) {
            return Err(MountError::failed(&self.path, "it does not show in the table of mounts"));
        }
        std::fs::metadata(&self.path).map(drop).map_err(|error| MountError::failed(&self.path, error))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        match unmount(&self.path, false) {
            Ok(()) | Err(UnmountError::NotMounted(_)) => {}
            Err(_) => {
                if let Err(error) = unmount(&self.path, true) {
                    log::warn!("{error}");
                }
            }
        }
    }
}

fn config(settings: &MountSettings) -> Config {
    let mut config = Config::default();
    config.mount_options = vec![
        MountOption::RO,
        MountOption::NoSuid,
        MountOption::NoDev,
        MountOption::NoAtime,
        MountOption::FSName(source_name(&settings.url)),
        // Not MountOption::Subtype, which the crate passes to fusermount3 only and not to mount(2).
        MountOption::CUSTOM("subtype=dupfs".to_owned()),
    ];
    if settings.noexec {
        config.mount_options.push(MountOption::NoExec);
    }
    if settings.default_permissions || settings.allow_other {
        config.mount_options.push(MountOption::DefaultPermissions);
    }
    config.acl = if settings.allow_other { SessionACL::All } else { SessionACL::Owner };
    config.n_threads = Some(thread::available_parallelism().map_or(2, usize::from).clamp(2, 4));
    config
}

/// The mount's source. Commas and backslashes would be read as option syntax by fusermount3, control characters would
/// break lines of the mount table's readers.
fn source_name(url: &str) -> String {
    let mut name = String::from("dupfs:");
    for c in url.chars() {
        if matches!(c, ',' | '\\') || c.is_control() {
            let mut utf8 = [0; 4];
            name.extend(c.encode_utf8(&mut utf8).bytes().map(|byte| format!("%{byte:02X}")));
        } else {
            name.push(c);
        }
    }
    name
}

fn explain(path: &Path, error: &io::Error) -> MountError {
    let said = error.to_string();
    if said.contains("user_allow_other") {
        let reason = "-o allow_other is for root only on this machine: add a line user_allow_other to /etc/fuse.conf";
        return MountError::Forbidden(reason.into());
    }
    if said.contains("not permitted") || said.contains("EPERM") || error.kind() == io::ErrorKind::PermissionDenied {
        let reason = format!(
            "may not mount on {}: {}; in a container, start it with --device /dev/fuse --cap-add SYS_ADMIN",
            String::from_utf8_lossy(path.as_os_str().as_bytes()),
            super::error::one_line(&said)
        );
        return MountError::Forbidden(reason.into());
    }
    MountError::failed(path, said)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_source_has_nothing_that_reads_as_option_syntax() {
        assert_eq!(source_name("file:///a,b\\c\nd e"), "dupfs:file:///a%2Cb%5Cc%0Ad e");
        assert_eq!(source_name("s3://bucket/prefix"), "dupfs:s3://bucket/prefix");
    }
}
