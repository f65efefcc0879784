//! `--sign-key`: every object must carry a good signature of one key.

use std::io;
use std::path::Path;
use std::sync::Arc;

use sequoia_openpgp::Packet;
use sequoia_openpgp::crypto::hash::Context;
use sequoia_openpgp::packet::key::{PublicParts, UnspecifiedRole};
use sequoia_openpgp::packet::{Key, Signature};
use sequoia_openpgp::parse::Parse;
use sequoia_openpgp::types::{HashAlgorithm, SignatureType};

use super::error::CodecError;
use super::frame::tag;
use super::pk::{key_file, read_packets};
use super::source::Ctx;
use dupfs_base::ErrorKind;

/// The key that must have signed, with its public parts: the primary key and the subkeys of its certificate. Expiry and
/// revocation are not looked at: old backups stay restorable.
#[derive(Clone, Debug)]
pub struct Signer {
    name: Arc<str>,
    keys: Arc<[Key<PublicParts, UnspecifiedRole>]>,
}

impl Signer {
    /// What tells this signer from others.
    pub(super) fn fingerprints(&self) -> Vec<u8> {
        self.keys.iter().flat_map(|key| key.fingerprint().as_bytes().to_vec()).collect()
    }

    /// The signer `key_id` (8 to 40 hexadecimal digits, `0x` allowed) whose public key is in the file `verify_key`.
    ///
    /// # Errors
    /// [`CodecError::KeyFile`] when the file cannot be read, the id is none, or the file does not hold that key.
    pub fn load(key_id: &str, verify_key: &Path) -> Result<Self, CodecError> {
        let wanted = key_id.trim_end_matches('!').trim_start_matches("0x").to_ascii_uppercase();
        if wanted.len() < 8 || !wanted.bytes().all(|b| b.is_ascii_hexdigit()) {
            let reason = format!("--sign-key {key_id} is no key id: give 8 to 40 hexadecimal digits");
            return Err(key_file(verify_key, ErrorKind::Invalid, reason));
        }
        let mut certificates: Vec<Vec<Key<PublicParts, UnspecifiedRole>>> = Vec::new();
        for packet in read_packets(verify_key)? {
            let (primary, key) = match packet {
                Packet::PublicKey(key) => (true, key.role_into_unspecified()),
                Packet::SecretKey(key) => (true, key.parts_into_public().role_into_unspecified()),
                Packet::PublicSubkey(key) => (false, key.role_into_unspecified()),
                Packet::SecretSubkey(key) => (false, key.parts_into_public().role_into_unspecified()),
                _ => continue,
            };
            match certificates.last_mut() {
                Some(certificate) if !primary => certificate.push(key),
                _ => certificates.push(vec![key]),
            }
        }
        let is_wanted = |key: &Key<PublicParts, UnspecifiedRole>| key.fingerprint().to_hex().ends_with(&wanted);
        match certificates.into_iter().find(|certificate| certificate.iter().any(is_wanted)) {
            Some(keys) => Ok(Self { name: format!("0x{wanted}").into(), keys: keys.into() }),
            None => Err(key_file(
                verify_key,
                ErrorKind::KeyMissing,
                format!("does not hold the key {key_id}; export it: gpg --armor --export {key_id}"),
            )),
        }
    }

    /// Why an object is refused.
    pub(super) fn refuse(&self, ctx: &Ctx, what: &'static str) -> CodecError {
        CodecError::NotSigned { object: ctx.object.clone(), what: what.into(), key: self.name.clone() }
    }
}

/// Longest signature packet; notations may make one long.
pub(super) const MAX_SIGNATURE: usize = 64 << 10;
/// Most signatures of one object that are looked at.
const MAX_SIGNATURES: usize = 16;

/// Checks the signatures of one object against the required signer.
pub(super) struct Verifier {
    signer: Signer,
    contexts: Vec<(HashAlgorithm, Context)>,
    verified: bool,
}

impl Verifier {
    pub(super) fn new(signer: &Signer) -> Self {
        Self { signer: signer.clone(), contexts: Vec::new(), verified: false }
    }

    /// A one-pass signature packet ahead of the data: says which hash is needed. Signatures without one (PGP 2, gpg 1.4
    /// with --rfc1991) are not checked, so an object with no other is refused.
    pub(super) fn one_pass(&mut self, body: &[u8]) {
        let &[3, 0, hash, ..] = body else { return };
        let hash = HashAlgorithm::from(hash);
        let fresh = self.contexts.len() < MAX_SIGNATURES && self.contexts.iter().all(|(known, _)| *known != hash);
        if let Some(builder) = hash.context().ok().filter(|_| fresh) {
            self.contexts.push((hash, builder.for_signature(4)));
        }
    }

    /// The next bytes of the data.
    pub(super) fn update(&mut self, bytes: &[u8]) {
        for (_, context) in &mut self.contexts {
            context.update(bytes);
        }
    }

    /// A signature packet behind the data.
    pub(super) fn trailing(&mut self, body: &[u8]) {
        if let Some(signature) = parse(body) {
            self.check(&signature);
        }
    }

    fn check(&mut self, signature: &Signature) {
        let context = self.contexts.iter().find(|(hash, _)| *hash == signature.hash_algo());
        let Some((_, context)) = context.filter(|_| signature.typ() == SignatureType::Binary) else { return };
        // Only keys that the signature names, or all if it names none: each attempt costs a public key operation.
        let issuers = signature.get_issuers();
        let named = |key: &&Key<_, _>| issuers.is_empty() || issuers.iter().any(|id| id.aliases(key.key_handle()));
        let good = |key: &Key<PublicParts, UnspecifiedRole>| signature.verify_hash(key, context.clone()).is_ok();
        self.verified |= self.signer.keys.iter().filter(named).any(good);
    }

    /// At the end of the message.
    ///
    /// # Errors
    /// [`CodecError::NotSigned`] unless a good signature of the required key was seen.
    pub(super) fn finish(&self, ctx: &Ctx) -> io::Result<()> {
        if self.verified {
            return Ok(());
        }
        let what =
            if self.contexts.is_empty() { "it is not signed" } else { "it has no good signature of the right key" };
        Err(self.signer.refuse(ctx, what).into_io())
    }
}

fn parse(body: &[u8]) -> Option<Signature> {
    let len = u32::try_from(body.len()).ok()?;
    let packet = [&[0xc0 | tag::SIGNATURE, 0xff][..], &len.to_be_bytes(), body].concat();
    match Packet::from_bytes(&packet) {
        Ok(Packet::Signature(signature)) => Some(signature),
        _ => None,
    }
}
