//! A file below `unpacked/` whose suffix hints at an archive or a compressed file.

use std::sync::{Arc, Mutex, OnceLock, Weak};

use super::super::ops::Attr;
use dupfs_base::sync::lock;
use dupfs_unpack::{ArchiveFormat, ByteSource, DecompressedStream, EntryNumber, UnpackKind};

/// A file whose suffix hints that it can be unpacked.
#[derive(Debug)]
pub(super) struct UnpackCandidate {
    pub(super) kind: UnpackKind,
    /// The name it is shown under.
    pub(super) name: Vec<u8>,
    /// Number of its entry, if it is a member of an archive: a later entry of its name is another file with the same number.
    pub(super) entry: Option<EntryNumber>,
    /// Attributes of the stored file.
    pub(super) attr: Attr,
    pub(super) content: Arc<CandidateContent>,
}

/// The facts about a candidate's content that are known so far.
#[derive(Debug, Default)]
pub(super) struct CandidateContent {
    /// Set once the content was checked: true if it is of the form that the suffix hints at.
    pub(super) confirmed: OnceLock<bool>,
    /// The decompressed content while it is in use.
    pub(super) stream: Mutex<Weak<DecompressedStream>>,
    /// Its exact length in bytes, once it was found and nothing could replace the file any more.
    pub(super) size: OnceLock<u64>,
}

impl UnpackCandidate {
    /// A file as a lookup found it, with unknown content.
    pub(super) fn of(kind: UnpackKind, name: &[u8], entry: Option<EntryNumber>, attr: Attr) -> Self {
        Self { kind, name: name.to_vec(), entry, attr, content: Arc::default() }
    }

    /// Returns true if the content was checked, and is of the form that the suffix hints at.
    pub(super) fn is_confirmed(&self) -> bool {
        self.content.confirmed.get() == Some(&true)
    }

    /// The form of the archive that it is known to be.
    pub(super) fn archive_format(&self) -> Option<ArchiveFormat> {
        match self.kind {
            UnpackKind::Archive(container) if self.is_confirmed() => Some(container),
            UnpackKind::Archive(_) | UnpackKind::Compressed(_) => None,
        }
    }

    /// Returns true if it is shown decompressed.
    pub(super) fn is_unpacked(&self) -> bool {
        matches!(self.kind, UnpackKind::Compressed(_)) && self.is_confirmed()
    }
}

impl UnpackCandidate {
    /// The exact size of the decompressed content, if it is known. Of a member it is that of its entry, which another may
    /// replace.
    pub(super) fn known_size(&self) -> Option<u64> {
        if let Some(&size) = self.content.size.get() {
            return Some(size);
        }
        let size = live_stream(self)?.known_len()?;
        if self.entry.is_none() {
            self.content.size.get_or_init(|| size);
        }
        Some(size)
    }
}

/// The stream of `candidate` while it is in use.
pub(super) fn live_stream(candidate: &UnpackCandidate) -> Option<Arc<DecompressedStream>> {
    lock(&candidate.content.stream).upgrade()
}
