//! The members of an archive, as its headers describe them.

use std::sync::Arc;

use crate::zip_method::{StatedContent, ZipMethod};
use dupfs_format::EntryMeta;

/// Number of an entry of an archive, in the order of the archive. A later member of the same path has a greater one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EntryNumber(u32);

impl EntryNumber {
    /// The number of the entry at `index`; `None` if it is beyond the maximum of an archive. The greatest `u32` means
    /// "none" in the encoded form.
    pub(crate) fn new(index: usize) -> Option<Self> {
        u32::try_from(index).ok().filter(|&number| number < u32::MAX).map(Self)
    }

    /// The index of the entry in the list of all.
    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }

    /// The encoded form; see [`Self::decode`].
    pub(crate) fn encode(number: Option<Self>) -> [u8; 4] {
        number.map_or(u32::MAX, |number| number.0).to_be_bytes()
    }

    /// The number that `encoded` represents; `None` for no number.
    pub(crate) fn decode(encoded: u32) -> Option<Self> {
        Some(encoded).filter(|&number| number < u32::MAX).map(Self)
    }
}

/// An object that is in an archive under one or more names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchiveEntry {
    /// Type and attributes.
    pub meta: EntryMeta,
    /// The location of a regular file's content.
    pub data: MemberData,
}

/// The location of the content of a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MemberData {
    /// It has none.
    Nothing,
    /// Pieces of the archive; holes between them are zeros.
    Pieces {
        /// Size of the file in bytes.
        size: u64,
        /// Offset in the file, length, offset in the archive.
        pieces: Box<[(u64, u64, u64)]>,
    },
    /// A member of a zip archive.
    Packed {
        /// Offset of its local header.
        header: u64,
        /// Bytes it takes in the archive.
        packed: u64,
        /// Its compression.
        method: ZipMethod,
        /// Its checksum and length.
        stated: StatedContent,
    },
    /// It cannot be read; the reason.
    Refused(Arc<str>),
    /// It is damaged; the damage.
    Damaged(Arc<str>),
}

impl MemberData {
    /// Size of the content in bytes.
    pub fn size(&self) -> u64 {
        match self {
            Self::Pieces { size, .. } => *size,
            Self::Packed { stated, .. } => stated.size,
            Self::Nothing | Self::Refused(_) | Self::Damaged(_) => 0,
        }
    }
}

/// A member as stored in an archive.
#[derive(Debug)]
pub(crate) struct ArchiveMember<'a> {
    pub(crate) path: &'a [u8],
    pub(crate) entry: ArchiveEntry,
    /// The earlier member that it is another name of.
    pub(crate) hard_link: Option<&'a [u8]>,
}

/// Pieces that are in order, do not overlap and lie within a file of `size` bytes; `None` if they are not.
pub(crate) fn checked_pieces(pieces: Vec<(u64, u64, u64)>, size: u64) -> Option<Box<[(u64, u64, u64)]>> {
    let mut end = 0;
    for &(start, len, at) in &pieces {
        if start < end || at.checked_add(len).is_none() {
            return None;
        }
        end = start.checked_add(len).filter(|&end| end <= size)?;
    }
    Some(pieces.into())
}
