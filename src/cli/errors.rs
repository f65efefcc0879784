//! What a command ends with: one line for the user, one exit code for scripts.

use std::io;

use crate::fuse::{MountError, UnmountError};
use crate::vfs::FsError;
use dupfs_base::{ErrorKind, HasKind};
use dupfs_read::storage::StorageError;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// What was typed makes no sense.
    #[error("{0}")]
    Usage(String),
    /// The file system could not answer.
    #[error(transparent)]
    Fs(#[from] FsError),
    /// The store could not answer.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// It could not be mounted.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// It could not be unmounted.
    #[error(transparent)]
    Unmount(#[from] UnmountError),
    /// Anything else, described in one line.
    #[error("{message}")]
    Failed {
        /// What it means.
        kind: ErrorKind,
        /// What failed, on which object, why, and what to do.
        message: String,
    },
    /// The backup could not be opened.
    #[error(transparent)]
    Open(#[from] super::repo::OpenError),
    /// A command that prints was ended.
    #[error(transparent)]
    Ended(#[from] super::failure::Failure),
    /// Standard output cannot be written.
    #[error("cannot write the output: {0}")]
    Output(#[source] io::Error),
    /// Another process of dupfs failed and has told why.
    #[error("failed")]
    Told(u8),
}

impl CliError {
    /// A failure of `kind` described by `message`.
    pub fn failed(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self::Failed { kind, message: message.into() }
    }

    /// The exit code, as CLI.md section "Exit codes" has them.
    pub fn code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Told(code) => *code,
            Self::Output(_) => 1,
            Self::Fs(error) => code_of(error.kind()),
            Self::Open(error) => code_of(error.kind()),
            Self::Ended(failure) => failure.exit.code(),
            Self::Storage(error) => code_of(error.kind()),
            Self::Mount(error) => code_of(error.kind()),
            Self::Unmount(error) => code_of(error.kind()),
            Self::Failed { kind, .. } => code_of(*kind),
        }
    }

    /// Tells the user, and gives the exit code. A reader that has gone away (`dupfs cat ... | head`) ends the program by
    /// SIGPIPE, as it ends any other.
    pub(super) fn report(&self) -> u8 {
        match self {
            Self::Told(_) => {}
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                // Only fails for signals that do not exist.
                let _ = signal_hook::low_level::emulate_default_handler(libc::SIGPIPE);
            }
            error => super::logging::tell(&error.to_string()),
        }
        self.code()
    }
}

fn code_of(kind: ErrorKind) -> u8 {
    super::failure::Exit::of(kind).code()
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
    }
}
