//! The packets before the encrypted data of a message, and the header of the packet with the data.

use std::io;

use super::cfb_reader;
use super::error::CodecError;
use super::layer::{LayerReader, read_up_to};
use super::object_context::ObjectContext;
use super::ocb_reader::OcbHeader;
use super::openpgp_cipher::OpenPgpCipher;
use super::packet_body::PacketBody;
use super::packet_header::{PacketHeader, PacketLength, read_header, tag};
use super::session_key::SessionKey;
use super::session_key_packet::{EncryptedSessionKey, MAX_SESSION_KEY_PACKET, PassphraseEsk, PublicKeyEsk};

/// Upper bound of the session key packets of one object.
const MAX_SESSION_KEY_PACKETS: usize = 256;

/// Upper bound of those that a passphrase opens; gpg writes one. Each takes up to half a second for each passphrase
/// that is tried.
const MAX_PASSPHRASE_PACKETS: usize = 16;

/// The type of the packet with the encrypted data.
#[derive(Debug)]
pub(super) enum EncryptedPacket {
    /// Packet 18 of version 1: integrity by an MDC.
    WithMdc,
    /// Packet 9: no integrity.
    WithoutMdc,
    /// Packet 20.
    Ocb(OcbHeader),
}

/// Everything before the ciphertext of an encrypted message.
#[derive(Debug)]
pub(super) struct Preamble {
    pub(super) session_keys: Vec<EncryptedSessionKey>,
    pub(super) packet: EncryptedPacket,
    /// The first bytes of the ciphertext.
    sample: Vec<u8>,
}

impl Preamble {
    /// Returns true if `key` decrypts the data, as far as their first bytes show. The tags of packet 20 show it only
    /// while it is read.
    pub(super) fn fits(&self, key: &SessionKey) -> bool {
        match &self.packet {
            EncryptedPacket::WithMdc => cfb_reader::fits(key, false, &self.sample),
            EncryptedPacket::WithoutMdc => cfb_reader::fits(key, true, &self.sample),
            EncryptedPacket::Ocb(header) => header.fits(key),
        }
    }

    /// Returns the session keys that are encrypted to public keys.
    pub(super) fn public_key_esks(&self) -> impl Iterator<Item = &PublicKeyEsk> {
        self.session_keys
            .iter()
            .filter_map(|esk| if let EncryptedSessionKey::PublicKey(key) = esk { Some(key.as_ref()) } else { None })
    }

    /// Returns the session keys that a passphrase opens.
    pub(super) fn passphrase_esks(&self) -> impl Iterator<Item = &PassphraseEsk> {
        self.session_keys
            .iter()
            .filter_map(|esk| if let EncryptedSessionKey::Passphrase(sk) = esk { Some(sk) } else { None })
    }

    /// Returns the damage in the packets with the session key, if there is any.
    pub(super) fn damage(&self) -> Option<&'static str> {
        self.session_keys
            .iter()
            .find_map(|esk| if let EncryptedSessionKey::Damaged(what) = esk { Some(*what) } else { None })
    }

    /// Checks that there is a session key that a key or passphrase could open.
    ///
    /// # Errors
    /// Damage, or the refusal of forms that are not supported.
    pub(super) fn check(&self, ctx: &ObjectContext) -> Result<(), CodecError> {
        if self.public_key_esks().next().is_some() || self.passphrase_esks().next().is_some() || self.is_old_style() {
            return Ok(());
        }
        if let Some(what) = self.damage() {
            return Err(ctx.damage(what));
        }
        let unsupported = self.session_keys.iter().find_map(|esk| match esk {
            EncryptedSessionKey::Unsupported(what) => Some(what.clone()),
            _ => None,
        });
        Err(match unsupported {
            Some(what) => {
                ctx.unsupported(what, "; decrypt the files with a program that supports it and mount the result")
            }
            None => ctx.damage("no packet with a session key precedes the encrypted data"),
        })
    }

    /// Returns true if the data are encrypted as PGP 2 did it: there is no session key packet, and the hash of the
    /// passphrase is the key.
    pub(super) fn is_old_style(&self) -> bool {
        self.session_keys.is_empty() && matches!(self.packet, EncryptedPacket::WithoutMdc)
    }
}

/// Reads everything before the ciphertext from `source`. The returned body continues at the first byte of the
/// ciphertext.
///
/// # Errors
/// Damage (also for a message that is not encrypted), the refusal of unsupported forms, and the errors of `source`.
pub(super) fn read_preamble<'a>(
    ctx: &ObjectContext,
    mut source: LayerReader<'a>,
) -> io::Result<(Preamble, PacketBody<LayerReader<'a>>)> {
    let mut session_keys = Vec::new();
    let mut by_passphrase = 0;
    loop {
        let header =
            read_header(ctx, &mut source)?.ok_or_else(|| ctx.damaged("truncated before the encrypted data"))?;
        match header.tag {
            tag::PKESK | tag::SKESK if session_keys.len() < MAX_SESSION_KEY_PACKETS => {
                let mut body = small_packet(ctx, source, header)?;
                session_keys.push(EncryptedSessionKey::parse(header.tag, &body.all(MAX_SESSION_KEY_PACKET)?));
                by_passphrase += usize::from(header.tag == tag::SKESK);
                if by_passphrase > MAX_PASSPHRASE_PACKETS {
                    return Err(ctx.damaged(format!("more than {MAX_PASSPHRASE_PACKETS} session keys for passphrases")));
                }
                source = body.into_source();
            }
            tag::MARKER => {
                let mut body = small_packet(ctx, source, header)?;
                if body.all(MAX_SESSION_KEY_PACKET)? != b"PGP" {
                    return Err(ctx.damaged("a marker packet with other contents"));
                }
                source = body.into_source();
            }
            tag::SEIPD | tag::SED | tag::OCB => return read_encrypted_packet(ctx, source, header, session_keys),
            tag::COMPRESSED | tag::LITERAL | tag::ONE_PASS | tag::SIGNATURE => {
                return Err(ctx.damaged("it is an OpenPGP message that is not encrypted"));
            }
            other => return Err(ctx.damaged(format!("OpenPGP packet {other} where encrypted data must be"))),
        }
    }
}

/// Returns the body of a packet that is no data, and therefore has a fixed length (RFC 4880 section 4.2.2.4).
fn small_packet<'a>(
    ctx: &ObjectContext,
    source: LayerReader<'a>,
    header: PacketHeader,
) -> io::Result<PacketBody<LayerReader<'a>>> {
    match header.length {
        PacketLength::Fixed(_) => Ok(PacketBody::new(ctx, source, header.length)),
        PacketLength::Partial(_) | PacketLength::Indeterminate => {
            Err(ctx.damaged("a packet before the encrypted data has no fixed length"))
        }
    }
}

fn read_encrypted_packet<'a>(
    ctx: &ObjectContext,
    source: LayerReader<'a>,
    header: PacketHeader,
    session_keys: Vec<EncryptedSessionKey>,
) -> io::Result<(Preamble, PacketBody<LayerReader<'a>>)> {
    let mut body = PacketBody::new(ctx, source, header.length);
    let packet = match header.tag {
        tag::SEIPD => {
            let mut version = [0];
            body.exactly(&mut version)?;
            match version {
                [1] => EncryptedPacket::WithMdc,
                [2] => return Err(refuse_seipd_v2(ctx, &mut body)?),
                _ => return Err(ctx.damaged("encrypted data (packet 18) of a version that does not exist")),
            }
        }
        tag::OCB => EncryptedPacket::Ocb(OcbHeader::read(ctx, &mut body)?),
        _ => EncryptedPacket::WithoutMdc,
    };
    let sample = match packet {
        EncryptedPacket::Ocb(_) => Vec::new(),
        EncryptedPacket::WithMdc | EncryptedPacket::WithoutMdc => read_up_to(&mut body, cfb_reader::SAMPLE_BYTES)?,
    };
    let body = body.unread(sample.clone());
    Ok((Preamble { session_keys, packet, sample }, body))
}

/// Reads the fields of version 2 of packet 18 (RFC 9580 section 5.13.2). Returns the refusal of that form, or damage if it
/// is not that form either.
fn refuse_seipd_v2(ctx: &ObjectContext, body: &mut PacketBody<LayerReader<'_>>) -> io::Result<io::Error> {
    let mut fields = [0; 3];
    body.exactly(&mut fields)?;
    let [cipher, mode, chunk_octet] = fields;
    if OpenPgpCipher::from_id(cipher).is_none() || !(1..=3).contains(&mode) || chunk_octet > 16 {
        return Ok(ctx.damaged("the header of the encrypted data (packet 18) is malformed"));
    }
    let remedy = "; decrypt the files with a program that supports it and mount the result";
    Ok(ctx.unsupported("encrypted data (packet 18) of version 2", remedy).into_io())
}
