//! The meaning of a failure: one kind for each errno and exit code.

/// The kind of a failure. The error type of every layer has a `kind()`; `vfs` maps it to an errno and `cli` to an exit
/// code, each in one exhaustive match.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The path, snapshot or backup does not exist; the index says so.
    NotFound,
    /// The store or the machine refused: credentials or permissions.
    Denied,
    /// No available key or passphrase opens the object.
    KeyMissing,
    /// No answer before the deadline.
    Timeout,
    /// The object is in cold storage and has to be restored by the user first.
    Archived,
    /// The bytes that were read differ from those that were written: hash, integrity code or structure is wrong.
    Corrupt,
    /// An object that the backup's own records name is not there.
    Missing,
    /// A form of data that dupfs refuses by name.
    Unsupported,
    /// The request itself is wrong.
    Invalid,
    /// The store or the machine failed in a way that may pass.
    Io,
    /// Nobody waits for the answer any more.
    Cancelled,
    /// The answer is not cached, and the request may not block.
    WouldBlock,
}

impl ErrorKind {
    /// Returns true if a later attempt may succeed without a repair.
    pub fn is_transient(self) -> bool {
        matches!(self, Self::Timeout | Self::Io | Self::Cancelled | Self::WouldBlock)
    }
}

/// An error that has an [`ErrorKind`].
pub trait HasKind: std::error::Error {
    /// The kind of this failure.
    fn kind(&self) -> ErrorKind;
}
