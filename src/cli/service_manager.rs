//! Reports the state of a mount to the service manager that started it, by the protocol of sd_notify(3): datagrams with lines
//! `NAME=value` to the socket that `NOTIFY_SOCKET` names.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use super::error::CliError;
use super::logging::one_line;
use super::signal_watch::unwatched;

/// The variable with the socket: a path, or `@` and an abstract name.
const SOCKET: &str = "NOTIFY_SOCKET";

/// The variable with the interval in microseconds in which the manager expects a sign of life.
const WATCHDOG_INTERVAL: &str = "WATCHDOG_USEC";

/// The variable with the process that has to give the signs of life; any process if it is missing.
const WATCHDOG_PROCESS: &str = "WATCHDOG_PID";

/// The variable with the process that the manager started. systemd sets it from version 248 on.
const STARTED_PROCESS: &str = "SYSTEMD_EXEC_PID";

/// The variable with the number of the start of the unit, which systemd sets from version 232 on, and no other manager.
const INVOCATION: &str = "INVOCATION_ID";

/// Upper bound of the bytes of a status text.
const MAX_STATUS: usize = 1000;

/// The manager, or none.
#[derive(Clone, Debug, Default)]
pub(super) struct ServiceManager {
    /// `None` if this process is not a service.
    socket: Option<Arc<UnixDatagram>>,
    /// The interval of the watchdog.
    watchdog: Option<Duration>,
}

impl ServiceManager {
    /// The manager that the environment names. `is_daemon` is true for a process whose environment [`hand_over`] has prepared.
    pub(super) fn of_environment(is_daemon: bool) -> Self {
        let own = u64::from(std::process::id());
        // A process that a service has started inherits the variables: it must not report that service as ready.
        let is_inherited = !is_daemon && is_started_by_manager() == Some(false);
        let Some(address) = variable(SOCKET).filter(|_| !is_inherited) else { return Self::default() };
        match connect(&address) {
            Ok(socket) => {
                let is_own = variable(WATCHDOG_PROCESS).is_none() || number(WATCHDOG_PROCESS) == Some(own);
                let interval = number(WATCHDOG_INTERVAL).filter(|interval| is_own && *interval > 0);
                Self { socket: Some(Arc::new(socket)), watchdog: interval.map(Duration::from_micros) }
            }
            Err(error) => {
                log::warn!("the service manager cannot be notified: {SOCKET}: {error}");
                Self::default()
            }
        }
    }

    /// Returns true if this process is a service.
    pub(super) fn is_present(&self) -> bool {
        self.socket.is_some()
    }

    /// Reports that the mount answers. `MAINPID` is this process, because the manager may have started another one, which
    /// started this.
    pub(super) fn ready(&self, status: &str) {
        self.send(&format!("MAINPID={}\nREADY=1\nSTATUS={}", std::process::id(), text(status)));
    }

    /// Reports what the service does now.
    pub(super) fn status(&self, status: &str) {
        self.send(&format!("STATUS={}", text(status)));
    }

    /// Reports that the backup is being listed again on request.
    pub(super) fn reloading(&self) {
        self.send("RELOADING=1\nSTATUS=listing the backup again");
    }

    /// Reports that the backup was listed again.
    pub(super) fn reloaded(&self, status: &str) {
        self.send(&format!("READY=1\nSTATUS={}", text(status)));
    }

    /// Reports that the mount is being ended.
    pub(super) fn stopping(&self) {
        self.send("STOPPING=1\nSTATUS=unmounting");
    }

    /// Gives the signs of life that the manager expects, as long as `is_alive` returns true and until the result is dropped.
    /// Returns `None` if it expects none.
    ///
    /// # Errors
    /// [`CliError`] when no thread can be started.
    pub(super) fn start_watchdog(
        &self,
        is_alive: impl Fn() -> bool + Send + 'static,
    ) -> Result<Option<WatchdogThread>, CliError> {
        let Some(interval) = self.watchdog else { return Ok(None) };
        let (tx, rx) = channel::<()>();
        let manager = self.clone();
        let run = move || {
            loop {
                if is_alive() {
                    manager.send("WATCHDOG=1");
                }
                // Half of the interval, as sd_watchdog_enabled(3) recommends.
                if !matches!(rx.recv_timeout(interval / 2), Err(RecvTimeoutError::Timeout)) {
                    return;
                }
            }
        };
        thread::Builder::new().name("dupfs-watchdog".into()).spawn(run).map_err(unwatched)?;
        Ok(Some(WatchdogThread { _end: tx }))
    }

    fn send(&self, message: &str) {
        let Some(socket) = &self.socket else { return };
        if let Err(error) = socket.send(message.as_bytes()) {
            log::debug!("the service manager was not notified: {error}");
        }
    }
}

/// The thread that gives signs of life. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct WatchdogThread {
    _end: Sender<()>,
}

fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

fn number(name: &str) -> Option<u64> {
    variable(name)?.to_str()?.parse().ok()
}

/// Returns true if systemd started this process itself, false if another process did, which systemd started, and `None` if the
/// environment is not one of systemd.
fn is_started_by_manager() -> Option<bool> {
    match number(STARTED_PROCESS) {
        Some(started) => Some(started == u64::from(std::process::id())),
        // systemd before 248. A process whose parent has ended counts as started by systemd.
        None => variable(INVOCATION).map(|_| is_child_of_systemd()),
    }
}

/// Returns true if the parent of this process is the manager of the system or of a user.
fn is_child_of_systemd() -> bool {
    let Some(parent) = rustix::process::getppid() else { return false };
    parent.is_init()
        || std::fs::read(format!("/proc/{}/comm", parent.as_raw_nonzero())).is_ok_and(|name| name == b"systemd\n")
}

/// Prepares `command`, which becomes the daemon. It takes the place of this process as the service if the manager started this
/// process itself, and is else no service: a mount by a script of another service does not report that service as ready.
pub(super) fn hand_over(command: &mut Command) {
    let is_main = is_started_by_manager() == Some(true);
    // The process of the daemon is another one.
    command.env_remove(WATCHDOG_PROCESS).env_remove(STARTED_PROCESS);
    if !is_main {
        command.env_remove(SOCKET).env_remove(WATCHDOG_INTERVAL);
    }
}

fn connect(address: &OsStr) -> io::Result<UnixDatagram> {
    let address = match address.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        [b'/', ..] => SocketAddr::from_pathname(address)?,
        _ => return Err(io::Error::other("neither a path nor an abstract name")),
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    Ok(socket)
}

/// `status` as one line of bounded length.
fn text(status: &str) -> String {
    let mut line = one_line(status);
    let end = (0..=MAX_STATUS.min(line.len())).rev().find(|end| line.is_char_boundary(*end));
    line.truncate(end.unwrap_or_default());
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manager_at(address: &OsStr) -> ServiceManager {
        let socket = Some(Arc::new(connect(address).unwrap()));
        ServiceManager { socket, watchdog: Some(Duration::from_millis(2)) }
    }

    fn received(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 4000];
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let len = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..len].to_vec()).unwrap()
    }

    #[test]
    fn each_state_is_one_datagram_to_a_path_or_an_abstract_name() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("notify");
        let name = format!("dupfs-test-{}", std::process::id());
        let of_path = (UnixDatagram::bind(&path).unwrap(), path.clone().into_os_string());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let abstract_one = (UnixDatagram::bind_addr(&address).unwrap(), OsString::from(format!("@{name}")));
        for (socket, address) in [of_path, abstract_one] {
            let manager = manager_at(&address);
            manager.ready("3 snapshots\nREADY=0");
            let expected = format!("MAINPID={}\nREADY=1\nSTATUS=3 snapshots READY=0", std::process::id());
            assert_eq!(received(&socket), expected);
            manager.reloading();
            assert!(received(&socket).starts_with("RELOADING=1\n"));
            manager.reloaded(&"ä".repeat(MAX_STATUS));
            let message = received(&socket);
            assert!(message.starts_with("READY=1\nSTATUS=ä") && message.len() <= MAX_STATUS + 20);
            manager.stopping();
            assert!(received(&socket).starts_with("STOPPING=1\n"));
        }
        assert!(connect(OsStr::new("vsock:2:1")).is_err() && connect(OsStr::new("/no/such")).is_err());
    }

    #[test]
    fn the_watchdog_is_silent_while_the_mount_does_not_answer() {
        use std::sync::atomic::{AtomicU32, Ordering};
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let manager = manager_at(path.as_os_str());
        // Alive twice, then not for a while, then again.
        let asked = Arc::new(AtomicU32::new(0));
        let counter = Arc::clone(&asked);
        let is_alive = move || !(2..5).contains(&counter.fetch_add(1, Ordering::SeqCst));
        let watchdog = manager.start_watchdog(is_alive).unwrap();
        for _ in 0..3 {
            assert_eq!(received(&socket), "WATCHDOG=1");
        }
        assert!(asked.load(Ordering::SeqCst) >= 6, "a sign of life while the mount did not answer");
        drop(watchdog);
    }
}
