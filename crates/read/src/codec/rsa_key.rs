//! Session keys encrypted to RSA keys. The arithmetic of the OpenPGP library takes 5 ms for one with 3072 bits and checks
//! the key every time. A backup of a hundred small sets has two hundred objects, each with such a session key.

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rsa::{
    KeyPair as RsaKeyPair, KeyPairComponents, Pkcs1PrivateDecryptingKey, PrivateDecryptingKey, PublicKeyComponents,
};
use num_bigint_dig::BigUint;
use sequoia_openpgp::crypto::mpi::{Ciphertext, PublicKey, SecretKeyMaterial};
use sequoia_openpgp::crypto::{Decryptor, KeyPair, SessionKey as LibrarySessionKey};
use sequoia_openpgp::packet::Key;
use sequoia_openpgp::packet::key::{PublicParts, UnspecifiedRole};
use zeroize::{Zeroize, Zeroizing};

/// An RSA key, checked once.
pub(super) struct RsaKey(Pkcs1PrivateDecryptingKey);

impl RsaKey {
    /// Returns the key, or `None` if `pair` is no RSA key of 2048 to 8192 bits with consistent parts.
    pub(super) fn new(pair: &KeyPair) -> Option<Self> {
        let PublicKey::RSA { e, n } = pair.public().mpis() else { return None };
        let public_key = PublicKeyComponents { n: n.value().to_vec(), e: e.value().to_vec() };
        pair.secret().map(|secret| {
            let SecretKeyMaterial::RSA { d, p, q, u } = secret else { return None };
            // OpenPGP's u is the inverse of p modulo q (RFC 4880, section 5.5.3), and PKCS#1 has that of q modulo p.
            // Therefore the primes change places.
            let components = KeyPairComponents {
                public_key,
                d: Zeroizing::new(d.value().to_vec()),
                p: Zeroizing::new(q.value().to_vec()),
                q: Zeroizing::new(p.value().to_vec()),
                dP: reduced(d.value(), q.value())?,
                dQ: reduced(d.value(), p.value())?,
                qInv: Zeroizing::new(u.value().to_vec()),
            };
            let key = RsaKeyPair::from_components(&components).ok()?;
            let key = PrivateDecryptingKey::from_pkcs8(key.as_der().ok()?.as_ref()).ok()?;
            Pkcs1PrivateDecryptingKey::new(key).ok().map(Self)
        })
    }

    /// Returns the decryptor of session keys for the library; `public` is the public half of this key.
    pub(super) fn decryptor<'a>(&'a self, public: &'a Key<PublicParts, UnspecifiedRole>) -> impl Decryptor + 'a {
        RsaDecryptor { key: &self.0, public }
    }
}

/// Returns `d` modulo `prime` - 1.
fn reduced(d: &[u8], prime: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let [mut d, mut prime] = [d, prime].map(BigUint::from_bytes_be);
    let one = BigUint::from(1_u8);
    let mut order = (prime > one).then(|| &prime - &one)?;
    let mut rest = &d % &order;
    let bytes = Zeroizing::new(rest.to_bytes_be());
    for secret in [&mut d, &mut prime, &mut order, &mut rest] {
        secret.zeroize();
    }
    Some(bytes)
}

/// Decrypts session keys with an RSA key.
struct RsaDecryptor<'a> {
    key: &'a Pkcs1PrivateDecryptingKey,
    public: &'a Key<PublicParts, UnspecifiedRole>,
}

impl Decryptor for RsaDecryptor<'_> {
    fn public(&self) -> &Key<PublicParts, UnspecifiedRole> {
        self.public
    }

    fn decrypt(&mut self, ciphertext: &Ciphertext, _: Option<usize>) -> sequoia_openpgp::Result<LibrarySessionKey> {
        let Ciphertext::RSA { c } = ciphertext else { anyhow::bail!("not encrypted by RSA") };
        let size = self.key.key_size_bytes();
        // The packet omits leading zeros, and the arithmetic needs them.
        let padded = c.value_padded(size)?;
        let mut plain = Zeroizing::new(vec![0; size]);
        let key = self.key.decrypt(&padded, &mut plain);
        key.map(|key| LibrarySessionKey::from(&*key))
            .map_err(|_| anyhow::anyhow!("not encrypted to this key, or damaged"))
    }
}

#[cfg(test)]
mod tests {
    use sequoia_openpgp::packet::PKESK;
    use sequoia_openpgp::packet::key::{Key4, SecretParts, SubordinateRole};
    use sequoia_openpgp::packet::pkesk::PKESK3;
    use sequoia_openpgp::types::SymmetricAlgorithm;

    use super::*;

    fn pair(bits: usize) -> KeyPair {
        let key = Key4::<SecretParts, SubordinateRole>::generate_rsa(bits).unwrap();
        Key::from(key).role_into_unspecified().into_keypair().unwrap()
    }

    fn sealed(pair: &KeyPair, session: &LibrarySessionKey) -> PKESK {
        PKESK3::for_recipient(SymmetricAlgorithm::AES256, session, pair.public()).unwrap().into()
    }

    #[test]
    fn session_keys_are_decrypted_as_by_the_library() {
        let (own, other) = (pair(2048), pair(2048));
        let (rsa, stranger) = (RsaKey::new(&own).unwrap(), RsaKey::new(&other).unwrap());
        for _ in 0..20 {
            let session = LibrarySessionKey::new(32).unwrap();
            let sealed = sealed(&own, &session);
            let by_library = sealed.decrypt(&mut own.clone(), None);
            assert_eq!(by_library, Some((Some(SymmetricAlgorithm::AES256), session)));
            assert_eq!(sealed.decrypt(&mut rsa.decryptor(own.public()), None), by_library);
            assert_eq!(sealed.decrypt(&mut stranger.decryptor(own.public()), None), None);
        }
    }

    #[test]
    fn short_keys_and_other_algorithms_are_left_to_the_library() {
        assert!(RsaKey::new(&pair(1024)).is_none());
        let key = Key4::<SecretParts, SubordinateRole>::generate_ecc(true, sequoia_openpgp::types::Curve::Ed25519);
        let pair = Key::from(key.unwrap()).role_into_unspecified().into_keypair().unwrap();
        assert!(RsaKey::new(&pair).is_none());
    }
}
