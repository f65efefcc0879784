//! What can be wrong with bytes that should be duplicity's.

use std::io;

use dupfs_base::{ErrorKind, HasKind, escape_bytes};

/// Longest piece of a damaged name that an error repeats.
const SHOWN_BYTES: usize = 200;

/// A failure of a parser. Offsets count bytes from the start of the parsed (decoded) stream; the caller adds which
/// object it was.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// The underlying reader failed; the source is what it said.
    #[error("reading failed at byte {offset}: {source}")]
    Read {
        /// Bytes delivered before the failure.
        offset: u64,
        /// The reader's error, unchanged, so that a caller can find its own error in it.
        source: io::Error,
    },
    /// A manifest, or one volume's entry in it, is damaged.
    #[error("the manifest is damaged at byte {offset}: {what}")]
    Manifest {
        /// Start of the line at fault.
        offset: u64,
        /// What is wrong with it.
        what: String,
    },
    /// A tar stream is damaged.
    #[error("the tar stream is damaged at byte {offset}: {what}")]
    Tar {
        /// Start of the header at fault, or where the stream ended.
        offset: u64,
        /// What is wrong there.
        what: &'static str,
    },
    /// An entry of a signature archive or volume has a name or data that duplicity does not write.
    #[error("the archive entry '{name}' at byte {offset} is not duplicity's: {what}")]
    Entry {
        /// Start of the entry's header; 0 where only the name was given.
        offset: u64,
        /// The entry's name, escaped and cut.
        name: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A delta does not follow librsync's format.
    #[error("the delta is damaged at byte {offset}: {what}")]
    Delta {
        /// Offset of the command, from where parsing began.
        offset: u64,
        /// What is wrong with it.
        what: &'static str,
    },
    /// Something is larger than any duplicity writes, and larger than is kept in memory for it.
    #[error("{what} at byte {offset} is larger than the {limit} bytes that are accepted")]
    TooLarge {
        /// Where it starts.
        offset: u64,
        /// What it is.
        what: &'static str,
        /// The limit in bytes.
        limit: u64,
    },
    /// A time string that duplicity would not take either.
    #[error(
        "'{text}' is not a time: {why}; accepted are now, epoch seconds, 3D or 1h30m (s m h D W M Y before now), \
         2017-01-28, 01/28/2017, 2017-01-28T02:15:00 with Z or +01:00 or nothing, 20170128T021500Z"
    )]
    Time {
        /// The string, escaped.
        text: String,
        /// Why it was refused.
        why: &'static str,
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
    /// An [`FormatError::Entry`] with `name` made printable and cut.
    pub(crate) fn entry(offset: u64, name: &[u8], what: &'static str) -> Self {
        Self::Entry { offset, name: escape_bytes(name.get(..SHOWN_BYTES).unwrap_or(name)), what }
    }

    /// The same failure with `base` added to its offset: for parsers that are handed a piece of a longer stream.
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
            // A reader of a lower layer may have put its own kind into the source; only the caller knows its type.
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
    fn classes_tell_damage_from_requests_and_refusals() {
        assert_eq!(FormatError::Tar { offset: 0, what: "" }.kind(), ErrorKind::Corrupt);
        assert_eq!(FormatError::Time { text: String::new(), why: "" }.kind(), ErrorKind::Invalid);
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
