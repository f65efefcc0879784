//! What opens the objects: secret keys, passphrases, the user's gpg; and how a session key is found with them.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sequoia_openpgp::KeyID;
use sha1::{Digest, Sha1};

use super::error::CodecError;
use super::esk::{Bulk, PkEsk, Preamble};
use super::gpg::{Gpg, GpgOptions};
use super::pk::{self, SecretKey};
use super::s2k::StringToKey;
use super::secret::{Secret, Session};
use super::source::Ctx;

/// Asks the user for a passphrase with the given prompt; `None` when there is nobody to ask or they gave up.
pub type Ask = Box<dyn Fn(&str) -> Option<Secret> + Send + Sync>;

/// Where keys and passphrases come from.
#[derive(Default)]
pub struct KeyOptions {
    /// Exported secret keys, armoured or binary, each file with one key or several.
    pub secret_keys: Vec<PathBuf>,
    /// Passphrases, tried in turn on keys and on objects.
    pub passphrases: Vec<Secret>,
    /// Asked when none of the passphrases fits: at most three times for a key or object, never again after `None`.
    pub ask: Option<Ask>,
    /// The user's own gpg, asked for session keys when nothing else opens an object; `None`: never.
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

/// Session keys remembered at most; beyond it all are forgotten.
const MAX_REMEMBERED: usize = 1 << 16;
/// Questions for one key or object.
const MAX_ASKED: usize = 3;

/// Keys and passphrases, and the session keys found with them, all in memory only.
pub struct Keys {
    secret: Vec<SecretKey>,
    /// Grows by what the user answers; never reordered, as keys remember how many of them they have tried.
    passphrases: Mutex<Vec<Arc<Secret>>>,
    /// The passphrase that last opened an object.
    last: AtomicUsize,
    ask: Option<Ask>,
    /// One question at a time; true once the user gave up.
    asking: Mutex<bool>,
    gpg: Option<Gpg>,
    /// By digest of the encrypted session keys, so that reopening an object derives nothing again.
    remembered: Mutex<HashMap<[u8; 20], Session>>,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").field("secret", &self.secret).field("gpg", &self.gpg).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What the mutexes guard is whole after each single step, so a panic elsewhere does not spoil it.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Keys {
    /// Reads the key files; nothing is unlocked or asked yet.
    ///
    /// # Errors
    /// [`CodecError::KeyFile`] for a file that cannot be read or holds no secret key for decryption.
    pub fn load(options: KeyOptions) -> Result<Self, CodecError> {
        let mut secret = Vec::new();
        for path in &options.secret_keys {
            secret.extend(pk::load(path)?);
        }
        Ok(Self {
            secret,
            passphrases: Mutex::new(options.passphrases.into_iter().map(Arc::new).collect()),
            last: AtomicUsize::new(0),
            ask: options.ask,
            asking: Mutex::new(false),
            gpg: options.gpg.map(Gpg::new),
            remembered: Mutex::default(),
        })
    }

    /// The session key of an object whose stored form (without armour) begins with `head`.
    ///
    /// # Errors
    /// Why there is none: no key, no passphrase, gpg's failure, or damage.
    pub(super) fn session(&self, ctx: &Ctx, preamble: &Preamble, head: &[u8]) -> Result<Session, CodecError> {
        let id: [u8; 20] = Sha1::digest(head).into();
        let known = lock(&self.remembered).get(&id).cloned();
        if let Some(session) = known {
            return Ok(session);
        }
        let session = Search { keys: self, ctx, preamble, head }.run()?;
        let mut remembered = lock(&self.remembered);
        if remembered.len() >= MAX_REMEMBERED {
            remembered.clear();
        }
        remembered.insert(id, session.clone());
        Ok(session)
    }

    fn passphrases(&self) -> Vec<Arc<Secret>> {
        lock(&self.passphrases).clone()
    }
}

/// The search for one object's session key.
struct Search<'s> {
    keys: &'s Keys,
    ctx: &'s Ctx,
    preamble: &'s Preamble,
    head: &'s [u8],
}

/// What became of the secret keys that an object is encrypted to.
#[derive(Default)]
struct KeyOutcome {
    session: Option<Session>,
    locked: Vec<KeyID>,
    failed: Vec<KeyID>,
}

impl Search<'_> {
    fn run(&self) -> Result<Session, CodecError> {
        let mut by_key = self.by_key();
        if let Some(session) = by_key.session.take().or_else(|| self.by_passphrase(0)) {
            return Ok(session);
        }
        if let Some(id) = by_key.locked.first() {
            let prompt = format!("Passphrase of the secret key 0x{id}: ");
            if let Some(session) = self.ask(&prompt, |_| self.by_key().session) {
                return Ok(session);
            }
        }
        let mut by_gpg = None;
        if let Some(gpg) = self.keys.gpg.as_ref().filter(|_| self.preamble.recipients().next().is_some()) {
            match gpg.session(self.ctx, self.head, &self.recipients(), &self.keys.passphrases()) {
                Ok(session) if self.preamble.fits(&session) => return Ok(session),
                Ok(_) => return Err(self.ctx.damage("gpg's session key does not open the data")),
                Err(error) => by_gpg = Some(error),
            }
        }
        if self.preamble.passphrase_esks().next().is_some() || self.is_old_style() {
            let prompt = format!("Passphrase of {}: ", self.ctx.object);
            if let Some(session) = self.ask(&prompt, |from| self.by_passphrase(from)) {
                return Ok(session);
            }
        }
        match by_gpg {
            Some(error @ CodecError::GpgTimeout { .. }) => Err(error),
            by_gpg => Err(self.explain(&by_key, by_gpg)),
        }
    }

    /// Tries the secret keys of the files: the ones that are named, and all of them where the recipient is hidden.
    fn by_key(&self) -> KeyOutcome {
        let passphrases = self.keys.passphrases();
        let mut outcome = KeyOutcome::default();
        let (named, hidden): (Vec<&PkEsk>, Vec<_>) =
            self.preamble.recipients().partition(|esk| esk.recipient.is_some());
        for esk in named.into_iter().chain(hidden) {
            for key in &self.keys.secret {
                if esk.recipient.as_ref().is_some_and(|id| *id != key.id) {
                    continue;
                }
                let Some(open) = key.unlock(&passphrases) else {
                    outcome.locked.push(key.id.clone());
                    continue;
                };
                // A session key sealed to a named key was checked by its padding and checksum: if the data then do not
                // fit, they are damaged, and reading them says so.
                match open.open(esk) {
                    Some(session) if esk.recipient.is_some() || self.preamble.fits(&session) => {
                        outcome.session = Some(session);
                        return outcome;
                    }
                    _ if esk.recipient.is_some() => outcome.failed.push(key.id.clone()),
                    _ => {}
                }
            }
        }
        outcome
    }

    /// Tries the passphrases from number `from` on, the one that last succeeded first.
    fn by_passphrase(&self, from: usize) -> Option<Session> {
        let passphrases = self.keys.passphrases();
        let last = self.keys.last.load(Ordering::Relaxed);
        let order = (last >= from).then_some(last).into_iter().chain((from..passphrases.len()).filter(|&i| i != last));
        for index in order {
            let Some(passphrase) = passphrases.get(index) else { continue };
            let found = if self.is_old_style() {
                old_style(passphrase).find(|session| self.preamble.fits(session))
            } else {
                let mut sessions = self.preamble.passphrase_esks().filter_map(|esk| esk.open(passphrase.expose()));
                sessions.find(|session| self.preamble.fits(session))
            };
            if found.is_some() {
                self.keys.last.store(index, Ordering::Relaxed);
                return found;
            }
        }
        None
    }

    /// Encrypted as PGP 2 did it: no session key packet, the passphrase's hash is the key.
    fn is_old_style(&self) -> bool {
        self.preamble.esks.is_empty() && matches!(self.preamble.bulk, Bulk::Bare)
    }

    /// Asks the user until `found` finds a session key with what they answered; it is given the number of the first
    /// passphrase that it has not tried.
    fn ask(&self, prompt: &str, found: impl Fn(usize) -> Option<Session>) -> Option<Session> {
        let ask = self.keys.ask.as_ref()?;
        let known = self.keys.passphrases().len();
        let mut gave_up = lock(&self.keys.asking);
        // Another reader's question may have been answered while this one waited.
        if let Some(session) = (self.keys.passphrases().len() > known).then(|| found(known)).flatten() {
            return Some(session);
        }
        for _ in 0..MAX_ASKED {
            if *gave_up {
                return None;
            }
            let Some(answer) = ask(prompt) else {
                *gave_up = true;
                return None;
            };
            let from = {
                let mut passphrases = lock(&self.keys.passphrases);
                passphrases.push(Arc::new(answer));
                passphrases.len() - 1
            };
            if let Some(session) = found(from) {
                return Some(session);
            }
        }
        *gave_up = true;
        None
    }

    fn recipients(&self) -> Vec<Option<KeyID>> {
        self.preamble.recipients().map(|esk| esk.recipient.clone()).collect()
    }

    fn explain(&self, by_key: &KeyOutcome, by_gpg: Option<CodecError>) -> CodecError {
        let no_key = |reason: String| CodecError::NoKey { object: self.ctx.object.clone(), reason: reason.into() };
        if let Some(id) = by_key.failed.first() {
            return self.ctx.damage(format!("the session key for 0x{id} cannot be opened with that secret key"));
        }
        if let Some(id) = by_key.locked.first() {
            let what = if self.keys.passphrases().is_empty() { "needs a passphrase" } else { "has another passphrase" };
            return no_key(format!(
                "the secret key 0x{id} {what}; give it in PASSPHRASE or with --passphrase-file, which takes several"
            ));
        }
        let mut recipients: Vec<String> = self.recipients().iter().flatten().map(|id| format!("0x{id}")).collect();
        recipients.dedup();
        if self.recipients().iter().any(Option::is_none) {
            recipients.push("a hidden one".into());
        }
        let by_passphrase = self.preamble.passphrase_esks().next().is_some() || self.is_old_style();
        let tried = self.keys.passphrases().len();
        let passphrases = match tried {
            0 => "no passphrase is at hand; give it in PASSPHRASE or with --passphrase-file".to_owned(),
            1 => "the passphrase at hand is wrong (or the object's first bytes are damaged)".to_owned(),
            n => format!("none of the {n} passphrases at hand is right (or the object's first bytes are damaged)"),
        };
        let gpg = by_gpg.map_or_else(String::new, |error| match error {
            CodecError::NoKey { reason, .. } => format!(" ({reason})"),
            other => format!(" ({other})"),
        });
        match (recipients.is_empty(), by_passphrase) {
            (false, passphrase) => {
                let keys = if recipients.len() == 1 { "key" } else { "keys" };
                let also = if passphrase {
                    format!("; it opens with a passphrase too, but {passphrases}")
                } else {
                    String::new()
                };
                no_key(format!(
                    "encrypted to {keys} {}, none of which is at hand{gpg}; give the exported secret key with --secret-key{also}",
                    recipients.join(", ")
                ))
            }
            (true, true) => no_key(format!("encrypted with a passphrase, and {passphrases}")),
            (true, false) => self.ctx.unsupported("the way its session key is encrypted", "; gpg may know it").clone(),
        }
    }
}

/// Session keys for data without a session key packet (RFC 1991; RFC 4880 section 5.7): IDEA and MD5 by the standard,
/// and what gpg took where it had no IDEA.
fn old_style(passphrase: &Secret) -> impl Iterator<Item = Session> {
    const MD5: u8 = 1;
    const SHA1: u8 = 2;
    const TRIED: [(u8, u8); 6] = [(1, MD5), (3, MD5), (3, SHA1), (2, MD5), (7, MD5), (7, SHA1)];
    TRIED.into_iter().filter_map(|(cipher, hash)| {
        let len = super::cipher::Cipher::from_id(cipher)?.key_len();
        let key = StringToKey::simple(hash).derive(passphrase.expose(), len)?;
        Some(Session { cipher, key })
    })
}
