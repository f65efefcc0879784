//! Encrypted session keys: packets 1 (to a key) and 3 (to a passphrase), RFC 4880 sections 5.1 and 5.3; version 5 of
//! the latter from LibrePGP (draft-koch-librepgp section 5.3).

use std::fmt;
use std::io;

use sequoia_openpgp::packet::PKESK;
use sequoia_openpgp::parse::Parse;
use sequoia_openpgp::{KeyID, Packet};
use zeroize::Zeroizing;

use super::cfb;
use super::cipher::Cipher;
use super::frame::{Body, Header, read_header, tag};
use super::ocb::{self, OcbHeader};
use super::s2k::StringToKey;
use super::secret::Session;
use super::source::{Ctx, Source, take};

/// Longest session key packet; one for RSA with 16384 bits has 2 KiB.
const MAX_ESK: usize = 8 << 10;
/// Most session key packets of one object.
const MAX_ESKS: usize = 256;

/// A session key, encrypted.
#[derive(Debug)]
pub(super) enum Esk {
    /// To the key with this id; 0 if it is not told.
    Key(Box<PkEsk>),
    /// To a passphrase.
    Passphrase(SkEsk),
    /// Of a version or kind that gpg never writes for backups.
    Unknown,
}

/// A session key encrypted to a public key.
pub(super) struct PkEsk {
    /// The recipient's key id; `None` if hidden.
    pub(super) recipient: Option<KeyID>,
    /// The parsed packet.
    pub(super) packet: PKESK,
}

impl fmt::Debug for PkEsk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PkEsk({:?})", self.recipient)
    }
}

/// A session key encrypted to a passphrase, or derived from one.
#[derive(Debug)]
pub(super) struct SkEsk {
    cipher: Cipher,
    cipher_id: u8,
    s2k: StringToKey,
    sealed: Sealed,
}

#[derive(Debug)]
enum Sealed {
    /// The derived key is the session key.
    Derived,
    /// Version 4: cipher and session key in CFB mode.
    Cfb(Vec<u8>),
    /// Version 5: the session key in OCB mode; nonce, ciphertext, tag.
    Ocb([u8; 15], Vec<u8>, [u8; 16]),
}

/// What is encrypted and how, ahead of its bulk.
#[derive(Debug)]
pub(super) enum Bulk {
    /// Tag 18: integrity by MDC.
    Mdc,
    /// Tag 9: no integrity.
    Bare,
    /// Packet 20.
    Ocb(OcbHeader),
}

/// What precedes the bulk of an encrypted message.
#[derive(Debug)]
pub(super) struct Preamble {
    pub(super) esks: Vec<Esk>,
    pub(super) bulk: Bulk,
    /// The first bytes of the ciphertext.
    pub(super) sample: Vec<u8>,
}

impl Preamble {
    /// Whether `session` opens the bulk, as far as its first bytes tell; packet 20 tells by its tags only.
    pub(super) fn fits(&self, session: &Session) -> bool {
        match &self.bulk {
            Bulk::Mdc => cfb::fits(session, false, &self.sample),
            Bulk::Bare => cfb::fits(session, true, &self.sample),
            Bulk::Ocb(header) => header.cipher == session.cipher,
        }
    }

    /// The recipients told by the packets.
    pub(super) fn recipients(&self) -> impl Iterator<Item = &PkEsk> {
        self.esks.iter().filter_map(|esk| if let Esk::Key(key) = esk { Some(key.as_ref()) } else { None })
    }

    /// The packets that a passphrase opens.
    pub(super) fn passphrase_esks(&self) -> impl Iterator<Item = &SkEsk> {
        self.esks.iter().filter_map(|esk| if let Esk::Passphrase(sk) = esk { Some(sk) } else { None })
    }
}

/// Reads everything ahead of the ciphertext from `source`: the session keys, and the bulk's header and sample. The
/// returned body continues at the ciphertext's first byte.
///
/// # Errors
/// Damage (a message that is not encrypted included), refusal of unknown forms, and what `source` gives.
pub(super) fn read_preamble<'a>(ctx: &Ctx, mut source: Source<'a>) -> io::Result<(Preamble, Body<Source<'a>>)> {
    let mut esks = Vec::new();
    loop {
        let header = read_header(ctx, &mut source)?.ok_or_else(|| ctx.damaged("ends before the encrypted data"))?;
        match header.tag {
            tag::PKESK | tag::SKESK if esks.len() < MAX_ESKS => {
                let mut body = Body::new(ctx, source, header.length);
                let bytes = body.all(MAX_ESK)?;
                esks.push(if header.tag == tag::PKESK { parse_pkesk(&bytes) } else { parse_skesk(&bytes) });
                source = body.into_source();
            }
            tag::MARKER => {
                let mut body = Body::new(ctx, source, header.length);
                body.all(MAX_ESK)?;
                source = body.into_source();
            }
            tag::SEIPD | tag::SED | tag::OCB => return read_bulk(ctx, source, header, esks),
            tag::COMPRESSED | tag::LITERAL | tag::ONE_PASS | tag::SIGNATURE => {
                return Err(ctx.damaged("it is an OpenPGP message that is not encrypted"));
            }
            other => return Err(ctx.damaged(format!("OpenPGP packet {other} where encrypted data must be"))),
        }
    }
}

fn read_bulk<'a>(
    ctx: &Ctx,
    source: Source<'a>,
    header: Header,
    esks: Vec<Esk>,
) -> io::Result<(Preamble, Body<Source<'a>>)> {
    let mut body = Body::new(ctx, source, header.length);
    let bulk = match header.tag {
        tag::SEIPD => {
            let mut version = [0];
            body.exactly(&mut version)?;
            if version != [1] {
                let what = format!("encrypted data (packet 18) of version {}", version[0]);
                return Err(ctx.unsupported(what, "").into_io());
            }
            Bulk::Mdc
        }
        tag::OCB => Bulk::Ocb(OcbHeader::read(ctx, &mut body)?),
        _ => Bulk::Bare,
    };
    let sample = match bulk {
        Bulk::Ocb(_) => Vec::new(),
        Bulk::Mdc | Bulk::Bare => take(&mut body, cfb::SAMPLE)?,
    };
    let body = body.unread(sample.clone());
    Ok((Preamble { esks, bulk, sample }, body))
}

fn parse_pkesk(bytes: &[u8]) -> Esk {
    let Ok(len) = u32::try_from(bytes.len()) else { return Esk::Unknown };
    let packet = [&[0xc0 | tag::PKESK, 0xff][..], &len.to_be_bytes(), bytes].concat();
    match Packet::from_bytes(&packet) {
        Ok(Packet::PKESK(packet @ PKESK::V3(_))) => {
            let recipient = match &packet {
                PKESK::V3(v3) => v3.recipient().filter(|id| !id.is_wildcard()).cloned(),
                _ => None,
            };
            Esk::Key(Box::new(PkEsk { recipient, packet }))
        }
        _ => Esk::Unknown,
    }
}

fn parse_skesk(bytes: &[u8]) -> Esk {
    skesk(bytes).map_or(Esk::Unknown, Esk::Passphrase)
}

fn skesk(bytes: &[u8]) -> Option<SkEsk> {
    let (&[version, cipher_id], rest) = bytes.split_first_chunk::<2>()?;
    let cipher = Cipher::from_id(cipher_id)?;
    let (s2k, sealed) = match version {
        4 => {
            let (s2k, used) = StringToKey::parse(rest)?;
            let esk = rest.get(used..)?;
            (s2k, if esk.is_empty() { Sealed::Derived } else { Sealed::Cfb(esk.to_vec()) })
        }
        5 => {
            let (&mode, rest) = rest.split_first()?;
            let (s2k, used) = StringToKey::parse(rest)?;
            let (iv, rest) = rest.get(used..)?.split_first_chunk::<15>()?;
            let (esk, tag) = rest.split_last_chunk::<16>()?;
            if mode != 2 {
                return None;
            }
            (s2k, Sealed::Ocb(*iv, esk.to_vec(), *tag))
        }
        _ => return None,
    };
    Some(SkEsk { cipher, cipher_id, s2k, sealed })
}

impl SkEsk {
    /// The session key if `passphrase` is the right one; where the packet has no check of its own (version 4) any
    /// passphrase gives one, which [`Preamble::fits`] has to judge.
    pub(super) fn open(&self, passphrase: &[u8]) -> Option<Session> {
        let key = self.s2k.derive(passphrase, self.cipher.key_len())?;
        match &self.sealed {
            Sealed::Derived => Some(Session { cipher: self.cipher_id, key }),
            Sealed::Cfb(esk) => {
                let zero = [0; 16];
                let mut plain = Zeroizing::new(esk.clone());
                self.cipher.cfb(&key, zero.get(..self.cipher.block_len())?)?.decrypt(&mut plain);
                let (&cipher, key) = plain.split_first()?;
                checked(cipher, key)
            }
            Sealed::Ocb(iv, esk, tag) => {
                let mut plain = Zeroizing::new(esk.clone());
                let associated = [0xc0 | tag::SKESK, 5, self.cipher_id, 2];
                let opened = ocb::opener(self.cipher, &key)?.open(iv, &associated, &mut plain, tag);
                if opened { checked(self.cipher_id, &plain) } else { None }
            }
        }
    }
}

/// A session if `key` can be one of `cipher`.
pub(super) fn checked(cipher: u8, key: &[u8]) -> Option<Session> {
    let fits = Cipher::from_id(cipher).is_some_and(|known| known.key_len() == key.len());
    fits.then(|| Session { cipher, key: Zeroizing::new(key.to_vec()) })
}
