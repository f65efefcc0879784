//! Asks the daemons of mounts for their status, each by a process of its own.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use super::super::environment_secrets;
use super::super::mount::Respawn;
use super::status_report::{MountReport, MountState};
use crate::fuse::{MAX_STATUS_BYTES, MountEntry, STATUS_ATTRIBUTE, mount_at};

/// The time within which a daemon answers. It needs a few milliseconds.
const TIMEOUT: Duration = Duration::from_secs(3);

/// The beginning of an answer in the output of the process that asks, before the value.
const VALUE: &[u8] = b"dupfs-status-value:";

/// The beginning of an answer in the output of the process that asks, before an errno.
const ERRNO: &[u8] = b"dupfs-status-errno:";

/// Upper bound of the bytes that are read of an answer.
const MAX_OUTPUT: u64 = 256 << 10;

/// The attribute of the mount on `mountpoint`, or the errno, as the process prints them that asks for it.
pub(super) fn ask_here(mountpoint: &Path) -> Vec<u8> {
    let mut value = vec![0; MAX_STATUS_BYTES];
    match rustix::fs::getxattr(mountpoint, STATUS_ATTRIBUTE, &mut value[..]) {
        Ok(len) => [VALUE, value.get(..len).unwrap_or_default()].concat(),
        Err(errno) => [ERRNO, errno.raw_os_error().to_string().as_bytes()].concat(),
    }
}

/// Asks daemons. A process that has not ended is asked no second time: it may be impossible to end it.
pub(super) struct DaemonQueries<'r> {
    respawn: &'r Respawn<'r>,
    hanging: HashMap<PathBuf, Child>,
}

impl<'r> DaemonQueries<'r> {
    pub(super) fn new(respawn: &'r Respawn<'r>) -> Self {
        Self { respawn, hanging: HashMap::new() }
    }

    /// Asks the daemons of `mounts`, all at the same time. A mount that ends meanwhile is left out.
    pub(super) fn ask(&mut self, mounts: &[MountEntry]) -> Vec<MountReport> {
        self.hanging.retain(|_, child| matches!(child.try_wait(), Ok(None)));
        let (tx, rx) = channel();
        let asked: Vec<_> = mounts.iter().enumerate().map(|(at, mount)| self.start(at, mount, &tx)).collect();
        drop(tx);
        let mut states = Self::collect(&rx);
        let asked = asked.into_iter().zip(mounts).enumerate();
        let reports = asked.filter_map(|(at, (started, mount))| {
            let state = match started {
                Ok(mut child) => match states.remove(&at) {
                    Some(state) => {
                        // It has closed its output, so it has ended or is about to.
                        let _ = child.wait();
                        state
                    }
                    None => {
                        let _ = child.kill();
                        self.hanging.insert(mount.target.clone(), child);
                        MountState::Hangs
                    }
                },
                Err(state) => state,
            };
            let is_serving = matches!(state, MountState::Serving(..));
            (is_serving || is_mounted(mount)).then(|| MountReport::new(mount, state))
        });
        reports.collect()
    }

    /// Starts the process that asks for `mount`; a thread sends its answer with the number `at`.
    fn start(&self, at: usize, mount: &MountEntry, tx: &Sender<(usize, MountState)>) -> Result<Child, MountState> {
        if self.hanging.contains_key(&mount.target) {
            return Err(MountState::Hangs);
        }
        let failed = |error: std::io::Error| MountState::Failed(format!("no process can be started to ask: {error}"));
        let words = ["status", "--ask", "--"].map(OsString::from);
        let arguments: Vec<OsString> = words.into_iter().chain([mount.target.clone().into()]).collect();
        let mut command = (self.respawn)(&arguments);
        environment_secrets::remove_from(&mut command);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().map_err(failed)?;
        let Some(output) = child.stdout.take() else { return Ok(child) };
        let tx = tx.clone();
        let read = move || {
            let mut bytes = Vec::new();
            let state = match output.take(MAX_OUTPUT).read_to_end(&mut bytes) {
                Ok(_) => state_of(&bytes),
                Err(error) => MountState::Failed(format!("the process that asks cannot be read: {error}")),
            };
            // Fails if the answer is too late.
            let _ = tx.send((at, state));
        };
        // Not joined: it waits as long as the process.
        thread::Builder::new().spawn(read).map_err(failed)?;
        Ok(child)
    }

    /// The answers that come in time, by their numbers.
    fn collect(rx: &Receiver<(usize, MountState)>) -> HashMap<usize, MountState> {
        let start = Instant::now();
        let mut states = HashMap::new();
        // It ends when all threads have sent their answers.
        while let Ok((at, state)) = rx.recv_timeout(TIMEOUT.saturating_sub(start.elapsed())) {
            states.insert(at, state);
        }
        states
    }
}

/// Returns true if `mount` was not unmounted since it was listed.
fn is_mounted(mount: &MountEntry) -> bool {
    mount_at(&mount.target).is_ok_and(|now| now.is_some_and(|now| now.device == mount.device))
}

/// The state that the output of the process reports.
fn state_of(output: &[u8]) -> MountState {
    let behind = |mark: &[u8]| {
        let at = output.windows(mark.len()).position(|window| window == mark)?;
        output.get(at + mark.len()..)
    };
    if let Some(value) = behind(VALUE) {
        return MountState::of_value(value);
    }
    let errno = behind(ERRNO).and_then(|rest| {
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        std::str::from_utf8(rest.get(..digits)?).ok()?.parse().ok()
    });
    match errno {
        Some(errno) => MountState::of_errno(errno),
        None => MountState::Failed("the process that asks has failed; retry".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_found_behind_other_output() {
        let value = [b"running 1 test\n".as_slice(), VALUE, br#"{"pid": 7}"#].concat();
        assert!(matches!(state_of(&value), MountState::Serving(_, status) if status.pid == 7));
        let errno = [ERRNO, libc::ENOTCONN.to_string().as_bytes(), b"\n"].concat();
        assert!(matches!(state_of(&errno), MountState::Stale));
        assert!(matches!(state_of(b"killed"), MountState::Failed(_)));
        assert!(matches!(state_of(&[VALUE, b"not JSON"].concat()), MountState::Failed(_)));
    }
}
