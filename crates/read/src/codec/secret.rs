//! Secrets in memory: zeroed when dropped, never shown.

use std::fmt;

use zeroize::Zeroizing;

pub use dupfs_base::Secret;

/// The key of one object's bulk encryption: the OpenPGP number of the cipher and the key's bytes.
#[derive(Clone)]
pub(super) struct Session {
    pub(super) cipher: u8,
    pub(super) key: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Session({}, ..)", self.cipher)
    }
}
