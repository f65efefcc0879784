//! The entries of volumes in a manifest, while it is read.

use std::collections::BTreeMap;

use super::ManifestVolume;

/// Memory for a volume entry besides its paths, in bytes: the entry, first in a map and then in a list, and its hash.
const ENTRY_BYTES: u64 = 320;

/// The entries of volumes that were read. Later entries replace earlier ones, and only numbers up to that of the last
/// entry in the file are valid (docs/FORMAT.md section 2.3).
#[derive(Debug, Default)]
pub(super) struct VolumeEntries {
    /// Volumes by number. `None` for damaged entries.
    by_number: BTreeMap<u32, Option<ManifestVolume>>,
    /// Number of the last volume entry in the file.
    last_number: u32,
    /// The highest number such that each up to it had an entry.
    contiguous: u32,
    /// The highest number of an entry that came before that of a lower number, and the offset of that entry.
    ahead: Option<(u32, u64)>,
    /// True once a volume was listed again.
    is_resumed: bool,
    /// Memory for the entries.
    bytes: u64,
}

impl VolumeEntries {
    /// Adds the entry of volume `number`, which begins at `offset`. `volume` is `None` if the entry is damaged.
    pub(super) fn add(&mut self, number: u32, offset: u64, volume: Option<ManifestVolume>) {
        self.last_number = number;
        if self.contiguous.checked_add(1) == Some(number) {
            self.contiguous = number;
        } else if number > self.contiguous {
            self.ahead = self.ahead.max(Some((number, offset)));
        }
        let paths = volume.as_ref().map_or(0, |v| v.start.path.as_bytes().len() + v.end.path.as_bytes().len());
        self.bytes = self.bytes.saturating_add(ENTRY_BYTES + paths as u64);
        self.is_resumed |= self.by_number.insert(number, volume).is_some();
    }

    /// Returns an upper bound of the bytes of memory of the entries.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Returns true if a volume was listed again.
    pub(super) fn is_resumed(&self) -> bool {
        self.is_resumed
    }

    /// Returns the highest valid volume number; after [`Self::end`].
    pub(super) fn last_number(&self) -> u32 {
        self.last_number
    }

    /// Ends the list: drops the entries that are not valid. Returns the number and the offset of an entry which shows that
    /// the list has lost its end, if there is one.
    pub(super) fn end(&mut self) -> Option<(u32, u64)> {
        // `duplicity replicate` lists each volume once, in any order.
        let highest = self.by_number.keys().next_back().copied().unwrap_or(0);
        if !self.is_resumed && usize::try_from(highest) == Ok(self.by_number.len()) {
            self.last_number = highest;
        }
        self.by_number.retain(|&number, _| number <= self.last_number);
        // After a restart lower numbers follow, but only such as had an entry before.
        self.ahead.filter(|&(number, _)| number > self.last_number)
    }

    /// Leaves out volumes without a hash if others have one: their line was lost, and they could not be verified. Returns
    /// their numbers.
    pub(super) fn drop_unhashed(&mut self) -> Vec<u32> {
        let hashed = |volume: &Option<ManifestVolume>| volume.as_ref().is_some_and(|v| v.hash.is_some());
        let mut lost = Vec::new();
        if !self.by_number.values().any(hashed) {
            return lost;
        }
        for (&number, volume) in &mut self.by_number {
            if volume.as_ref().is_some_and(|v| v.hash.is_none()) {
                *volume = None;
                lost.push(number);
            }
        }
        lost
    }

    /// Returns the undamaged entries in the order of their numbers.
    pub(super) fn into_volumes(self) -> Vec<ManifestVolume> {
        self.by_number.into_values().flatten().collect()
    }
}
