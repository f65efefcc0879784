//! The sizes that are shown for files whose exact size needs a volume.

/// The size that is shown for a file whose exact size needs a volume.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ShownSizes {
    /// The exact size, found when it is requested.
    #[default]
    Exact,
    /// The upper bound of the signature, until the file is opened.
    Bound,
    /// The exact size when it is requested, but a large file is opened without it: a reader in order gets the first bytes before the
    /// volume with the end of the file is fetched. Not for a mount: nearly every program asks for the size of a file that it has
    /// opened, and the kernel ends reads at the size that it got.
    Late,
}
