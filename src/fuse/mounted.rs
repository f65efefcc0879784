//! A mount, from mounting to unmounting.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use fuser::{Config, MountOption, Session, SessionACL};
use rustix::thread::CapabilitySet;

use crate::vfs::FileSystem;

use super::adapter::FuseAdapter;
use super::mount_error::{MountError, MountMethod};
use super::mountinfo::mount_at;
use super::mountpoint::{MountPoint, is_root};
use super::unmount::{UnmountError, unmount};

/// Upper bound of the time that a step of a command takes, unless the user sets another deadline.
pub const DEFAULT_DEADLINE: Duration = Duration::from_secs(600);

/// Upper bound of the time that a request of the kernel waits, unless the user sets another deadline. A wait can be interrupted.
pub const MOUNT_DEADLINE: Duration = Duration::from_secs(1800);

/// The time that open files are still served after the mount was stopped.
const GRACE_PERIOD: Duration = Duration::from_secs(30);

/// A stopped mount ends earlier if requests wait and nothing has come from the store for this long.
const STALL_TIMEOUT: Duration = Duration::from_secs(3);

/// The interval in which a stopped mount checks for progress.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(250);

/// The kernel's readahead for the mount in KiB, the best value measured for sequential reads (docs/BENCHMARKS.md); only
/// root may set it.
const READ_AHEAD_KIB: &str = "2048";

/// The settings of a mount.
#[derive(Clone, Debug)]
pub struct MountSettings {
    /// The store's URL without secrets: shown as the mount's source.
    pub url: String,
    /// Lets other users access the mount; implies `default_permissions`.
    pub allow_other: bool,
    /// Lets the kernel enforce the archived modes.
    pub default_permissions: bool,
    /// Forbids running programs of the mount.
    pub noexec: bool,
    /// Upper bound of the time that a request takes.
    pub deadline: Duration,
}

/// The end of a mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MountEnd {
    /// It was unmounted from outside.
    Unmounted,
    /// It was stopped and unmounted.
    Stopped,
    /// It was stopped while files were open: detached from the tree, and ended before all of them were closed.
    Detached,
}

/// Upper bound of the time from an unmount to the end of serving.
const UNMOUNT_NOTICE: Duration = Duration::from_secs(2);

enum MountEvent {
    Stop,
    Served(io::Result<()>),
}

/// A mount that is being served. Dropping it unmounts.
#[derive(Debug)]
pub struct Mounted {
    path: PathBuf,
    events: Receiver<MountEvent>,
    sender: Sender<MountEvent>,
    ended: bool,
    adapter: FuseAdapter,
}

impl Mounted {
    /// Mounts `fs` on `point` and serves it from separate threads; returns once the mount answers.
    ///
    /// # Errors
    /// [`MountError`].
    pub fn mount(fs: Arc<dyn FileSystem>, point: &MountPoint, settings: &MountSettings) -> Result<Self, MountError> {
        let path = point.path();
        let failed = |error: io::Error| MountError::failed(path, error);
        let adapter = FuseAdapter::new(fs, settings.deadline, (&settings.url, path)).map_err(failed)?;
        let claim = point.claim()?;
        let session = Session::new(adapter.clone(), path, &config(settings))
            .map_err(|error| MountError::of_mounting(path, &error, mount_method()))?;
        drop(claim);
        adapter.set_notifier(session.notifier());
        let (sender, events) = channel();
        let mounted = Self { path: path.to_owned(), events, sender: sender.clone(), ended: false, adapter };
        let serve = move || {
            // Fails if the mount was dropped.
            let _ = sender.send(MountEvent::Served(session.run()));
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

    /// A function that stops the mount, callable from any thread and any number of times.
    pub fn stopper(&self) -> impl Fn() + Send + 'static {
        let sender = self.sender.clone();
        move || {
            // Fails if the mount has ended already.
            let _ = sender.send(MountEvent::Stop);
        }
    }

    /// Serves until the mount is unmounted from outside or stopped. A stop unmounts; if files are open, the mount is
    /// detached
    /// from the tree, and they are served for a while longer, or until a second stop, or until the store does not
    /// answer.
    ///
    /// # Errors
    /// [`MountError::Broken`] when serving failed.
    pub fn wait(mut self) -> Result<MountEnd, MountError> {
        match self.events.recv() {
            Ok(MountEvent::Served(result)) => {
                self.ended = true;
                return self.outcome(result, MountEnd::Unmounted);
            }
            Ok(MountEvent::Stop) | Err(_) => {}
        }
        match unmount(&self.path, false) {
            Ok(()) | Err(UnmountError::NotMounted(_)) => {}
            Err(error) => {
                log::warn!(
                    "{error}; detached from the tree; open files are served for {} s more",
                    GRACE_PERIOD.as_secs()
                );
                if let Err(error) = unmount(&self.path, true) {
                    log::error!("{error}");
                }
            }
        }
        self.serve_on()
    }

    /// Serves a stopped mount until its last file is closed, but not for longer than the grace period.
    fn serve_on(&mut self) -> Result<MountEnd, MountError> {
        let started = Instant::now();
        let mut last = (started, None);
        while started.elapsed() < GRACE_PERIOD {
            match self.events.recv_timeout(PROGRESS_INTERVAL) {
                Ok(MountEvent::Served(result)) => {
                    self.ended = true;
                    return self.outcome(result, MountEnd::Stopped);
                }
                Ok(MountEvent::Stop) | Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {}
            }
            let progress = self.adapter.progress();
            let (since, known) = &last;
            if progress.is_none() || progress != *known {
                last = (Instant::now(), progress);
            } else if since.elapsed() >= STALL_TIMEOUT {
                log::warn!("requests wait for a store that does not answer: they end with the mount");
                break;
            }
        }
        Ok(MountEnd::Detached)
    }

    /// The result of serving. A thread that reads a request at the moment of the unmount gets `ECONNABORTED` instead of
    /// the
    /// usual `ENODEV`.
    fn outcome(&self, result: io::Result<()>, end: MountEnd) -> Result<MountEnd, MountError> {
        match result {
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => match mount_at(&self.path) {
                Ok(Some(mount)) if mount.is_dupfs() => Err(MountError::broken(&self.path, error)),
                Ok(_) | Err(_) => Ok(end),
            },
            result => result.map(|()| end).map_err(|error| MountError::broken(&self.path, error)),
        }
    }

    /// Increases the kernel's readahead. The device number comes from the table of mounts, which involves no daemon.
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
            // Someone may have unmounted it already. Then serving ends, which `wait` reports.
            if let Ok(served @ MountEvent::Served(_)) = self.events.recv_timeout(UNMOUNT_NOTICE) {
                let _ = self.sender.send(served);
                return Ok(());
            }
            return Err(MountError::failed(&self.path, "it is missing from the table of mounts"));
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

/// The mount's source. fusermount3 would parse commas and backslashes as option syntax, and control characters would
/// break
/// the lines of the mount table.
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

/// The FUSE crate mounts by mount(2), and by fusermount3 where the kernel answers `EPERM`.
fn mount_method() -> MountMethod {
    match rustix::thread::capabilities(None) {
        Ok(sets) if sets.effective.contains(CapabilitySet::SYS_ADMIN) => MountMethod::Direct,
        Ok(_) | Err(_) => MountMethod::Helper,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_source_contains_no_option_syntax() {
        assert_eq!(source_name("file:///a,b\\c\nd e"), "dupfs:file:///a%2Cb%5Cc%0Ad e");
        assert_eq!(source_name("s3://bucket/prefix"), "dupfs:s3://bucket/prefix");
    }
}
