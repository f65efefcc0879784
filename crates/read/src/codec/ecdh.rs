//! Decryption with ECDH keys on curves that the OpenPGP library's backend lacks. The library derives the key of the key
//! wrapping and unwraps the session key, which is the same for all curves (RFC 6637 section 8).

use sequoia_openpgp::crypto::ecdh::decrypt_unwrap;
use sequoia_openpgp::crypto::mpi::{Ciphertext, SecretKeyMaterial};
use sequoia_openpgp::crypto::{Decryptor, KeyPair, SessionKey as LibrarySessionKey};
use sequoia_openpgp::packet::Key;
use sequoia_openpgp::packet::key::{PublicParts, UnspecifiedRole};

use super::weierstrass::WeierstrassCurve;

/// Decrypts session keys with the ECDH key of a pair.
pub(super) struct EcdhDecryptor<'a> {
    pub(super) pair: &'a KeyPair,
    pub(super) curve: &'a WeierstrassCurve,
}

impl Decryptor for EcdhDecryptor<'_> {
    fn public(&self) -> &Key<PublicParts, UnspecifiedRole> {
        self.pair.public()
    }

    fn decrypt(&mut self, ciphertext: &Ciphertext, len: Option<usize>) -> sequoia_openpgp::Result<LibrarySessionKey> {
        let Ciphertext::ECDH { e, .. } = ciphertext else { anyhow::bail!("not encrypted by ECDH") };
        let shared = self.pair.secret().map(|secret| match secret {
            SecretKeyMaterial::ECDH { scalar } => self
                .curve
                .shared_secret(e.value(), scalar.value())
                .ok_or_else(|| anyhow::anyhow!("the point in the packet is not on the curve of the key")),
            _ => anyhow::bail!("not an ECDH key"),
        })?;
        decrypt_unwrap(self.pair.public(), &shared.as_slice().into(), ciphertext, len)
    }
}
