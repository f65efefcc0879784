//! Secret keys from exported files. Packets are taken as they are, without looking at certificates' validity: an expired
//! or revoked key still opens what was once encrypted to it.

use std::fmt;
use std::io::{Cursor, Read};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use num_bigint_dig::BigUint;
use sequoia_openpgp::crypto::mpi::{Ciphertext, PublicKey, SecretKeyMaterial};
use sequoia_openpgp::crypto::{Decryptor, KeyPair, Password, S2K, SessionKey};
use sequoia_openpgp::packet::Key;
use sequoia_openpgp::packet::key::{self, PublicParts, SecretParts, UnspecifiedRole};
use sequoia_openpgp::parse::{PacketParser, PacketParserResult, Parse};
use sequoia_openpgp::{KeyID, Packet};
use zeroize::{Zeroize, Zeroizing};

use super::armor::Dearmor;
use super::error::CodecError;
use super::esk::{PkEsk, checked};
use super::rsa::Rsa;
use super::secret::{Secret, Session};
use super::source::Ctx;
use dupfs_base::ErrorKind;

/// Longest key file.
const MAX_FILE: u64 = 16 << 20;

/// The packets of a file's contents.
fn packets(path: &Path, bytes: &[u8]) -> Result<Vec<Packet>, CodecError> {
    let bad = |why: String| key_file(path, ErrorKind::Invalid, format!("no OpenPGP key: {why}"));
    let mut out = Vec::new();
    for block in blocks(path, bytes)? {
        let mut result = PacketParser::from_bytes(block.as_slice()).map_err(|e| bad(e.to_string()))?;
        while let PacketParserResult::Some(parser) = result {
            let (packet, next) = parser.next().map_err(|e| bad(e.to_string()))?;
            out.push(packet);
            result = next;
        }
    }
    Ok(out)
}

/// The binary contents of a file: itself, or each of its armoured blocks.
fn blocks(path: &Path, bytes: &[u8]) -> Result<Vec<Zeroizing<Vec<u8>>>, CodecError> {
    const BEGIN: &[u8] = b"-----BEGIN PGP ";
    const END: &[u8] = b"-----END PGP ";
    if bytes.first().is_some_and(|b| b & 0x80 != 0) {
        return Ok(vec![Zeroizing::new(bytes.to_vec())]);
    }
    let ctx = Ctx::new(&path.display().to_string());
    let mut out = Vec::new();
    let mut rest = bytes;
    while let Some(from) = find(rest, BEGIN) {
        let block = rest.get(from..).unwrap_or(&[]);
        // Up to the end of the END line.
        let end = find(block, END).unwrap_or(block.len());
        let line = block.get(end..).unwrap_or(&[]);
        let end = end + find(line, b"\n").unwrap_or(line.len());
        let text = Zeroizing::new(block.get(..end).unwrap_or(block).to_vec());
        let mut binary = Zeroizing::new(Vec::with_capacity(text.len()));
        Dearmor::new(&ctx, Box::new(Cursor::new(text)))
            .read_to_end(&mut binary)
            .map_err(|e| key_file(path, ErrorKind::Invalid, e.to_string()))?;
        out.push(binary);
        rest = block.get(end..).unwrap_or(&[]);
    }
    Ok(out)
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

pub(super) fn key_file(path: &Path, kind: ErrorKind, reason: impl Into<String>) -> CodecError {
    CodecError::KeyFile { path: path.into(), kind, reason: reason.into().into() }
}

/// All packets of the key file at `path`, armoured or binary, one key or several.
///
/// # Errors
/// [`CodecError::KeyFile`] when it cannot be read or is no OpenPGP file.
pub(super) fn read_packets(path: &Path) -> Result<Vec<Packet>, CodecError> {
    let mut bytes = Zeroizing::new(Vec::new());
    std::fs::File::open(path).and_then(|file| file.take(MAX_FILE).read_to_end(&mut bytes)).map_err(|e| {
        let kind = match e.kind() {
            std::io::ErrorKind::NotFound => ErrorKind::Invalid,
            std::io::ErrorKind::PermissionDenied => ErrorKind::Denied,
            _ => ErrorKind::Io,
        };
        key_file(path, kind, e.to_string())
    })?;
    packets(path, &bytes)
}

/// The secret keys for decryption in the file at `path`.
///
/// # Errors
/// [`CodecError::KeyFile`] when there are none.
pub(super) fn load(path: &Path) -> Result<Vec<SecretKey>, CodecError> {
    let mut out = Vec::new();
    let (mut public, mut stub) = (false, false);
    for packet in read_packets(path)? {
        let key = match packet {
            Packet::SecretKey(key) => key.role_into_unspecified(),
            Packet::SecretSubkey(key) => key.role_into_unspecified(),
            Packet::PublicKey(_) | Packet::PublicSubkey(_) => {
                public = true;
                continue;
            }
            _ => continue,
        };
        if !key.pk_algo().for_encryption() {
            continue;
        }
        match SecretKey::new(key) {
            Some(key) => out.push(key),
            None => stub = true,
        }
    }
    if !out.is_empty() {
        return Ok(out);
    }
    let reason = if stub {
        "holds no secret key but a reference to a card or to another place; leave --secret-key out to ask gpg for it"
    } else if public {
        "holds a public key only; export the secret one: gpg --armor --export-secret-keys KEYID"
    } else {
        "holds no secret key for decryption; export one: gpg --armor --export-secret-keys KEYID"
    };
    Err(key_file(path, ErrorKind::KeyMissing, reason))
}

/// A secret key for decryption, unlocked when it is first needed.
pub(super) struct SecretKey {
    pub(super) id: KeyID,
    state: Mutex<State>,
}

enum State {
    /// Protected; so many of the known passphrases were tried.
    Locked(Box<Key<SecretParts, UnspecifiedRole>>, usize),
    Open(Arc<OpenKey>),
}

/// A secret key ready for use.
pub(super) struct OpenKey {
    pair: KeyPair,
    /// Made once and used for every object; `None` where the key is no RSA key, or one that the library takes and this does
    /// not.
    rsa: Option<Rsa>,
}

impl OpenKey {
    fn new(pair: KeyPair) -> Arc<Self> {
        let rsa = Rsa::new(&pair);
        Arc::new(Self { pair, rsa })
    }

    /// The session key in `esk` if this key opens it.
    pub(super) fn open(&self, esk: &PkEsk) -> Option<Session> {
        let elgamal = matches!(self.pair.public().mpis(), PublicKey::ElGamal { .. });
        let (cipher, key) = match &self.rsa {
            Some(rsa) => esk.packet.decrypt(&mut rsa.decryptor(self.pair.public()), None)?,
            None if elgamal => esk.packet.decrypt(&mut ElGamal(&self.pair), None)?,
            None => esk.packet.decrypt(&mut self.pair.clone(), None)?,
        };
        checked(cipher?.into(), &key)
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey({})", self.id)
    }
}

impl SecretKey {
    /// `None` for a stub without a secret.
    fn new(key: Key<SecretParts, UnspecifiedRole>) -> Option<Self> {
        if let key::SecretKeyMaterial::Encrypted(secret) = key.secret()
            && matches!(secret.s2k(), S2K::Private { .. } | S2K::Unknown { .. })
        {
            return None;
        }
        let id = key.keyid();
        let state = match key.clone().into_keypair() {
            Ok(pair) => State::Open(OpenKey::new(pair)),
            Err(_) => State::Locked(Box::new(key), 0),
        };
        Some(Self { id, state: Mutex::new(state) })
    }

    /// The key ready for use, unlocked with one of `passphrases` if it must be; `None` if none of them fits.
    ///
    /// The key's own lock is held while a passphrase is tried, so that it is unlocked once and not by every reader.
    pub(super) fn unlock(&self, passphrases: &[Arc<Secret>]) -> Option<Arc<OpenKey>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let open = match &mut *state {
            State::Open(open) => return Some(Arc::clone(open)),
            State::Locked(key, tried) => {
                let untried = passphrases.get(*tried..).unwrap_or(&[]);
                *tried = passphrases.len();
                OpenKey::new(untried.iter().find_map(|passphrase| {
                    let password = Password::from(passphrase.expose());
                    key.as_ref().clone().decrypt_secret(&password).ok()?.into_keypair().ok()
                })?)
            }
        };
        *state = State::Open(Arc::clone(&open));
        Some(open)
    }
}

/// Decryption with ElGamal keys, gpg's default until 2009, which the library's backend lacks.
struct ElGamal<'a>(&'a KeyPair);

impl Decryptor for ElGamal<'_> {
    fn public(&self) -> &Key<PublicParts, UnspecifiedRole> {
        self.0.public()
    }

    fn decrypt(&mut self, ciphertext: &Ciphertext, _: Option<usize>) -> sequoia_openpgp::Result<SessionKey> {
        let (PublicKey::ElGamal { p, .. }, Ciphertext::ElGamal { e, c }) = (self.0.public().mpis(), ciphertext) else {
            anyhow::bail!("not encrypted by ElGamal");
        };
        self.0.secret().map(|secret| match secret {
            SecretKeyMaterial::ElGamal { x } => elgamal(p.value(), x.value(), e.value(), c.value())
                .ok_or_else(|| anyhow::anyhow!("the session key is not as the key would have it")),
            _ => anyhow::bail!("not an ElGamal key"),
        })
    }
}

/// c / e^x mod p, and the data in its PKCS#1 padding. Timing does not matter: nobody can ask for decryptions at will.
fn elgamal(p: &[u8], x: &[u8], e: &[u8], c: &[u8]) -> Option<SessionKey> {
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
    Some(SessionKey::from(rest.get(zero + 1..)?))
}
