//! The child process: started, restarted when it dies, and killed with the store or with this process.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::http::RcloneEndpoint;
use super::program::RcloneProgram;
use super::remote::RcloneRemote;
use crate::storage::StorageError;
use crate::storage::secret_source::SecretSource;
use dupfs_base::sync::{Monitor, lock, pause_until};
use dupfs_base::{CancelToken, ErrorKind, RequestContext, Secret, Stopped, escape_bytes, hex, io_reason};

/// The end of the line by which rclone reports its address.
const SERVING: &str = "Serving remote control on http://";
/// A process that lives for a shorter time is not started again at once.
const MIN_LIFE: Duration = Duration::from_secs(2);
/// The pause before another start after a failed one.
const RESTART_DELAY: Duration = Duration::from_millis(500);
/// Upper bound of the retained lines of the log of the process.
const MAX_LINES: usize = 20;
/// Upper bound of the bytes of a line.
const MAX_LINE: usize = 4096;

/// The state of the child process.
#[derive(Debug)]
enum RcloneState {
    /// It was started and has not reported its address yet.
    Starting,
    /// It serves.
    Running(RcloneEndpoint),
    /// It could not be started, or died early. It will be started again.
    Failed(StorageError),
}

/// Everything that is needed to start the process.
#[derive(Debug)]
pub(super) struct RcloneStart {
    pub(super) program: RcloneProgram,
    pub(super) remote: RcloneRemote,
    pub(super) timeout: Duration,
    pub(super) secrets: SecretSource,
    /// The file with the only CA certificates that are trusted; `None` for those of the machine.
    pub(super) ca_file: Option<PathBuf>,
}

/// The child process. It is killed when this is dropped.
#[derive(Debug)]
pub(super) struct RcloneProcess {
    url: String,
    state: Arc<Monitor<RcloneState>>,
    child: Arc<Mutex<Option<Child>>>,
    /// Cancelled when the store is closed.
    closed: CancelToken,
}

impl RcloneProcess {
    /// Starts the process and a thread that starts it again when it dies. The process is killed when that thread ends, so it
    /// lives as long as the store.
    ///
    /// # Errors
    /// [`StorageError`] if there is no thread.
    pub(super) fn start(start: RcloneStart) -> Result<Self, StorageError> {
        let url = start.remote.url.clone();
        let (state, child, closed) = (Monitor::new(RcloneState::Starting), Arc::default(), CancelToken::new());
        let process = Self { url, state, child, closed };
        let (state, child, closed) = (Arc::clone(&process.state), Arc::clone(&process.child), process.closed.clone());
        let thread = std::thread::Builder::new().name("dupfs-rclone".to_owned());
        let spawned = thread.spawn(move || supervise(&start, &state, &child, &closed));
        spawned.map_err(|e| StorageError::from_io(&process.url, "start a thread", &e))?;
        Ok(process)
    }

    /// The address of the running process. Waits while it is being started, for `limit` at most.
    ///
    /// # Errors
    /// The reason why it does not run, or the end of the request.
    pub(super) fn endpoint(&self, limit: Duration, context: &RequestContext) -> Result<RcloneEndpoint, StorageError> {
        context.check_may_block().map_err(|stopped| StorageError::stopped(&self.url, stopped))?;
        let ready = |state: &mut RcloneState| match state {
            RcloneState::Starting => None,
            RcloneState::Running(endpoint) => Some(Ok(endpoint.clone())),
            RcloneState::Failed(error) => Some(Err(error.clone())),
        };
        self.state.wait_until(&context.within(limit), ready).unwrap_or_else(|stopped| match context.check() {
            Ok(()) if stopped == Stopped::Deadline => {
                let reason = "rclone was started and does not serve; see the log with -v";
                Err(StorageError::new(ErrorKind::Timeout, &self.url, reason))
            }
            _ => Err(StorageError::stopped(&self.url, stopped)),
        })
    }

    /// Records that the process at `endpoint` does not answer: requests wait for the next one.
    pub(super) fn is_gone(&self, endpoint: &RcloneEndpoint) {
        self.state.update(|state| {
            if matches!(state, RcloneState::Running(running) if running.process == endpoint.process) {
                *state = RcloneState::Starting;
            }
        });
        // It may be alive and not listen. Another request may have noticed it before: the next process is not killed.
        if let Some(child) = lock(&self.child).as_mut().filter(|child| child.id() == endpoint.process) {
            kill(child);
        }
    }
}

impl Drop for RcloneProcess {
    fn drop(&mut self) {
        self.closed.cancel();
        lock(&self.child).as_mut().into_iter().for_each(kill);
    }
}

fn kill(child: &mut Child) {
    if let Err(error) = child.kill() {
        log::debug!("rclone cannot be killed: {error}");
    }
}

/// Runs the process until the store is closed.
fn supervise(
    start: &RcloneStart,
    state: &Arc<Monitor<RcloneState>>,
    running: &Mutex<Option<Child>>,
    closed: &CancelToken,
) {
    let url = &start.remote.url;
    while !closed.is_cancelled() {
        let begun = Instant::now();
        state.update(|state| *state = RcloneState::Starting);
        let lines = match start.spawn() {
            Ok((mut child, endpoint)) => {
                let output = child.stderr.take();
                *lock(running) = Some(child);
                if closed.is_cancelled() {
                    lock(running).as_mut().into_iter().for_each(kill);
                }
                let lines = output.map(|output| listen(output, endpoint, state)).unwrap_or_default();
                wait(running);
                lines
            }
            Err(error) => {
                state.update(|state| *state = RcloneState::Failed(error));
                Vec::new()
            }
        };
        if closed.is_cancelled() {
            return;
        }
        let was_short = begun.elapsed() < MIN_LIFE;
        if let Some(line) = lines.last() {
            log::warn!("{url}: rclone has exited; starting it again ({line})");
            if was_short {
                let reason = format!("rclone exits at once: {line}");
                let failed = StorageError::new(ErrorKind::Io, url, reason);
                state.update(|state| *state = RcloneState::Failed(failed));
            }
        } else {
            log::warn!("{url}: rclone has exited; starting it again");
        }
        if was_short {
            // Ends early when the store is closed.
            let _ = pause_until(Instant::now() + RESTART_DELAY, &RequestContext::new(None, closed.clone()));
        }
    }
}

/// Waits until the process has exited. It has closed its log, or was killed.
fn wait(running: &Mutex<Option<Child>>) {
    loop {
        let mut child = lock(running);
        match child.as_mut().map(Child::try_wait) {
            Some(Ok(None)) => {}
            _ => {
                *child = None;
                return;
            }
        }
        drop(child);
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Reads the log of the process to its end, and publishes its address. Returns the last lines.
fn listen(output: impl io::Read, endpoint: PendingEndpoint, state: &Monitor<RcloneState>) -> Vec<String> {
    let mut lines = Vec::new();
    let mut pending = Some(endpoint);
    let mut output = BufReader::new(output);
    loop {
        let Ok(Some(line)) = next_line(&mut output) else { return lines };
        let line = escape_bytes(line.trim_ascii_end());
        // Only the first such line counts: later ones may have text of the service in them.
        if let Some(address) = served_address(&line)
            && let Some(PendingEndpoint { process, password }) = pending.take()
        {
            state.update(|state| *state = RcloneState::Running(RcloneEndpoint { process, address, password }));
            continue;
        }
        log::debug!("rclone: {line}");
        if lines.len() == MAX_LINES {
            lines.remove(0);
        }
        lines.push(line);
    }
}

/// Reads a line; `None` at the end. Of a long one, which may have an answer of the service in it, only the beginning.
fn next_line(output: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let mut length = 0_usize;
    loop {
        let arrived = match output.fill_buf() {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            arrived => arrived?,
        };
        let part = arrived.split_inclusive(|&byte| byte == b'\n').next().unwrap_or_default();
        let room = MAX_LINE.saturating_sub(line.len()).min(part.len());
        line.extend_from_slice(part.get(..room).unwrap_or_default());
        let (taken, is_whole) = (part.len(), part.is_empty() || part.ends_with(b"\n"));
        output.consume(taken);
        length = length.saturating_add(taken);
        if is_whole {
            return Ok((length > 0).then_some(line));
        }
    }
}

/// The address in the line by which rclone reports it.
fn served_address(line: &str) -> Option<SocketAddr> {
    line.split_once(SERVING)?
        .1
        .split('/')
        .next()?
        .parse()
        .ok()
        .filter(|address: &SocketAddr| address.ip().is_loopback())
}

/// A process whose address is not known yet.
struct PendingEndpoint {
    process: u32,
    password: Secret,
}

impl RcloneStart {
    fn spawn(&self) -> Result<(Child, PendingEndpoint), StorageError> {
        let url = &self.remote.url;
        let mut random = [0; 32];
        getrandom::fill(&mut random)
            .map_err(|e| StorageError::new(ErrorKind::Io, url, format!("no random bytes: {e}")))?;
        let password = Secret::from(hex(&random));
        let mut command = self.program.serve(&self.remote, &password, self.timeout, &self.secrets);
        if let Some(file) = &self.ca_file {
            // Go also trusts the certificates in the directories of the machine, unless it has another one.
            command.env("SSL_CERT_FILE", file).env("SSL_CERT_DIR", "/dev/null");
        }
        let input = match &self.remote.known_hosts {
            Some(lines) => {
                anonymous_file(lines).map_err(|e| StorageError::from_io(url, "store known hosts", &e))?.into()
            }
            None => Stdio::null(),
        };
        let child = command.stdin(input).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
        let child = child.map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => {
                let reason = "needs the program setpriv to start rclone: apt install util-linux";
                StorageError::new(ErrorKind::Unsupported, url, reason)
            }
            _ => StorageError::new(ErrorKind::Io, url, format!("rclone cannot be started: {}", io_reason(&e))),
        })?;
        let process = child.id();
        Ok((child, PendingEndpoint { process, password }))
    }
}

/// A file in memory without a name.
fn anonymous_file(content: &[u8]) -> io::Result<File> {
    let mut file = File::from(rustix::fs::memfd_create("dupfs-known-hosts", rustix::fs::MemfdFlags::CLOEXEC)?);
    file.write_all(content)?;
    file.rewind()?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_read_from_the_log_and_only_loopback_counts() {
        let line = "2026/11/27 13:57:54 NOTICE: Serving remote control on http://127.0.0.1:35461/";
        assert_eq!(served_address(line), Some("127.0.0.1:35461".parse().unwrap()));
        for other in [
            "NOTICE: Serving remote control on http://192.168.0.1:35461/",
            "NOTICE: Serving remote control on http://[::]:80/",
            "NOTICE: hello",
            "Serving remote control on http://",
        ] {
            assert_eq!(served_address(other), None, "{other}");
        }
    }

    #[test]
    fn lines_of_the_log_are_bounded() {
        let long = vec![b'x'; 3 * MAX_LINE];
        let log = [b"one\n\n", &long[..], b"\ntwo"].concat();
        // With a buffer that has a part of a line only.
        let mut output = BufReader::with_capacity(100, &log[..]);
        let mut lines = Vec::new();
        while let Some(line) = next_line(&mut output).unwrap() {
            lines.push(line);
        }
        assert_eq!(lines, [&b"one\n"[..], b"\n", &long[..MAX_LINE], b"two"]);
    }

    #[test]
    fn only_the_first_address_counts_and_the_last_lines_are_retained() {
        let state = Monitor::new(RcloneState::Starting);
        let serving = |port: usize| format!("NOTICE: {SERVING}127.0.0.1:{port}/\n");
        let log: String =
            (0..MAX_LINES + 3).map(|number| format!("line {number}\n")).chain([serving(1), serving(2)]).collect();
        let lines = listen(log.as_bytes(), PendingEndpoint { process: 7, password: Secret::new("x") }, &state);
        assert_eq!((lines.len(), &*lines[0]), (MAX_LINES, "line 4"));
        let endpoint = state.update(|state| match state {
            RcloneState::Running(endpoint) => (endpoint.process, endpoint.address.port()),
            other => panic!("{other:?}"),
        });
        assert_eq!(endpoint, (7, 1));
    }

    #[test]
    fn a_failure_of_an_earlier_process_does_not_end_the_next_one() {
        let sleep = || std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let (mut old, new) = (sleep(), sleep());
        let endpoint = |process: u32| {
            // The port may be the same.
            RcloneEndpoint { process, address: ([127, 0, 0, 1], 1).into(), password: Secret::new("x") }
        };
        let (before, now) = (endpoint(old.id()), endpoint(new.id()));
        let process = RcloneProcess {
            url: String::new(),
            state: Monitor::new(RcloneState::Running(now.clone())),
            child: Arc::new(Mutex::new(Some(new))),
            closed: CancelToken::new(),
        };
        let is_running = |process: &RcloneProcess| {
            let is_alive = lock(&process.child).as_mut().unwrap().try_wait().unwrap().is_none();
            is_alive && process.state.update(|state| matches!(state, RcloneState::Running(_)))
        };
        process.is_gone(&before);
        assert!(is_running(&process));
        process.is_gone(&now);
        lock(&process.child).as_mut().unwrap().wait().unwrap();
        assert!(!is_running(&process));
        old.kill().unwrap();
        old.wait().unwrap();
    }
}
