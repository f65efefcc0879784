//! Secrets in memory: zeroed when dropped, never shown.

use std::fmt;

use zeroize::Zeroizing;

/// A passphrase: raw bytes, zeroed when dropped; `Debug` shows nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes ownership of `bytes`, which should not have been copied elsewhere.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(Zeroizing::new(bytes.into()))
    }

    /// The secret's bytes.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

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
