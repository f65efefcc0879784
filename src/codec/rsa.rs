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
