//! The search for the session key of one object.

use std::borrow::Cow;
use std::sync::Arc;

use sequoia_openpgp::KeyID;

use super::error::CodecError;
use super::object_context::ObjectContext;
use super::openpgp_cipher::OpenPgpCipher;
use super::passphrase_list::PassphraseList;
use super::preamble::Preamble;
use super::secret_key::SecretKey;
use super::session_key::SessionKey;
use super::session_key_packet::PublicKeyEsk;
use super::string_to_key::StringToKey;
use super::user_gpg::{GpgRefusal, UserGpg};
use dupfs_base::Secret;

/// Upper bound of the keys of a file that a message names.
const MAX_NAMED_KEYS: usize = 8;

/// The search for the session key of one object, in this order: the secret keys of files, the passphrases, the user's gpg,
/// a prompt.
pub(super) struct SessionKeySearch<'s> {
    pub(super) secret_keys: &'s [SecretKey],
    pub(super) passphrases: &'s PassphraseList,
    pub(super) gpg: Option<&'s UserGpg>,
    pub(super) ctx: &'s ObjectContext,
    pub(super) preamble: &'s Preamble,
    /// The first bytes of the object, without armour.
    pub(super) head: &'s [u8],
}

/// The results of trying the secret keys that an object is encrypted to.
#[derive(Default)]
struct KeyAttempts {
    session_key: Option<SessionKey>,
    /// Keys that no known passphrase unlocks.
    locked: Vec<KeyID>,
    /// Keys on curves that are not supported, with the names of the curves.
    unsupported: Vec<(KeyID, Cow<'static, str>)>,
    /// Unlocked keys that do not open the session key that is encrypted to them.
    failed: Vec<KeyID>,
}

impl SessionKeySearch<'_> {
    /// Returns the session key.
    ///
    /// # Errors
    /// The reason why there is none: no key, no passphrase, a failure of gpg, damage, or the end of the request.
    pub(super) fn run(&self) -> Result<SessionKey, CodecError> {
        let mut attempts = self.try_secret_keys();
        if let Some(key) = attempts.session_key.take().or_else(|| self.try_passphrases(0)) {
            return Ok(key);
        }
        self.ctx.check_request()?;
        if let Some(id) = attempts.locked.first() {
            let key = self.secret_keys.iter().find(|key| key.id == *id);
            let key = key.map_or_else(|| format!("0x{id}"), SecretKey::describe);
            let prompt = format!("Passphrase of secret key {key}: ");
            if let Some(key) = self.passphrases.ask(&prompt, |_| self.try_secret_keys().session_key) {
                return Ok(key);
            }
        }
        let mut refusal = None;
        if let Some(gpg) = self.gpg.filter(|_| self.preamble.public_key_esks().next().is_some()) {
            match gpg.session_key(self.head, &self.recipients(), &self.passphrases.all()) {
                Ok(key) if self.preamble.fits(&key) => return Ok(key),
                Ok(_) => return Err(self.ctx.damage("the session key that gpg gives does not open the data")),
                Err(reason) => refusal = Some(reason),
            }
        }
        if self.opens_by_passphrase() {
            let prompt = format!("Passphrase of {}: ", self.ctx.object);
            if let Some(key) = self.passphrases.ask(&prompt, |from| self.try_passphrases(from)) {
                return Ok(key);
            }
        }
        // The search of a request that has ended is incomplete: it does not prove that no key fits.
        self.ctx.check_request()?;
        match refusal {
            Some(GpgRefusal::Timeout(seconds)) => {
                Err(CodecError::GpgTimeout { object: self.ctx.object.clone(), seconds })
            }
            refusal => Err(self.explain(&attempts, refusal)),
        }
    }

    /// Tries the secret keys of the files: those that the object names, and all of them where the recipient is hidden.
    fn try_secret_keys(&self) -> KeyAttempts {
        let passphrases = self.passphrases.all();
        let mut attempts = KeyAttempts::default();
        let (named, hidden): (Vec<&PublicKeyEsk>, Vec<_>) =
            self.preamble.public_key_esks().partition(|esk| esk.recipient.is_some());
        for esk in named.into_iter().chain(hidden) {
            for key in self.secret_keys {
                if esk.recipient.as_ref().is_some_and(|id| *id != key.id) {
                    continue;
                }
                if let Some(curve) = &key.unsupported_curve {
                    // A hidden recipient may be any other key.
                    if esk.recipient.is_some() {
                        attempts.unsupported.push((key.id.clone(), curve.clone()));
                    }
                    continue;
                }
                let Some(unlocked) = key.unlock(&passphrases) else {
                    attempts.locked.push(key.id.clone());
                    continue;
                };
                // The padding and checksum of a session key that is encrypted to a named key were verified. If the data
                // do not fit it, they are damaged, and reading them reports that.
                match unlocked.open(esk) {
                    Some(found) if esk.recipient.is_some() || self.preamble.fits(&found) => {
                        attempts.session_key = Some(found);
                        return attempts;
                    }
                    _ if esk.recipient.is_some() => attempts.failed.push(key.id.clone()),
                    _ => {}
                }
            }
        }
        attempts
    }

    /// Tries the passphrases from number `from` on, and none once the request has ended: each needs a key derivation
    /// for each session key packet.
    fn try_passphrases(&self, from: usize) -> Option<SessionKey> {
        self.passphrases.find(from, |passphrase| {
            if self.preamble.is_old_style() {
                return old_style_keys(passphrase).find(|key| self.preamble.fits(key));
            }
            let wanted = self.preamble.passphrase_esks().take_while(|_| self.ctx.check_request().is_ok());
            let mut keys = wanted.filter_map(|esk| esk.open(passphrase.expose()));
            keys.find(|key| self.preamble.fits(key))
        })
    }

    fn opens_by_passphrase(&self) -> bool {
        self.preamble.passphrase_esks().next().is_some() || self.preamble.is_old_style()
    }

    fn recipients(&self) -> Vec<Option<KeyID>> {
        self.preamble.public_key_esks().map(|esk| esk.recipient.clone()).collect()
    }

    /// The keys in the given files, for a message: `wrong.asc contains 0x0123456789ABCDEF`.
    fn loaded_keys(&self) -> String {
        let mut files: Vec<(&str, Vec<String>)> = Vec::new();
        for key in self.secret_keys {
            let id = format!("0x{}", key.id);
            match files.iter_mut().find(|(file, _)| **file == *key.file) {
                Some((_, ids)) => ids.push(id),
                None => files.push((&key.file, vec![id])),
            }
        }
        let files = files.into_iter().map(|(file, ids)| {
            let more = ids.len().saturating_sub(MAX_NAMED_KEYS);
            let and_more = if more > 0 { format!(" and {more} more") } else { String::new() };
            let ids = ids.into_iter().take(MAX_NAMED_KEYS).collect::<Vec<_>>().join(", ");
            format!("{file} contains {ids}{and_more}")
        });
        files.collect::<Vec<_>>().join("; ")
    }

    fn explain(&self, attempts: &KeyAttempts, refusal: Option<GpgRefusal>) -> CodecError {
        let no_key = |reason: String| CodecError::NoKey { object: self.ctx.object.clone(), reason: reason.into() };
        if let Some(id) = attempts.failed.first() {
            return self.ctx.damage(format!("the session key for 0x{id} cannot be opened with that secret key"));
        }
        if let Some((id, curve)) = attempts.unsupported.first() {
            return no_key(format!(
                "encrypted to key 0x{id} on the curve {curve}, which dupfs does not support; import the key into your gpg \
                 and leave --secret-key out to ask gpg for session keys"
            ));
        }
        if let Some(what) = self.preamble.damage() {
            return self.ctx.damage(what);
        }
        let passphrases = self.passphrases.all();
        if let Some(id) = attempts.locked.first() {
            let what = if passphrases.is_empty() { "needs a passphrase" } else { "has another passphrase" };
            return no_key(format!(
                "the secret key 0x{id} {what}; give it in PASSPHRASE or with --passphrase-file, which takes several"
            ));
        }
        let mut recipients: Vec<String> = self.recipients().iter().flatten().map(|id| format!("0x{id}")).collect();
        recipients.dedup();
        if self.recipients().iter().any(Option::is_none) {
            recipients.push("a hidden one".into());
        }
        let gpg = match refusal {
            Some(GpgRefusal::Agent(messages)) => {
                return no_key(format!(
                    "encrypted to {}, and gpg cannot use its agent ({messages}); run gpg-agent --daemon to see why, or give \
                     the exported secret key with --secret-key",
                    recipients.join(", ")
                ));
            }
            Some(GpgRefusal::CannotAsk(message)) => {
                return no_key(format!(
                    "encrypted to {}; gpg has the key but could not ask for its passphrase ({message}): \
                     export GPG_TTY=$(tty), or set PASSPHRASE",
                    recipients.join(", ")
                ));
            }
            Some(GpgRefusal::WrongPassphrase(message)) => {
                return no_key(format!(
                    "encrypted to {}; gpg has the key, and the passphrase is wrong ({message}); {GIVE_PASSPHRASE}",
                    recipients.join(", ")
                ));
            }
            Some(GpgRefusal::Reason(reason)) => format!(" ({reason})"),
            // Reported by the caller.
            Some(GpgRefusal::Timeout(_)) | None => String::new(),
        };
        let tried = tried_passphrases(&passphrases);
        match (recipients.is_empty(), self.opens_by_passphrase()) {
            (false, by_passphrase) => {
                let (keys, missing) = match recipients.len() {
                    1 => ("key", "which is not available"),
                    _ => ("keys", "none of which is available"),
                };
                let also =
                    if by_passphrase { format!("; a passphrase opens it too, but {tried}") } else { String::new() };
                let recipients = recipients.join(", ");
                let loaded = self.loaded_keys();
                if loaded.is_empty() {
                    return no_key(format!(
                        "encrypted to {keys} {recipients}, {missing}{gpg}; give the exported secret key with \
                         --secret-key{also}"
                    ));
                }
                let named = self.recipients().into_iter().flatten().next();
                let wanted = named.map_or_else(|| "KEYID".to_owned(), |id| format!("0x{id}"));
                no_key(format!(
                    "encrypted to {keys} {recipients}; {loaded}; export the right one: gpg --armor --export-secret-keys \
                     {wanted}{also}"
                ))
            }
            // `Preamble::check` has found a session key of one of the two kinds.
            (true, _) => no_key(format!("encrypted with a passphrase, and {tried}")),
        }
    }
}

/// The remedy where a passphrase is missing. A backup whose passphrase was changed needs the old and the new one.
const GIVE_PASSPHRASE: &str = "give the right one in PASSPHRASE or with --passphrase-file, which takes several";

fn tried_passphrases(passphrases: &[Arc<Secret>]) -> String {
    match passphrases.len() {
        0 => "no passphrase was given; give it in PASSPHRASE or with --passphrase-file".to_owned(),
        1 => format!(
            "the passphrase that was given is wrong (or the object's first bytes are damaged); {GIVE_PASSPHRASE}"
        ),
        n => format!(
            "none of the {n} passphrases that were given is right (or the object's first bytes are damaged); {GIVE_PASSPHRASE}"
        ),
    }
}

/// Returns the possible session keys of data without a session key packet (RFC 1991; RFC 4880 section 5.7): IDEA and MD5
/// by the standard, and the combinations that gpg used where it had no IDEA.
fn old_style_keys(passphrase: &Secret) -> impl Iterator<Item = SessionKey> {
    use OpenPgpCipher::{Aes128, Cast5, Idea, TripleDes};
    const MD5: u8 = 1;
    const SHA1: u8 = 2;
    const COMBINATIONS: [(OpenPgpCipher, u8); 6] =
        [(Idea, MD5), (Cast5, MD5), (Cast5, SHA1), (TripleDes, MD5), (Aes128, MD5), (Aes128, SHA1)];
    COMBINATIONS.into_iter().filter_map(|(cipher, hash)| {
        let key = StringToKey::simple(hash).derive(passphrase.expose(), cipher.key_len())?;
        SessionKey::new(cipher, key)
    })
}
