//! The thread whose request waits. `/proc` and kill(2) show if a signal ends its wait.
//!
//! The kernel interrupts a request for every signal. Most of those that a program handles (a child has ended, a timer, the
//! size of the terminal) are not meant to make its calls fail: a file system on a disk does not fail them either. The same is
//! true of signals without a handler that do nothing by default: the kernel discards them, but shows them as pending while
//! the thread that they are for blocks them. posix_spawn(3) blocks all, so a child that ends meanwhile is such a case.

use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};

/// Signals that end a wait even if the program handles them: it may be about to exit.
const ENDING: [i32; 6] = [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM, libc::SIGXCPU, libc::SIGKILL];

/// Signals that stop a process, which does not end its wait: it continues later.
const STOPPING: [i32; 4] = [libc::SIGSTOP, libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU];

/// Signals that the kernel discards if the process has no handler for them (signal(7), "Ign" and "Cont").
const DISCARDED: [i32; 4] = [libc::SIGCHLD, libc::SIGURG, libc::SIGWINCH, libc::SIGCONT];

/// The number of a thread in the pid namespace of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WaiterId(Pid);

/// The state of a thread as far as its requests are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WaiterState {
    /// It waits for the answer.
    Waits,
    /// It has exited, or a pending signal is to end its wait.
    Ends,
    /// It exists, and its signals cannot be seen.
    Hidden,
}

impl WaiterId {
    /// The thread with the number `tid` of a request; `None` for 0: it is in another namespace.
    pub(super) fn new(tid: u32) -> Option<Self> {
        Pid::from_raw(i32::try_from(tid).ok()?).map(Self)
    }

    /// The number of its process, and the name of the program that the process runs, as far as `/proc` shows them.
    pub(super) fn process(self) -> (u32, Option<String>) {
        let thread = u32::try_from(self.0.as_raw_nonzero().get()).unwrap_or_default();
        if !own_proc() {
            return (thread, None);
        }
        let status = std::fs::read_to_string(format!("/proc/{thread}/status")).unwrap_or_default();
        let process = field(&status, "Tgid").and_then(|number| number.parse().ok()).unwrap_or(thread);
        let name = std::fs::read(format!("/proc/{process}/comm")).ok();
        (process, name.map(|name| String::from_utf8_lossy(name.trim_ascii_end()).into_owned()))
    }

    /// The state of the thread now.
    pub(super) fn state(self) -> WaiterState {
        // Not by the absence in /proc, which may hide processes of other users, or show another namespace.
        if test_kill_process(self.0) == Err(Errno::SRCH) {
            return WaiterState::Ends;
        }
        if !own_proc() {
            return WaiterState::Hidden;
        }
        match std::fs::read_to_string(format!("/proc/{}/status", self.0.as_raw_nonzero())) {
            Ok(status) => parse(&status),
            Err(_) => WaiterState::Hidden,
        }
    }
}

/// Returns true if `/proc` shows the namespace of this process.
fn own_proc() -> bool {
    let own = std::fs::read_link("/proc/self");
    own.is_ok_and(|link| link.to_str().and_then(|pid| pid.parse().ok()) == Some(std::process::id()))
}

/// The field `name` of a `/proc/<pid>/status`.
fn field<'s>(status: &'s str, name: &str) -> Option<&'s str> {
    status.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim()))
}

/// The state that a `/proc/<pid>/status` describes.
fn parse(status: &str) -> WaiterState {
    let mask = |name| u64::from_str_radix(field(status, name)?, 16).ok();
    if field(status, "State").is_some_and(|state| state.starts_with(['Z', 'X'])) {
        return WaiterState::Ends;
    }
    let (Some(own), Some(shared), Some(blocked), Some(caught)) =
        (mask("SigPnd"), mask("ShdPnd"), mask("SigBlk"), mask("SigCgt"))
    else {
        return WaiterState::Hidden;
    };
    let pending = (own | shared) & !blocked;
    // Another that is not handled ends the process. Those that the process itself ignores are never pending.
    let fatal = pending & !caught & !bits(&STOPPING) & !bits(&DISCARDED);
    if fatal | (pending & bits(&ENDING)) == 0 { WaiterState::Waits } else { WaiterState::Ends }
}

fn bits(signals: &[i32]) -> u64 {
    let bit = |signal: &i32| u32::try_from(signal.saturating_sub(1)).ok().and_then(|at| 1_u64.checked_shl(at));
    signals.iter().filter_map(bit).fold(0, |all, bit| all | bit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(own: u64, shared: u64, blocked: u64, caught: u64) -> WaiterState {
        parse(&format!(
            "Name:\tcat\nState:\tD (disk sleep)\nSigQ:\t1/2\nSigPnd:\t{own:016x}\nShdPnd:\t{shared:016x}\n\
             SigBlk:\t{blocked:016x}\nSigIgn:\t0000000000000000\nSigCgt:\t{caught:016x}\n"
        ))
    }

    #[test]
    fn signals_that_end_a_wait_are_distinguished_from_others() {
        let int = bits(&[libc::SIGINT]);
        for (own, shared, blocked, caught, state) in [
            (0, 0, 0, 0, WaiterState::Waits),
            // As the kernel marks a fatal signal in each thread.
            (bits(&[libc::SIGKILL]), int, 0, 0, WaiterState::Ends),
            (0, int, 0, 0, WaiterState::Ends),
            (0, int, 0, int, WaiterState::Ends),
            (0, int, int, int, WaiterState::Waits),
            (0, bits(&[libc::SIGALRM]), 0, 0, WaiterState::Ends),
            (0, bits(&[libc::SIGALRM]), 0, bits(&[libc::SIGALRM]), WaiterState::Waits),
            (bits(&[libc::SIGWINCH, libc::SIGCHLD]), 0, 0, !0, WaiterState::Waits),
            (0, bits(&[libc::SIGTSTP]), 0, 0, WaiterState::Waits),
            (0, bits(&[libc::SIGCHLD, libc::SIGURG, libc::SIGWINCH, libc::SIGCONT]), 0, 0, WaiterState::Waits),
            (0, bits(&[libc::SIGCHLD, libc::SIGALRM]), 0, 0, WaiterState::Ends),
        ] {
            assert_eq!(status(own, shared, blocked, caught), state, "{own:x} {shared:x} {blocked:x} {caught:x}");
        }
        assert_eq!(parse("State:\tZ (zombie)\n"), WaiterState::Ends);
        assert_eq!(parse(""), WaiterState::Hidden);
    }

    #[test]
    fn a_live_process_waits_and_one_that_has_exited_does_not() {
        assert_eq!(WaiterId::new(0), None);
        let mut child = std::process::Command::new("sleep").arg("600").spawn().unwrap();
        let waiter = WaiterId::new(child.id()).unwrap();
        assert_eq!(waiter.state(), WaiterState::Waits);
        assert_eq!(waiter.process(), (child.id(), Some("sleep".to_owned())));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(waiter.state(), WaiterState::Ends);
    }
}
