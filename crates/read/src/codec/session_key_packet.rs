//! Encrypted session keys: packets 1 (to a public key) and 3 (to a passphrase), RFC 4880 sections 5.1 and 5.3. Version 5
//! of the latter is from LibrePGP (draft-koch-librepgp section 5.3).

use std::borrow::Cow;
use std::fmt;

use sequoia_openpgp::packet::PKESK;
use sequoia_openpgp::parse::Parse;
use sequoia_openpgp::{KeyID, Packet};
use zeroize::Zeroizing;

use super::ocb_reader;
use super::openpgp_cipher::OpenPgpCipher;
use super::packet_header::tag;
use super::session_key::SessionKey;
use super::string_to_key::{ParsedStringToKey, StringToKey};

/// Upper bound of the length of a session key packet; one for RSA with 16384 bits has 2 KiB.
pub(super) const MAX_SESSION_KEY_PACKET: usize = 8 << 10;

/// An encrypted session key.
#[derive(Debug)]
pub(super) enum EncryptedSessionKey {
    /// Encrypted to a public key.
    PublicKey(Box<PublicKeyEsk>),
    /// Encrypted to a passphrase, or derived from one.
    Passphrase(PassphraseEsk),
    /// Of a form that exists and is not supported.
    Unsupported(Cow<'static, str>),
    /// Not a session key packet of any form.
    Damaged(&'static str),
}

/// The reason why a packet gives no usable session key.
enum UnusableEsk {
    Unsupported(Cow<'static, str>),
    Damaged(&'static str),
}

const DAMAGED: UnusableEsk = UnusableEsk::Damaged("a packet with its session key is malformed");

impl EncryptedSessionKey {
    /// Parses the body of a session key packet with `packet_tag`.
    pub(super) fn parse(packet_tag: u8, body: &[u8]) -> Self {
        let parsed = if packet_tag == tag::PKESK {
            PublicKeyEsk::parse(body).map(|esk| Self::PublicKey(Box::new(esk)))
        } else {
            PassphraseEsk::parse(body).map(Self::Passphrase)
        };
        parsed.unwrap_or_else(|unusable| match unusable {
            UnusableEsk::Unsupported(what) => Self::Unsupported(what),
            UnusableEsk::Damaged(what) => Self::Damaged(what),
        })
    }
}

/// A session key encrypted to a public key.
pub(super) struct PublicKeyEsk {
    /// The key id of the recipient; `None` if hidden.
    pub(super) recipient: Option<KeyID>,
    /// The parsed packet.
    pub(super) packet: PKESK,
}

impl fmt::Debug for PublicKeyEsk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKeyEsk({:?})", self.recipient)
    }
}

impl PublicKeyEsk {
    fn parse(body: &[u8]) -> Result<Self, UnusableEsk> {
        let (&version, rest) = body.split_first().ok_or(DAMAGED)?;
        match version {
            // PGP 2 wrote version 2, in the form of version 3.
            2 | 3 => {}
            6 if names_recipient_by_fingerprint(rest) => {
                return Err(UnusableEsk::Unsupported("a session key packet (1) of version 6".into()));
            }
            _ => return Err(DAMAGED),
        }
        let (&algorithm, fields) = rest.get(8..).and_then(<[u8]>::split_first).ok_or(DAMAGED)?;
        let rest = match algorithm {
            RSA | RSA_ENCRYPT => skip_number(fields),
            ELGAMAL | ELGAMAL_SIGN => skip_number(fields).and_then(skip_number),
            ECDH => skip_number(fields).and_then(skip_octets),
            X25519 if fields.get(32..).and_then(skip_octets) == Some(&[]) => return Err(later_algorithm(algorithm)),
            X448 if fields.get(56..).and_then(skip_octets) == Some(&[]) => return Err(later_algorithm(algorithm)),
            KYBER | ML_KEM_768 | ML_KEM_1024 => return Err(later_algorithm(algorithm)),
            _ => return Err(DAMAGED),
        };
        if rest != Some(&[]) {
            return Err(DAMAGED);
        }
        let len = u32::try_from(body.len()).map_err(|_| DAMAGED)?;
        let packet = [&[0xc0 | tag::PKESK, 0xff][..], &len.to_be_bytes(), &[3], body.get(1..).unwrap_or(&[])].concat();
        let Ok(Packet::PKESK(PKESK::V3(packet))) = Packet::from_bytes(&packet) else { return Err(DAMAGED) };
        let recipient = packet.recipient().filter(|id| !id.is_wildcard()).cloned();
        Ok(Self { recipient, packet: packet.into() })
    }
}

/// The public key algorithms that gpg encrypts with in packets of version 3 (RFC 4880 section 9.1; 18 from RFC 6637).
const RSA: u8 = 1;
const RSA_ENCRYPT: u8 = 2;
const ELGAMAL: u8 = 16;
const ECDH: u8 = 18;
const ELGAMAL_SIGN: u8 = 20;

/// Later public key algorithms for encryption, from LibrePGP (8), RFC 9580 (25, 26) and the draft on post-quantum
/// cryptography (35, 36).
const KYBER: u8 = 8;
const X25519: u8 = 25;
const X448: u8 = 26;
const ML_KEM_768: u8 = 35;
const ML_KEM_1024: u8 = 36;

fn later_algorithm(algorithm: u8) -> UnusableEsk {
    UnusableEsk::Unsupported(format!("a session key encrypted by public key algorithm {algorithm}").into())
}

/// Skips a number with its length in bits (RFC 4880 section 3.2). Returns the rest.
fn skip_number(bytes: &[u8]) -> Option<&[u8]> {
    let (&bits, rest) = bytes.split_first_chunk::<2>()?;
    rest.get(usize::from(u16::from_be_bytes(bits)).div_ceil(8)..)
}

/// Skips octets with their number in the first one. Returns the rest.
fn skip_octets(bytes: &[u8]) -> Option<&[u8]> {
    let (&len, rest) = bytes.split_first()?;
    rest.get(usize::from(len)..)
}

/// Returns true if `bytes` begin with a recipient of version 6 (RFC 9580 section 5.1.2): none, or a version of key and
/// its fingerprint.
fn names_recipient_by_fingerprint(bytes: &[u8]) -> bool {
    matches!(bytes, [0, ..] | [21, 4, ..] | [33, 6, ..])
}

/// A session key encrypted to a passphrase, or derived from one.
#[derive(Debug)]
pub(super) struct PassphraseEsk {
    cipher: OpenPgpCipher,
    cipher_id: u8,
    s2k: StringToKey,
    sealed: SealedSessionKey,
}

#[derive(Debug)]
enum SealedSessionKey {
    /// The derived key is the session key.
    Derived,
    /// Version 4: cipher and session key in CFB mode.
    Cfb(Vec<u8>),
    /// Version 5: the session key in OCB mode; nonce, ciphertext, tag.
    Ocb([u8; 15], Vec<u8>, [u8; 16]),
}

impl PassphraseEsk {
    fn parse(body: &[u8]) -> Result<Self, UnusableEsk> {
        let (&version, rest) = body.split_first().ok_or(DAMAGED)?;
        match version {
            4 => Self::parse_v4(rest),
            5 => Self::parse_v5(rest),
            6 if is_v6(rest) => Err(UnusableEsk::Unsupported("a session key packet (3) of version 6".into())),
            _ => Err(DAMAGED),
        }
    }

    fn parse_v4(fields: &[u8]) -> Result<Self, UnusableEsk> {
        let (&cipher_id, rest) = fields.split_first().ok_or(DAMAGED)?;
        let cipher = OpenPgpCipher::from_id(cipher_id).ok_or(DAMAGED)?;
        let (s2k, esk) = parse_s2k(rest)?;
        let sealed = match esk.len() {
            0 => SealedSessionKey::Derived,
            // The number of a cipher and a key of it.
            17 | 25 | 33 => SealedSessionKey::Cfb(esk.to_vec()),
            _ => return Err(DAMAGED),
        };
        Ok(Self { cipher, cipher_id, s2k, sealed })
    }

    fn parse_v5(fields: &[u8]) -> Result<Self, UnusableEsk> {
        let (&[cipher_id, mode], rest) = fields.split_first_chunk::<2>().ok_or(DAMAGED)?;
        let cipher = OpenPgpCipher::from_id(cipher_id).filter(|cipher| cipher.block_len() == 16).ok_or(DAMAGED)?;
        let (s2k, rest) = parse_s2k(rest)?;
        let (rest, tag) = rest.split_last_chunk::<16>().ok_or(DAMAGED)?;
        let nonce_len = rest.len().checked_sub(cipher.key_len());
        match (mode, rest.split_first_chunk::<15>(), nonce_len) {
            (ocb_reader::OCB_MODE, Some((nonce, esk)), Some(15)) => {
                Ok(Self { cipher, cipher_id, s2k, sealed: SealedSessionKey::Ocb(*nonce, esk.to_vec(), *tag) })
            }
            (1, _, Some(16)) => Err(UnusableEsk::Unsupported("a session key encrypted in EAX mode".into())),
            (3, _, Some(12)) => Err(UnusableEsk::Unsupported("a session key encrypted in GCM mode".into())),
            _ => Err(DAMAGED),
        }
    }

    /// Returns the session key if `passphrase` is the right one. A packet of version 4 has no check: any passphrase may
    /// give a key, which [`super::preamble::Preamble::fits`] tests.
    pub(super) fn open(&self, passphrase: &[u8]) -> Option<SessionKey> {
        let key = self.s2k.derive(passphrase, self.cipher.key_len())?;
        match &self.sealed {
            SealedSessionKey::Derived => SessionKey::new(self.cipher, key),
            SealedSessionKey::Cfb(esk) => {
                let zero = [0; 16];
                let mut plain = Zeroizing::new(esk.clone());
                self.cipher.cfb(&key, zero.get(..self.cipher.block_len())?)?.decrypt(&mut plain);
                let (&cipher, key) = plain.split_first()?;
                SessionKey::from_parts(cipher, key)
            }
            SealedSessionKey::Ocb(iv, esk, tag) => {
                let mut plain = Zeroizing::new(esk.clone());
                let associated = [0xc0 | tag::SKESK, 5, self.cipher_id, ocb_reader::OCB_MODE];
                let opened = ocb_reader::ocb_decryptor(self.cipher, &key)?.open(iv, &associated, &mut plain, tag);
                if opened { SessionKey::new(self.cipher, plain) } else { None }
            }
        }
    }
}

/// Parses a specifier. Returns it and the rest.
fn parse_s2k(bytes: &[u8]) -> Result<(StringToKey, &[u8]), UnusableEsk> {
    match StringToKey::parse(bytes) {
        ParsedStringToKey::Supported(s2k, rest) => Ok((s2k, rest)),
        ParsedStringToKey::Argon2 => Err(UnusableEsk::Unsupported("a key derived by Argon2".into())),
        ParsedStringToKey::Damaged => Err(DAMAGED),
    }
}

/// Returns true if `bytes` are the fields of a packet 3 of version 6 (RFC 9580 section 5.3.2): the length of the fields
/// before the session key, a cipher, a mode, and a specifier with its length. The nonce of the mode, the session key and
/// a tag follow.
fn is_v6(bytes: &[u8]) -> bool {
    let &[fields_len, cipher_id, mode, s2k_len, ref rest @ ..] = bytes else { return false };
    let nonce_len = match mode {
        1 => 16,
        2 => 15,
        3 => 12,
        _ => return false,
    };
    let (fields_len, s2k_len) = (usize::from(fields_len), usize::from(s2k_len));
    fields_len == 3 + s2k_len + nonce_len
        && OpenPgpCipher::from_id(cipher_id)
            .is_some_and(|cipher| rest.len() == s2k_len + nonce_len + cipher.key_len() + 16)
}
