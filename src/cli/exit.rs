//! The exit codes of docs/CLI.md, and the one map from error kinds to them.

use dupfs_base::ErrorKind;

/// An exit code. Of several failures the greatest code counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum CommandExit {
    /// Done.
    #[default]
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
    /// Something differs, and the user has requested a separate code for that.
    Different = 7,
    /// Interrupted.
    Interrupted = 130,
}

impl CommandExit {
    /// All codes, in ascending order.
    pub const ALL: [Self; 9] = [
        Self::Done,
        Self::Failed,
        Self::Usage,
        Self::NotFound,
        Self::Denied,
        Self::NoKey,
        Self::Damage,
        Self::Different,
        Self::Interrupted,
    ];

    /// The meaning of the code, as docs/CLI.md has it.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Usage => "usage",
            Self::NotFound => "no such backup, snapshot or path",
            Self::Denied => "credentials or permission",
            Self::NoKey => "no key or passphrase fits",
            Self::Damage => "damage, or a failed read",
            Self::Different => "differences, only with diff --exit-code",
            Self::Interrupted => "interrupted",
        }
    }

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
            | ErrorKind::OverLimit
            | ErrorKind::Unsupported
            | ErrorKind::Io
            | ErrorKind::WouldBlock => Self::Failed,
        }
    }

    /// The code for a failure of `kind` to serve an object that exists: damage, unless the user can change the reason.
    pub fn of_read(kind: ErrorKind) -> Self {
        match Self::of(kind) {
            exit if kind == ErrorKind::OverLimit => exit,
            exit @ (Self::Denied | Self::NoKey | Self::Interrupted) => exit,
            Self::Done | Self::Failed | Self::Usage | Self::NotFound | Self::Damage | Self::Different => Self::Damage,
        }
    }

    /// The code as the system takes it.
    pub fn code(self) -> u8 {
        // A field-less `repr(u8)` enum; the cast is exact.
        self as u8
    }
}

/// The exit code that mount(8) documents for a helper which ends with `code`: 1 for wrong arguments, 8 for an interruption, and
/// 32 for every other failure.
pub(super) fn code_for_mount(code: u8) -> u8 {
    const WRONG_ARGUMENTS: u8 = 1;
    const INTERRUPTED: u8 = 8;
    const MOUNT_FAILED: u8 = 32;
    match code {
        0 => 0,
        code if code == CommandExit::Usage.code() => WRONG_ARGUMENTS,
        code if code == CommandExit::Interrupted.code() => INTERRUPTED,
        _ => MOUNT_FAILED,
    }
}
