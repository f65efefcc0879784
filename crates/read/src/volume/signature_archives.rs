//! The signature archives of the sets as plaintext streams.

use std::collections::HashSet;
use std::io::Read;
use std::sync::{Arc, Mutex};

use super::archive_dir::ArchiveDir;
use super::error::VolumeError;
use super::fetch_log;
use super::live_collection::LiveCollection;
use super::manifest_store::ManifestStore;
use super::object_reader::{DecodeThreads, ObjectReader};
use super::plaintext::feed;
use super::signature_stream::SignatureStream;
use super::signed_contents::{SignedContents, SignedContentsBuilder};
use crate::storage::ObjectInfo;
use dupfs_base::sync::{SingleFlight, lock};
use dupfs_base::{HasKind, RequestContext};
use dupfs_format::collection::BackupSet;
use dupfs_format::manifest::Manifest;
use dupfs_format::name::{FileRole, NameSuffix};
use dupfs_format::tar::{TarLimits, TarParser};
use dupfs_format::{SetIndex, SignatureBinding};

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
}

impl SignatureArchives {
    /// The signature archives of the sets of `collection`.
    pub(super) fn new(
        collection: Arc<LiveCollection>,
        objects: ObjectReader,
        manifests: Arc<ManifestStore>,
        archive_dir: Option<Arc<ArchiveDir>>,
    ) -> Self {
        let (warned, signed, reads) = (Mutex::default(), Mutex::default(), SingleFlight::new());
        Self { collection, objects, manifests, archive_dir, warned, signed, reads }
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

    /// Streams the signature archive of `set` from the store into `consume`, which is called once. An encrypted archive is
    /// compared with the manifest of the set, because an attacker can exchange two of them without a key.
    ///
    /// # Errors
    /// As [`Self::stream`]; [`VolumeError::OtherSignatures`].
    pub(super) fn stream_stored(
        &self,
        set: SetIndex,
        context: &RequestContext,
        consume: ConsumeSignatures<'_>,
    ) -> Result<(), VolumeError> {
        let record = self.collection.set(set)?;
        let object = self.object(set)?;
        let manifest = self.binding_manifest(&record, &object, context)?;
        self.stream_bound(&record, &object, manifest.as_deref(), context, consume)?;
        match self.other_time(&record, &object).filter(|_| manifest.is_some()) {
            Some(reason) if self.objects.requires_signer() => Err(other_signatures(&record, &object, &reason)),
            Some(reason) => {
                if lock(&self.warned).insert(set) {
                    log::warn!(
                        "{}; use it only if you know why; --sign-key refuses it",
                        other_signatures(&record, &object, &reason)
                    );
                }
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Reads the signature archive of `set` from the store and compares it with the manifest of the set.
    ///
    /// # Errors
    /// [`VolumeError`] if it is missing, cannot be decrypted or is damaged; [`VolumeError::OtherSignatures`].
    pub(super) fn check(&self, set: SetIndex, context: &RequestContext) -> Result<(), VolumeError> {
        let record = self.collection.set(set)?;
        let object = self.object(set)?;
        let Some(manifest) = self.binding_manifest(&record, &object, context)? else { return Ok(()) };
        self.stream_bound(&record, &object, Some(&manifest), context, &mut |_| Ok(()))?;
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
        consume: ConsumeSignatures<'_>,
    ) -> Result<(), VolumeError> {
        let mut mismatch = None;
        fetch_log::note(object, "for the names of files");
        let read = self.objects.stream(object, None, DecodeThreads::TwoIfLarge, context, &mut |plain| {
            let binding = manifest.map(|manifest| SignatureBinding::new(manifest, record.start.is_none()));
            let mut archive = SignatureStream::new(&object.name, plain, binding);
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
        let is_encrypted = |object: &ObjectInfo| NameSuffix::of(&object.name).is_encrypted();
        if record.is_rebuilt || !is_encrypted(object) || !record.manifest.as_ref().is_some_and(is_encrypted) {
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
        self.objects.peek(&object, PEEK_BYTES, context, &mut |plain| consume(&object.name, plain))
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
                let mut parser = TarParser::new(TarLimits::default());
                feed(object, archive, &mut |chunk| parser.feed(chunk, &mut builder))?;
                parser.finish().map_err(|e| VolumeError::from_format(object, &e))
            })?;
            let contents = Arc::new(builder.contents);
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

    fn object(&self, set: SetIndex) -> Result<ObjectInfo, VolumeError> {
        let record = self.collection.set(set)?;
        record.signatures.clone().ok_or_else(|| VolumeError::NoSignatures { set: record.label().into() })
    }
}

fn other_signatures(record: &BackupSet, object: &ObjectInfo, reason: &str) -> VolumeError {
    VolumeError::OtherSignatures { object: Arc::clone(&object.name), set: record.label().into(), reason: reason.into() }
}
