//! The signature archives of the sets as plaintext streams.

use std::io::Read;
use std::sync::{Arc, Mutex};

use super::archive_dir::ArchiveDir;
use super::error::VolumeError;
use super::fetch_log;
use super::live_collection::LiveCollection;
use super::object_reader::{DecodeThreads, ObjectReader};
use super::plaintext::feed;
use super::signed_contents::{SignedContents, SignedContentsBuilder};
use crate::storage::ObjectInfo;
use dupfs_base::RequestContext;
use dupfs_base::sync::{SingleFlight, lock};
use dupfs_format::SetIndex;
use dupfs_format::name::FileRole;
use dupfs_format::tar::{TarLimits, TarParser};

/// Stored bytes of a signature archive that a peek fetches.
const PEEK_BYTES: u64 = 256 << 10;

/// Sets whose signed contents are in memory, some 60 bytes for each file of theirs.
const MAX_SIGNED_SETS: usize = 3;

/// Reads the plaintext of a signature archive. It is given the name of the archive too.
pub(super) type ConsumeSignatures<'a> = &'a mut dyn FnMut(&str, &mut dyn Read) -> Result<(), VolumeError>;

/// The signature archives of a repository.
#[derive(Debug)]
pub(super) struct SignatureArchives {
    collection: Arc<LiveCollection>,
    objects: ObjectReader,
    archive_dir: Option<Arc<ArchiveDir>>,
    /// Signed contents of the sets that were asked for last, the newest at the end.
    signed: Mutex<Vec<(SetIndex, Arc<SignedContents>)>>,
    reads: SingleFlight<SetIndex, Arc<SignedContents>, VolumeError>,
}

impl SignatureArchives {
    /// The signature archives of the sets of `collection`.
    pub(super) fn new(
        collection: Arc<LiveCollection>,
        objects: ObjectReader,
        archive_dir: Option<Arc<ArchiveDir>>,
    ) -> Self {
        Self { collection, objects, archive_dir, signed: Mutex::default(), reads: SingleFlight::new() }
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

    /// Streams the signature archive of `set` from the store into `consume`, which is called once.
    ///
    /// # Errors
    /// As [`Self::stream`].
    pub(super) fn stream_stored(
        &self,
        set: SetIndex,
        context: &RequestContext,
        consume: ConsumeSignatures<'_>,
    ) -> Result<(), VolumeError> {
        let object = self.object(set)?;
        let threads = DecodeThreads::TwoIfLarge;
        fetch_log::note(&object, "for the names of files");
        let read = self.objects.stream(&object, None, threads, context, &mut |plain| consume(&object.name, plain));
        read.map_err(|error| match self.collection.set(set) {
            Ok(record) => error.with_second_copy(&record, FileRole::Signature),
            Err(_) => error,
        })
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
        consume: ConsumeSignatures<'_>,
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
            this.stream_stored(set, context, &mut |object, plain| {
                let mut parser = TarParser::new(TarLimits::default());
                feed(object, plain, &mut |chunk| parser.feed(chunk, &mut builder))?;
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
