//! Checks of the first bytes of a file against the hint in its name.

use super::byte_source::ByteSource;
use super::error::UnpackError;
use super::stream_codec::StreamCodec;
use super::suffix_hint::{ArchiveFormat, UnpackKind};
use super::{tar, zip};
use dupfs_base::RequestContext;

/// Returns true if the content of `source` begins as `kind` does. Reads its first bytes. Does not check the tar stream in a
/// compressed archive: see [`Archive::begins`](super::Archive::begins).
///
/// # Errors
/// [`UnpackError`] if that cannot be read.
pub fn content_matches(
    source: &dyn ByteSource,
    kind: UnpackKind,
    context: &RequestContext,
) -> Result<bool, UnpackError> {
    let head = source.read_at(0, 512, context)?;
    Ok(match kind {
        UnpackKind::Compressed(codec) | UnpackKind::Archive(ArchiveFormat::Tar(Some(codec))) => begins(codec, &head),
        UnpackKind::Archive(ArchiveFormat::Zip) => zip::is_zip(source, &head, context)?,
        UnpackKind::Archive(ArchiveFormat::Tar(None)) => tar::begins(&head),
    })
}

fn begins(codec: StreamCodec, head: &[u8]) -> bool {
    match codec {
        StreamCodec::Gzip => head.starts_with(&[0x1f, 0x8b, 8]),
        StreamCodec::Bzip2 => {
            let magic = head.get(4..10);
            head.starts_with(b"BZh")
                && matches!(magic, Some([0x31, 0x41, 0x59, 0x26, 0x53, 0x59] | [0x17, 0x72, 0x45, 0x38, 0x50, 0x90]))
        }
        StreamCodec::Xz => head.starts_with(b"\xfd7zXZ\0"),
        // A frame, or a skippable frame.
        StreamCodec::Zstd => {
            head.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) || matches!(head, [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..])
        }
        StreamCodec::Zip(..) => true,
    }
}
