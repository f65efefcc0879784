//! The spill file: an unnamed file of equal slots. Each block is encrypted under a key that exists only in the memory of
//! this process.
//!
//! A block is sealed with AES-256-GCM. Its nonce is a counter that is never used twice under one key. It belongs to one
//! write of one cache key into one slot, and the additional data (slot, nonce, length) bind them. A slot that is rewritten
//! while it is read, a damaged slot and a swapped slot do not open: a miss.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::hash::Hash;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use lru::LruCache;
use zeroize::Zeroizing;

use super::block::BLOCK_BYTES;
use dupfs_base::escape_bytes;
use dupfs_base::sync::prim::atomic::{AtomicU64, Ordering};
use dupfs_base::sync::prim::{Mutex, MutexGuard, switch_point};

/// Bytes of a slot in the file. Authentication tags stay in memory, so that slots are aligned.
const SLOT_BYTES: u64 = BLOCK_BYTES as u64;

/// Sealed blocks on disk, by key.
pub(super) struct SpillFile<K: Hash + Eq> {
    file: File,
    cipher: LessSafeKey,
    nonces: AtomicU64,
    /// Maximum number of slots.
    max_slots: u32,
    slots: Mutex<SpillSlots<K>>,
}

/// The use of the slots.
struct SpillSlots<K: Hash + Eq> {
    sealed: LruCache<K, SealedBlock>,
    free: Vec<u32>,
    /// The first slot that was never used.
    next: u32,
    /// Set by a failed write: from then on nothing is stored.
    is_off: bool,
}

/// The slot of a block, and the values that are needed to open it.
#[derive(Clone, Copy, PartialEq, Eq)]
struct SealedBlock {
    slot: u32,
    nonce: u64,
    len: u32,
    tag: [u8; 16],
}

impl SealedBlock {
    fn offset(&self) -> u64 {
        u64::from(self.slot).saturating_mul(SLOT_BYTES)
    }

    fn nonce(&self) -> Nonce {
        let mut out = [0; 12];
        for (to, from) in out.iter_mut().skip(4).zip(self.nonce.to_be_bytes()) {
            *to = from;
        }
        Nonce::assume_unique_for_key(out)
    }

    fn additional_data(&self) -> Aad<[u8; 16]> {
        let mut out = [0; 16];
        let fields = self.slot.to_be_bytes().into_iter().chain(self.nonce.to_be_bytes()).chain(self.len.to_be_bytes());
        for (to, from) in out.iter_mut().zip(fields) {
            *to = from;
        }
        Aad::from(out)
    }
}

impl<K: Hash + Eq + Clone> SpillFile<K> {
    /// A spill file of at most `bytes` in directory `dir`, which is created if it does not exist. `None` if `bytes` is less
    /// than a block or, after a warning in the log, if the file cannot be created.
    pub(super) fn open(dir: &Path, bytes: u64) -> Option<Self> {
        if bytes < SLOT_BYTES {
            return None;
        }
        match unnamed_file(dir) {
            Ok(file) => Self::with_file(file, bytes),
            Err(e) => {
                let dir = escape_bytes(dir.as_os_str().as_encoded_bytes());
                log::warn!("{dir}: cannot create the cache on disk, caching in memory only: {e}");
                None
            }
        }
    }

    pub(super) fn with_file(file: File, bytes: u64) -> Option<Self> {
        let mut key = Zeroizing::new([0_u8; 32]);
        if let Err(e) = getrandom::fill(key.as_mut_slice()) {
            log::warn!("cannot create a key for the cache on disk, caching in memory only: {e}");
            return None;
        }
        let cipher = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key.as_slice()).ok()?);
        let slots = SpillSlots { sealed: LruCache::unbounded(), free: Vec::new(), next: 0, is_off: false };
        // Slots are numbered by u32: of a file of more than a petabyte, the rest is not used.
        let max_slots = u32::try_from(bytes / SLOT_BYTES).unwrap_or(u32::MAX);
        Some(Self { file, cipher, nonces: AtomicU64::new(0), max_slots, slots: Mutex::new(slots) })
    }

    /// Seals `block` and stores it under `key`, unless the key is stored already or `is_stale` returns true once the block is
    /// written.
    pub(super) fn store(&self, key: K, block: &[u8], is_stale: impl Fn() -> bool) {
        let Some(len) = u32::try_from(block.len()).ok().filter(|_| block.len() <= BLOCK_BYTES) else { return };
        let Some(slot) = self.claim_slot(&key) else { return };
        let nonce = self.nonces.fetch_add(1, Ordering::Relaxed);
        let mut sealed = SealedBlock { slot, nonce, len, tag: [0; 16] };
        let written = self.seal(&mut sealed, block);
        let mut slots = self.slots.lock();
        if let Err(e) = written {
            self.switch_off(slots, &e);
        } else if slots.is_off {
            drop(slots);
            self.release_disk_space();
        } else if is_stale() {
            slots.free.push(slot);
        } else if let Some((_, old)) = slots.sealed.push(key, sealed) {
            // Another thread has stored the same block meanwhile.
            slots.free.push(old.slot);
        }
    }

    /// The block of `key`. A block that cannot be read or opened is a miss.
    pub(super) fn load(&self, key: &K) -> Option<Arc<[u8]>> {
        let sealed = *self.slots.lock().sealed.get(key)?;
        let opened = self.unseal(&sealed);
        if opened.is_none() {
            let mut slots = self.slots.lock();
            // If the slot was rewritten meanwhile, the entry was removed or replaced.
            if slots.sealed.peek(key) == Some(&sealed) {
                slots.sealed.pop(key);
                slots.free.push(sealed.slot);
                log::warn!("a block of the cache on disk is damaged; it will be fetched again");
            }
        }
        opened
    }

    /// Returns true if `key` is stored. The order of eviction does not change.
    pub(super) fn contains(&self, key: &K) -> bool {
        self.slots.lock().sealed.contains(key)
    }

    /// Removes every key that `is_removed`.
    pub(super) fn remove_where(&self, mut is_removed: impl FnMut(&K) -> bool) {
        let mut slots = self.slots.lock();
        let keys: Vec<K> = slots.sealed.iter().map(|(key, _)| key).filter(|key| is_removed(key)).cloned().collect();
        for key in keys {
            if let Some(sealed) = slots.sealed.pop(&key) {
                slots.free.push(sealed.slot);
            }
        }
    }

    /// Removes `key`.
    pub(super) fn remove(&self, key: &K) {
        let mut slots = self.slots.lock();
        if let Some(sealed) = slots.sealed.pop(key) {
            slots.free.push(sealed.slot);
        }
    }

    /// Bytes of the slots in use.
    pub(super) fn used(&self) -> u64 {
        let slots = self.slots.lock().sealed.len();
        (slots as u64).saturating_mul(SLOT_BYTES)
    }

    /// Upper bound of [`Self::used`].
    pub(super) fn max_bytes(&self) -> u64 {
        u64::from(self.max_slots).saturating_mul(SLOT_BYTES)
    }

    /// Takes a slot for the caller to write, until it is indexed or freed. `None` if the block need not be written.
    fn claim_slot(&self, key: &K) -> Option<u32> {
        let mut slots = self.slots.lock();
        if slots.is_off || slots.sealed.contains(key) {
            return None;
        }
        if let Some(slot) = slots.free.pop() {
            return Some(slot);
        }
        if slots.next < self.max_slots {
            slots.next += 1;
            return Some(slots.next - 1);
        }
        slots.sealed.pop_lru().map(|(_, sealed)| sealed.slot)
    }

    fn seal(&self, sealed: &mut SealedBlock, block: &[u8]) -> io::Result<()> {
        let mut text = block.to_vec();
        let tag = self
            .cipher
            .seal_in_place_separate_tag(sealed.nonce(), sealed.additional_data(), &mut text)
            .map_err(|_| io::Error::other("encryption failed"))?;
        for (to, from) in sealed.tag.iter_mut().zip(tag.as_ref()) {
            *to = *from;
        }
        switch_point();
        self.file.write_all_at(&text, sealed.offset())
    }

    fn unseal(&self, sealed: &SealedBlock) -> Option<Arc<[u8]>> {
        let mut text = vec![0; usize::try_from(sealed.len).ok()?];
        switch_point();
        self.file.read_exact_at(&mut text, sealed.offset()).ok()?;
        let (nonce, data) = (sealed.nonce(), sealed.additional_data());
        self.cipher.open_in_place_separate_tag(nonce, data, &sealed.tag, &mut text).ok()?;
        Some(text.into())
    }

    /// Stops storing after a failed write, and releases the disk space: a restore may be writing to the same disk.
    fn switch_off(&self, mut slots: MutexGuard<'_, SpillSlots<K>>, error: &io::Error) {
        let was_off = std::mem::replace(&mut slots.is_off, true);
        slots.sealed.clear();
        slots.free.clear();
        drop(slots);
        if !was_off {
            log::warn!("writing the cache on disk failed, caching in memory only: {error}");
        }
        self.release_disk_space();
    }

    fn release_disk_space(&self) {
        if let Err(e) = self.file.set_len(0) {
            log::debug!("the cache on disk cannot be truncated: {e}");
        }
    }
}

impl<K: Hash + Eq> std::fmt::Debug for SpillFile<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SpillFile").field("max_slots", &self.max_slots).finish_non_exhaustive()
    }
}

/// A file without a name in `dir`, readable by its owner only: nothing of it outlives the process.
fn unnamed_file(dir: &Path) -> io::Result<File> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    let unnamed = options.clone().custom_flags(libc::O_TMPFILE | libc::O_CLOEXEC).open(dir);
    if let Ok(file) = unnamed {
        return Ok(file);
    }
    // Not every file system supports that: create a file of a random name, and unlink it immediately.
    let mut random = [0_u8; 16];
    getrandom::fill(&mut random).map_err(|e| io::Error::other(e.to_string()))?;
    let name = dir.join(format!("spill-{:032x}", u128::from_ne_bytes(random)));
    let file = options.create_new(true).custom_flags(libc::O_CLOEXEC).open(&name)?;
    fs::remove_file(&name)?;
    Ok(file)
}

#[cfg(test)]
mod tests;
