//! How a command ends: the exit codes of docs/CLI.md.

use crate::types::{Classified, ErrorClass};

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
    /// The code for a failure of `class`.
    pub fn of(class: ErrorClass) -> Self {
        match class {
            ErrorClass::NotFound => Self::NotFound,
            ErrorClass::Denied => Self::Denied,
            ErrorClass::KeyMissing => Self::NoKey,
            ErrorClass::Corrupt | ErrorClass::Missing => Self::Damage,
            ErrorClass::Invalid => Self::Usage,
            ErrorClass::Timeout | ErrorClass::Cold | ErrorClass::Unsupported | ErrorClass::Io => Self::Failed,
        }
    }

    /// The code for a failure of `class` to serve what is known to exist.
    pub fn of_read(class: ErrorClass) -> Self {
        match class {
            ErrorClass::Denied => Self::Denied,
            ErrorClass::KeyMissing => Self::NoKey,
            ErrorClass::NotFound
            | ErrorClass::Corrupt
            | ErrorClass::Missing
            | ErrorClass::Timeout
            | ErrorClass::Cold
            | ErrorClass::Unsupported
            | ErrorClass::Invalid
            | ErrorClass::Io => Self::Damage,
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
    pub fn of(error: &impl Classified) -> Self {
        Self::new(Exit::of(error.class()), error.to_string())
    }

    /// A failure to write the output.
    pub(super) fn output(error: &std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            return Self { exit: Exit::Pipe, line: None };
        }
        Self::new(Exit::Failed, format!("standard output: {error}"))
    }
}
