//! What a record or file is about, as a number that nothing else has.

use sha2::{Digest, Sha256};

/// Identity of something that never changes: a hash of all that tells it from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity(pub [u8; 16]);

impl Identity {
    /// The identity of what `parts` describe; their number and lengths count too.
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

    /// The identity of this together with `parts`.
    pub fn with(self, parts: &[&[u8]]) -> Self {
        let all: Vec<&[u8]> = std::iter::once(&self.0[..]).chain(parts.iter().copied()).collect();
        Self::of(&all)
    }

    /// As the name of a file.
    pub fn hex(&self) -> String {
        use std::fmt::Write as _;
        self.0.iter().fold(String::with_capacity(32), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    }

    /// Half of it, where little is at stake.
    pub fn short(&self) -> u64 {
        self.0.iter().take(8).fold(0, |n, &byte| (n << 8) | u64::from(byte))
    }
}
