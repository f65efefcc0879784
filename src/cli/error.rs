//! The reason why a command failed: one line for the user, one exit code for scripts.

use std::io;

use dupfs_base::{ErrorKind, HasKind, io_reason};

use super::exit::CommandExit;

/// The exit code of a program that SIGPIPE ended.
const SIGPIPE_CODE: u8 = 141;

/// The reason why a command failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CliError {
    /// The arguments are invalid.
    #[error("{0}")]
    Usage(String),
    /// A failure described in one line.
    #[error("{message}")]
    Failed {
        /// The exit code.
        exit: CommandExit,
        /// The failure, its object, the reason and the remedy.
        message: String,
    },
    /// The reader of the output has closed it.
    #[error("the output was closed")]
    OutputClosed,
    /// Another process of dupfs, or the command itself, has reported the failure; its exit code.
    #[error("failed")]
    Reported(u8),
}

/// Errors of the layers below.
impl<E: HasKind + std::fmt::Display> From<E> for CliError {
    fn from(error: E) -> Self {
        Self::failed(error.kind(), error.to_string())
    }
}

impl CliError {
    /// A failure with that exit code and message.
    pub fn new(exit: CommandExit, message: impl Into<String>) -> Self {
        Self::Failed { exit, message: message.into() }
    }

    /// A failure of `kind` described by `message`.
    pub fn failed(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self::new(CommandExit::of(kind), message)
    }

    /// A failure to write the output.
    pub fn output(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::OutputClosed,
            _ => Self::new(CommandExit::Failed, format!("cannot write the output: {}", io_reason(error))),
        }
    }

    /// The exit code of a command that reports it and continues.
    pub fn exit(&self) -> CommandExit {
        match self {
            Self::Usage(_) => CommandExit::Usage,
            Self::Failed { exit, .. } => *exit,
            Self::OutputClosed | Self::Reported(_) => CommandExit::Failed,
        }
    }

    /// The exit code.
    pub fn code(&self) -> u8 {
        match self {
            Self::Usage(_) => CommandExit::Usage.code(),
            Self::Failed { exit, .. } => exit.code(),
            Self::OutputClosed => SIGPIPE_CODE,
            Self::Reported(code) => *code,
        }
    }

    /// Reports it to the user, and returns the exit code. If the reader of the output has exited (`dupfs cat ... |
    /// head`), ends the program by SIGPIPE, as other programs.
    pub(super) fn report(&self) -> u8 {
        match self {
            Self::Reported(_) => {}
            Self::OutputClosed => {
                // Only fails for signals that do not exist.
                let _ = signal_hook::low_level::emulate_default_handler(libc::SIGPIPE);
            }
            Self::Usage(_) | Self::Failed { .. } => super::logging::report(&self.to_string()),
        }
        self.code()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_those_of_the_contract() {
        let code = |kind| CliError::failed(kind, "x").code();
        assert_eq!(CliError::Usage(String::new()).code(), 2);
        assert_eq!(code(ErrorKind::NotFound), 3);
        assert_eq!(code(ErrorKind::Denied), 4);
        assert_eq!(code(ErrorKind::KeyMissing), 5);
        assert_eq!(code(ErrorKind::Corrupt), 6);
        assert_eq!(code(ErrorKind::Io), 1);
        assert_eq!(CommandExit::of_read(ErrorKind::NotFound), CommandExit::Damage);
        assert_eq!(CommandExit::of_read(ErrorKind::Denied), CommandExit::Denied);
    }

    #[test]
    fn a_closed_output_is_distinguished_from_one_that_fails() {
        assert_eq!(CliError::output(&io::ErrorKind::BrokenPipe.into()), CliError::OutputClosed);
        assert_eq!(CliError::output(&io::ErrorKind::StorageFull.into()).code(), 1);
    }
}
