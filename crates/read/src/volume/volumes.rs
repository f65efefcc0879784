//! The volumes as the content layer reads them, within the limits of one request.

use std::io::Read;
use std::sync::Arc;

use super::error::VolumeError;
use super::member_table::MemberTable;
use super::read_hint::ReadHint;
use super::request_index::RequestIndex;
use super::running_volume::RunningVolume;
use super::signed_blocks::SignedBlocks;
use super::signed_contents::SignedContent;
use dupfs_base::{ByteRange, RequestContext};
use dupfs_format::manifest::Manifest;
use dupfs_format::{ArchivePath, SetIndex, VolumeId};

/// Access to the volumes of a repository for one request.
pub trait Volumes: Sync {
    /// The limits of the request. A request that may not block is answered from memory, or with
    /// [`dupfs_base::Stopped::WouldBlock`].
    fn context(&self) -> &RequestContext;

    /// Bytes of the volume in the store; `None` if it is not there.
    fn stored_len(&self, id: VolumeId) -> Option<u64>;

    /// The manifest of `set`.
    ///
    /// # Errors
    /// [`VolumeError`].
    fn manifest(&self, set: SetIndex) -> Result<Arc<Manifest>, VolumeError>;

    /// The member table of volume `id`.
    ///
    /// # Errors
    /// [`VolumeError`].
    fn members(&self, id: VolumeId) -> Result<Arc<MemberTable>, VolumeError>;

    /// Appends the bytes `range` of the plaintext of volume `id` to `out`.
    ///
    /// # Errors
    /// [`VolumeError`]; then `out` is as it was.
    fn read_volume(&self, id: VolumeId, range: ByteRange, hint: ReadHint, out: &mut Vec<u8>)
    -> Result<(), VolumeError>;

    /// The same volumes for a request that does not wait for slow passes: [`Self::members`] and [`Self::read_volume`] then give
    /// [`VolumeError::Slow`], and [`Self::slow_volume`] the volume. `None` if nothing may be served from them, or the request may not block.
    fn until_slow(&self) -> Option<Box<dyn Volumes + '_>>;

    /// The volume for which a call has given [`VolumeError::Slow`] last. Its pass continues as long as it is kept, or this object.
    fn slow_volume(&self) -> Option<Arc<RunningVolume>>;

    /// The sums of the blocks of the file at `path` as `set` signed it. The signature archive may be fetched for them, once, if it
    /// has at most `max_fetch` stored bytes. `None` if no sums prove single blocks.
    ///
    /// # Errors
    /// For the end of the request.
    fn signed_blocks(
        &self,
        set: SetIndex,
        path: &ArchivePath,
        max_fetch: u64,
    ) -> Result<Option<SignedBlocks>, VolumeError>;

    /// Records that `range` of a volume, a part of the file at `path`, was proved and served before the volume is verified. Its pass
    /// continues for the next reads.
    fn record_proved(&self, running: &RunningVolume, range: ByteRange, hint: ReadHint, path: &ArchivePath);

    /// Records that `range` of volume `id` was located but not read. A program that requests the sizes of many files in
    /// stored order scans the volumes as one that reads the files does.
    fn record_lookup(&self, id: VolumeId, range: ByteRange, hint: ReadHint);

    /// Streams the plaintext of the stored signature archive of `set` into `consume`, whose results are valid only if this
    /// returns `Ok`. `consume` starts over for another copy of a damaged archive.
    ///
    /// # Errors
    /// [`VolumeError`].
    fn signatures(
        &self,
        set: SetIndex,
        consume: &mut dyn FnMut(&str, &mut dyn Read) -> Result<(), VolumeError>,
    ) -> Result<(), VolumeError>;

    /// The content of the file at `path` as `set` signed it; `None` without a signature.
    ///
    /// # Errors
    /// [`VolumeError`].
    fn signed_content(&self, set: SetIndex, path: &ArchivePath) -> Result<Option<SignedContent>, VolumeError>;

    /// Returns true if `set` has lost its manifest, so that its volumes prove nothing.
    fn is_rebuilt(&self, set: SetIndex) -> bool;

    /// The name of the manifest of `set` in messages.
    fn manifest_name(&self, set: SetIndex) -> Arc<str>;

    /// The name of `set` in messages.
    fn label(&self, set: SetIndex) -> Arc<str>;

    /// The index of the repository.
    fn index(&self) -> RequestIndex<'_>;
}
