//! Forms of compression.

use super::zip_method::{StatedContent, ZipMethod};

/// The form of compression of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StreamCodec {
    /// Gzip, any number of members.
    Gzip,
    /// bzip2, any number of streams.
    Bzip2,
    /// xz, any number of streams.
    Xz,
    /// zstd, any number of frames.
    Zstd,
    /// A zip member.
    Zip(ZipMethod, StatedContent),
}

impl StreamCodec {
    /// Bytes that distinguish streams of this form from others of the same source.
    pub(super) fn tag(self) -> &'static [u8] {
        match self {
            Self::Gzip => b"\0gzip",
            Self::Bzip2 => b"\0bzip2",
            Self::Xz => b"\0xz",
            Self::Zstd => b"\0zstd",
            Self::Zip(method, _) => method.tag(),
        }
    }
}
