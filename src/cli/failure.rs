//! How a command ends: the exit codes of docs/CLI.md.

use dupfs_base::{ErrorKind, HasKind};

/// An exit code. Of several the gravest is the greatest, except that nobody is left to tell after a closed pipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// Failed.
    Failed = 1,
    /// Wrong usage.
    Usage = 2,
    /// No such backup, snapshot or path.
    NotFound = 3,
    /// Credentials or permission.
    Denied = 4,
    /// No key or passphrase fits.
    NoKey = 5,
    /// Damage found, or a read that could not be served.
    Damage = 6,
    /// Interrupted.
    Interrupted = 130,
    /// Who read the output stopped reading, as if SIGPIPE had ended us.
    Pipe = 141,
}

impl Exit {
    /// The code for a failure of `kind`.
    pub fn of(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::NotFound => Self::NotFound,
            ErrorKind::Denied => Self::Denied,
            ErrorKind::KeyMissing => Self::NoKey,
            ErrorKind::Corrupt | ErrorKind::Missing => Self::Damage,
            ErrorKind::Invalid => Self::Usage,
            ErrorKind::Cancelled => Self::Interrupted,
            ErrorKind::Timeout
            | ErrorKind::Archived
            | ErrorKind::Unsupported
            | ErrorKind::Io
            | ErrorKind::WouldBlock => Self::Failed,
        }
    }

    /// The code for a failure of `kind` to serve what is known to exist.
    pub fn of_read(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::Denied => Self::Denied,
            ErrorKind::KeyMissing => Self::NoKey,
            ErrorKind::Cancelled => Self::Interrupted,
            ErrorKind::NotFound
            | ErrorKind::Corrupt
            | ErrorKind::Missing
            | ErrorKind::Timeout
            | ErrorKind::Archived
            | ErrorKind::Unsupported
            | ErrorKind::Invalid
            | ErrorKind::Io
            | ErrorKind::WouldBlock => Self::Damage,
        }
    }

    /// The code as the system takes it.
    pub fn code(self) -> u8 {
        // A field-less `repr(u8)` enum; the cast is exact.
        self as u8
    }
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        exit.code().into()
    }
}

/// What ended a command: its exit code, and the line for the user unless there is nothing to say.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .line.as_deref().unwrap_or("the output was closed"))]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// What failed, on which object, why, and what to do. `None` after a closed pipe.
    pub line: Option<String>,
}

impl Failure {
    /// A failure with that line.
    pub fn new(exit: Exit, line: impl Into<String>) -> Self {
        Self { exit, line: Some(line.into()) }
    }

    /// A failure as the layers below report it.
    pub fn of(error: &impl HasKind) -> Self {
        Self::new(Exit::of(error.kind()), error.to_string())
    }

    /// A failure to write the output.
    pub(super) fn output(error: &std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            return Self { exit: Exit::Pipe, line: None };
        }
        Self::new(Exit::Failed, format!("standard output: {error}"))
    }
}
