//! Forms of compression.

use super::zip_method::{StatedContent, ZipMethod};

/// Memory of a bzip2 block that is decoded in advance of its reader: a usual one, its compressed form twice.
const BZIP2_BLOCK: u64 = 3 << 19;

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
    /// Memory of a decoder apart from what each cursor has, in bytes, as far as it is known before the header of the data
    /// is read. `width` blocks are decoded at once.
    pub(super) fn memory_bytes(self, width: usize) -> u64 {
        match self {
            Self::Bzip2 | Self::Zip(ZipMethod::Bzip2, _) => {
                (width as u64).saturating_add(2).saturating_mul(BZIP2_BLOCK)
            }
            Self::Gzip | Self::Xz | Self::Zstd | Self::Zip(..) => 0,
        }
    }

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
