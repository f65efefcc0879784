//! Session keys encrypted to RSA keys. The OpenPGP library's pure Rust arithmetic takes 5 ms for one with 3072 bits and
//! checks the key anew each time; a backup of a hundred small sets has two hundred objects, each with such a key.

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rsa::{
    KeyPair as RsaKeyPair, KeyPairComponents, Pkcs1PrivateDecryptingKey, PrivateDecryptingKey, PublicKeyComponents,
};
use num_bigint_dig::BigUint;
use sequoia_openpgp::crypto::mpi::{Ciphertext, PublicKey, SecretKeyMaterial};
use sequoia_openpgp::crypto::{Decryptor, KeyPair, SessionKey};
use sequoia_openpgp::packet::Key;
use sequoia_openpgp::packet::key::{PublicParts, UnspecifiedRole};
use zeroize::{Zeroize, Zeroizing};

/// An RSA key, checked once.
pub(super) struct Rsa(Pkcs1PrivateDecryptingKey);

impl Rsa {
    /// `None` where `pair` is no RSA key of 2048 to 8192 bits whose parts belong together.
    pub(super) fn new(pair: &KeyPair) -> Option<Self> {
        let PublicKey::RSA { e, n } = pair.public().mpis() else { return None };
        let public_key = PublicKeyComponents { n: n.value().to_vec(), e: e.value().to_vec() };
        pair.secret().map(|secret| {
            let SecretKeyMaterial::RSA { d, p, q, u } = secret else { return None };
            // OpenPGP's u is the inverse of p modulo q (RFC 4880, section 5.5.3), where PKCS#1 has that of q modulo p: the
            // primes change places.
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

    /// What opens session keys for the library; `public` is the public half of this key.
    pub(super) fn decryptor<'a>(&'a self, public: &'a Key<PublicParts, UnspecifiedRole>) -> impl Decryptor + 'a {
        Opener { key: &self.0, public }
    }
}

/// `d` modulo `prime` - 1.
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

struct Opener<'a> {
    key: &'a Pkcs1PrivateDecryptingKey,
    public: &'a Key<PublicParts, UnspecifiedRole>,
}

impl Decryptor for Opener<'_> {
    fn public(&self) -> &Key<PublicParts, UnspecifiedRole> {
        self.public
    }

    fn decrypt(&mut self, ciphertext: &Ciphertext, _: Option<usize>) -> sequoia_openpgp::Result<SessionKey> {
        let Ciphertext::RSA { c } = ciphertext else { anyhow::bail!("not encrypted by RSA") };
        let size = self.key.key_size_bytes();
        // The packet leaves out leading zeros, the arithmetic wants them.
        let padded = c.value_padded(size)?;
        let mut plain = Zeroizing::new(vec![0; size]);
        let key = self.key.decrypt(&padded, &mut plain);
        key.map(|key| SessionKey::from(&*key)).map_err(|_| anyhow::anyhow!("not encrypted to this key, or damaged"))
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

    fn sealed(pair: &KeyPair, session: &SessionKey) -> PKESK {
        PKESK3::for_recipient(SymmetricAlgorithm::AES256, session, pair.public()).unwrap().into()
    }

    #[test]
    fn session_keys_open_as_by_the_library() {
        let (own, other) = (pair(2048), pair(2048));
        let (rsa, stranger) = (Rsa::new(&own).unwrap(), Rsa::new(&other).unwrap());
        for _ in 0..20 {
            let session = SessionKey::new(32).unwrap();
            let sealed = sealed(&own, &session);
            let by_library = sealed.decrypt(&mut own.clone(), None);
            assert_eq!(by_library, Some((Some(SymmetricAlgorithm::AES256), session)));
            assert_eq!(sealed.decrypt(&mut rsa.decryptor(own.public()), None), by_library);
            assert_eq!(sealed.decrypt(&mut stranger.decryptor(own.public()), None), None);
        }
    }

    #[test]
    fn short_keys_and_other_algorithms_are_left_to_the_library() {
        assert!(Rsa::new(&pair(1024)).is_none());
        let key = Key4::<SecretParts, SubordinateRole>::generate_ecc(true, sequoia_openpgp::types::Curve::Ed25519);
        let pair = Key::from(key.unwrap()).role_into_unspecified().into_keypair().unwrap();
        assert!(Rsa::new(&pair).is_none());
    }
}
