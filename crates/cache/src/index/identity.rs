//! The identity of the object that a record or file describes.

use sha2::{Digest, Sha256};

/// The identity of an immutable object: a hash of everything that distinguishes it from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity(pub [u8; 16]);

impl Identity {
    /// The identity of the object that `parts` describe. The number and the lengths of the parts are significant.
    pub fn of(parts: &[&[u8]]) -> Self {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        let mut out = [0; 16];
        for (to, from) in out.iter_mut().zip(hash.finalize()) {
            *to = from;
        }
        Self(out)
    }

    /// The identity of the object that this identity together with `parts` describes.
    pub fn with(self, parts: &[&[u8]]) -> Self {
        let all: Vec<&[u8]> = std::iter::once(&self.0[..]).chain(parts.iter().copied()).collect();
        Self::of(&all)
    }

    /// The identity as hexadecimal digits, for file names.
    pub fn hex(&self) -> String {
        dupfs_base::hex(&self.0)
    }

    /// The identity with these hexadecimal digits.
    pub(super) fn from_hex(digits: &str) -> Option<Self> {
        let mut out = [0; 16];
        let is_hex = digits.len() == 32 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        for (at, to) in out.iter_mut().enumerate().filter(|_| is_hex) {
            *to = u8::from_str_radix(digits.get(2 * at..2 * at + 2)?, 16).ok()?;
        }
        is_hex.then_some(Self(out))
    }

    /// The first 64 bits, for uses where a collision does no harm.
    pub fn truncated(&self) -> u64 {
        self.0.iter().take(8).fold(0, |n, &byte| (n << 8) | u64::from(byte))
    }
}
