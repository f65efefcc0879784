//! The tier on disk: an unlinked file of equal slots, each block sealed under a key that lives in memory and dies with
//! the process.
//!
//! A block is sealed with AES-256-GCM. Its nonce is a counter that never comes back under one key, and it is unique to
//! one write of one cache key into one slot, so that the additional data (slot, nonce, length) binds them all. A slot
//! that was rewritten while it was read, a damaged or a swapped one all fail to open: a miss.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::hash::Hash;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use lru::LruCache;
use zeroize::Zeroizing;

use super::block::BLOCK_BYTES;
use dupfs_base::escape_bytes;
use dupfs_base::sync::lock;

/// Bytes of a slot in the file; authentication tags are kept in memory, so that slots stay aligned.
const SLOT_BYTES: u64 = 256 * 1024;

/// The sealed tier.
pub(super) struct Spill<K: Hash + Eq> {
    file: File,
    cipher: LessSafeKey,
    nonces: AtomicU64,
    /// Most slots the file may have.
    most: u32,
    state: Mutex<State<K>>,
}

struct State<K: Hash + Eq> {
    index: LruCache<K, Sealed>,
    free: Vec<u32>,
    /// The first slot that was never used.
    next: u32,
    /// After a failed write nothing is kept on disk any more.
    off: bool,
}

/// Where a block is and what opens it.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Sealed {
    slot: u32,
    nonce: u64,
    len: u32,
    tag: [u8; 16],
}

impl Sealed {
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
        let parts = self.slot.to_be_bytes().into_iter().chain(self.nonce.to_be_bytes()).chain(self.len.to_be_bytes());
        for (to, from) in out.iter_mut().zip(parts) {
            *to = from;
        }
        Aad::from(out)
    }
}

impl<K: Hash + Eq + Clone> Spill<K> {
    /// A tier of at most `bytes` in a nameless file in `dir`, which is made if it is not there. `None`, after a line in
    /// the log, if there can be none.
    pub(super) fn open(dir: &Path, bytes: u64) -> Option<Self> {
        if bytes < SLOT_BYTES {
            return None;
        }
        match nameless_file(dir) {
            Ok(file) => Self::with_file(file, bytes),
            Err(e) => {
                let dir = escape_bytes(dir.as_os_str().as_encoded_bytes());
                log::warn!("{dir}: no cache on disk, only in memory: {e}");
                None
            }
        }
    }

    pub(super) fn with_file(file: File, bytes: u64) -> Option<Self> {
        let mut key = Zeroizing::new([0_u8; 32]);
        if let Err(e) = getrandom::fill(key.as_mut_slice()) {
            log::warn!("no cache on disk, only in memory: no random key: {e}");
            return None;
        }
        let cipher = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key.as_slice()).ok()?);
        let state = State { index: LruCache::unbounded(), free: Vec::new(), next: 0, off: false };
        let most = u32::try_from(bytes / SLOT_BYTES).unwrap_or(u32::MAX);
        Some(Self { file, cipher, nonces: AtomicU64::new(0), most, state: Mutex::new(state) })
    }

    /// Seals `block` under `key`, unless it is there already or `is_stale` once it is written.
    pub(super) fn store(&self, key: K, block: &[u8], is_stale: impl Fn() -> bool) {
        let Some(len) = u32::try_from(block.len()).ok().filter(|_| block.len() <= BLOCK_BYTES) else { return };
        let Some(slot) = self.claim_slot(&key) else { return };
        let nonce = self.nonces.fetch_add(1, Ordering::Relaxed);
        let mut sealed = Sealed { slot, nonce, len, tag: [0; 16] };
        let written = self.seal(&mut sealed, block);
        let mut state = lock(&self.state);
        if let Err(e) = written {
            self.switch_off(state, &e);
        } else if state.off {
            drop(state);
            self.give_space_back();
        } else if is_stale() {
            state.free.push(slot);
        } else if let Some((_, old)) = state.index.push(key, sealed) {
            // Somebody else sealed the same block meanwhile.
            state.free.push(old.slot);
        }
    }

    /// The block of `key`. Anything wrong with it is a miss.
    pub(super) fn load(&self, key: &K) -> Option<Arc<[u8]>> {
        let sealed = *lock(&self.state).index.get(key)?;
        let opened = self.unseal(&sealed);
        if opened.is_none() {
            let mut state = lock(&self.state);
            // If the slot was rewritten meanwhile, the entry is another one by now, or gone.
            if state.index.peek(key) == Some(&sealed) {
                state.index.pop(key);
                state.free.push(sealed.slot);
                log::warn!("a block of the cache on disk was damaged; it is fetched again");
            }
        }
        opened
    }

    /// Whether `key` is here; does not count as used.
    pub(super) fn contains(&self, key: &K) -> bool {
        lock(&self.state).index.contains(key)
    }

    /// Forgets every key that `goes`.
    pub(super) fn remove_where(&self, mut goes: impl FnMut(&K) -> bool) {
        let mut state = lock(&self.state);
        let keys: Vec<K> = state.index.iter().map(|(key, _)| key).filter(|key| goes(key)).cloned().collect();
        for key in keys {
            if let Some(sealed) = state.index.pop(&key) {
                state.free.push(sealed.slot);
            }
        }
    }

    /// Forgets `key`.
    pub(super) fn remove(&self, key: &K) {
        let mut state = lock(&self.state);
        if let Some(sealed) = state.index.pop(key) {
            state.free.push(sealed.slot);
        }
    }

    /// Bytes of the slots in use.
    pub(super) fn used(&self) -> u64 {
        let slots = lock(&self.state).index.len();
        u64::try_from(slots).unwrap_or(u64::MAX).saturating_mul(SLOT_BYTES)
    }

    /// A slot that is this caller's alone until it is in the index or freed; `None` if the block need not be written.
    fn claim_slot(&self, key: &K) -> Option<u32> {
        let mut state = lock(&self.state);
        if state.off || state.index.contains(key) {
            return None;
        }
        if let Some(slot) = state.free.pop() {
            return Some(slot);
        }
        if state.next < self.most {
            state.next += 1;
            return Some(state.next - 1);
        }
        state.index.pop_lru().map(|(_, sealed)| sealed.slot)
    }

    fn seal(&self, sealed: &mut Sealed, block: &[u8]) -> io::Result<()> {
        let mut text = block.to_vec();
        let tag = self
            .cipher
            .seal_in_place_separate_tag(sealed.nonce(), sealed.additional_data(), &mut text)
            .map_err(|_| io::Error::other("sealing failed"))?;
        for (to, from) in sealed.tag.iter_mut().zip(tag.as_ref()) {
            *to = *from;
        }
        self.file.write_all_at(&text, sealed.offset())
    }

    fn unseal(&self, sealed: &Sealed) -> Option<Arc<[u8]>> {
        let mut text = vec![0; usize::try_from(sealed.len).ok()?];
        self.file.read_exact_at(&mut text, sealed.offset()).ok()?;
        let (nonce, data) = (sealed.nonce(), sealed.additional_data());
        self.cipher.open_in_place_separate_tag(nonce, data, &sealed.tag, &mut text).ok()?;
        Some(text.into())
    }

    /// The disk is full or broken: goes on in memory only, and gives the space back to whoever restores onto that disk.
    fn switch_off(&self, mut state: std::sync::MutexGuard<'_, State<K>>, error: &io::Error) {
        let was_off = std::mem::replace(&mut state.off, true);
        state.index.clear();
        state.free.clear();
        drop(state);
        if !was_off {
            log::warn!("the cache on disk failed, going on in memory only: {error}");
        }
        self.give_space_back();
    }

    fn give_space_back(&self) {
        if let Err(e) = self.file.set_len(0) {
            log::debug!("the cache's file cannot be emptied: {e}");
        }
    }
}

impl<K: Hash + Eq> std::fmt::Debug for Spill<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Spill").field("most", &self.most).finish_non_exhaustive()
    }
}

/// A file without a name in `dir`, readable by its owner only: nothing of it outlives the process.
fn nameless_file(dir: &Path) -> io::Result<File> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    let nameless = options.clone().custom_flags(libc::O_TMPFILE | libc::O_CLOEXEC).open(dir);
    if let Ok(file) = nameless {
        return Ok(file);
    }
    // Not every file system can: make a name nobody else has, and take it away at once.
    let mut random = [0_u8; 16];
    getrandom::fill(&mut random).map_err(|e| io::Error::other(e.to_string()))?;
    let name = dir.join(format!("spill-{:032x}", u128::from_ne_bytes(random)));
    let file = options.create_new(true).custom_flags(libc::O_CLOEXEC).open(&name)?;
    fs::remove_file(&name)?;
    Ok(file)
}

#[cfg(test)]
#[path = "spill/tests.rs"]
mod tests;
