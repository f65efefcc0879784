//! Encrypted session keys: packets 1 (to a public key) and 3 (to a passphrase), RFC 4880 sections 5.1 and 5.3. Version 5
//! of the latter is from LibrePGP (draft-koch-librepgp section 5.3).

use std::fmt;

use sequoia_openpgp::packet::PKESK;
use sequoia_openpgp::parse::Parse;
use sequoia_openpgp::{KeyID, Packet};
use zeroize::Zeroizing;

use super::ocb_reader;
use super::openpgp_cipher::OpenPgpCipher;
use super::packet_header::tag;
use super::session_key::SessionKey;
use super::string_to_key::StringToKey;

/// Upper bound of the length of a session key packet; one for RSA with 16384 bits has 2 KiB.
pub(super) const MAX_SESSION_KEY_PACKET: usize = 8 << 10;

/// An encrypted session key.
#[derive(Debug)]
pub(super) enum EncryptedSessionKey {
    /// Encrypted to a public key.
    PublicKey(Box<PublicKeyEsk>),
    /// Encrypted to a passphrase, or derived from one.
    Passphrase(PassphraseEsk),
    /// Of a version or algorithm that gpg never writes for backups.
    Unknown,
}

impl EncryptedSessionKey {
    /// Parses the body of a session key packet with `packet_tag`.
    pub(super) fn parse(packet_tag: u8, body: &[u8]) -> Self {
        if packet_tag == tag::PKESK {
            PublicKeyEsk::parse(body).map_or(Self::Unknown, |esk| Self::PublicKey(Box::new(esk)))
        } else {
            PassphraseEsk::parse(body).map_or(Self::Unknown, Self::Passphrase)
        }
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
    fn parse(body: &[u8]) -> Option<Self> {
        let len = u32::try_from(body.len()).ok()?;
        let bytes = [&[0xc0 | tag::PKESK, 0xff][..], &len.to_be_bytes(), body].concat();
        let Ok(Packet::PKESK(PKESK::V3(packet))) = Packet::from_bytes(&bytes) else { return None };
        let recipient = packet.recipient().filter(|id| !id.is_wildcard()).cloned();
        Some(Self { recipient, packet: packet.into() })
    }
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
    fn parse(body: &[u8]) -> Option<Self> {
        let (&[version, cipher_id], rest) = body.split_first_chunk::<2>()?;
        let cipher = OpenPgpCipher::from_id(cipher_id)?;
        let (s2k, sealed) = match version {
            4 => {
                let (s2k, used) = StringToKey::parse(rest)?;
                let esk = rest.get(used..)?;
                let sealed =
                    if esk.is_empty() { SealedSessionKey::Derived } else { SealedSessionKey::Cfb(esk.to_vec()) };
                (s2k, sealed)
            }
            5 => {
                let (&mode, rest) = rest.split_first()?;
                let (s2k, used) = StringToKey::parse(rest)?;
                let (iv, rest) = rest.get(used..)?.split_first_chunk::<15>()?;
                let (esk, tag) = rest.split_last_chunk::<16>()?;
                if mode != ocb_reader::OCB_MODE {
                    return None;
                }
                (s2k, SealedSessionKey::Ocb(*iv, esk.to_vec(), *tag))
            }
            _ => return None,
        };
        Some(Self { cipher, cipher_id, s2k, sealed })
    }

    /// Returns the session key if `passphrase` is the right one. A packet of version 4 has no check of its own: any
    /// passphrase may give a key, which [`super::preamble::Preamble::fits`] judges.
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
