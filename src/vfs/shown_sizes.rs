//! The sizes that are shown for files whose exact size needs a volume.

/// The size that is shown for a file whose exact size needs a volume.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ShownSizes {
    /// The exact size, found when it is requested.
    #[default]
    Exact,
    /// The upper bound of the signature, until the file is opened.
    Bound,
}
