//! `dupfs umount`: unmounts, and returns once the daemon has ended and with it everything it held in memory.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::fuse::{PID_ATTRIBUTE, pid_namespace, unmount};

use super::args::UmountArgs;
use super::errors::CliError;

/// How long the daemon may take to tell its process number; one that is stopped never does.
const ASK: Duration = Duration::from_secs(2);

/// How long its end is waited for.
const END: Duration = Duration::from_secs(30);

/// Unmounts.
pub(super) fn run(args: &UmountArgs) -> Result<(), CliError> {
    let daemon = if args.lazy { None } else { daemon_of(&args.mountpoint) };
    unmount(&args.mountpoint, args.lazy)?;
    if let Some(process) = daemon {
        let limit = Timespec { tv_sec: i64::try_from(END.as_secs()).unwrap_or(30), tv_nsec: 0 };
        if let Ok(0) = poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&limit)) {
            log::warn!("unmounted, but the daemon has not ended yet");
        }
    }
    Ok(())
}

/// The process that serves the mount, if it answers. It must be opened before unmounting: its number may be given to
/// another process afterwards.
fn daemon_of(mountpoint: &Path) -> Option<OwnedFd> {
    let (tell, told) = channel();
    let path = PathBuf::from(mountpoint);
    let asker = move || {
        // Nobody listens any more if it took too long.
        let _ = tell.send(ask(&path));
    };
    // Not joined: a daemon that is stopped would hold this process, too.
    thread::Builder::new().spawn(asker).ok()?;
    let number = told.recv_timeout(ASK).ok()??;
    pidfd_open(Pid::from_raw(number)?, PidfdFlags::empty()).ok()
}

/// The process number, unless it was given in another namespace, where it means another process.
fn ask(mountpoint: &Path) -> Option<i32> {
    let mut value = [0; 100];
    let len = rustix::fs::getxattr(mountpoint, PID_ATTRIBUTE, &mut value[..]).ok()?;
    let (number, namespace) = std::str::from_utf8(value.get(..len)?).ok()?.split_once(' ')?;
    if namespace == pid_namespace() { number.parse().ok() } else { None }
}
