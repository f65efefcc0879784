//! Bytes that must not outlive their use: passphrases and key material.

use std::fmt;
use std::sync::Arc;

use zeroize::Zeroizing;

use super::locked_bytes::LockedBytes;

/// Secret bytes: overwritten when the last clone is dropped, kept out of the swap space, never printed, compared by content.
/// All clones share one copy of them.
#[derive(Clone)]
pub struct Secret(Arc<LockedBytes>);

impl Secret {
    /// Takes over `bytes`; the vector's memory is overwritten.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(Arc::new(LockedBytes::new(&Zeroizing::new(bytes.into()))))
    }

    /// The bytes. The caller overwrites its copies of them.
    pub fn expose(&self) -> &[u8] {
        self.0.bytes()
    }

    /// Returns true if there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.expose().is_empty()
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.expose() == other.expose()
    }
}

impl Eq for Secret {}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self::new(text.into_bytes())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_does_not_contain_the_secret() {
        let secret = Secret::from("correct horse".to_owned());
        assert_eq!(format!("{secret:?}"), "Secret(..)");
        assert_eq!(secret.expose(), b"correct horse");
    }
}
