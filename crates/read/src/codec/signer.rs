//! The key that must have signed every object (`--sign-key`).

use std::path::Path;
use std::sync::Arc;

use sequoia_openpgp::Packet;
use sequoia_openpgp::packet::Key;
use sequoia_openpgp::packet::key::{PublicParts, UnspecifiedRole};

use super::error::CodecError;
use super::key_file::{key_file_error, read_packets};
use super::key_id::KeyId;
use super::object_context::ObjectContext;
use dupfs_base::ErrorKind;

/// The key that must have signed every object: the public parts of the primary key and the subkeys of its certificate.
/// Expiry and revocation are ignored, so that old backups stay restorable.
#[derive(Clone, Debug)]
pub struct Signer {
    name: Arc<str>,
    pub(super) keys: Arc<[Key<PublicParts, UnspecifiedRole>]>,
}

impl Signer {
    /// Returns the fingerprints of its keys, which identify this signer.
    pub(super) fn fingerprints(&self) -> Vec<u8> {
        self.keys.iter().flat_map(|key| key.fingerprint().as_bytes().to_vec()).collect()
    }

    /// Loads the signer `key_id`, whose public key is in the file `verify_key`.
    ///
    /// # Errors
    /// [`CodecError::KeyFile`] when the file cannot be read, or does not contain that key.
    pub fn load(key_id: &KeyId, verify_key: &Path) -> Result<Self, CodecError> {
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
        let is_wanted = |key: &Key<PublicParts, UnspecifiedRole>| key.fingerprint().to_hex().ends_with(key_id.digits());
        match certificates.into_iter().find(|certificate| certificate.iter().any(is_wanted)) {
            Some(keys) => Ok(Self { name: format!("0x{key_id}").into(), keys: keys.into() }),
            None => Err(key_file_error(
                verify_key,
                ErrorKind::KeyMissing,
                format!("does not contain the key {key_id}; export it: gpg --armor --export {key_id}"),
            )),
        }
    }

    /// The signer with this key alone.
    pub(super) fn with_key(key: Key<PublicParts, UnspecifiedRole>) -> Self {
        Self { name: format!("0x{}", key.keyid()).into(), keys: Arc::new([key]) }
    }

    /// Returns the error for an object that this signer did not sign; `what` was found instead.
    pub(super) fn refuse(&self, ctx: &ObjectContext, what: &'static str) -> CodecError {
        CodecError::NotSigned { object: ctx.object.clone(), what: what.into(), key: self.name.clone() }
    }
}
