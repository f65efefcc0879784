//! What a failure means to whoever has to answer for it: one class for each kind of answer.

/// The class of a failure. Every layer's error answers `class()`; `vfs` maps it to an errno and `cli` to an exit code,
/// each in one exhaustive match.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// The path, snapshot or backup does not exist; the index says so.
    NotFound,
    /// The store or the machine refused: credentials or permissions.
    Denied,
    /// No key or passphrase at hand opens the object.
    KeyMissing,
    /// No answer before the deadline.
    Timeout,
    /// The object is in cold storage and has to be restored by the user first.
    Cold,
    /// What was read is not what was written: hash, integrity code or structure is wrong.
    Corrupt,
    /// An object that the backup's own records name is not there.
    Missing,
    /// A form of data that dupfs refuses by name.
    Unsupported,
    /// The request itself is wrong.
    Invalid,
    /// The store or the machine failed in a way that may pass.
    Io,
}

impl ErrorClass {
    /// Whether asking again later may succeed without anybody mending anything.
    pub fn is_transient(self) -> bool {
        matches!(self, Self::Timeout | Self::Io)
    }
}

/// An error that knows its class.
pub trait Classified: std::error::Error {
    /// The class of this failure.
    fn class(&self) -> ErrorClass;
}
