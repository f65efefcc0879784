//! The log: one line a message, on standard error, in a file or in the system's log.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::{Mutex, OnceLock, PoisonError};

use log::{Level, LevelFilter, Log, Metadata, Record};

/// Where messages go.
#[derive(Debug)]
enum Sink {
    Terminal,
    File(File),
    System(UnixDatagram),
    Nowhere,
}

#[derive(Debug)]
struct Logger {
    sink: Mutex<Sink>,
    /// Whether the FUSE crate's own messages are shown: they tell again what the mount tells itself.
    everything: bool,
}

static LOGGER: OnceLock<Logger> = OnceLock::new();

/// Starts logging: warnings and errors, with `verbose` 1 also information, from 2 on everything. With a file, messages go
/// to its end, else to standard error. A panic is one line of the log, too.
///
/// # Errors
/// When the file cannot be opened.
pub(super) fn start(verbose: u8, file: Option<&Path>) -> io::Result<()> {
    let sink = match file {
        Some(path) => Sink::File(OpenOptions::new().create(true).append(true).open(path)?),
        None => Sink::Terminal,
    };
    let level = match verbose {
        0 => LevelFilter::Warn,
        1 => LevelFilter::Info,
        _ => LevelFilter::Debug,
    };
    let logger = LOGGER.get_or_init(|| Logger { sink: Mutex::new(Sink::Nowhere), everything: verbose >= 2 });
    *logger.sink.lock().unwrap_or_else(PoisonError::into_inner) = sink;
    // Fails only if a logger was set before, and that is this one.
    let _ = log::set_logger(logger);
    log::set_max_level(level);
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let payload = panic.payload();
        let text = payload.downcast_ref::<&str>().copied().or(payload.downcast_ref::<String>().map(String::as_str));
        log::error!("defect of dupfs at {place}: {}", text.unwrap_or("panic"));
    }));
    Ok(())
}

/// What was logged to standard error goes to the system's log from here on, or nowhere if the machine has none.
pub(super) fn leave_terminal() {
    let Some(logger) = LOGGER.get() else { return };
    let mut sink = logger.sink.lock().unwrap_or_else(PoisonError::into_inner);
    if matches!(*sink, Sink::Terminal) {
        let system = UnixDatagram::unbound().and_then(|socket| {
            socket.connect("/dev/log")?;
            // A log daemon that does not read must not stop the mount.
            socket.set_nonblocking(true)?;
            Ok(socket)
        });
        *sink = system.map_or(Sink::Nowhere, Sink::System);
    }
}

/// Tells the user on standard error why the program ends, and the log too if it goes elsewhere.
pub(super) fn tell(message: &str) {
    let line = one_line(message);
    // There is nobody left to tell.
    let _ = writeln!(io::stderr(), "dupfs: {line}");
    if let Some(logger) = LOGGER.get() {
        let mut sink = logger.sink.lock().unwrap_or_else(PoisonError::into_inner);
        if !matches!(*sink, Sink::Terminal) {
            sink.write(Level::Error, &line);
        }
    }
}

impl Sink {
    /// A message that cannot be written is lost: the mount goes on.
    fn write(&mut self, level: Level, line: &str) {
        let level_name = match level {
            Level::Error => "error",
            Level::Warn => "warning",
            Level::Info => "info",
            Level::Debug | Level::Trace => "debug",
        };
        let _ = match self {
            Self::Terminal => writeln!(io::stderr(), "dupfs: {level_name}: {line}"),
            Self::File(file) => {
                let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ");
                // One write, so that lines of several processes do not mix.
                file.write_all(format!("{now} dupfs: {level_name}: {line}\n").as_bytes())
            }
            Self::System(socket) => {
                // RFC 3164: facility daemon (3), then the severity.
                let severity = match level {
                    Level::Error => 3,
                    Level::Warn => 4,
                    Level::Info => 6,
                    Level::Debug | Level::Trace => 7,
                };
                let message = format!("<{}>dupfs[{}]: {level_name}: {line}", 3 * 8 + severity, std::process::id());
                socket.send(message.as_bytes()).map(drop)
            }
            Self::Nowhere => Ok(()),
        };
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.everything || metadata.target().starts_with("dupfs")
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let line = one_line(&record.args().to_string());
            self.sink.lock().unwrap_or_else(PoisonError::into_inner).write(record.level(), &line);
        }
    }

    fn flush(&self) {}
}

/// `message` without control characters: no line breaks, no sequences for the terminal.
fn one_line(message: &str) -> String {
    message.trim_end().chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_line_without_control_characters() {
        assert_eq!(one_line("a\nb\x1b[31mc\n"), "a b [31mc");
    }

    #[test]
    fn a_file_gets_time_level_and_message() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("log");
        Sink::File(File::create(&path).unwrap()).write(Level::Warn, "something");
        let text = std::fs::read_to_string(path).unwrap();
        assert!(text.ends_with("Z dupfs: warning: something\n"), "{text}");
    }
}
