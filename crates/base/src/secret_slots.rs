//! Many small secrets in few locked pages.

use zeroize::{Zeroize, Zeroizing};

use super::locked_bytes::LockedBytes;

/// Bytes that are locked at a time.
const CHUNK: usize = 16 << 10;

/// Secrets of one length at most, in pages that are locked as those of a [`super::Secret`] are, which would take a page each.
/// They are overwritten when they are removed, and when this is dropped.
pub struct SecretSlots {
    chunks: Vec<LockedBytes>,
    slot_bytes: usize,
    slots_per_chunk: usize,
    free: Vec<SecretSlot>,
}

/// The place of a secret in its [`SecretSlots`].
#[derive(Debug)]
pub struct SecretSlot {
    chunk: usize,
    start: usize,
    len: usize,
}

impl std::fmt::Debug for SecretSlots {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretSlots(..)")
    }
}

impl SecretSlots {
    /// Room for secrets of up to `slot_bytes` bytes, which are 1 to 16 KiB.
    pub fn new(slot_bytes: usize) -> Self {
        let slot_bytes = slot_bytes.clamp(1, CHUNK);
        Self { chunks: Vec::new(), slot_bytes, slots_per_chunk: CHUNK / slot_bytes, free: Vec::new() }
    }

    /// Copies `secret` into a slot, or returns `None` if it is too long.
    pub fn insert(&mut self, secret: &[u8]) -> Option<SecretSlot> {
        if secret.len() > self.slot_bytes {
            return None;
        }
        if self.free.is_empty() {
            let chunk = self.chunks.len();
            self.chunks.push(LockedBytes::new(&[0; CHUNK]));
            let starts = (0..self.slots_per_chunk).map(|index| index * self.slot_bytes);
            self.free.extend(starts.map(|start| SecretSlot { chunk, start, len: 0 }));
        }
        let slot = SecretSlot { len: secret.len(), ..self.free.pop()? };
        self.bytes_mut(&slot)?.copy_from_slice(secret);
        Some(slot)
    }

    /// Returns a copy of the secret in `slot`.
    pub fn get(&self, slot: &SecretSlot) -> Zeroizing<Vec<u8>> {
        let chunk = self.chunks.get(slot.chunk).map(LockedBytes::bytes);
        Zeroizing::new(
            chunk.and_then(|bytes| bytes.get(slot.start..slot.start + slot.len)).unwrap_or_default().to_vec(),
        )
    }

    /// Overwrites the secret in `slot`.
    pub fn remove(&mut self, slot: SecretSlot) {
        if let Some(bytes) = self.bytes_mut(&slot) {
            bytes.zeroize();
            self.free.push(slot);
        }
    }

    fn bytes_mut(&mut self, slot: &SecretSlot) -> Option<&mut [u8]> {
        self.chunks.get_mut(slot.chunk)?.bytes_mut().get_mut(slot.start..slot.start + slot.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_used_again_and_overwritten() {
        let mut slots = SecretSlots::new(32);
        let per_chunk = CHUNK / 32;
        let mut used: Vec<(Vec<u8>, SecretSlot)> = (0..per_chunk + 10)
            .map(|i| vec![u8::try_from(i % 250).unwrap() + 1; i % 32 + 1])
            .map(|secret| (secret.clone(), slots.insert(&secret).unwrap()))
            .collect();
        assert_eq!(slots.chunks.len(), 2);
        assert!(slots.insert(&[1; 33]).is_none());
        assert!(used.iter().all(|(secret, slot)| *slots.get(slot) == *secret));
        let (_, removed) = used.remove(5);
        let (chunk, start) = (removed.chunk, removed.start);
        slots.remove(removed);
        assert_eq!(slots.chunks[chunk].bytes()[start..start + 32], [0; 32]);
        let again = slots.insert(b"another").unwrap();
        assert_eq!((again.chunk, again.start), (chunk, start));
        assert_eq!(**slots.get(&again), *b"another");
        assert!(used.iter().all(|(secret, slot)| *slots.get(slot) == *secret));
        for (_, slot) in used {
            slots.remove(slot);
        }
        slots.remove(again);
        assert!(slots.chunks.iter().all(|chunk| chunk.bytes().iter().all(|&byte| byte == 0)));
    }
}
