//! The packets ahead of the encrypted data of a message, and the header of the packet that holds the data.

use std::io;

use super::cfb_reader;
use super::layer::{LayerReader, read_up_to};
use super::object_context::ObjectContext;
use super::ocb_reader::OcbHeader;
use super::packet_body::PacketBody;
use super::packet_header::{PacketHeader, read_header, tag};
use super::session_key::SessionKey;
use super::session_key_packet::{EncryptedSessionKey, MAX_SESSION_KEY_PACKET, PassphraseEsk, PublicKeyEsk};

/// Upper bound of the session key packets of one object.
const MAX_SESSION_KEY_PACKETS: usize = 256;

/// The type of the packet that holds the encrypted data.
#[derive(Debug)]
pub(super) enum EncryptedPacket {
    /// Packet 18 of version 1: integrity by an MDC.
    WithMdc,
    /// Packet 9: no integrity.
    WithoutMdc,
    /// Packet 20.
    Ocb(OcbHeader),
}

/// Everything ahead of the ciphertext of an encrypted message.
#[derive(Debug)]
pub(super) struct Preamble {
    pub(super) session_keys: Vec<EncryptedSessionKey>,
    pub(super) packet: EncryptedPacket,
    /// The first bytes of the ciphertext.
    sample: Vec<u8>,
}

impl Preamble {
    /// Returns true if `key` decrypts the data, as far as their first bytes tell. The tags of packet 20 tell only while it
    /// is read.
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

    /// Returns true if the data are encrypted as PGP 2 did it: there is no session key packet, and the hash of the
    /// passphrase is the key.
    pub(super) fn is_old_style(&self) -> bool {
        self.session_keys.is_empty() && matches!(self.packet, EncryptedPacket::WithoutMdc)
    }
}

/// Reads everything ahead of the ciphertext from `source`. The returned body continues at the first byte of the
/// ciphertext.
///
/// # Errors
/// Damage (also for a message that is not encrypted), the refusal of unsupported forms, and the errors of `source`.
pub(super) fn read_preamble<'a>(
    ctx: &ObjectContext,
    mut source: LayerReader<'a>,
) -> io::Result<(Preamble, PacketBody<LayerReader<'a>>)> {
    let mut session_keys = Vec::new();
    loop {
        let header = read_header(ctx, &mut source)?.ok_or_else(|| ctx.damaged("it ends before the encrypted data"))?;
        match header.tag {
            tag::PKESK | tag::SKESK if session_keys.len() < MAX_SESSION_KEY_PACKETS => {
                let mut body = PacketBody::new(ctx, source, header.length);
                session_keys.push(EncryptedSessionKey::parse(header.tag, &body.all(MAX_SESSION_KEY_PACKET)?));
                source = body.into_source();
            }
            tag::MARKER => {
                let mut body = PacketBody::new(ctx, source, header.length);
                body.all(MAX_SESSION_KEY_PACKET)?;
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
            if version != [1] {
                let what = format!("encrypted data (packet 18) of version {}", version[0]);
                return Err(ctx.unsupported(what, "").into_io());
            }
            EncryptedPacket::WithMdc
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
