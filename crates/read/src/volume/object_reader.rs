//! Objects of a store as plaintext, verified against a hash where one is known.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use md5::Md5;
use sha1::{Digest, Sha1};

use super::damaged_copies::{DamagedCopies, DamagedCopy, RejectedCopies};
use super::error::VolumeError;
use super::refused_objects::RefusedObjects;
use crate::codec::{BackdatedObject, DatedName, DecodeLimits, Decoder, ExpansionLimit};
use crate::storage::{ObjectInfo, ObjectStore, StorageError};
use dupfs_base::{ByteRange, ErrorKind, HasKind, RequestContext, Stopped};
use dupfs_format::BackupTime;
use dupfs_format::manifest::{HashKind, VolumeHash};
use dupfs_format::name::{FileRole, NamePrefixes};

/// Objects of at least this many stored bytes are decoded by two threads. For smaller ones it does not pay.
const MIN_THREADED_BYTES: u64 = 128 << 10;

/// Reads the objects of a store as plaintext.
#[derive(Clone, Debug)]
pub(super) struct ObjectReader {
    store: Arc<dyn ObjectStore>,
    decoder: Arc<Decoder>,
    expansion: ExpansionLimit,
    refused: Arc<RefusedObjects>,
    damaged: Arc<DamagedCopies>,
    prefixes: NamePrefixes,
}

/// The number of threads that decode an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DecodeThreads {
    /// One thread: the caller has other objects decoded at the same time.
    One,
    /// Two threads if the object is large enough.
    TwoIfLarge,
}

/// Decides if the stored bytes of an object are fetched further. Without it they are fetched to their end.
pub(super) trait FetchGate: Send + Sync + std::fmt::Debug {
    /// Returns true if further bytes are wanted.
    fn is_open(&self) -> bool;

    /// Waits until further bytes are wanted.
    ///
    /// # Errors
    /// [`Stopped`].
    fn wait(&self, context: &RequestContext) -> Result<(), Stopped>;

    /// Records that `len` further bytes were read.
    fn passed(&self, len: u64);
}

/// The way in which an object is decoded.
#[derive(Clone, Debug)]
pub(super) struct DecodeMode {
    pub(super) threads: DecodeThreads,
    pub(super) gate: Option<Arc<dyn FetchGate>>,
}

impl From<DecodeThreads> for DecodeMode {
    fn from(threads: DecodeThreads) -> Self {
        Self { threads, gate: None }
    }
}

impl ObjectReader {
    /// A reader of the volumes and signature archives of `store`, whose names have `prefixes`. Requests may take `deadline`.
    pub(super) fn new(
        store: Arc<dyn ObjectStore>,
        decoder: Arc<Decoder>,
        prefixes: NamePrefixes,
        deadline: Duration,
    ) -> Self {
        let refused = Arc::new(RefusedObjects::new(deadline));
        Self { store, decoder, expansion: ExpansionLimit::ARCHIVE, refused, damaged: Arc::default(), prefixes }
    }

    /// The objects read so far that were written before the times of their sets, one for each set.
    pub(super) fn backdated_objects(&self) -> Vec<BackdatedObject> {
        self.decoder.backdated_objects()
    }

    /// The time at which `object`, a manifest or signature archive, was encrypted, or signed if it must be signed. `None`
    /// unless it was read to its verified end and states the time.
    pub(super) fn written_at(&self, object: &str) -> Option<BackupTime> {
        self.decoder.written_at(object)
    }

    /// Returns true if every object must be signed.
    pub(super) fn requires_signer(&self) -> bool {
        self.decoder.requires_signer()
    }

    /// The name of `object` with the time that it states.
    fn dated<'n>(&self, object: &'n ObjectInfo) -> DatedName<'n> {
        let parsed = self.prefixes.parse(&object.name);
        // There are many volumes, and their times are of no interest.
        let records_time = parsed.as_ref().is_some_and(|name| !matches!(name.role, FileRole::Volume(_)));
        DatedName { name: &object.name, set_time: parsed.map(|name| name.set.end), records_time }
    }

    /// A reader of the objects of another store, with the same decoder and limits.
    pub(super) fn with_store(&self, store: Arc<dyn ObjectStore>) -> Self {
        Self { store, ..self.clone() }
    }

    /// This reader, which records the damaged copies that it meets where `other` does.
    pub(super) fn recording_with(self, other: &Self) -> Self {
        Self { damaged: Arc::clone(&other.damaged), ..self }
    }

    /// The damaged copies of objects that were met so far.
    pub(super) fn damaged_copies(&self) -> Vec<DamagedCopy> {
        self.damaged.list()
    }

    /// Returns true if a damaged copy of `object` was met.
    pub(super) fn has_damaged_copy(&self, object: &ObjectInfo) -> bool {
        self.damaged.contains(&object.name)
    }

    /// A reader of objects that may expand within `expansion`.
    pub(super) fn with_expansion(&self, expansion: ExpansionLimit) -> Self {
        Self { expansion, ..self.clone() }
    }

    /// The store.
    pub(super) fn store(&self) -> &dyn ObjectStore {
        &*self.store
    }

    /// Reads `object` by `read`. If its copy is damaged and the store has other ones, `read` is called for each of these in turn, and
    /// starts over.
    ///
    /// # Errors
    /// The error of `read`: the first one if all copies are damaged.
    pub(super) fn each_copy<T>(
        &self,
        object: &ObjectInfo,
        read: &mut dyn FnMut(&ObjectInfo) -> Result<T, VolumeError>,
    ) -> Result<T, VolumeError> {
        let mut copy = object.clone();
        let mut rejected = RejectedCopies { object: Arc::clone(&object.name), list: Vec::new() };
        loop {
            let error = match read(&copy) {
                Ok(value) => {
                    self.damaged.record(rejected, true);
                    return Ok(value);
                }
                Err(error) => error,
            };
            let rejects = match error.kind() {
                ErrorKind::Corrupt => self.store.reject_copy(&copy, true),
                // The damage may be where the key is named, or the key is missing.
                ErrorKind::KeyMissing => self.store.reject_copy(&copy, false),
                _ => None,
            };
            let Some(damaged) = rejects else {
                self.damaged.record(rejected, false);
                return Err(error);
            };
            let other = damaged.other.clone();
            rejected.list.push((damaged, error.clone()));
            match other {
                Some(other) => copy = other,
                None => return Err(rejected.into_error().unwrap_or(error)),
            }
        }
    }

    /// Streams the plaintext of `object` into `consume` and returns once its stored bytes agree with `expected`. The results
    /// of `consume` may be used only if this returns `Ok`: integrity is known at the end.
    ///
    /// # Errors
    /// [`VolumeError`]. If both the decoder and the hash report a failure, the failure of the hash is returned: it says
    /// where the damage is. An object that was over a limit before is refused at once.
    pub(super) fn stream(
        &self,
        object: &ObjectInfo,
        expected: Option<&VolumeHash>,
        mode: impl Into<DecodeMode>,
        context: &RequestContext,
        consume: &mut dyn FnMut(&mut dyn Read) -> Result<(), VolumeError>,
    ) -> Result<(), VolumeError> {
        self.refused.check(object)?;
        let limits = self.limits(context);
        let streamed = self.stream_within(&limits, object, expected, mode.into(), context, consume);
        streamed.inspect_err(|error| self.refused.record_failure(object, &limits, error))
    }

    /// The limits of one decoding for `context`. It may take as long as a request: no request would wait longer.
    fn limits(&self, context: &RequestContext) -> DecodeLimits {
        DecodeLimits::new(context, self.expansion, Some(self.refused.deadline()))
    }

    fn stream_within(
        &self,
        limits: &DecodeLimits,
        object: &ObjectInfo,
        expected: Option<&VolumeHash>,
        mode: DecodeMode,
        context: &RequestContext,
        consume: &mut dyn FnMut(&mut dyn Read) -> Result<(), VolumeError>,
    ) -> Result<(), VolumeError> {
        let name: &str = &object.name;
        let whole = ByteRange::at(0, object.size);
        let input = self.store.open(object, whole, context).map_err(|e| VolumeError::from_storage(name, &e))?;
        let hasher = Hasher::new(expected);
        let (tx, rx) = channel();
        let DecodeMode { threads, gate } = mode;
        let (store, object_info, context) = (Arc::clone(&self.store), object.clone(), context.clone());
        let hashing = HashingReader { input, hasher, object: object_info, context, store, gate, at: 0 };
        let input = Box::new(ReturningReader { reader: Some(hashing), tx });
        let opened = match threads {
            DecodeThreads::TwoIfLarge if object.size >= MIN_THREADED_BYTES => {
                self.decoder.open_threaded(self.dated(object), input, limits)
            }
            DecodeThreads::One | DecodeThreads::TwoIfLarge => self.decoder.open(self.dated(object), input, limits),
        };
        let decoded = opened.map_err(|e| VolumeError::from_codec(name, &e)).and_then(|mut plain| {
            consume(&mut *plain)?;
            // The decoder reports a failed integrity check only at the end of the stream.
            io::copy(&mut plain, &mut io::sink()).map(drop).map_err(|e| VolumeError::from_io(name, &e))
        });
        let failed = |_| VolumeError::object(name, ErrorKind::Io, "the thread that reads it has failed");
        let hashing = rx.recv().map_err(failed)?;
        match decoded {
            Ok(()) => match hashing.finish(expected) {
                Err(VolumeError::HashMismatch { object, .. }) if self.decoder.accepts_other_hash(&object) => Ok(()),
                Err(VolumeError::HashMismatch { object, kind, .. }) => {
                    let is_whole = self.decoder.has_own_integrity(&object);
                    Err(VolumeError::HashMismatch { object, kind, is_whole })
                }
                finished => finished,
            },
            // Without a hash the rest of a damaged object adds no information.
            Err(error) if error.kind() == ErrorKind::Corrupt && expected.is_some() => {
                Err(hashing.finish(expected).err().unwrap_or(error))
            }
            Err(error) => Err(error),
        }
    }

    /// Streams the plaintext of the first `len` stored bytes of `object` into `consume`. Nothing of it is verified.
    ///
    /// # Errors
    /// [`VolumeError`] if the object cannot be opened or decrypted, or the error of `consume`.
    pub(super) fn peek(
        &self,
        object: &ObjectInfo,
        len: u64,
        context: &RequestContext,
        consume: &mut dyn FnMut(&mut dyn Read) -> Result<(), VolumeError>,
    ) -> Result<(), VolumeError> {
        self.refused.check(object)?;
        let limits = self.limits(context);
        let head = ByteRange::at(0, object.size.min(len));
        let input = self.store.open(object, head, context).map_err(|e| VolumeError::from_storage(&object.name, &e))?;
        let mut plain = self
            .decoder
            .open(self.dated(object), input, &limits)
            .map_err(|e| VolumeError::from_codec(&object.name, &e))?;
        consume(&mut *plain).inspect_err(|error| self.refused.record_failure(object, &limits, error))
    }
}

enum Hasher {
    None,
    Sha1(Sha1),
    Md5(Md5),
}

impl Hasher {
    fn new(expected: Option<&VolumeHash>) -> Self {
        match expected.map(|hash| hash.kind) {
            None => Self::None,
            Some(HashKind::Sha1) => Self::Sha1(Sha1::new()),
            Some(HashKind::Md5) => Self::Md5(Md5::new()),
        }
    }
}

/// The time after which a suspended pass ends its fetch. Until then the connection waits.
const MAX_IDLE_FETCH: Duration = Duration::from_millis(200);

/// Hashes the stored bytes as the decoder reads them. A read fails once the request has ended, so that the decoding stops. It
/// waits as long as the gate is closed, so that the decoder keeps its state.
struct HashingReader {
    input: Box<dyn Read + Send>,
    hasher: Hasher,
    object: ObjectInfo,
    context: RequestContext,
    store: Arc<dyn ObjectStore>,
    gate: Option<Arc<dyn FetchGate>>,
    /// The stored bytes that were read.
    at: u64,
}

impl HashingReader {
    /// Waits until `gate` is open.
    fn suspend(&mut self, gate: &dyn FetchGate) -> io::Result<()> {
        let fail = |stopped| StorageError::stopped(&self.object.name, stopped).into_io();
        match gate.wait(&self.context.within(MAX_IDLE_FETCH)) {
            Err(Stopped::Deadline) => self.context.check().map_err(fail)?,
            waited => return waited.map_err(fail),
        }
        self.input = Box::new(io::empty());
        gate.wait(&self.context).map_err(fail)?;
        let rest = ByteRange { start: self.at, end: self.object.size };
        self.input = self.store.open(&self.object, rest, &self.context).map_err(StorageError::into_io)?;
        Ok(())
    }
}

impl Read for HashingReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.context.check().map_err(|stopped| StorageError::stopped(&self.object.name, stopped).into_io())?;
        if let Some(gate) = self.gate.clone()
            && self.at < self.object.size
            && !gate.is_open()
        {
            self.suspend(&*gate)?;
        }
        let n = self.input.read(buf)?;
        self.at = self.at.saturating_add(n as u64);
        if let Some(gate) = &self.gate {
            gate.passed(n as u64);
        }
        let got = buf.get(..n).unwrap_or(&[]);
        match &mut self.hasher {
            Hasher::None => {}
            Hasher::Sha1(hasher) => hasher.update(got),
            Hasher::Md5(hasher) => hasher.update(got),
        }
        Ok(n)
    }
}

impl HashingReader {
    /// Reads the rest of the object and compares the hash.
    fn finish(mut self, expected: Option<&VolumeHash>) -> Result<(), VolumeError> {
        let object = Arc::clone(&self.object.name);
        io::copy(&mut self, &mut io::sink()).map_err(|e| VolumeError::from_io(&object, &e))?;
        let Some(expected) = expected else { return Ok(()) };
        let (digest, kind) = match self.hasher {
            Hasher::None => return Ok(()),
            Hasher::Sha1(hasher) => (hasher.finalize().to_vec(), "SHA-1 hash"),
            Hasher::Md5(hasher) => (hasher.finalize().to_vec(), "MD5 hash"),
        };
        if digest == expected.digest {
            return Ok(());
        }
        Err(VolumeError::HashMismatch { object, kind, is_whole: false })
    }
}

/// A reader that sends itself back when it is dropped. The decoder may read and drop it on another thread.
struct ReturningReader {
    reader: Option<HashingReader>,
    tx: Sender<HashingReader>,
}

impl Read for ReturningReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.reader.as_mut().map_or(Ok(0), |reader| reader.read(buf))
    }
}

impl Drop for ReturningReader {
    fn drop(&mut self) {
        if let Some(reader) = self.reader.take() {
            // The receiver is dropped only if the pass panicked.
            let _ = self.tx.send(reader);
        }
    }
}
