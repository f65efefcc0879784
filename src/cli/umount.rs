//! `dupfs umount`: unmounts, and returns once the daemon has exited.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::fuse::{PID_ATTRIBUTE, pid_namespace, unmount, unmount_stale};

use super::args::UmountArgs;
use super::error::CliError;

/// Upper bound of the time that the daemon takes to report its process id. A stopped daemon never does.
const PID_TIMEOUT: Duration = Duration::from_secs(2);

/// Upper bound of the wait for the daemon to exit.
const EXIT_TIMEOUT: Duration = Duration::from_secs(30);

/// Unmounts.
pub(super) fn run(args: &UmountArgs) -> Result<(), CliError> {
    if args.stale {
        return Ok(unmount_stale(&args.mountpoint)?);
    }
    let daemon = if args.lazy { None } else { daemon_of(&args.mountpoint) };
    unmount(&args.mountpoint, args.lazy)?;
    if let Some(process) = daemon {
        let limit = Timespec { tv_sec: i64::try_from(EXIT_TIMEOUT.as_secs()).unwrap_or(30), tv_nsec: 0 };
        if let Ok(0) = poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&limit)) {
            log::warn!("unmounted, but the daemon has not exited yet");
        }
    }
    Ok(())
}

/// The process that serves the mount, if it answers. It must be opened before unmounting: its id may be reused afterwards.
fn daemon_of(mountpoint: &Path) -> Option<OwnedFd> {
    let (tx, rx) = channel();
    let path = PathBuf::from(mountpoint);
    let asker = move || {
        // Fails if it took too long.
        let _ = tx.send(read_pid(&path));
    };
    // Not joined: a stopped daemon would block this process, too.
    thread::Builder::new().spawn(asker).ok()?;
    let number = rx.recv_timeout(PID_TIMEOUT).ok()??;
    pidfd_open(Pid::from_raw(number)?, PidfdFlags::empty()).ok()
}

/// The process id, unless it is of another namespace, where it means another process.
fn read_pid(mountpoint: &Path) -> Option<i32> {
    let mut value = [0; 100];
    let len = rustix::fs::getxattr(mountpoint, PID_ATTRIBUTE, &mut value[..]).ok()?;
    let (number, namespace) = std::str::from_utf8(value.get(..len)?).ok()?.split_once(' ')?;
    if namespace == pid_namespace() { number.parse().ok() } else { None }
}
