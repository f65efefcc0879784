//! The signature archives of the sets as plaintext streams.

use std::collections::HashSet;
use std::io::{self, Read};
use std::sync::{Arc, Mutex};

use super::archive_dir::ArchiveDir;
use super::captured_archives::{ArchiveRecorder, CapturedArchives, RecordedPlaintext};
use super::error::VolumeError;
use super::fetch_log;
use super::live_collection::LiveCollection;
use super::manifest_store::ManifestStore;
use super::object_reader::{DecodeThreads, ObjectReader};
use super::plaintext::feed;
use super::signature_stream::SignatureStream;
use super::signed_blocks::SignedBlocks;
use super::signed_contents::{SignedContents, SignedContentsBuilder};
use crate::storage::ObjectInfo;
use dupfs_base::sync::{SingleFlight, lock};
use dupfs_base::{ErrorKind, HasKind, RequestContext};
use dupfs_format::collection::BackupSet;
use dupfs_format::manifest::Manifest;
use dupfs_format::name::{FileRole, NameSuffix};
use dupfs_format::tar::{TarLimits, TarParser};
use dupfs_format::{ArchivePath, SetIndex, SignatureBinding};

/// Stored bytes of a signature archive that a peek fetches.
const PEEK_BYTES: u64 = 256 << 10;

/// Sets whose signed contents are in memory, some 60 bytes for each file of theirs.
const MAX_SIGNED_SETS: usize = 3;

/// Seconds by which the clock of the machine may have been set while duplicity wrote a set. A signature archive that
/// differs by more from the time of its set and from the time of the manifest is of another run.
const CLOCK_ALLOWANCE: i64 = 3_600;

/// Reads a signature archive.
pub(super) type ConsumeSignatures<'a> = &'a mut dyn FnMut(&mut SignatureStream<'_, '_>) -> Result<(), VolumeError>;

/// Reads the plaintext at the beginning of a signature archive. It is given the name of the archive too.
pub(super) type ConsumeBeginning<'a> = &'a mut dyn FnMut(&str, &mut dyn Read) -> Result<(), VolumeError>;

/// The signature archives of a repository.
#[derive(Debug)]
pub(super) struct SignatureArchives {
    collection: Arc<LiveCollection>,
    objects: ObjectReader,
    manifests: Arc<ManifestStore>,
    archive_dir: Option<Arc<ArchiveDir>>,
    /// The sets for which the warning about the time of the archive was logged.
    warned: Mutex<HashSet<SetIndex>>,
    /// Signed contents of the sets that were requested last, the newest at the end.
    signed: Mutex<Vec<(SetIndex, Arc<SignedContents>)>>,
    reads: SingleFlight<SetIndex, Arc<SignedContents>, VolumeError>,
    /// The plaintext of archives, for the proof of content before its volumes are verified.
    capture: Option<CaptureLimits>,
    captures: SingleFlight<SetIndex, (), VolumeError>,
    /// The sets whose archives were read only for their sums, once each.
    requested: Mutex<HashSet<SetIndex>>,
}

/// The archives that are captured, and the limits of their plaintext in bytes.
#[derive(Debug)]
pub(super) struct CaptureLimits {
    pub(super) archives: CapturedArchives,
    /// Of an archive that is read for another purpose.
    pub(super) max_bytes: u64,
    /// Of an archive that is read for the sums of a file.
    pub(super) max_requested_bytes: u64,
}

impl SignatureArchives {
    /// The signature archives of the sets of `collection`.
    pub(super) fn new(
        collection: Arc<LiveCollection>,
        objects: ObjectReader,
        manifests: Arc<ManifestStore>,
        archive_dir: Option<Arc<ArchiveDir>>,
        capture: Option<CaptureLimits>,
    ) -> Self {
        Self {
            collection,
            objects,
            manifests,
            archive_dir,
            warned: Mutex::default(),
            signed: Mutex::default(),
            reads: SingleFlight::new(),
            capture,
            captures: SingleFlight::new(),
            requested: Mutex::default(),
        }
    }

    /// Streams the signature archive of `set` into `consume`, from duplicity's archive directory or from the store. The
    /// results of `consume` may be used only if this returns `Ok`. `consume` may be called twice, and then starts over.
    ///
    /// # Errors
    /// [`VolumeError`] if it is missing, cannot be decrypted or is damaged, or the error of `consume`.
    pub(super) fn stream(
        &self,
        set: SetIndex,
        context: &RequestContext,
        consume: ConsumeSignatures<'_>,
    ) -> Result<(), VolumeError> {
        let record = self.collection.set(set)?;
        let copied =
            self.archive_dir.as_ref().is_some_and(|dir| dir.signatures(&record, &self.objects, context, consume));
        if copied { Ok(()) } else { self.stream_stored(set, context, consume) }
    }

    /// Streams the signature archive of `set` from the store into `consume`, which starts over for another copy of a damaged
    /// archive. An encrypted archive is compared with the manifest of the set, because an attacker can exchange two of them
    /// without a key.
    ///
    /// # Errors
    /// As [`Self::stream`]; [`VolumeError::OtherSignatures`].
    pub(super) fn stream_stored(
        &self,
        set: SetIndex,
        context: &RequestContext,
        consume: ConsumeSignatures<'_>,
    ) -> Result<(), VolumeError> {
        let max_bytes = self.capture.as_ref().map_or(0, |capture| capture.max_bytes);
        self.stream_captured(set, max_bytes, context, consume)
    }

    /// As [`Self::stream_stored`]; the plaintext is captured if it has at most `max_bytes`.
    fn stream_captured(
        &self,
        set: SetIndex,
        max_bytes: u64,
        context: &RequestContext,
        consume: ConsumeSignatures<'_>,
    ) -> Result<(), VolumeError> {
        let record = self.collection.set(set)?;
        let object = self.object(set)?;
        let manifest = self.binding_manifest(&record, &object, context)?;
        let is_encrypted = NameSuffix::of(&object.name).is_encrypted();
        // An archive that anyone could have written proves nothing of an encrypted set.
        let proves = !record.is_rebuilt && (is_encrypted || !record.has_encrypted_manifest());
        let capture = self.capture.as_ref().filter(|_| proves);
        let recorder = self.objects.each_copy(&object, &mut |copy| {
            let mut recorder = capture.and_then(|capture| capture.archives.begin(set, is_encrypted, max_bytes));
            self.stream_bound(&record, copy, manifest.as_deref(), context, (recorder.as_mut(), &mut *consume))?;
            Ok(recorder)
        })?;
        match self.other_time(&record, &object).filter(|_| manifest.is_some()) {
            Some(reason) if self.objects.requires_signer() => Err(other_signatures(&record, &object, &reason)),
            Some(reason) => {
                if lock(&self.warned).insert(set) {
                    log::warn!(
                        "{}; use it only if you know why; --sign-key refuses it",
                        other_signatures(&record, &object, &reason)
                    );
                }
                // Nothing is proved by an archive that may be of another run.
                Ok(())
            }
            None => {
                if let Some(recorder) = recorder {
                    recorder.publish();
                }
                Ok(())
            }
        }
    }

    /// The sums of the blocks of the file at `path` as `set` signed it. If the archive was not captured when it was read, it is
    /// read for them, once, if it has at most `max_fetch` stored bytes. `None` if there are no sums that prove blocks.
    ///
    /// # Errors
    /// For the end of the request.
    pub(super) fn signed_blocks(
        self: &Arc<Self>,
        set: SetIndex,
        path: &ArchivePath,
        max_fetch: u64,
        context: &RequestContext,
    ) -> Result<Option<SignedBlocks>, VolumeError> {
        let Some(capture) = &self.capture else { return Ok(None) };
        let is_wanted = !capture.archives.contains(set)
            && !lock(&self.requested).contains(&set)
            && self.object(set).is_ok_and(|object| object.size <= max_fetch);
        if is_wanted {
            let this = Arc::clone(self);
            let captured = self.captures.run(set, "dupfs-sums", context, move |context| this.capture(set, context));
            if let Err(error) = captured {
                context.check()?;
                log::debug!("the sums of files are not available: {error}");
            }
        }
        Ok(capture.archives.find(set, path))
    }

    /// Reads the archive of `set` to capture its plaintext.
    fn capture(&self, set: SetIndex, context: &RequestContext) -> Result<(), VolumeError> {
        let Some(capture) = &self.capture else { return Ok(()) };
        let captured = self.stream_captured(set, capture.max_requested_bytes, context, &mut |archive| {
            let object = archive.object();
            io::copy(archive, &mut io::sink()).map(drop).map_err(|error| VolumeError::from_io(object, &error))
        });
        context.check()?;
        // After an outage it is read again.
        if !captured.as_ref().is_err_and(|error| matches!(error.kind(), ErrorKind::Io | ErrorKind::Timeout)) {
            lock(&self.requested).insert(set);
        }
        captured
    }

    /// Reads the signature archive of `set` from the store and compares it with the manifest of the set.
    ///
    /// # Errors
    /// [`VolumeError`] if it is missing, cannot be decrypted or is damaged; [`VolumeError::OtherSignatures`].
    pub(super) fn check(&self, set: SetIndex, context: &RequestContext) -> Result<(), VolumeError> {
        let record = self.collection.set(set)?;
        let object = self.object(set)?;
        let Some(manifest) = self.binding_manifest(&record, &object, context)? else { return Ok(()) };
        self.objects.each_copy(&object, &mut |copy| {
            self.stream_bound(&record, copy, Some(&manifest), context, (None, &mut |_| Ok(())))
        })?;
        match self.other_time(&record, &object) {
            Some(reason) => Err(other_signatures(&record, &object, &reason)),
            None => Ok(()),
        }
    }

    fn stream_bound(
        &self,
        record: &BackupSet,
        object: &ObjectInfo,
        manifest: Option<&Manifest>,
        context: &RequestContext,
        (mut recorder, consume): (Option<&mut ArchiveRecorder<'_>>, ConsumeSignatures<'_>),
    ) -> Result<(), VolumeError> {
        let mut mismatch = None;
        fetch_log::note(object, "for the names of files");
        let read = self.objects.stream(object, None, DecodeThreads::TwoIfLarge, context, &mut |plain| {
            let binding = manifest.map(|manifest| SignatureBinding::new(manifest, record.start.is_none()));
            let mut plain = RecordedPlaintext { inner: plain, recorder: recorder.as_deref_mut() };
            let mut archive = SignatureStream::new(&object.name, &mut plain, binding);
            consume(&mut archive)?;
            mismatch = archive.finish()?;
            Ok(())
        });
        read.map_err(|error| error.with_second_copy(record, FileRole::Signature))?;
        match mismatch {
            Some(mismatch) => Err(other_signatures(record, object, &mismatch.to_string())),
            None => Ok(()),
        }
    }

    /// The manifest that the signature archive `object` of a set is compared with. `None` if one of the two is not encrypted,
    /// because then anyone can write a pair that agrees, or if the manifest cannot be read and reading it again would not
    /// help: then no file of the set can be read.
    ///
    /// # Errors
    /// [`VolumeError`] if reading the manifest again may help.
    fn binding_manifest(
        &self,
        record: &BackupSet,
        object: &ObjectInfo,
        context: &RequestContext,
    ) -> Result<Option<Arc<Manifest>>, VolumeError> {
        if !is_bound(record, object) {
            return Ok(None);
        }
        match self.manifests.get(record.index, context) {
            Ok(manifest) => Ok(Some(manifest)),
            Err(error) if error.kind().is_transient() => Err(error),
            Err(_) => Ok(None),
        }
    }

    /// The reason why the signature archive `object` of a set is of another run by the time at which it was written.
    /// duplicity encrypts it after the volumes and directly before the manifest.
    fn other_time(&self, record: &BackupSet, object: &ObjectInfo) -> Option<String> {
        let written = self.objects.written_at(&object.name)?;
        let start = record.time;
        if written.0 < start.0.saturating_sub(CLOCK_ALLOWANCE) {
            return Some(format!("it was written at {written}, and the set was begun at {start}"));
        }
        let manifest = self.objects.written_at(&record.manifest.as_ref()?.name)?;
        let is_later = written.0 > manifest.0.saturating_add(CLOCK_ALLOWANCE);
        is_later.then(|| format!("it was written at {written}, and the set was completed at {manifest}"))
    }

    /// Streams the beginning of the signature archive of `set` into `consume`; only a small part of it is fetched. Nothing is
    /// verified: the results may be used only until the whole archive has been read. `consume` may be called twice, and then
    /// starts over.
    ///
    /// # Errors
    /// [`VolumeError`] if it is missing or cannot be decrypted, or the error of `consume`.
    pub(super) fn peek(
        &self,
        set: SetIndex,
        context: &RequestContext,
        consume: ConsumeBeginning<'_>,
    ) -> Result<(), VolumeError> {
        let record = self.collection.set(set)?;
        if self.archive_dir.as_ref().is_some_and(|dir| dir.peek(&record, &self.objects, context, consume)) {
            return Ok(());
        }
        let object = self.object(set)?;
        self.objects.each_copy(&object, &mut |copy| {
            self.objects.peek(copy, PEEK_BYTES, context, &mut |plain| consume(&object.name, plain))
        })
    }

    /// The signed contents of the files of `set`, by its stored signature archive. One that is not encrypted proves
    /// nothing of a set that is.
    ///
    /// # Errors
    /// [`VolumeError`] if the archive is missing, cannot be decrypted or is damaged.
    pub(super) fn signed_contents(
        self: &Arc<Self>,
        set: SetIndex,
        context: &RequestContext,
    ) -> Result<Arc<SignedContents>, VolumeError> {
        if let Some(known) = self.known_contents(set) {
            return Ok(known);
        }
        let this = Arc::clone(self);
        self.reads.run(set, "dupfs-signatures", context, move |context| {
            if let Some(known) = this.known_contents(set) {
                return Ok(known);
            }
            let mut builder = SignedContentsBuilder::default();
            this.stream_stored(set, context, &mut |archive| {
                let object = archive.object();
                builder = SignedContentsBuilder::default();
                let mut parser = TarParser::new(TarLimits::default());
                feed(object, archive, &mut |chunk| parser.feed(chunk, &mut builder))?;
                parser.finish().map_err(|e| VolumeError::from_format(object, &e))
            })?;
            let contents = Arc::new(builder.finish());
            let mut signed = lock(&this.signed);
            signed.retain(|(other, _)| *other != set);
            let excess = signed.len().saturating_sub(MAX_SIGNED_SETS - 1);
            let dropped: Vec<_> = signed.drain(..excess).collect();
            signed.push((set, Arc::clone(&contents)));
            drop(signed);
            drop(dropped);
            Ok(contents)
        })
    }

    fn known_contents(&self, set: SetIndex) -> Option<Arc<SignedContents>> {
        let signed = lock(&self.signed);
        signed.iter().find(|(known, _)| *known == set).map(|(_, contents)| Arc::clone(contents))
    }

    /// Stored bytes of the signature archive of `set`, or of duplicity's copy of it if that is longer; 0 without either.
    pub(super) fn stored_len(&self, set: SetIndex) -> u64 {
        let copied = self.archive_dir.as_ref().map_or(0, |dir| dir.signatures_len(set));
        self.object(set).map_or(0, |object| object.size).max(copied)
    }

    /// Bytes that [`Self::stream`] reads for `set`, about.
    pub(super) fn fetch_len(&self, set: SetIndex) -> u64 {
        match &self.archive_dir {
            Some(_) => self.stored_len(set),
            None => self.needed_objects(set).iter().map(|object| object.size).fold(0, u64::saturating_add),
        }
    }

    /// Bytes that [`Self::check`] reads for `set`, about: none of an archive that is not compared with the manifest.
    pub(super) fn check_len(&self, set: SetIndex) -> u64 {
        let record = self.collection.set(set).ok();
        let archive = record.as_ref().and_then(|record| Some((record, record.signatures.as_ref()?)));
        archive.filter(|(record, archive)| is_bound(record, archive)).map_or(0, |(_, archive)| archive.size)
    }

    /// Bytes read so far from duplicity's archive directory.
    pub(super) fn copied_bytes(&self) -> u64 {
        self.archive_dir.as_ref().map_or(0, |dir| dir.read_bytes())
    }

    /// The stored objects that [`Self::stream`] reads for `set`, as far as they are not in memory. None with an archive directory,
    /// whose copies are read first.
    pub(super) fn needed_objects(&self, set: SetIndex) -> Vec<ObjectInfo> {
        let (Ok(record), None) = (self.collection.set(set), &self.archive_dir) else { return Vec::new() };
        let Some(archive) = record.signatures.clone() else { return Vec::new() };
        let is_needed = is_bound(&record, &archive) && self.manifests.cached(set).is_none();
        let manifest = record.manifest.clone().filter(|_| is_needed);
        [Some(archive), manifest].into_iter().flatten().collect()
    }

    fn object(&self, set: SetIndex) -> Result<ObjectInfo, VolumeError> {
        let record = self.collection.set(set)?;
        record.signatures.clone().ok_or_else(|| VolumeError::NoSignatures { set: record.label().into() })
    }
}

/// Returns true if the signature archive `object` of a set is compared with the manifest of the set.
fn is_bound(record: &BackupSet, object: &ObjectInfo) -> bool {
    !record.is_rebuilt && NameSuffix::of(&object.name).is_encrypted() && record.has_encrypted_manifest()
}

fn other_signatures(record: &BackupSet, object: &ObjectInfo, reason: &str) -> VolumeError {
    VolumeError::OtherSignatures { object: Arc::clone(&object.name), set: record.label().into(), reason: reason.into() }
}
