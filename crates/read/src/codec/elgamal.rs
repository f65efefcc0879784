//! Decryption with ElGamal keys, gpg's default until 2009, which the OpenPGP library's backend lacks.

use num_bigint_dig::BigUint;
use sequoia_openpgp::crypto::mpi::{Ciphertext, PublicKey, SecretKeyMaterial};
use sequoia_openpgp::crypto::{Decryptor, KeyPair, SessionKey as LibrarySessionKey};
use sequoia_openpgp::packet::Key;
use sequoia_openpgp::packet::key::{PublicParts, UnspecifiedRole};
use zeroize::{Zeroize, Zeroizing};

/// Decrypts session keys with the ElGamal key of a pair.
pub(super) struct ElGamalDecryptor<'a>(pub(super) &'a KeyPair);

impl Decryptor for ElGamalDecryptor<'_> {
    fn public(&self) -> &Key<PublicParts, UnspecifiedRole> {
        self.0.public()
    }

    fn decrypt(&mut self, ciphertext: &Ciphertext, _: Option<usize>) -> sequoia_openpgp::Result<LibrarySessionKey> {
        let (PublicKey::ElGamal { p, .. }, Ciphertext::ElGamal { e, c }) = (self.0.public().mpis(), ciphertext) else {
            anyhow::bail!("not encrypted by ElGamal");
        };
        self.0.secret().map(|secret| match secret {
            SecretKeyMaterial::ElGamal { x } => decrypt(p.value(), x.value(), e.value(), c.value())
                .ok_or_else(|| anyhow::anyhow!("the session key is not encrypted to this key")),
            _ => anyhow::bail!("not an ElGamal key"),
        })
    }
}

/// Returns c / e^x mod p without its PKCS#1 padding. Timing does not matter, because no attacker can request
/// decryptions at will.
fn decrypt(p: &[u8], x: &[u8], e: &[u8], c: &[u8]) -> Option<LibrarySessionKey> {
    let [p, mut x, e, c] = [p, x, e, c].map(BigUint::from_bytes_be);
    let one = BigUint::from(1_u8);
    if p <= one || x >= p {
        return None;
    }
    // e^(p-1-x) is the inverse of e^x.
    let mut exponent = &p - &one - &x;
    let mut plain = (c * e.modpow(&exponent, &p)) % &p;
    let padded = Zeroizing::new(plain.to_bytes_be());
    for secret in [&mut x, &mut exponent, &mut plain] {
        secret.zeroize();
    }
    let rest = padded.strip_prefix(&[2])?;
    let zero = rest.iter().position(|&b| b == 0).filter(|&n| n >= 8)?;
    Some(LibrarySessionKey::from(rest.get(zero + 1..)?))
}
