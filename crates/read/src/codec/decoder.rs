//! The decoder: builds the stack of readers that turns one stored object into its plaintext.

use std::collections::HashSet;
use std::io::{self, Read};
use std::sync::{Arc, Mutex};

use super::armor_reader::ArmorReader;
use super::backdated_object::BackdatedObject;
use super::cfb_reader::CfbReader;
use super::dated_name::DatedName;
use super::decode_limits::DecodeLimits;
use super::error::CodecError;
use super::gzip_reader::GzipReader;
use super::keys::Keys;
use super::latched_reader::LatchedReader;
use super::layer::{self, LayerReader};
use super::message_reader::MessageReader;
use super::object_context::ObjectContext;
use super::ocb_reader::OcbReader;
use super::packet_body::PacketBody;
use super::preamble::{EncryptedPacket, Preamble, read_preamble};
use super::session_key::SessionKey;
use super::signature_verifier::SignatureVerifier;
use super::signer::Signer;
use super::stored_form::{SNIFFED_BYTES, StoredForm};
use super::threaded_layer;
use super::written_time::{WrittenTimeRule, WrittenTimes};
use dupfs_base::sync::lock;
use dupfs_format::BackupTime;
use dupfs_format::name::NameSuffix;
use zeroize::zeroize_stack;

/// Bytes of the start of an OpenPGP object that are buffered for gpg, which needs its first chunk (8 kB) complete.
const HEAD_BYTES: usize = 20 << 10;

/// Bytes of the stack that are overwritten after the search for a session key and the start of a cipher, which leave copies of
/// keys there.
const USED_STACK: usize = 32 << 10;

/// The requirements that objects must meet.
#[derive(Clone, Debug, Default)]
pub struct DecodeOptions {
    /// Accept encryption without an integrity code (OpenPGP packet 9), with a warning for each object.
    pub allow_unauthenticated: bool,
    /// Refuse every object without a good signature of this key.
    pub require_signer: Option<Signer>,
    /// Accept volumes that are whole by their own integrity code and have another hash than the manifest's, with a warning
    /// for each.
    pub ignore_volume_hash: bool,
    /// Refuse every object that is not encrypted.
    pub require_encryption: bool,
}

impl DecodeOptions {
    /// Encodes the options for an identity: an object that was accepted under other options may be refused under these.
    pub fn identity_bytes(&self) -> Vec<u8> {
        let signer = self.require_signer.as_ref().map(Signer::fingerprints);
        let flags = u8::from(self.allow_unauthenticated)
            | (u8::from(self.ignore_volume_hash) << 1)
            | (u8::from(self.require_encryption) << 2);
        [vec![flags, u8::from(signer.is_some())], signer.unwrap_or_default()].concat()
    }
}

/// Turns stored objects into their plaintext. Shared by all threads.
#[derive(Debug)]
pub struct Decoder {
    keys: Keys,
    options: DecodeOptions,
    /// Objects that had no integrity code when they were opened last.
    unauthenticated: Mutex<HashSet<Arc<str>>>,
    /// Objects for which the warning about the missing integrity code was logged.
    warned: Mutex<HashSet<Arc<str>>>,
    /// Objects for which the warning about another hash was logged.
    warned_of_hash: Mutex<HashSet<Arc<str>>>,
    /// The times at which objects were written.
    times: Arc<WrittenTimes>,
}

/// Puts a further reader around a layer, or returns the layer as it is.
type WrapLayer<'a> = fn(LayerReader<'a>) -> LayerReader<'a>;

/// Finds the session key of an object by the packets before its ciphertext, and by its first bytes without armour.
type KeySearch<'k> = &'k dyn Fn(&ObjectContext, &Preamble, &[u8]) -> Result<SessionKey, CodecError>;

impl Decoder {
    /// Creates a decoder with these keys.
    pub fn new(keys: Keys, options: DecodeOptions) -> Self {
        let (unauthenticated, warned, warned_of_hash) = (Mutex::default(), Mutex::default(), Mutex::default());
        Self { keys, options, unauthenticated, warned, warned_of_hash, times: Arc::default() }
    }

    /// Returns the objects read so far that were written before the times of their sets, one for each set.
    pub fn backdated_objects(&self) -> Vec<BackdatedObject> {
        self.times.backdated()
    }

    /// Returns the time at which `object`, whose name came with [`DatedName::records_time`], was encrypted, or signed if it
    /// must be signed. `None` unless it was read to its verified end and states the time.
    pub fn written_at(&self, object: &str) -> Option<BackupTime> {
        self.times.of(object)
    }

    /// Returns true if every object must be signed.
    pub fn requires_signer(&self) -> bool {
        self.options.require_signer.is_some()
    }

    /// Opens the plaintext of `object`, a file name and the time of its set, whose stored bytes are `input`. The suffix of the
    /// name is binding: content of another form is [`CodecError::Damaged`]. Decompression keeps to `limits`.
    ///
    /// The reader streams plaintext. It returns `Ok(0)` only after the integrity code, checksum and required signature
    /// were verified and `input` was read to its end. Until then its bytes are not verified, except those of packet 20,
    /// which is verified in chunks of up to 4 MiB. Plain objects carry nothing to verify. After an error every further
    /// read fails.
    ///
    /// # Errors
    /// At once: no key, a refused form, damage at the start, a failing input. While reading: [`io::Error`]s that
    /// contain a [`CodecError`] or the error of `input`; see [`super::error_kind`].
    pub fn open<'a, 'n>(
        &self,
        object: impl Into<DatedName<'n>>,
        input: Box<dyn Read + Send + 'a>,
        limits: &DecodeLimits,
    ) -> Result<Box<dyn Read + Send + 'a>, CodecError> {
        self.open_wrapped(object.into(), input, limits, |plain| plain)
    }

    /// Opens an object as [`Self::open`] does, and reads and decrypts `input` in a separate thread, in advance of the returned
    /// reader. This pays for a large object while another core is idle. `input` is dropped soon after the reader at the
    /// latest.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_threaded<'n>(
        &self,
        object: impl Into<DatedName<'n>>,
        input: Box<dyn Read + Send>,
        limits: &DecodeLimits,
    ) -> Result<Box<dyn Read + Send>, CodecError> {
        self.open_wrapped(object.into(), input, limits, threaded_layer::read_in_thread)
    }

    /// Returns true if `object`, which was decoded to its verified end, has proven its content by its own integrity
    /// code: that of OpenPGP, or the checksum of gzip. The suffix of the name decides, because it is binding; of
    /// OpenPGP, the packet that was found when the object was opened last.
    pub fn has_own_integrity(&self, object: &str) -> bool {
        match NameSuffix::of(object) {
            NameSuffix::OpenPgp => !lock(&self.unauthenticated).contains(object),
            NameSuffix::Gzip => true,
            NameSuffix::Cms | NameSuffix::None => false,
        }
    }

    /// Returns true if a volume with another hash than the manifest's is never accepted.
    pub fn requires_volume_hash(&self) -> bool {
        !self.options.ignore_volume_hash
    }

    /// Returns true if `object`, which was decoded to its verified end, is to be accepted although its stored bytes have
    /// another hash than the manifest's. Logs a warning the first time.
    pub fn accepts_other_hash(&self, object: &Arc<str>) -> bool {
        if self.requires_volume_hash() || !self.has_own_integrity(object) {
            return false;
        }
        if lock(&self.warned_of_hash).insert(Arc::clone(object)) {
            log::warn!(
                "{object}: read although its hash is not the one in the manifest (--ignore-volume-hash): it is whole, but \
                 may be another volume than the one that was backed up"
            );
        }
        true
    }

    fn open_wrapped<'a>(
        &self,
        object: DatedName<'_>,
        input: Box<dyn Read + Send + 'a>,
        limits: &DecodeLimits,
        wrap: WrapLayer<'a>,
    ) -> Result<Box<dyn Read + Send + 'a>, CodecError> {
        let ctx = ObjectContext::with_limits(object, limits);
        let by_keys =
            |ctx: &ObjectContext, preamble: &Preamble, head: &[u8]| self.keys.session_key(ctx, preamble, head);
        let inner = self.layers(&ctx, input, wrap, &by_keys);
        zeroize_stack::<USED_STACK>();
        let inner = inner.map_err(|e| CodecError::from_io(&ctx.object, &e))?;
        Ok(Box::new(LatchedReader::new(&ctx, inner)))
    }

    /// Returns the stack of readers of one object, whose session key `find_key` finds.
    ///
    /// # Errors
    /// As [`Self::open`].
    #[inline(never)] // for a separate stack frame, which is overwritten
    pub(super) fn layers<'a>(
        &self,
        ctx: &ObjectContext,
        input: Box<dyn Read + Send + 'a>,
        wrap: WrapLayer<'a>,
        find_key: KeySearch<'_>,
    ) -> io::Result<Box<dyn Read + Send + 'a>> {
        let mut source = layer::stored_bytes(ctx, input);
        let start = layer::read_up_to(&mut source, SNIFFED_BYTES)?;
        let form = StoredForm::detect(ctx, &start)?;
        let source = layer::prefixed(start, source);
        if let (StoredForm::Plain | StoredForm::Gzip, Some(signer)) = (form, &self.options.require_signer) {
            return Err(signer.refuse(ctx, "it is not signed").into_io());
        }
        if matches!(form, StoredForm::Plain | StoredForm::Gzip) && self.options.require_encryption {
            return Err(CodecError::NotEncrypted { object: ctx.object.clone() }.into_io());
        }
        match form {
            StoredForm::Plain => Ok(Box::new(source)),
            StoredForm::Gzip => Ok(Box::new(GzipReader::new(ctx, wrap(source)))),
            StoredForm::OpenPgp => self.decrypt(ctx, source, wrap, find_key),
            StoredForm::Armor => self.decrypt(ctx, Box::new(ArmorReader::new(ctx, source)), wrap, find_key),
            StoredForm::Cms => Err(ctx
                .unsupported("encryption by gpgsm (CMS, .p7m)", "; decrypt the files with gpgsm and mount the result")
                .into_io()),
        }
    }

    fn decrypt<'a>(
        &self,
        ctx: &ObjectContext,
        mut source: LayerReader<'a>,
        wrap: WrapLayer<'a>,
        find_key: KeySearch<'_>,
    ) -> io::Result<Box<dyn Read + Send + 'a>> {
        let head = layer::read_up_to(&mut source, HEAD_BYTES)?;
        let (preamble, mut body) = read_preamble(ctx, layer::prefixed(head.clone(), source))?;
        preamble.check(ctx).map_err(CodecError::into_io)?;
        match preamble.packet {
            EncryptedPacket::WithoutMdc => self.accept_unauthenticated(ctx, &mut body)?,
            EncryptedPacket::WithMdc | EncryptedPacket::Ocb(_) => {
                lock(&self.unauthenticated).remove(&ctx.object);
            }
        }
        let key = find_key(ctx, &preamble, &head).map_err(CodecError::into_io)?;
        let plain: LayerReader<'a> = match preamble.packet {
            EncryptedPacket::WithMdc => Box::new(CfbReader::with_mdc(ctx, body, &key)?),
            EncryptedPacket::WithoutMdc => Box::new(CfbReader::without_mdc(ctx, body, &key)?),
            EncryptedPacket::Ocb(header) => Box::new(OcbReader::new(ctx, header, body, &key)?),
        };
        let verifier = self.options.require_signer.as_ref().map(SignatureVerifier::new);
        let rule = WrittenTimeRule { times: Arc::clone(&self.times), refuses: verifier.is_some() };
        Ok(Box::new(MessageReader::new(ctx, wrap(plain), verifier, rule)))
    }

    /// Accepts data without an integrity code, or refuses them. Damage can make other packets look like such data, so the
    /// refusal comes only after a check that the packet ends where the object ends, as far as the first bytes show.
    fn accept_unauthenticated(&self, ctx: &ObjectContext, body: &mut PacketBody<LayerReader<'_>>) -> io::Result<()> {
        if !self.options.allow_unauthenticated {
            if layer::read_up_to(body, HEAD_BYTES)?.len() < HEAD_BYTES {
                body.expect_end()?;
            }
            return Err(CodecError::Unauthenticated { object: ctx.object.clone() }.into_io());
        }
        lock(&self.unauthenticated).insert(ctx.object.clone());
        if lock(&self.warned).insert(ctx.object.clone()) {
            log::warn!(
                "{}: read without an integrity code: damage and manipulation cannot be detected in it",
                ctx.object
            );
        }
        Ok(())
    }
}
