//! The extension headers before an entry of a tar stream.

use super::fields;
use super::header::EntryExtensions;
use super::pax::PaxRecords;
use super::sparse::SparseMap;

/// The kind of an extension header.
#[derive(Clone, Copy, Debug)]
pub(super) enum ExtensionKind {
    /// The name of the next entry (GNU).
    LongName,
    /// The link target of the next entry (GNU).
    LongLink,
    /// PAX records for the next entry.
    Local,
    /// PAX records for all later entries.
    Global,
}

/// The extension headers that were read for the next entry, and the global ones.
#[derive(Debug, Default)]
pub(super) struct ExtensionHeaders {
    /// Offset of the first header for the next entry.
    start: Option<u64>,
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
    local: PaxRecords,
    global: PaxRecords,
}

impl ExtensionHeaders {
    /// Begins a header at `offset`.
    pub(super) fn begin(&mut self, offset: u64) {
        self.start.get_or_insert(offset);
    }

    /// Returns the offset of the first header for the next entry, if there is one.
    pub(super) fn start(&self) -> Option<u64> {
        self.start
    }

    /// Adds a complete header with this data.
    pub(super) fn add(&mut self, kind: ExtensionKind, data: &[u8]) -> Result<(), &'static str> {
        match kind {
            ExtensionKind::LongName => self.long_name = Some(fields::until_nul(data).to_vec()),
            ExtensionKind::LongLink => self.long_link = Some(fields::until_nul(data).to_vec()),
            ExtensionKind::Local => self.local.add(data)?,
            ExtensionKind::Global => {
                self.global.add(data)?;
                // A global header belongs to no entry, so the stream may end after it.
                if self.long_name.is_none() && self.long_link.is_none() && self.local.is_empty() {
                    self.start = None;
                }
            }
        }
        Ok(())
    }

    /// Returns the headers as they apply to the next entry, which has the old GNU sparse map `map`.
    pub(super) fn for_entry<'a>(&'a self, map: Option<SparseMap<'a>>) -> EntryExtensions<'a> {
        EntryExtensions {
            long_name: self.long_name.as_deref(),
            long_link: self.long_link.as_deref(),
            local: &self.local,
            global: &self.global,
            map,
        }
    }

    /// Removes all but the global headers: the entry has begun.
    pub(super) fn end_entry(&mut self) {
        if self.start.take().is_some() {
            self.long_name = None;
            self.long_link = None;
            self.local = PaxRecords::default();
        }
    }
}
