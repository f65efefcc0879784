//! What a name promises, and whether the content keeps it.

use super::error::UnpackError;
use super::source::Source;
use super::stream::Codec;
use super::{tar, zip};
use dupfs_base::RequestContext;

/// What an archive is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Container {
    /// A tar stream, compressed or not.
    Tar(Option<Codec>),
    /// A zip archive.
    Zip,
}

/// What a file is shown as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A directory of its members.
    Archive(Container),
    /// A file with the decompressed content.
    Compressed(Codec),
}

/// What a name promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape<'a> {
    /// What the file would be.
    pub kind: Kind,
    /// A compressed file's name without the suffix; an archive's own.
    pub name: &'a [u8],
    /// The suffix without its dot, as it is written.
    pub suffix: &'a [u8],
}

const ARCHIVES: &[(&str, Container)] = &[
    ("tar", Container::Tar(None)),
    ("tar.gz", Container::Tar(Some(Codec::Gzip))),
    ("tgz", Container::Tar(Some(Codec::Gzip))),
    ("tar.bz2", Container::Tar(Some(Codec::Bzip2))),
    ("tbz2", Container::Tar(Some(Codec::Bzip2))),
    ("tbz", Container::Tar(Some(Codec::Bzip2))),
    ("tb2", Container::Tar(Some(Codec::Bzip2))),
    ("tar.xz", Container::Tar(Some(Codec::Xz))),
    ("txz", Container::Tar(Some(Codec::Xz))),
    ("tar.zst", Container::Tar(Some(Codec::Zstd))),
    ("tzst", Container::Tar(Some(Codec::Zstd))),
    ("zip", Container::Zip),
];

/// Suffixes of compressed files.
pub const SUFFIXES: &[(&str, Codec)] =
    &[("gz", Codec::Gzip), ("bz2", Codec::Bzip2), ("xz", Codec::Xz), ("zst", Codec::Zstd)];

/// What `name` promises; `None` for a name like any other. Suffixes need a name before them; those of archives count in any
/// case, those of compressed files as they are usually written, so that two files never lose theirs to the same name.
pub fn shape_of(name: &[u8]) -> Option<Shape<'_>> {
    let split = |suffix: &str| {
        let dot = name.len().checked_sub(suffix.len() + 1).filter(|&dot| dot > 0)?;
        let (stem, rest) = name.split_at_checked(dot)?;
        let (point, own) = rest.split_first()?;
        (*point == b'.' && own.eq_ignore_ascii_case(suffix.as_bytes())).then_some((stem, own))
    };
    let archive = ARCHIVES.iter().find_map(|&(suffix, kind)| Some((split(suffix)?.1, kind)));
    if let Some((suffix, container)) = archive {
        return Some(Shape { kind: Kind::Archive(container), name, suffix });
    }
    let exactly = |suffix: &str| split(suffix).filter(|(_, own)| *own == suffix.as_bytes());
    let packed = SUFFIXES.iter().find_map(|&(suffix, codec)| Some((exactly(suffix)?, codec)));
    packed.map(|((stem, suffix), codec)| Shape { kind: Kind::Compressed(codec), name: stem, suffix })
}

/// Whether the content of `source` begins as `kind` does. Costs its first bytes. Whether a compressed archive holds a tar
/// stream, [`Archive::begins`](super::Archive::begins) tells.
///
/// # Errors
/// [`UnpackError`] if that cannot be read.
pub fn confirm(source: &dyn Source, kind: Kind, context: &RequestContext) -> Result<bool, UnpackError> {
    let head = source.read_at(0, 512, context)?;
    Ok(match kind {
        Kind::Compressed(codec) | Kind::Archive(Container::Tar(Some(codec))) => begins(codec, &head),
        Kind::Archive(Container::Zip) => zip::begins(&head),
        Kind::Archive(Container::Tar(None)) => tar::begins(&head),
    })
}

fn begins(codec: Codec, head: &[u8]) -> bool {
    match codec {
        Codec::Gzip => head.starts_with(&[0x1f, 0x8b, 8]),
        Codec::Bzip2 => {
            let magic = head.get(4..10);
            head.starts_with(b"BZh")
                && matches!(magic, Some([0x31, 0x41, 0x59, 0x26, 0x53, 0x59] | [0x17, 0x72, 0x45, 0x38, 0x50, 0x90]))
        }
        Codec::Xz => head.starts_with(b"\xfd7zXZ\0"),
        // A frame, or one to be skipped.
        Codec::Zstd => {
            head.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) || matches!(head, [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..])
        }
        Codec::Deflate { .. } | Codec::Stored { .. } => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_promise_by_their_suffix() {
        let kind = |name: &str| shape_of(name.as_bytes()).map(|shape| shape.kind);
        assert_eq!(kind("latest.tbz2"), Some(Kind::Archive(Container::Tar(Some(Codec::Bzip2)))));
        assert_eq!(kind("a.TAR.GZ"), Some(Kind::Archive(Container::Tar(Some(Codec::Gzip)))));
        assert_eq!(kind("a.zip"), Some(Kind::Archive(Container::Zip)));
        assert_eq!(kind("a.sql.xz"), Some(Kind::Compressed(Codec::Xz)));
        let shape = shape_of(b"foo.sql.bz2").unwrap();
        assert_eq!((shape.name, shape.suffix), (&b"foo.sql"[..], &b"bz2"[..]));
        for plain in [".gz", "gz", "a.gzip", "", ".", "a.7z", "a.tar.lz"] {
            assert_eq!(kind(plain), None, "{plain}");
        }
        // What is left of a hidden archive's suffix is a compressed file.
        assert_eq!(shape_of(b".tar.gz").unwrap().name, b".tar");
    }
}
