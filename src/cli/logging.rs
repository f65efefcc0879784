//! The log: one line per message, on standard error, in a file or in the system log.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock};

use dupfs_base::sync::lock;
use dupfs_base::{blank_display_controls, without_errno};

use super::default_log_file::DefaultLogFile;
use super::journal_stream::standard_error_is_journal;
use super::progress_line;
use log::{Level, LevelFilter, Log, Metadata, Record};

/// The socket of the system log.
const SYSTEM_LOG: &str = "/dev/log";

/// The destination of messages.
#[derive(Debug)]
enum LogTarget {
    Terminal,
    /// Standard error, which the journal of systemd reads.
    Journal,
    File(File, PathBuf),
    /// Of a daemon: the system log, and a file for messages that it does not take.
    Daemon(SystemLog, Option<DefaultLogFile>),
    /// Before the log is started.
    None,
}

/// The system log (RFC 3164). Connects again when its daemon was restarted or started later.
#[derive(Debug)]
struct SystemLog {
    path: PathBuf,
    socket: Option<UnixDatagram>,
}

impl SystemLog {
    fn connect(path: impl Into<PathBuf>) -> Self {
        let mut log = Self { path: path.into(), socket: None };
        log.reconnect();
        log
    }

    fn reconnect(&mut self) {
        let connected = UnixDatagram::unbound().and_then(|socket| {
            socket.connect(&self.path)?;
            // A log daemon that does not read must not block the mount.
            socket.set_nonblocking(true)?;
            Ok(socket)
        });
        self.socket = connected.ok();
    }

    /// Sends a message, over a new connection if the old one is broken. A daemon whose queue is full loses it.
    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        let send = |socket: &Option<UnixDatagram>| match socket {
            Some(socket) => socket.send(message).map(drop),
            None => Err(io::ErrorKind::NotConnected.into()),
        };
        match send(&self.socket) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                self.reconnect();
                send(&self.socket)
            }
            result => result,
        }
    }
}

#[derive(Debug)]
struct ProgramLog {
    target: Mutex<LogTarget>,
    /// True to log messages of other crates too.
    all_crates: bool,
}

static LOG: OnceLock<ProgramLog> = OnceLock::new();

/// Returns true if only errors are wanted (`--quiet`).
pub(super) fn is_quiet() -> bool {
    log::max_level() < LevelFilter::Warn
}

/// The level of the log: warnings and errors, with `verbose` 1 also information, from 2 on everything. Only errors if it
/// `is_quiet`.
pub(super) fn level(verbose: u8, is_quiet: bool) -> LevelFilter {
    match (is_quiet, verbose) {
        (true, _) => LevelFilter::Error,
        (false, 0) => LevelFilter::Warn,
        (false, 1) => LevelFilter::Info,
        (false, _) => LevelFilter::Debug,
    }
}

/// Starts logging at `level`. With a file, messages go to its end, else to standard error. A panic is logged as one line.
///
/// # Errors
/// When the file cannot be opened.
pub(super) fn start(level: LevelFilter, file: Option<&Path>) -> io::Result<()> {
    let target = match file {
        Some(path) => LogTarget::File(OpenOptions::new().create(true).append(true).open(path)?, path.to_owned()),
        None if standard_error_is_journal() => LogTarget::Journal,
        None => LogTarget::Terminal,
    };
    let logger =
        LOG.get_or_init(|| ProgramLog { target: Mutex::new(LogTarget::None), all_crates: level >= LevelFilter::Debug });
    *lock(&logger.target) = target;
    // Fails only if a logger was set before, and that is this one.
    let _ = log::set_logger(logger);
    log::set_max_level(level);
    std::panic::set_hook(Box::new(|panic| {
        let location = panic.location().map(ToString::to_string).unwrap_or_default();
        let payload = panic.payload();
        let text = payload.downcast_ref::<&str>().copied().or(payload.downcast_ref::<String>().map(String::as_str));
        log::error!("internal error (bug in dupfs) at {location}: {}", text.unwrap_or("panic"));
    }));
    Ok(())
}

/// Redirects the log from standard error to the system log, or to a file where there is none.
pub(super) fn detach_from_terminal() {
    let Some(logger) = LOG.get() else { return };
    let mut target = lock(&logger.target);
    if matches!(*target, LogTarget::Terminal | LogTarget::Journal) {
        *target = LogTarget::of_daemon();
    }
}

/// Returns the destination of the messages of a daemon of this process, as one line for the user.
pub(super) fn destination_of_daemon() -> String {
    let journal = || Path::new("/run/systemd/journal").exists();
    let of_daemon = LogTarget::of_daemon();
    let current = LOG.get().map(|logger| lock(&logger.target));
    let target = match current.as_deref() {
        Some(file @ LogTarget::File(..)) => file,
        _ => &of_daemon,
    };
    match target {
        LogTarget::File(_, path) => format!("errors go to {}", path.display()),
        LogTarget::Daemon(system, _) if system.socket.is_some() && journal() => {
            "errors go to the system log: journalctl -t dupfs".to_owned()
        }
        LogTarget::Daemon(system, _) if system.socket.is_some() => {
            "errors go to the system log, with the name dupfs".to_owned()
        }
        LogTarget::Daemon(_, Some(file)) => format!("errors go to {}", file.path().display()),
        LogTarget::Daemon(_, None) | LogTarget::Terminal | LogTarget::Journal | LogTarget::None => {
            "errors go nowhere: this machine has no system log; mount with --log-file FILE".to_owned()
        }
    }
}

/// Reports to the user on standard error why the program ends, and to the log if that is elsewhere.
pub(super) fn report(message: &str) {
    let line = one_line(message);
    let is_journal =
        LOG.get().map_or_else(standard_error_is_journal, |log| matches!(*lock(&log.target), LogTarget::Journal));
    if is_journal {
        return LogTarget::Journal.write(Level::Error, &line);
    }
    // If standard error is closed nothing can be reported.
    let _ = progress_line::suspended(|| writeln!(io::stderr(), "dupfs: {line}"));
    if let Some(logger) = LOG.get() {
        let mut target = lock(&logger.target);
        if !matches!(*target, LogTarget::Terminal) {
            target.write(Level::Error, &line);
        }
    }
}

impl LogTarget {
    fn of_daemon() -> Self {
        Self::Daemon(SystemLog::connect(SYSTEM_LOG), DefaultLogFile::of_this_user())
    }

    /// Writes a message. One that cannot be written is lost: the mount continues.
    fn write(&mut self, level: Level, line: &str) {
        let level_name = match level {
            Level::Error => "error",
            Level::Warn => "warning",
            Level::Info => "info",
            Level::Debug | Level::Trace => "debug",
        };
        // As in syslog(3).
        let severity = match level {
            Level::Error => 3,
            Level::Warn => 4,
            Level::Info => 6,
            Level::Debug | Level::Trace => 7,
        };
        let _ = match self {
            Self::Terminal => progress_line::suspended(|| writeln!(io::stderr(), "dupfs: {level_name}: {line}")),
            // The journal adds the name of the program. One write, so that lines of several processes do not mix.
            Self::Journal => io::stderr().write_all(format!("<{severity}>{level_name}: {line}\n").as_bytes()),
            // One write, so that lines of several processes do not mix.
            Self::File(file, _) => file.write_all(line_of_file(level_name, line).as_bytes()),
            Self::Daemon(log, file) => {
                // RFC 3164: facility daemon (3), then the severity.
                let message = format!("<{}>dupfs[{}]: {level_name}: {line}", 3 * 8 + severity, std::process::id());
                match (log.send(message.as_bytes()), file) {
                    // A daemon of the log that is slow loses messages.
                    (Err(error), Some(file)) if error.kind() != io::ErrorKind::WouldBlock => {
                        file.append(&line_of_file(level_name, line))
                    }
                    (sent, _) => sent,
                }
            }
            Self::None => Ok(()),
        };
    }
}

impl Log for ProgramLog {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.all_crates || metadata.target().starts_with("dupfs")
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let line = one_line(&record.args().to_string());
        let target = record.target();
        if target.starts_with("dupfs") {
            return lock(&self.target).write(record.level(), &line);
        }
        // The level of a message of a library may not fit here: the FUSE crate warns of each mount that was unmounted
        // from outside.
        if !(target.starts_with("fuser") && line.starts_with("Failed to umount filesystem")) {
            lock(&self.target).write(Level::Debug, &format!("{target}: {line}"));
        }
    }

    fn flush(&self) {}
}

/// A line of a log file.
fn line_of_file(level: &str, line: &str) -> String {
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ");
    format!("{now} dupfs: {level}: {line}\n")
}

/// `message` without control characters (no line breaks, no sequences for the terminal) and without the numbers of errors.
pub(super) fn one_line(message: &str) -> String {
    blank_display_controls(without_errno(message).trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_line_without_control_characters() {
        assert_eq!(one_line("a\nb\x1b[31mc\n"), "a b [31mc");
        let error = io::Error::from_raw_os_error(2);
        assert_eq!(one_line(&format!("f: {error}; try g")), "f: No such file or directory; try g");
    }

    #[test]
    fn the_system_log_is_connected_again_after_its_daemon_was_restarted() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("log");
        let received = |daemon: &UnixDatagram| {
            let mut buffer = [0; 200];
            daemon.set_read_timeout(Some(std::time::Duration::from_secs(10))).unwrap();
            let len = daemon.recv(&mut buffer).unwrap();
            String::from_utf8_lossy(&buffer[..len]).into_owned()
        };
        let mut target = LogTarget::Daemon(SystemLog::connect(&path), None);
        target.write(Level::Warn, "nothing listens yet");
        let daemon = UnixDatagram::bind(&path).unwrap();
        target.write(Level::Warn, "first");
        assert!(received(&daemon).ends_with(": warning: first"));
        drop(daemon);
        std::fs::remove_file(&path).unwrap();
        target.write(Level::Warn, "lost");
        let daemon = UnixDatagram::bind(&path).unwrap();
        target.write(Level::Warn, "second");
        assert!(received(&daemon).ends_with(": warning: second"));
    }

    #[test]
    fn a_file_gets_time_level_and_message() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("log");
        LogTarget::File(File::create(&path).unwrap(), path.clone()).write(Level::Warn, "something");
        let text = std::fs::read_to_string(path).unwrap();
        assert!(text.ends_with("Z dupfs: warning: something\n"), "{text}");
    }
}
