//! The objects of a restore in little memory: a backup may have tens of millions of them.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::vfs::Ino;

/// Upper bound of the entries of a chunk.
const CHUNK: usize = 1 << 15;

/// An object to restore. Its name and attributes are found again when they are needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WantedEntry {
    pub(super) ino: Ino,
    /// The offset in the listing of its directory at which it is the next entry.
    pub(super) offset: u64,
    /// The number of its directory.
    pub(super) dir: u32,
}

// docs/CLI.md gives this number.
const _: () = assert!(size_of::<WantedEntry>() <= 24, "an entry takes at most 24 bytes");

/// Entries by their numbers. It grows without a second copy of them.
#[derive(Debug, Default)]
pub(super) struct EntryList {
    /// All but the last one have [`CHUNK`] entries.
    chunks: Vec<Vec<WantedEntry>>,
}

impl EntryList {
    /// Adds an entry at the end.
    pub(super) fn push(&mut self, entry: WantedEntry) {
        match self.chunks.last_mut() {
            Some(last) if last.len() < CHUNK => last.push(entry),
            _ => self.chunks.push(vec![entry]),
        }
    }

    /// The number of entries.
    pub(super) fn len(&self) -> usize {
        let last = self.chunks.last().map_or(0, Vec::len);
        self.chunks.len().saturating_sub(1).saturating_mul(CHUNK).saturating_add(last)
    }

    /// The entry with this number.
    pub(super) fn get(&self, number: u32) -> Option<WantedEntry> {
        let number = usize::try_from(number).ok()?;
        self.chunks.get(number / CHUNK)?.get(number % CHUNK).copied()
    }

    /// Sorts each chunk for [`Self::by_inode`]. The entries get other numbers.
    pub(super) fn sort_chunks(&mut self) {
        for chunk in &mut self.chunks {
            chunk.sort_unstable_by_key(|entry| entry.ino);
        }
    }

    /// The entries in the order of their inode numbers, after [`Self::sort_chunks`].
    pub(super) fn by_inode(&self) -> EntriesByInode<'_> {
        let mut entries = EntriesByInode { list: self, next: BinaryHeap::new() };
        (0..self.chunks.len()).for_each(|chunk| entries.offer(chunk, 0));
        entries
    }
}

/// The entries of sorted chunks, merged.
#[derive(Debug)]
pub(super) struct EntriesByInode<'a> {
    list: &'a EntryList,
    /// The next entry of each chunk: its inode number, its chunk and its place there.
    next: BinaryHeap<Reverse<(Ino, usize, usize)>>,
}

impl EntriesByInode<'_> {
    fn offer(&mut self, chunk: usize, place: usize) {
        if let Some(entry) = self.list.chunks.get(chunk).and_then(|entries| entries.get(place)) {
            self.next.push(Reverse((entry.ino, chunk, place)));
        }
    }
}

impl Iterator for EntriesByInode<'_> {
    type Item = WantedEntry;

    fn next(&mut self) -> Option<WantedEntry> {
        let Reverse((_, chunk, place)) = self.next.pop()?;
        self.offer(chunk, place.saturating_add(1));
        self.list.chunks.get(chunk)?.get(place).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_found_by_number_and_merged_by_inode() {
        let count = 3 * CHUNK as u64 + 7;
        // A permutation: the factor is odd, and the numbers below 2^17 are all of one residue each.
        let ino = |n: u64| (n * 40_503) % (1 << 17);
        let mut list = EntryList::default();
        for n in 0..count {
            list.push(WantedEntry { ino: ino(n), offset: n, dir: 5 });
        }
        assert_eq!(list.len(), usize::try_from(count).unwrap());
        for n in [0, 1, CHUNK as u64 - 1, CHUNK as u64, count - 1] {
            assert_eq!(list.get(u32::try_from(n).unwrap()), Some(WantedEntry { ino: ino(n), offset: n, dir: 5 }));
        }
        assert_eq!(list.get(u32::try_from(count).unwrap()), None);
        list.sort_chunks();
        let mut expected: Vec<(u64, u64)> = (0..count).map(|n| (ino(n), n)).collect();
        expected.sort_unstable();
        let merged: Vec<_> = list.by_inode().map(|entry| (entry.ino, entry.offset)).collect();
        assert!(merged == expected, "{} entries", merged.len());
        assert_eq!(EntryList::default().by_inode().next(), None);
    }
}
