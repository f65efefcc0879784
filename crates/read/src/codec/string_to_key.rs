//! Keys from passphrases: string-to-key (RFC 4880 section 3.7).

use sequoia_openpgp::crypto::{Password, S2K};
use sequoia_openpgp::types::HashAlgorithm;
use sha1::{Digest, Sha1};
use zeroize::Zeroizing;

/// A specifier of the way from a passphrase to a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StringToKey {
    hash: u8,
    mode: StringToKeyMode,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum StringToKeyMode {
    Simple,
    Salted([u8; 8]),
    /// Salt, and number of bytes to hash (at most 65,011,712).
    Iterated([u8; 8], u32),
}

const SHA1: u8 = 2;

impl StringToKey {
    /// Parses the specifier at the start of `bytes`. Returns it and its length, or `None` if it is cut short or of a type
    /// that gpg never writes.
    pub(super) fn parse(bytes: &[u8]) -> Option<(Self, usize)> {
        let (&[kind, hash], rest) = bytes.split_first_chunk::<2>()?;
        let salt = rest.first_chunk::<8>().copied();
        let (mode, used) = match kind {
            0 => (StringToKeyMode::Simple, 2),
            1 => (StringToKeyMode::Salted(salt?), 10),
            3 => {
                let count = u32::from(*rest.get(8)?);
                (StringToKeyMode::Iterated(salt?, (16 + (count & 15)) << ((count >> 4) + 6)), 11)
            }
            _ => return None,
        };
        Some((Self { hash, mode }, used))
    }

    /// Returns the specifier that PGP 2 implied: the hash of the passphrase alone.
    pub(super) fn simple(hash: u8) -> Self {
        Self { hash, mode: StringToKeyMode::Simple }
    }

    /// Returns the key of `len` bytes for `passphrase`, or `None` if the hash algorithm is unknown.
    pub(super) fn derive(&self, passphrase: &[u8], len: usize) -> Option<Zeroizing<Vec<u8>>> {
        match (&self.mode, self.hash) {
            // gpg's default hashes 65 MB for each block of the key. Plain SHA-1 is four times as fast as the library's,
            // which detects collisions that do not matter here.
            (StringToKeyMode::Iterated(salt, count), SHA1) => Some(iterate_sha1(salt, *count, passphrase, len)),
            _ => self.derive_by_library(passphrase, len),
        }
    }

    #[allow(deprecated)] // the library's mark for types of S2K that only old messages have
    fn derive_by_library(&self, passphrase: &[u8], len: usize) -> Option<Zeroizing<Vec<u8>>> {
        let hash = HashAlgorithm::from(self.hash);
        let s2k = match self.mode {
            StringToKeyMode::Simple => S2K::Simple { hash },
            StringToKeyMode::Salted(salt) => S2K::Salted { hash, salt },
            StringToKeyMode::Iterated(salt, hash_bytes) => S2K::Iterated { hash, salt, hash_bytes },
        };
        let key = s2k.derive_key(&Password::from(passphrase), len).ok()?;
        Some(Zeroizing::new(key.to_vec()))
    }
}

fn iterate_sha1(salt: &[u8; 8], count: u32, passphrase: &[u8], len: usize) -> Zeroizing<Vec<u8>> {
    let unit = Zeroizing::new([salt.as_slice(), passphrase].concat());
    // The salt and the passphrase are hashed at least once, whatever the count says.
    let total = u64::from(count).max(unit.len() as u64);
    let repeats = (8192 / unit.len()).max(1);
    let block = Zeroizing::new(unit.repeat(repeats));
    let mut key = Zeroizing::new(Vec::with_capacity(len + 20));
    let mut zeros = 0;
    while key.len() < len {
        let mut hash = Sha1::new();
        hash.update(vec![0; zeros]);
        let mut left = total;
        while left > 0 {
            // A rest that does not fit into usize is longer than the block.
            let n = usize::try_from(left).map_or(block.len(), |left| left.min(block.len()));
            hash.update(block.get(..n).unwrap_or(&block));
            left -= n as u64;
        }
        key.extend_from_slice(&hash.finalize());
        zeros += 1;
    }
    key.truncate(len);
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_sha1_derivation_equals_the_librarys() {
        for (count, passphrase, len) in
            [(0, "x", 16), (0x60, "fixture passphrase", 32), (0x41, "", 24), (0, "p".repeat(3000).as_str(), 32)]
        {
            let bytes = [&[3, SHA1][..], b"saltsalt", &[count]].concat();
            let (s2k, used) = StringToKey::parse(&bytes).unwrap();
            assert_eq!(used, 11);
            assert_eq!(s2k.derive(passphrase.as_bytes(), len), s2k.derive_by_library(passphrase.as_bytes(), len));
        }
    }

    #[test]
    fn specifiers_are_parsed_with_their_lengths() {
        let (s2k, _) = StringToKey::parse(b"\x03\x02saltsalt\xff").unwrap();
        assert_eq!(s2k, StringToKey { hash: 2, mode: StringToKeyMode::Iterated(*b"saltsalt", 65_011_712) });
        assert_eq!(StringToKey::parse(b"\x00\x01rest").unwrap(), (StringToKey::simple(1), 2));
        assert_eq!(StringToKey::parse(b"\x01\x0asaltsalt").unwrap().1, 10);
        for bad in [&b"\x03\x02saltsalt"[..], b"\x02\x02saltsalt\xff", b"\x01\x02salt", b"", b"\x65\x02"] {
            assert_eq!(StringToKey::parse(bad), None);
        }
    }
}
