//! The volumes of a repository within the limits of one request.

use std::io::Read;
use std::sync::Arc;

use super::error::VolumeError;
use super::member_table::MemberTable;
use super::read_hint::ReadHint;
use super::repository::Repository;
use super::request_index::RequestIndex;
use super::signed_contents::SignedContent;
use super::volumes::Volumes;
use dupfs_base::{ByteRange, RequestContext};
use dupfs_format::manifest::Manifest;
use dupfs_format::{ArchivePath, SetIndex, VolumeId};

/// The volumes of a repository within the limits of one request.
#[derive(Clone, Copy, Debug)]
pub struct RequestVolumes<'a> {
    repository: &'a Repository,
    context: &'a RequestContext,
}

impl<'a> RequestVolumes<'a> {
    /// The volumes of `repository` for a request with this `context`.
    pub fn new(repository: &'a Repository, context: &'a RequestContext) -> Self {
        Self { repository, context }
    }
}

impl Volumes for RequestVolumes<'_> {
    fn context(&self) -> &RequestContext {
        self.context
    }

    fn stored_len(&self, id: VolumeId) -> Option<u64> {
        self.repository.set(id.set).ok()?.volumes.get(&id.number).map(|object| object.size)
    }

    fn manifest(&self, set: SetIndex) -> Result<Arc<Manifest>, VolumeError> {
        self.repository.manifest(set, self.context)
    }

    fn members(&self, id: VolumeId) -> Result<Arc<MemberTable>, VolumeError> {
        self.repository.members(id, self.context)
    }

    fn read_volume(
        &self,
        id: VolumeId,
        range: ByteRange,
        hint: ReadHint,
        out: &mut Vec<u8>,
    ) -> Result<(), VolumeError> {
        self.repository.read_volume(id, range, hint, out, self.context)
    }

    fn record_lookup(&self, id: VolumeId, range: ByteRange, hint: ReadHint) {
        self.repository.record_lookup(id, range, hint);
    }

    fn signatures(
        &self,
        set: SetIndex,
        consume: &mut dyn FnMut(&str, &mut dyn Read) -> Result<(), VolumeError>,
    ) -> Result<(), VolumeError> {
        self.context.check_may_block()?;
        self.repository.stream_stored_signatures(set, self.context, &mut |archive| consume(archive.object(), archive))
    }

    fn signed_content(&self, set: SetIndex, path: &ArchivePath) -> Result<Option<SignedContent>, VolumeError> {
        self.repository.signed_content(set, path, self.context)
    }

    fn is_rebuilt(&self, set: SetIndex) -> bool {
        self.repository.set(set).is_ok_and(|set| set.is_rebuilt)
    }

    fn manifest_name(&self, set: SetIndex) -> Arc<str> {
        let set = self.repository.set(set).ok();
        set.and_then(|set| set.manifest.as_ref().map(|object| Arc::clone(&object.name)))
            .unwrap_or_else(|| "the manifest".into())
    }

    fn label(&self, set: SetIndex) -> Arc<str> {
        self.repository.label(set)
    }

    fn index(&self) -> RequestIndex<'_> {
        RequestIndex::new(self.repository.index(), self.context.may_block())
    }
}
