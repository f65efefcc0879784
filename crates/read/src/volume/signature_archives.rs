//! The signature archives of the sets as plaintext streams.

use std::io::Read;
use std::sync::Arc;

use super::archive_dir::ArchiveDir;
use super::error::VolumeError;
use super::live_collection::LiveCollection;
use super::object_reader::{DecodeThreads, ObjectReader};
use crate::storage::ObjectInfo;
use dupfs_base::RequestContext;
use dupfs_format::SetIndex;

/// Stored bytes of a signature archive that a peek fetches.
const PEEK_BYTES: u64 = 256 << 10;

/// Reads the plaintext of a signature archive. It is given the name of the archive too.
pub(super) type ConsumeSignatures<'a> = &'a mut dyn FnMut(&str, &mut dyn Read) -> Result<(), VolumeError>;

/// The signature archives of a repository.
#[derive(Debug)]
pub(super) struct SignatureArchives {
    collection: Arc<LiveCollection>,
    objects: ObjectReader,
    archive_dir: Option<Arc<ArchiveDir>>,
}

impl SignatureArchives {
    /// The signature archives of the sets of `collection`.
    pub(super) fn new(
        collection: Arc<LiveCollection>,
        objects: ObjectReader,
        archive_dir: Option<Arc<ArchiveDir>>,
    ) -> Self {
        Self { collection, objects, archive_dir }
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
        self.objects.stream(&object, None, threads, context, &mut |plain| consume(&object.name, plain))
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

    fn object(&self, set: SetIndex) -> Result<ObjectInfo, VolumeError> {
        let record = self.collection.set(set)?;
        record.signatures.clone().ok_or_else(|| VolumeError::NoSignatures { set: record.label().into() })
    }
}
