//! The session keys that were found, so that reopening an object derives nothing again.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use sha1::{Digest, Sha1};

use super::session_key::SessionKey;

/// Upper bound of the number of session keys in memory. All are dropped when it is reached.
const MAX_SESSION_KEYS: usize = 1 << 16;

/// A bounded cache of session keys, by a digest of the object's first bytes, which hold the encrypted session keys.
#[derive(Debug, Default)]
pub(super) struct SessionKeyCache {
    keys: Mutex<HashMap<[u8; 20], SessionKey>>,
}

impl SessionKeyCache {
    /// Returns the session key of the object that begins with `head`.
    pub(super) fn get(&self, head: &[u8]) -> Option<SessionKey> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner).get(&digest(head)).cloned()
    }

    /// Adds the session key of the object that begins with `head`.
    pub(super) fn insert(&self, head: &[u8], key: SessionKey) {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        if keys.len() >= MAX_SESSION_KEYS {
            keys.clear();
        }
        keys.insert(digest(head), key);
    }
}

fn digest(head: &[u8]) -> [u8; 20] {
    Sha1::digest(head).into()
}
