//! Hints in the suffixes of names: an archive, or a compressed file. The content decides.

use super::stream_codec::StreamCodec;

/// The form of an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ArchiveFormat {
    /// A tar stream, compressed or not.
    Tar(Option<StreamCodec>),
    /// A zip archive.
    Zip,
}

/// The way a file is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UnpackKind {
    /// A directory of its members.
    Archive(ArchiveFormat),
    /// A file with the decompressed content.
    Compressed(StreamCodec),
}

/// The hint in the suffix of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SuffixHint<'a> {
    /// The way the file would be shown.
    pub kind: UnpackKind,
    /// A compressed file's name without the suffix; an archive's own.
    pub name: &'a [u8],
    /// The suffix without its dot, as it is written.
    pub suffix: &'a [u8],
}

const ARCHIVES: &[(&str, ArchiveFormat)] = &[
    ("tar", ArchiveFormat::Tar(None)),
    ("tar.gz", ArchiveFormat::Tar(Some(StreamCodec::Gzip))),
    ("tgz", ArchiveFormat::Tar(Some(StreamCodec::Gzip))),
    ("tar.bz2", ArchiveFormat::Tar(Some(StreamCodec::Bzip2))),
    ("tbz2", ArchiveFormat::Tar(Some(StreamCodec::Bzip2))),
    ("tbz", ArchiveFormat::Tar(Some(StreamCodec::Bzip2))),
    ("tb2", ArchiveFormat::Tar(Some(StreamCodec::Bzip2))),
    ("tar.xz", ArchiveFormat::Tar(Some(StreamCodec::Xz))),
    ("txz", ArchiveFormat::Tar(Some(StreamCodec::Xz))),
    ("tar.zst", ArchiveFormat::Tar(Some(StreamCodec::Zstd))),
    ("tzst", ArchiveFormat::Tar(Some(StreamCodec::Zstd))),
    ("zip", ArchiveFormat::Zip),
];

/// Suffixes of compressed files.
pub const SUFFIXES: &[(&str, StreamCodec)] =
    &[("gz", StreamCodec::Gzip), ("bz2", StreamCodec::Bzip2), ("xz", StreamCodec::Xz), ("zst", StreamCodec::Zstd)];

/// The hint in the suffix of `name`; `None` for a name like any other. Suffixes need a name before them; those of archives count in any
/// case, those of compressed files as they are usually written, so that two files never lose theirs to the same name.
pub fn suffix_hint(name: &[u8]) -> Option<SuffixHint<'_>> {
    let split = |suffix: &str| {
        let dot = name.len().checked_sub(suffix.len() + 1).filter(|&dot| dot > 0)?;
        let (stem, rest) = name.split_at_checked(dot)?;
        let (point, own) = rest.split_first()?;
        (*point == b'.' && own.eq_ignore_ascii_case(suffix.as_bytes())).then_some((stem, own))
    };
    let archive = ARCHIVES.iter().find_map(|&(suffix, kind)| Some((split(suffix)?.1, kind)));
    if let Some((suffix, container)) = archive {
        return Some(SuffixHint { kind: UnpackKind::Archive(container), name, suffix });
    }
    let exactly = |suffix: &str| split(suffix).filter(|(_, own)| *own == suffix.as_bytes());
    let packed = SUFFIXES.iter().find_map(|&(suffix, codec)| Some((exactly(suffix)?, codec)));
    packed.map(|((stem, suffix), codec)| SuffixHint { kind: UnpackKind::Compressed(codec), name: stem, suffix })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suffixes_hint_at_archives_and_compressed_files() {
        let kind = |name: &str| suffix_hint(name.as_bytes()).map(|shape| shape.kind);
        assert_eq!(kind("latest.tbz2"), Some(UnpackKind::Archive(ArchiveFormat::Tar(Some(StreamCodec::Bzip2)))));
        assert_eq!(kind("a.TAR.GZ"), Some(UnpackKind::Archive(ArchiveFormat::Tar(Some(StreamCodec::Gzip)))));
        assert_eq!(kind("a.zip"), Some(UnpackKind::Archive(ArchiveFormat::Zip)));
        assert_eq!(kind("a.sql.xz"), Some(UnpackKind::Compressed(StreamCodec::Xz)));
        let shape = suffix_hint(b"foo.sql.bz2").unwrap();
        assert_eq!((shape.name, shape.suffix), (&b"foo.sql"[..], &b"bz2"[..]));
        for plain in [".gz", "gz", "a.gzip", "", ".", "a.7z", "a.tar.lz"] {
            assert_eq!(kind(plain), None, "{plain}");
        }
        // The rest of a hidden archive's suffix is that of a compressed file.
        assert_eq!(suffix_hint(b".tar.gz").unwrap().name, b".tar");
    }
}
