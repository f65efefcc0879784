//! The session keys that were found, so that no key is derived again when an object is opened again.

use std::sync::{Mutex, PoisonError};

use lru::LruCache;
use sha1::{Digest, Sha1};

use super::openpgp_cipher::OpenPgpCipher;
use super::session_key::SessionKey;
use dupfs_base::{SecretSlot, SecretSlots};

/// Upper bound of the number of session keys in memory.
const MAX_SESSION_KEYS: usize = 1 << 16;

/// A bounded cache of session keys, by a digest of the object's first bytes, which contain the encrypted session keys.
#[derive(Debug)]
pub(super) struct SessionKeyCache {
    keys: Mutex<CachedKeys>,
    max_keys: usize,
}

#[derive(Debug)]
struct CachedKeys {
    by_object: LruCache<[u8; 20], (OpenPgpCipher, SecretSlot)>,
    secrets: SecretSlots,
}

impl Default for SessionKeyCache {
    fn default() -> Self {
        Self::with_capacity(MAX_SESSION_KEYS)
    }
}

impl SessionKeyCache {
    fn with_capacity(max_keys: usize) -> Self {
        // Unbounded, because a bounded one allocates all its slots at once.
        let keys = CachedKeys { by_object: LruCache::unbounded(), secrets: SecretSlots::new(SessionKey::MAX_LEN) };
        Self { keys: Mutex::new(keys), max_keys }
    }

    /// Returns the session key of the object that begins with `head`, which counts as used now.
    pub(super) fn get(&self, head: &[u8]) -> Option<SessionKey> {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        let CachedKeys { by_object, secrets } = &mut *keys;
        let (cipher, slot) = by_object.get(&digest(head))?;
        SessionKey::new(*cipher, secrets.get(slot))
    }

    /// Adds the session key of the object that begins with `head`, and evicts the least recently used ones beyond the
    /// bound.
    pub(super) fn insert(&self, head: &[u8], key: &SessionKey) {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        let CachedKeys { by_object, secrets } = &mut *keys;
        let Some(slot) = secrets.insert(key.bytes()) else { return };
        if let Some((_, replaced)) = by_object.put(digest(head), (key.cipher(), slot)) {
            secrets.remove(replaced);
        }
        while by_object.len() > self.max_keys {
            let Some((_, (_, evicted))) = by_object.pop_lru() else { break };
            secrets.remove(evicted);
        }
    }
}

fn digest(head: &[u8]) -> [u8; 20] {
    Sha1::digest(head).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_session_key_is_evicted_first() {
        let cache = SessionKeyCache::with_capacity(3);
        let key = |n: u8| SessionKey::from_parts(7, &[n; 16]).unwrap();
        for n in 0..3 {
            cache.insert(&[n], &key(n));
        }
        assert_eq!(cache.get(&[0]), Some(key(0)));
        cache.insert(&[3], &key(3));
        let cached = [0, 1, 2, 3].map(|n| cache.get(&[n]).is_some());
        assert_eq!(cached, [true, false, true, true]);
    }
}
