//! Bytes in separate memory pages that are not written to the swap space.
//!
//! This file has unsafe code (tests/structure allows it here): the calls that lock and unlock pages.
#![allow(unsafe_code)]

use zeroize::Zeroize;

/// Bytes that are overwritten when dropped. Their pages contain nothing else and are locked into memory, as far as the
/// limit of the process lets it (`RLIMIT_MEMLOCK`).
pub(crate) struct LockedBytes {
    /// Contains the pages; never reallocated.
    storage: Box<[u8]>,
    /// Offset of the first page.
    start: usize,
    len: usize,
    /// Number of bytes of the pages.
    locked: usize,
}

impl LockedBytes {
    /// Copies `bytes`.
    pub(crate) fn new(bytes: &[u8]) -> Self {
        let page = page_size();
        let locked = bytes.len().div_ceil(page).max(1) * page;
        let mut storage = vec![0; locked + page].into_boxed_slice();
        let start = storage.as_ptr().align_offset(page).min(page);
        if let Some(pages) = storage.get_mut(start..start + locked) {
            // SAFETY: the range is part of one live allocation. Locking does not change what it contains. A failure leaves the
            // pages as they are.
            unsafe {
                libc::mlock(pages.as_ptr().cast(), pages.len());
            }
            if let Some(target) = pages.get_mut(..bytes.len()) {
                target.copy_from_slice(bytes);
            }
        }
        Self { storage, start, len: bytes.len(), locked }
    }

    /// Returns the bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.storage.get(self.start..self.start + self.len).unwrap_or_default()
    }

    /// Returns the bytes, to be changed in place.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        self.storage.get_mut(self.start..self.start + self.len).unwrap_or_default()
    }
}

impl Drop for LockedBytes {
    fn drop(&mut self) {
        self.storage.zeroize();
        if let Some(pages) = self.storage.get(self.start..self.start + self.locked) {
            // SAFETY: as in `new`; no other value uses these pages.
            unsafe {
                libc::munlock(pages.as_ptr().cast(), pages.len());
            }
        }
    }
}

fn page_size() -> usize {
    // SAFETY: reads a constant of the system.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size).ok().filter(|size| size.is_power_of_two()).unwrap_or(64 << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The number of bytes of this process that are locked, as the kernel counts them.
    fn locked_at(address: usize) -> bool {
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut inside = false;
        for line in maps.lines() {
            let range = line.split(' ').next().and_then(|range| range.split_once('-'));
            let ends = range.and_then(|(start, end)| {
                Some(usize::from_str_radix(start, 16).ok()?..usize::from_str_radix(end, 16).ok()?)
            });
            match ends {
                Some(range) => inside = range.contains(&address),
                None if inside && line.starts_with("VmFlags:") => return line.split(' ').any(|flag| flag == "lo"),
                None => {}
            }
        }
        false
    }

    #[test]
    fn the_bytes_are_in_locked_pages_of_their_own() {
        for len in [0, 1, 22, 4096, 70_000] {
            let content: Vec<u8> = (0..len).map(|i| u8::try_from(i % 251).unwrap()).collect();
            let (one, two) = (LockedBytes::new(&content), LockedBytes::new(b"another"));
            assert_eq!((one.bytes(), two.bytes()), (&*content, &b"another"[..]));
            assert!(locked_at(one.bytes().as_ptr() as usize), "{len}");
            drop(one);
            assert!(locked_at(two.bytes().as_ptr() as usize), "{len}: the other one was unlocked");
        }
    }
}
