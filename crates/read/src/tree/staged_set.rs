//! The records of one set in compact form, until its integrity is verified and it may enter the table.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::error::TreeError;
use super::missing_range::MissingRange;
use super::set_limits::SetLimits;
use super::version_table::Change;
use crate::meta_encoding::{OwnerFields, decode_attributes, decode_path, encode_attributes};
use crate::volume::TableAllowance;
use dupfs_cache::index::encoding::{RecordDecoder, RecordEncoder};
use dupfs_format::sigtar::SizeBounds;
use dupfs_format::{ArchivePath, EntryMeta};

/// Bytes of a piece; pieces are given back one by one as the entries are taken.
const PIECE: usize = 16 << 10;

/// The entries of one set, in order, and its missing ranges.
#[derive(Debug, Default)]
pub(super) struct StagedSet {
    pieces: VecDeque<Vec<u8>>,
    encoder: RecordEncoder,
    last: Vec<u8>,
    owners: HashMap<OwnerFields, u64>,
    by_number: Vec<OwnerFields>,
    pub(super) missing: Vec<MissingRange>,
    /// Its share of memory.
    pub(super) allowance: Option<TableAllowance>,
    /// Bytes of complete pieces.
    piece_bytes: u64,
    /// True if the entries are from the volumes, not from a signature archive.
    pub(super) rebuilt: bool,
}

impl StagedSet {
    /// Adds an entry.
    pub(super) fn push(&mut self, path: &ArchivePath, change: Change) {
        self.encoder.text_after(&self.last, path.as_bytes());
        self.last.clear();
        self.last.extend_from_slice(path.as_bytes());
        match change {
            Change::Deleted => self.encoder.byte(0),
            Change::Present(meta, bounds) => {
                self.encoder.byte(if bounds.is_some() { 2 } else { 1 });
                if let Some(SizeBounds { blocks, min, max }) = bounds {
                    self.encoder.number(blocks);
                    self.encoder.number(max);
                    self.encoder.number(max.saturating_sub(min));
                }
                encode_attributes(&mut self.encoder, &meta);
                let number = self.owner(meta);
                self.encoder.number(number);
            }
        }
        if self.encoder.out.len() >= PIECE {
            let piece = std::mem::take(&mut self.encoder.out);
            self.piece_bytes = self.piece_bytes.saturating_add(piece.capacity() as u64);
            self.pieces.push_back(piece);
        }
    }

    /// Ends the set, whose entries were admitted by `limits`.
    pub(super) fn close(&mut self, limits: SetLimits) {
        let (allowance, missing) = limits.finish();
        self.allowance = Some(allowance);
        self.missing.extend(missing);
    }

    /// Bytes of memory of the entries that were added.
    pub(super) fn bytes(&self) -> u64 {
        self.piece_bytes.saturating_add(self.encoder.out.capacity() as u64)
    }

    /// The path of the entry that was added last.
    pub(super) fn last_path(&self) -> Option<&[u8]> {
        (!self.pieces.is_empty() || !self.encoder.out.is_empty()).then_some(&self.last)
    }

    fn owner(&mut self, meta: EntryMeta) -> u64 {
        let owner = (meta.uid, meta.gid, meta.uname, meta.gname);
        if let Some(&number) = self.owners.get(&owner) {
            return number;
        }
        let number = self.by_number.len() as u64;
        self.by_number.push(owner.clone());
        self.owners.insert(owner, number);
        number
    }

    /// The next entries in order, a piece at a time; `path` is the one before, empty at first. The result is empty at
    /// the end.
    ///
    /// # Errors
    /// [`TreeError::Internal`] for pieces that [`Self::push`] did not write.
    pub(super) fn take_piece(&mut self, path: &mut Vec<u8>) -> Result<Vec<(ArchivePath, Change)>, TreeError> {
        let piece = self.pieces.pop_front().unwrap_or_else(|| std::mem::take(&mut self.encoder.out));
        let mut decoder = RecordDecoder::new(&piece);
        let mut entries = Vec::new();
        while !decoder.is_at_end() {
            entries.push(self.read_entry(&mut decoder, path).ok_or(TreeError::Internal)?);
        }
        Ok(entries)
    }

    fn read_entry(&self, decoder: &mut RecordDecoder<'_>, path: &mut Vec<u8>) -> Option<(ArchivePath, Change)> {
        decoder.text_after(path)?;
        let bounded = match decoder.byte()? {
            0 => return Some((decode_path(path)?, Change::Deleted)),
            tag => tag == 2,
        };
        let bounds = if bounded {
            let (blocks, max, span) = (decoder.number()?, decoder.number()?, decoder.number()?);
            Some(SizeBounds { blocks, min: max.saturating_sub(span), max })
        } else {
            None
        };
        let no_owner = (0, 0, Arc::default(), Arc::default());
        let mut meta = decode_attributes(decoder, no_owner)?;
        let owner = self.by_number.get(usize::try_from(decoder.number()?).ok()?)?.clone();
        (meta.uid, meta.gid, meta.uname, meta.gname) = owner;
        Some((decode_path(path)?, Change::Present(meta, bounds)))
    }
}
