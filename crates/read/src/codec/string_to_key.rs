//! Keys from passphrases: string-to-key (RFC 4880 section 3.7).

use dupfs_base::clamp_len;
use sequoia_openpgp::crypto::{Password, S2K};
use sequoia_openpgp::types::HashAlgorithm;
use sha1::{Digest, Sha1};
use zeroize::Zeroizing;

/// A specifier of the derivation of a key from a passphrase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StringToKey {
    hash: u8,
    mode: StringToKeyMode,
}

/// The result of parsing a specifier.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ParsedStringToKey<'b> {
    /// The specifier, and the bytes after it.
    Supported(StringToKey, &'b [u8]),
    /// A type that exists (RFC 9580), and that gpg never writes.
    Argon2,
    /// Cut short, or of a type or hash algorithm that does not exist.
    Damaged,
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
    /// Parses the specifier at the start of `bytes`.
    pub(super) fn parse(bytes: &[u8]) -> ParsedStringToKey<'_> {
        const ARGON2: u8 = 4;
        // Salt and three parameters (RFC 9580 section 3.7.1.4).
        if bytes.first() == Some(&ARGON2) && bytes.len() > 19 {
            return ParsedStringToKey::Argon2;
        }
        Self::parse_supported(bytes)
            .map_or(ParsedStringToKey::Damaged, |(s2k, rest)| ParsedStringToKey::Supported(s2k, rest))
    }

    fn parse_supported(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (&[kind, hash], rest) = bytes.split_first_chunk::<2>()?;
        if !HashAlgorithm::from(hash).is_supported() {
            return None;
        }
        let (mode, rest) = match kind {
            0 => (StringToKeyMode::Simple, rest),
            1 => {
                let (salt, rest) = rest.split_first_chunk::<8>()?;
                (StringToKeyMode::Salted(*salt), rest)
            }
            3 => {
                let (salt, rest) = rest.split_first_chunk::<8>()?;
                let (count, rest) = rest.split_first()?;
                let count = u32::from(*count);
                (StringToKeyMode::Iterated(*salt, (16 + (count & 15)) << ((count >> 4) + 6)), rest)
            }
            _ => return None,
        };
        Some((Self { hash, mode }, rest))
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
    // The salt and the passphrase are hashed at least once, whatever the count is.
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
            let n = clamp_len(left, block.len());
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
            let ParsedStringToKey::Supported(s2k, rest) = StringToKey::parse(&bytes) else { panic!() };
            assert_eq!(rest, b"");
            assert_eq!(s2k.derive(passphrase.as_bytes(), len), s2k.derive_by_library(passphrase.as_bytes(), len));
        }
    }

    #[test]
    fn specifiers_are_parsed_with_their_lengths() {
        let supported = |hash, mode, rest| ParsedStringToKey::Supported(StringToKey { hash, mode }, rest);
        let iterated = StringToKeyMode::Iterated(*b"saltsalt", 65_011_712);
        assert_eq!(StringToKey::parse(b"\x03\x02saltsalt\xffrest"), supported(2, iterated, b"rest"));
        assert_eq!(StringToKey::parse(b"\x00\x01rest"), supported(1, StringToKeyMode::Simple, b"rest"));
        let salted = StringToKeyMode::Salted(*b"saltsalt");
        assert_eq!(StringToKey::parse(b"\x01\x0asaltsalt"), supported(10, salted, b""));
        assert_eq!(StringToKey::parse(&[4; 20]), ParsedStringToKey::Argon2);
        let no_such_hash = b"\x03\x12saltsalt\xff";
        for bad in [
            &b"\x03\x02saltsalt"[..],
            b"\x02\x02saltsalt\xff",
            b"\x01\x02salt",
            b"",
            b"\x65\x02",
            no_such_hash,
            &[4; 19],
        ] {
            assert_eq!(StringToKey::parse(bad), ParsedStringToKey::Damaged, "{bad:?}");
        }
    }
}
