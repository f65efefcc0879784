//! The key that one object's data are encrypted with.

use std::fmt;

use zeroize::Zeroizing;

use super::openpgp_cipher::OpenPgpCipher;

/// The key of one object's encrypted data: a cipher and a key of that cipher's length. Overwritten when dropped, never
/// shown.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct SessionKey {
    cipher: OpenPgpCipher,
    bytes: Zeroizing<Vec<u8>>,
}

impl SessionKey {
    /// Returns the session key, or `None` unless `bytes` has the length of a key of `cipher`.
    pub(super) fn new(cipher: OpenPgpCipher, bytes: Zeroizing<Vec<u8>>) -> Option<Self> {
        (bytes.len() == cipher.key_len()).then_some(Self { cipher, bytes })
    }

    /// Returns the session key for the cipher with OpenPGP's number `id`, or `None` if there is no such cipher or `bytes`
    /// cannot be a key of it.
    pub(super) fn from_parts(id: u8, bytes: &[u8]) -> Option<Self> {
        Self::new(OpenPgpCipher::from_id(id)?, Zeroizing::new(bytes.to_vec()))
    }

    /// Upper bound of the length of a session key in bytes.
    pub(super) const MAX_LEN: usize = 32;

    pub(super) fn cipher(&self) -> OpenPgpCipher {
        self.cipher
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionKey({:?}, ..)", self.cipher)
    }
}
