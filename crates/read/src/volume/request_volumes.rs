//! The volumes of a repository within the limits of one request.

use std::io::Read;
use std::sync::Arc;

use super::error::VolumeError;
use super::member_table::MemberTable;
use super::pass_wait::{PassWait, SlowVolume};
use super::read_hint::ReadHint;
use super::repository::Repository;
use super::request_index::RequestIndex;
use super::running_volume::RunningVolume;
use super::signed_blocks::SignedBlocks;
use super::signed_contents::SignedContent;
use super::volumes::Volumes;
use dupfs_base::{ByteRange, RequestContext};
use dupfs_format::manifest::Manifest;
use dupfs_format::{ArchivePath, SetIndex, VolumeId};

/// The volumes of a repository within the limits of one request.
#[derive(Debug)]
pub struct RequestVolumes<'a> {
    repository: &'a Repository,
    context: &'a RequestContext,
    /// The place for a slow volume, if the request does not wait for such.
    slow: Option<SlowVolume>,
}

impl<'a> RequestVolumes<'a> {
    /// The volumes of `repository` for a request with this `context`.
    pub fn new(repository: &'a Repository, context: &'a RequestContext) -> Self {
        Self { repository, context, slow: None }
    }

    fn wait(&self) -> PassWait<'_> {
        self.slow.as_ref().map_or(PassWait::ToItsEnd, PassWait::UntilSlow)
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
        self.repository.members_within(id, self.wait(), self.context)
    }

    fn read_volume(
        &self,
        id: VolumeId,
        range: ByteRange,
        hint: ReadHint,
        out: &mut Vec<u8>,
    ) -> Result<(), VolumeError> {
        self.repository.read_within(id, range, hint, out, (self.wait(), self.context))
    }

    fn until_slow(&self) -> Option<Box<dyn Volumes + '_>> {
        let is_possible = self.context.may_block() && self.repository.serves_slow_passes();
        let slow = Some(SlowVolume::default());
        is_possible.then(|| Box::new(Self { slow, ..*self }) as Box<dyn Volumes>)
    }

    fn slow_volume(&self) -> Option<Arc<RunningVolume>> {
        self.slow.as_ref()?.get()
    }

    fn signed_blocks(
        &self,
        set: SetIndex,
        path: &ArchivePath,
        max_fetch: u64,
    ) -> Result<Option<SignedBlocks>, VolumeError> {
        self.repository.signed_blocks(set, path, max_fetch, self.context)
    }

    fn record_proved(&self, running: &RunningVolume, range: ByteRange, hint: ReadHint, path: &ArchivePath) {
        self.repository.record_proved(running, range, hint, path);
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
