//! The meaning of an error: one kind for each errno and exit code.

/// The kind of an error. The error type of every layer has a `kind()`; `vfs` maps it to an errno and `cli` to an exit
/// code, each in one exhaustive match.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The path, snapshot or backup does not exist.
    NotFound,
    /// The store or the operating system refused access: credentials or permissions.
    Denied,
    /// No available key or passphrase opens the object.
    KeyMissing,
    /// There was no answer before the deadline.
    Timeout,
    /// The object is in cold storage. The user has to restore it first.
    Archived,
    /// The data is damaged: a hash, an integrity code or the structure is wrong.
    Corrupt,
    /// An object that the backup refers to does not exist in the store.
    Missing,
    /// The data has a form that dupfs does not support.
    Unsupported,
    /// The request is invalid.
    Invalid,
    /// More bytes would be fetched than the user allows.
    OverLimit,
    /// The store or the operating system failed, possibly for a short time.
    Io,
    /// The request was cancelled: no caller waits for the answer any more.
    Cancelled,
    /// The answer is not cached, and the request may not block.
    WouldBlock,
}

impl ErrorKind {
    /// Returns true if a later attempt may succeed without a repair.
    pub fn is_transient(self) -> bool {
        matches!(self, Self::Timeout | Self::OverLimit | Self::Io | Self::Cancelled | Self::WouldBlock)
    }
}

/// An error that has an [`ErrorKind`].
pub trait HasKind: std::error::Error {
    /// The kind of this error.
    fn kind(&self) -> ErrorKind;
}
