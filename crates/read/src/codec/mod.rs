//! Rank 2: from stored bytes to plaintext: gzip and OpenPGP as readers over readers, chosen by the object's name and checked by content.
//!
//! Every layer ends cleanly only after its own end was verified and the layer beneath ended too, so that the end of the
//! plaintext says that the object was read to its last byte and found right.

mod armor;
mod cfb;
mod cipher;
mod error;
mod esk;
mod frame;
mod gpg;
mod gzip;
mod inflate;
mod keys;
mod message;
mod ocb;
mod pk;
mod rsa;
mod s2k;
mod secret;
mod signer;
mod source;
mod stage;

#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};

pub use error::{CodecError, error_kind};
pub use gpg::GpgOptions;
pub use keys::{Ask, KeyOptions, Keys};
pub use secret::Secret;
pub use signer::Signer;

use cfb::CfbReader;
use dupfs_format::name::Suffix;
use esk::{Bulk, read_preamble};
use message::Message;
use ocb::OcbReader;
use signer::Verifier;
use source::{Ctx, Guard, Source};
use stage::Stage;

/// What is accepted and what is demanded of objects.
#[derive(Clone, Debug, Default)]
pub struct DecodeOptions {
    /// Accept encryption without an integrity code (OpenPGP tag 9), with a warning for each object.
    pub allow_unauthenticated: bool,
    /// Refuse whatever does not carry a good signature of this key.
    pub require_signer: Option<Signer>,
}

impl DecodeOptions {
    /// The options as bytes: what was accepted under others might not be under these.
    pub fn demands(&self) -> Vec<u8> {
        let signer = self.require_signer.as_ref().map(Signer::fingerprints);
        [vec![u8::from(self.allow_unauthenticated), u8::from(signer.is_some())], signer.unwrap_or_default()].concat()
    }
}

/// Turns stored objects into their plaintext. Shared by all threads.
#[derive(Debug)]
pub struct Decoder {
    keys: Keys,
    options: DecodeOptions,
    /// Objects whose lack of an integrity code was told.
    warned: Mutex<HashSet<Arc<str>>>,
}

/// The form of stored bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Plain,
    Gzip,
    OpenPgp,
    Armor,
    Cms,
}

/// Bytes at the start of an object by which its form is checked.
const SNIFF: usize = 32;
/// Bytes of an OpenPGP object kept for gpg, which wants its first chunk (8 kB) complete.
const HEAD: usize = 20 << 10;

impl Decoder {
    /// A decoder with these keys.
    pub fn new(keys: Keys, options: DecodeOptions) -> Self {
        Self { keys, options, warned: Mutex::default() }
    }

    /// The plaintext of the stored bytes `input` of `object`, its file name. Its suffix is binding: content of another form
    /// is [`CodecError::Damaged`].
    ///
    /// The reader yields plaintext as it streams. It returns `Ok(0)` only after the integrity code, checksum and required
    /// signature were verified and `input` was read to its own end; until then what it gave is not verified (except packet
    /// 20, by chunks of up to 4 MiB). Plain objects have nothing to verify. A reader that failed fails for ever.
    ///
    /// # Errors
    /// At once: no key, a refused form, damage at the start, a failing input. While reading: [`io::Error`]s, with a
    /// [`CodecError`] inside or what `input` gave; see [`error_kind`].
    pub fn open<'a>(
        &self,
        object: &str,
        input: Box<dyn Read + Send + 'a>,
    ) -> Result<Box<dyn Read + Send + 'a>, CodecError> {
        self.open_by(object, input, |plain| plain)
    }

    /// As [`Self::open`]; `input` is read, and what is encrypted is decrypted, by a thread of its own, ahead of the reader that
    /// is returned. It pays for a large object while another core is idle. `input` is dropped at the latest soon after the
    /// reader is.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_on_two(&self, object: &str, input: Box<dyn Read + Send>) -> Result<Box<dyn Read + Send>, CodecError> {
        self.open_by(object, input, stage::in_thread)
    }

    fn open_by<'a>(
        &self,
        object: &str,
        input: Box<dyn Read + Send + 'a>,
        stage: Stage<'a>,
    ) -> Result<Box<dyn Read + Send + 'a>, CodecError> {
        let ctx = Ctx::new(object);
        let inner = self.layers(&ctx, input, stage).map_err(|e| CodecError::from_io(&ctx.object, &e))?;
        Ok(Box::new(Guard::new(&ctx, inner)))
    }

    fn layers<'a>(
        &self,
        ctx: &Ctx,
        input: Box<dyn Read + Send + 'a>,
        stage: Stage<'a>,
    ) -> io::Result<Box<dyn Read + Send + 'a>> {
        let mut source = source::input(ctx, input);
        let start = source::take(&mut source, SNIFF)?;
        let form = form_of(ctx, &start)?;
        let source = source::prefixed(start, source);
        if let (Form::Plain | Form::Gzip, Some(signer)) = (form, &self.options.require_signer) {
            return Err(signer.refuse(ctx, "it is not signed").into_io());
        }
        match form {
            Form::Plain => Ok(Box::new(source)),
            Form::Gzip => Ok(Box::new(gzip::Gunzip::new(ctx, stage(source)))),
            Form::OpenPgp => self.decrypt(ctx, source, stage),
            Form::Armor => self.decrypt(ctx, Box::new(armor::Dearmor::new(ctx, source)), stage),
            Form::Cms => Err(ctx
                .unsupported("encryption by gpgsm (CMS, .p7m)", "; decrypt the files with gpgsm and mount the result")
                .into_io()),
        }
    }

    fn decrypt<'a>(
        &self,
        ctx: &Ctx,
        mut source: Source<'a>,
        stage: Stage<'a>,
    ) -> io::Result<Box<dyn Read + Send + 'a>> {
        let head = source::take(&mut source, HEAD)?;
        let (preamble, body) = read_preamble(ctx, source::prefixed(head.clone(), source))?;
        if matches!(preamble.bulk, Bulk::Bare) {
            self.accept_unauthenticated(ctx)?;
        }
        let session = self.keys.session(ctx, &preamble, &head).map_err(CodecError::into_io)?;
        let plain: Source<'a> = match preamble.bulk {
            Bulk::Mdc => Box::new(CfbReader::with_mdc(ctx, body, &session)?),
            Bulk::Bare => Box::new(CfbReader::without_mdc(ctx, body, &session)?),
            Bulk::Ocb(header) => Box::new(OcbReader::new(ctx, header, body, &session)?),
        };
        let verifier = self.options.require_signer.as_ref().map(Verifier::new);
        Ok(Box::new(Message::new(ctx, stage(plain), verifier)))
    }

    fn accept_unauthenticated(&self, ctx: &Ctx) -> io::Result<()> {
        if !self.options.allow_unauthenticated {
            return Err(CodecError::Unauthenticated { object: ctx.object.clone() }.into_io());
        }
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        if warned.insert(ctx.object.clone()) {
            log::warn!("{}: read without an integrity code: damage or manipulation would not be noticed", ctx.object);
        }
        Ok(())
    }
}

/// Returns the form of the object, by its name and its first bytes `start` (FORMAT.md section 1).
///
/// The name is binding, as whoever can write to the store can replace an object without having a key: an object named as
/// encrypted is an OpenPGP message, armoured or not, and one named as compressed is gzip. Only a name without a suffix
/// leaves the choice to the content, because duplicity before 0.7.06 stored gzip under such names; what has none of the
/// known beginnings is then plain: a tar archive (a name, or zeros when it is empty) or a manifest.
///
/// # Errors
/// Damage, where the content is not what the name says or nothing that duplicity writes.
fn form_of(ctx: &Ctx, start: &[u8]) -> io::Result<Form> {
    let content = match start {
        [0x1f, 0x8b, ..] => Some(Form::Gzip),
        // A sequence of indefinite length, or of one given in up to four bytes.
        [0x30, 0x80..=0x84, ..] => Some(Form::Cms),
        [0x80..=0xff, ..] => Some(Form::OpenPgp),
        _ if start.starts_with(armor::BEGIN_MESSAGE) => Some(Form::Armor),
        [] | [0 | b' '..=b'~', ..] => Some(Form::Plain),
        _ => None,
    };
    match (Suffix::of(&ctx.object), content) {
        (Suffix::Cms, _) => Ok(Form::Cms),
        (Suffix::OpenPgp | Suffix::Gzip, _) if start.is_empty() => Err(ctx.damaged("it is empty")),
        (Suffix::OpenPgp, Some(form @ (Form::OpenPgp | Form::Armor))) => Ok(form),
        (Suffix::OpenPgp, _) => {
            Err(ctx.damaged("it is named as encrypted, but it does not begin as an encrypted file does"))
        }
        (Suffix::Gzip, Some(Form::Gzip)) => Ok(Form::Gzip),
        (Suffix::Gzip, _) => Err(ctx.damaged("it is named as compressed, but it does not begin as a gzip file does")),
        (Suffix::None, Some(form)) => Ok(form),
        (Suffix::None, None) => Err(ctx.damaged("it begins like nothing that duplicity writes")),
    }
}
