//! The error of the parsers.

use std::io;

use dupfs_base::{ErrorKind, HasKind, escape_bytes};

/// Upper bound of the bytes of a damaged name that an error shows.
const MAX_SHOWN_BYTES: usize = 200;

/// A failure of a parser. Offsets are in bytes from the start of the decoded stream. The caller adds the name of the
/// object.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// The underlying reader failed.
    #[error("reading failed at byte {offset}: {source}")]
    Read {
        /// Number of bytes read before the failure.
        offset: u64,
        /// The reader's error, unchanged, so that callers can recover their own errors from it.
        source: io::Error,
    },
    /// A manifest, or the entry of one volume in it, is damaged.
    #[error("the manifest is damaged at byte {offset}: {what}")]
    Manifest {
        /// Start of the damaged line.
        offset: u64,
        /// Description of the damage.
        what: String,
    },
    /// A tar stream is damaged.
    #[error("the tar stream is damaged at byte {offset}: {what}")]
    Tar {
        /// Start of the damaged header, or the end of the stream.
        offset: u64,
        /// Description of the damage.
        what: &'static str,
    },
    /// An entry of a signature archive or volume has a name or data that duplicity does not write.
    #[error("the archive entry '{name}' at byte {offset} is not duplicity's: {what}")]
    Entry {
        /// Start of the entry's header. 0 where only the name was given.
        offset: u64,
        /// The entry's name, escaped and truncated.
        name: String,
        /// Description of the damage.
        what: &'static str,
    },
    /// A delta does not follow librsync's format.
    #[error("the delta is damaged at byte {offset}: {what}")]
    Delta {
        /// Offset of the command from the start of the parsed bytes.
        offset: u64,
        /// Description of the damage.
        what: &'static str,
    },
    /// A line, list or header is larger than any that duplicity writes, and larger than the bound of memory for it.
    #[error("{what} at byte {offset} is larger than the {limit} bytes that are accepted")]
    TooLarge {
        /// Start of the item.
        offset: u64,
        /// Description of the item.
        what: &'static str,
        /// The upper bound in bytes.
        limit: u64,
    },
    /// A time string that duplicity does not accept either.
    #[error(
        "'{text}' is not a time: {reason}; accepted are now, epoch seconds, 3D or 1h30m (s m h D W M Y before now), \
         2017-01-28, 01/28/2017, 2017-01-28T02:15:00 with Z or +01:00 or nothing, 20170128T021500Z"
    )]
    Time {
        /// The string, escaped.
        text: String,
        /// The reason.
        reason: &'static str,
    },
    /// The object is encrypted by gpgsm.
    #[error(
        "'{name}' is encrypted with gpgsm (S/MIME), which dupfs does not read; restore it with duplicity and gpgsm"
    )]
    Cms {
        /// The object's name.
        name: String,
    },
}

impl FormatError {
    /// Returns a [`FormatError::Entry`] with `name` escaped and truncated.
    pub(crate) fn entry(offset: u64, name: &[u8], what: &'static str) -> Self {
        Self::Entry { offset, name: escape_bytes(name.get(..MAX_SHOWN_BYTES).unwrap_or(name)), what }
    }

    /// Returns the same failure with `base` added to its offset, for parsers that were given a piece of a longer
    /// stream.
    #[must_use]
    pub fn at(mut self, base: u64) -> Self {
        match &mut self {
            Self::Read { offset, .. }
            | Self::Manifest { offset, .. }
            | Self::Tar { offset, .. }
            | Self::Entry { offset, .. }
            | Self::Delta { offset, .. }
            | Self::TooLarge { offset, .. } => *offset = offset.saturating_add(base),
            Self::Time { .. } | Self::Cms { .. } => {}
        }
        self
    }
}

impl HasKind for FormatError {
    fn kind(&self) -> ErrorKind {
        match self {
            // The source may be an error with another kind. Only the caller knows its type.
            Self::Read { source, .. } => match source.kind() {
                io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => ErrorKind::Corrupt,
                io::ErrorKind::TimedOut => ErrorKind::Timeout,
                io::ErrorKind::PermissionDenied => ErrorKind::Denied,
                io::ErrorKind::NotFound => ErrorKind::Missing,
                _ => ErrorKind::Io,
            },
            Self::Manifest { .. }
            | Self::Tar { .. }
            | Self::Entry { .. }
            | Self::Delta { .. }
            | Self::TooLarge { .. } => ErrorKind::Corrupt,
            Self::Time { .. } => ErrorKind::Invalid,
            Self::Cms { .. } => ErrorKind::Unsupported,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_distinguish_damage_from_invalid_requests_and_unsupported_files() {
        assert_eq!(FormatError::Tar { offset: 0, what: "" }.kind(), ErrorKind::Corrupt);
        assert_eq!(FormatError::Time { text: String::new(), reason: "" }.kind(), ErrorKind::Invalid);
        assert_eq!(FormatError::Cms { name: String::new() }.kind(), ErrorKind::Unsupported);
        let read = |kind: io::ErrorKind| FormatError::Read { offset: 0, source: kind.into() }.kind();
        assert_eq!(read(io::ErrorKind::UnexpectedEof), ErrorKind::Corrupt);
        assert_eq!(read(io::ErrorKind::ConnectionReset), ErrorKind::Io);
    }

    #[test]
    fn messages_are_one_line_with_an_offset() {
        let error = FormatError::entry(512, b"bad\nname", "unknown kind").at(1024);
        assert_eq!(error.to_string(), "the archive entry 'bad\\x0aname' at byte 1536 is not duplicity's: unknown kind");
    }
}
