//! Secret keys for decryption from exported files. Packets are used as they are, without a check of the validity of
//! certificates: an expired or revoked key still opens objects that were encrypted to it.

use std::borrow::Cow;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use sequoia_openpgp::crypto::mpi::PublicKey;
use sequoia_openpgp::crypto::{KeyPair, Password, S2K};
use sequoia_openpgp::packet::Key;
use sequoia_openpgp::packet::key::{self, SecretParts, UnspecifiedRole};
use sequoia_openpgp::types::Curve;
use sequoia_openpgp::{KeyID, Packet};

use super::ecdh::EcdhDecryptor;
use super::elgamal::ElGamalDecryptor;
use super::error::CodecError;
use super::key_file::{key_file_error, read_packets};
use super::rsa_key::RsaKey;
use super::session_key::SessionKey;
use super::session_key_packet::PublicKeyEsk;
use super::weierstrass::WeierstrassCurve;
use dupfs_base::{ErrorKind, Secret, escape_bytes, hex};

/// Loads the secret keys for decryption from the file at `path`.
///
/// # Errors
/// [`CodecError::KeyFile`] when there are none.
pub(super) fn load(path: &Path) -> Result<Vec<SecretKey>, CodecError> {
    let file: Arc<str> = escape_bytes(path.as_os_str().as_encoded_bytes()).into();
    let mut out: Vec<SecretKey> = Vec::new();
    let (mut public, mut stub) = (false, false);
    // The keys since `first` belong to one certificate; its first user ID names them all.
    let (mut first, mut user) = (0, None);
    for packet in read_packets(path)? {
        let key = match packet {
            Packet::SecretKey(key) => {
                (first, user) = (out.len(), None);
                key.role_into_unspecified()
            }
            Packet::SecretSubkey(key) => key.role_into_unspecified(),
            Packet::PublicKey(_) | Packet::PublicSubkey(_) => {
                public = true;
                continue;
            }
            Packet::UserID(id) if user.is_none() => {
                user = Some(shown_user(id.value()));
                out.iter_mut().skip(first).for_each(|key| key.user.clone_from(&user));
                continue;
            }
            _ => continue,
        };
        if !key.pk_algo().for_encryption() {
            continue;
        }
        match SecretKey::new(key) {
            Some(key) => out.push(SecretKey { user: user.clone(), file: Arc::clone(&file), ..key }),
            None => stub = true,
        }
    }
    if out.iter().any(|key| key.unsupported_curve.is_none()) {
        return Ok(out);
    }
    if let Some(curve) = out.iter().find_map(|key| key.unsupported_curve.as_deref()) {
        let reason = format!(
            "contains a key on the curve {curve}, which dupfs does not support; import it into your gpg and leave \
             --secret-key out to ask gpg for session keys"
        );
        return Err(key_file_error(path, ErrorKind::KeyMissing, reason));
    }
    let reason = if stub {
        "contains no secret key but a reference to a card or to another place; leave --secret-key out to ask gpg for it"
    } else if public {
        "contains a public key only; export the secret one: gpg --armor --export-secret-keys KEYID"
    } else {
        "contains no secret key for decryption; export one: gpg --armor --export-secret-keys KEYID"
    };
    Err(key_file_error(path, ErrorKind::KeyMissing, reason))
}

/// Upper bound of the characters of a user ID that are shown.
const MAX_USER: usize = 100;

/// A user ID as a prompt shows it.
fn shown_user(id: &[u8]) -> Arc<str> {
    escape_bytes(id).chars().take(MAX_USER).collect::<String>().into()
}

/// A secret key for decryption, unlocked when it is first needed.
pub(super) struct SecretKey {
    pub(super) id: KeyID,
    /// The first user ID of the certificate, such as `Backup <backup@example.org>`.
    pub(super) user: Option<Arc<str>>,
    /// The path of the file that it is from.
    pub(super) file: Arc<str>,
    /// The name of the curve, if the key is on one that the library does not support.
    pub(super) unsupported_curve: Option<Cow<'static, str>>,
    state: Mutex<SecretKeyState>,
}

enum SecretKeyState {
    /// Protected, with the number of known passphrases that were tried.
    Locked(Box<Key<SecretParts, UnspecifiedRole>>, usize),
    Unlocked(Arc<UnlockedKey>),
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey({})", self.id)
    }
}

impl SecretKey {
    /// Returns the key, or `None` for a stub without a secret.
    fn new(key: Key<SecretParts, UnspecifiedRole>) -> Option<Self> {
        if let key::SecretKeyMaterial::Encrypted(secret) = key.secret()
            && matches!(secret.s2k(), S2K::Private { .. } | S2K::Unknown { .. })
        {
            return None;
        }
        let id = key.keyid();
        let unsupported_curve = match key.mpis() {
            PublicKey::ECDH { curve, .. } if !curve.is_supported() && WeierstrassCurve::of(curve).is_none() => {
                Some(curve_name(curve))
            }
            _ => None,
        };
        let state = match key.clone().into_keypair() {
            Ok(pair) => SecretKeyState::Unlocked(UnlockedKey::new(pair)),
            Err(_) => SecretKeyState::Locked(Box::new(key), 0),
        };
        Some(Self { id, user: None, file: "".into(), unsupported_curve, state: Mutex::new(state) })
    }

    /// The key for a prompt: its number, and its user ID if there is one.
    pub(super) fn describe(&self) -> String {
        match &self.user {
            Some(user) => format!("0x{} ({user})", self.id),
            None => format!("0x{}", self.id),
        }
    }

    /// Returns the key ready for use, unlocked with one of `passphrases` if it is protected, or `None` if none of them
    /// fits.
    ///
    /// The lock of the key is held while a passphrase is tried, so that the key is unlocked once and not by every reader.
    pub(super) fn unlock(&self, passphrases: &[Arc<Secret>]) -> Option<Arc<UnlockedKey>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let unlocked = match &mut *state {
            SecretKeyState::Unlocked(unlocked) => return Some(Arc::clone(unlocked)),
            SecretKeyState::Locked(key, tried) => {
                let untried = passphrases.get(*tried..).unwrap_or(&[]);
                *tried = passphrases.len();
                UnlockedKey::new(untried.iter().find_map(|passphrase| {
                    let password = Password::from(passphrase.expose());
                    key.as_ref().clone().decrypt_secret(&password).ok()?.into_keypair().ok()
                })?)
            }
        };
        *state = SecretKeyState::Unlocked(Arc::clone(&unlocked));
        Some(unlocked)
    }
}

/// Returns gpg's name of `curve`, or its object identifier.
fn curve_name(curve: &Curve) -> Cow<'static, str> {
    match (curve, curve.oid()) {
        (_, [0x2b, 0x65, 0x6f]) => "X448".into(),
        (_, oid) => format!("with the object identifier {}", hex(oid)).into(),
    }
}

/// A secret key that is ready for use.
pub(super) struct UnlockedKey {
    pair: KeyPair,
    /// Built once and used for every object. `None` if the key is no RSA key, or one that only the library accepts.
    rsa: Option<RsaKey>,
    /// The curve of the key, if the library lacks it.
    curve: Option<WeierstrassCurve>,
}

impl UnlockedKey {
    fn new(pair: KeyPair) -> Arc<Self> {
        let rsa = RsaKey::new(&pair);
        let curve = match pair.public().mpis() {
            PublicKey::ECDH { curve, .. } => WeierstrassCurve::of(curve),
            _ => None,
        };
        Arc::new(Self { pair, rsa, curve })
    }

    /// Returns the session key in `esk` if this key opens it.
    pub(super) fn open(&self, esk: &PublicKeyEsk) -> Option<SessionKey> {
        let elgamal = matches!(self.pair.public().mpis(), PublicKey::ElGamal { .. });
        let pair = &self.pair;
        let (cipher, key) = match (&self.rsa, &self.curve) {
            (Some(rsa), _) => esk.packet.decrypt(&mut rsa.decryptor(pair.public()), None)?,
            (None, Some(curve)) => esk.packet.decrypt(&mut EcdhDecryptor { pair, curve }, None)?,
            (None, None) if elgamal => esk.packet.decrypt(&mut ElGamalDecryptor(pair), None)?,
            (None, None) => esk.packet.decrypt(&mut pair.clone(), None)?,
        };
        SessionKey::from_parts(cipher?.into(), &key)
    }
}
