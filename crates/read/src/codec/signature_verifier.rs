//! The check of the signatures of one object.

use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

use sequoia_openpgp::Packet;
use sequoia_openpgp::crypto::hash::Context;
use sequoia_openpgp::packet::key::{PublicParts, UnspecifiedRole};
use sequoia_openpgp::packet::{Key, Signature};
use sequoia_openpgp::parse::Parse;
use sequoia_openpgp::types::{HashAlgorithm, SignatureType};

use super::error::CodecError;
use super::object_context::ObjectContext;
use super::packet_header::tag;
use super::signer::Signer;
use super::written_time;
use dupfs_format::BackupTime;

/// Upper bound of the length of a signature packet; notations may make one long.
pub(super) const MAX_SIGNATURE: usize = 64 << 10;
/// Upper bound of the signatures of one object that are checked.
const MAX_SIGNATURES: usize = 16;

/// Checks the signatures of one object against the required signer.
pub(super) struct SignatureVerifier {
    signer: Signer,
    contexts: Vec<(HashAlgorithm, Context)>,
    verified: bool,
    /// The time of the newest good signature, if it states one.
    signed_at: Option<SystemTime>,
}

impl SignatureVerifier {
    pub(super) fn new(signer: &Signer) -> Self {
        Self { signer: signer.clone(), contexts: Vec::new(), verified: false, signed_at: None }
    }

    /// Processes a one-pass signature packet before the data, which names the hash. Signatures without one (PGP 2, gpg 1.4
    /// with --rfc1991) are not checked, so an object with no other is refused.
    pub(super) fn one_pass(&mut self, body: &[u8]) {
        let &[3, 0, hash, ..] = body else { return };
        let hash = HashAlgorithm::from(hash);
        let fresh = self.contexts.len() < MAX_SIGNATURES && self.contexts.iter().all(|(other, _)| *other != hash);
        if let Some(builder) = hash.context().ok().filter(|_| fresh) {
            self.contexts.push((hash, builder.for_signature(4)));
        }
    }

    /// Hashes the next bytes of the data.
    pub(super) fn update(&mut self, bytes: &[u8]) {
        for (_, context) in &mut self.contexts {
            context.update(bytes);
        }
    }

    /// Checks a signature packet after the data.
    pub(super) fn trailing(&mut self, body: &[u8]) {
        if let Some(signature) = parse(body) {
            self.check(&signature);
        }
    }

    fn check(&mut self, signature: &Signature) {
        let context = self.contexts.iter().find(|(hash, _)| *hash == signature.hash_algo());
        let Some((_, context)) = context.filter(|_| signature.typ() == SignatureType::Binary) else { return };
        // Only the keys that the signature names, or all if it names none, because each attempt costs a public key
        // operation.
        let issuers = signature.get_issuers();
        let named = |key: &&Key<_, _>| issuers.is_empty() || issuers.iter().any(|id| id.aliases(key.key_handle()));
        let good = |key: &Key<PublicParts, UnspecifiedRole>| signature.verify_hash(key, context.clone()).is_ok();
        if self.signer.keys.iter().filter(named).any(good) {
            self.verified = true;
            self.signed_at = self.signed_at.max(signature.signature_creation_time());
        }
    }

    /// Checks at the end of the message that a good signature was seen, and that it is not older than the object's set.
    /// Returns the time of the signature, if it states one.
    ///
    /// # Errors
    /// [`CodecError::NotSigned`] unless a good signature of the required key was seen; [`CodecError::Backdated`].
    pub(super) fn finish(&self, ctx: &ObjectContext) -> io::Result<Option<BackupTime>> {
        if self.verified {
            let signed_at = self.signed_at.and_then(|at| at.duration_since(UNIX_EPOCH).ok());
            let seconds = signed_at.and_then(|since| i64::try_from(since.as_secs()).ok());
            let Some(signed) = seconds.map(BackupTime) else { return Ok(None) };
            written_time::refuse(ctx, signed).map_err(CodecError::into_io)?;
            return Ok(Some(signed));
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use sequoia_openpgp::crypto::KeyPair;
    use sequoia_openpgp::packet::key::{Key4, PrimaryRole, SecretParts};
    use sequoia_openpgp::packet::signature::SignatureBuilder;
    use sequoia_openpgp::serialize::MarshalInto;
    use sequoia_openpgp::types::Curve;

    use super::super::dated_name::DatedName;
    use super::*;

    const CONTENT: &[u8] = b"the list of volumes";
    const SIGNED: i64 = 1_700_000_000;

    fn pair() -> KeyPair {
        let mut key = Key4::<SecretParts, PrimaryRole>::generate_ecc(true, Curve::Ed25519).unwrap();
        // A signature that is older than its key is bad.
        key.set_creation_time(UNIX_EPOCH).unwrap();
        Key::from(key).role_into_unspecified().into_keypair().unwrap()
    }

    /// The body of a signature of [`CONTENT`] that was made at `time`.
    fn signature(pair: &mut KeyPair, time: i64) -> Vec<u8> {
        let time = UNIX_EPOCH + Duration::from_secs(u64::try_from(time).unwrap());
        let builder = SignatureBuilder::new(SignatureType::Binary).set_hash_algo(HashAlgorithm::SHA512);
        let builder = builder.set_signature_creation_time(time).unwrap();
        builder.sign_message(pair, CONTENT).unwrap().to_vec().unwrap()
    }

    /// The result for `content` with `signatures`, in an object of a set of `set_time`, if `pair` must have signed it.
    fn checked(pair: &KeyPair, content: &[u8], signatures: &[Vec<u8>], set_time: i64) -> Result<(), String> {
        let mut verifier = SignatureVerifier::new(&Signer::with_key(pair.public().clone()));
        signatures.iter().for_each(|_| verifier.one_pass(&[3, 0, HashAlgorithm::SHA512.into(), 22]));
        content.chunks(5).for_each(|piece| verifier.update(piece));
        signatures.iter().for_each(|signature| verifier.trailing(signature));
        let ctx =
            ObjectContext::new(DatedName { name: "x", set_time: Some(BackupTime(set_time)), records_time: false });
        verifier.finish(&ctx).map(drop).map_err(|error| error.to_string())
    }

    #[test]
    fn a_signature_may_be_a_day_older_than_the_set_of_its_object() {
        let mut pair = pair();
        let old = signature(&mut pair, SIGNED);
        for set_time in [SIGNED - 500 * 86_400, SIGNED, SIGNED + 86_400] {
            assert_eq!(checked(&pair, CONTENT, std::slice::from_ref(&old), set_time), Ok(()), "{set_time}");
        }
        let refused = checked(&pair, CONTENT, std::slice::from_ref(&old), SIGNED + 86_401).unwrap_err();
        assert!(refused.contains("written at 20231114T221320Z"), "{refused}");
        // The newest good signature counts.
        let newer = signature(&mut pair, SIGNED + 10);
        assert_eq!(checked(&pair, CONTENT, &[newer, old], SIGNED + 86_401), Ok(()));
    }

    #[test]
    fn other_content_other_keys_and_missing_signatures_are_refused() {
        let (mut owner, mut other) = (pair(), pair());
        let (good, bad) = (signature(&mut owner, SIGNED), signature(&mut other, SIGNED));
        let refused = |content: &[u8], signatures: &[&[u8]]| {
            let signatures: Vec<Vec<u8>> = signatures.iter().map(|signature| signature.to_vec()).collect();
            checked(&owner, content, &signatures, SIGNED).unwrap_err()
        };
        assert!(refused(CONTENT, &[]).contains("it is not signed"));
        let unproven = "it has no good signature";
        assert!(refused(CONTENT, &[&bad]).contains(unproven));
        assert!(refused(b"the list of volume", &[&good]).contains(unproven));
        assert!(refused(CONTENT, &[b"no signature"]).contains(unproven));
        assert_eq!(checked(&owner, CONTENT, &[bad, good], SIGNED), Ok(()));
    }
}
