//! The keys, passphrases and the gpg that open objects.

use std::fmt;
use std::path::PathBuf;

use super::error::CodecError;
use super::object_context::ObjectContext;
use super::passphrase_list::{PassphraseList, PassphrasePrompt};
use super::preamble::Preamble;
use super::secret_key::{self, SecretKey};
use super::session_key::SessionKey;
use super::session_key_cache::SessionKeyCache;
use super::session_key_search::SessionKeySearch;
use super::user_gpg::{GpgOptions, UserGpg};
use dupfs_base::Secret;

/// The sources of keys and passphrases.
#[derive(Default)]
pub struct KeyOptions {
    /// Files of exported secret keys, armoured or binary, each with one key or several.
    pub secret_keys: Vec<PathBuf>,
    /// Passphrases, tried in this order on keys and on objects.
    pub passphrases: Vec<Secret>,
    /// The prompt for more passphrases: used at most three times for a key or object, never again after `None`.
    pub ask: Option<PassphrasePrompt>,
    /// The user's gpg, which gives session keys when nothing else opens an object. `None`: never.
    pub gpg: Option<GpgOptions>,
}

impl fmt::Debug for KeyOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyOptions")
            .field("secret_keys", &self.secret_keys)
            .field("passphrases", &self.passphrases.len())
            .field("ask", &self.ask.is_some())
            .field("gpg", &self.gpg)
            .finish()
    }
}

/// Keys and passphrases, and the session keys found with them, all in memory only.
pub struct Keys {
    secret_keys: Vec<SecretKey>,
    passphrases: PassphraseList,
    gpg: Option<UserGpg>,
    session_keys: SessionKeyCache,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").field("secret_keys", &self.secret_keys).field("gpg", &self.gpg).finish_non_exhaustive()
    }
}

impl Keys {
    /// Reads the key files, without unlocking them or prompting.
    ///
    /// # Errors
    /// [`CodecError::KeyFile`] for a file that cannot be read or contains no secret key for decryption.
    pub fn load(options: KeyOptions) -> Result<Self, CodecError> {
        let mut secret_keys = Vec::new();
        for path in &options.secret_keys {
            secret_keys.extend(secret_key::load(path)?);
        }
        Ok(Self {
            secret_keys,
            passphrases: PassphraseList::new(options.passphrases, options.ask),
            gpg: options.gpg.map(UserGpg::new),
            session_keys: SessionKeyCache::default(),
        })
    }

    /// Returns the session key of the object whose stored form (without armour) begins with `head`.
    ///
    /// # Errors
    /// The reason why there is none: no key, no passphrase, a failure of gpg, or damage.
    pub(super) fn session_key(
        &self,
        ctx: &ObjectContext,
        preamble: &Preamble,
        head: &[u8],
    ) -> Result<SessionKey, CodecError> {
        if let Some(key) = self.session_keys.get(head) {
            return Ok(key);
        }
        let search = SessionKeySearch {
            secret_keys: &self.secret_keys,
            passphrases: &self.passphrases,
            gpg: self.gpg.as_ref(),
            ctx,
            preamble,
            head,
        };
        let key = search.run()?;
        self.session_keys.insert(head, &key);
        Ok(key)
    }
}
