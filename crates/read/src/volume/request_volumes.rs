//! Volumes as the content layer reads them, within the limits of one request.

use std::io::Read;
use std::sync::Arc;

use super::{MemberTable, ReadHint, Repository, VolumeError};
use dupfs_base::{ByteRange, RequestContext, Stopped};
use dupfs_cache::index::Identity;
use dupfs_format::manifest::Manifest;
use dupfs_format::{SetIndex, VolumeId};

/// Access to the volumes of a repository for one request.
pub trait Volumes: Sync {
    /// The limits of the request. One that may not block is answered from memory, or with [`Stopped::WouldBlock`].
    fn context(&self) -> &RequestContext;

    /// Bytes of the volume in the store; 0 if it is not there.
    fn stored_len(&self, id: VolumeId) -> u64;

    /// The set's manifest.
    ///
    /// # Errors
    /// [`VolumeError`].
    fn manifest(&self, set: SetIndex) -> Result<Arc<Manifest>, VolumeError>;

    /// The volume's member table.
    ///
    /// # Errors
    /// [`VolumeError`].
    fn members(&self, id: VolumeId) -> Result<Arc<MemberTable>, VolumeError>;

    /// Appends the bytes `range` of the volume's plaintext to `out`, for `reader`.
    ///
    /// # Errors
    /// [`VolumeError`]; then `out` is as it was.
    fn read_volume(
        &self,
        id: VolumeId,
        range: ByteRange,
        reader: ReadHint,
        out: &mut Vec<u8>,
    ) -> Result<(), VolumeError>;

    /// Takes note that `reader` asked where `range` of the volume is: who asks for the sizes of many files in stored order
    /// walks over the volumes as one who reads them does.
    fn note_lookup(&self, id: VolumeId, range: ByteRange, reader: ReadHint);

    /// Streams the plaintext of the set's stored signature archive into `consume`; what it learnt counts if this returns `Ok`.
    ///
    /// # Errors
    /// [`VolumeError`].
    fn signatures(
        &self,
        set: SetIndex,
        consume: &mut dyn FnMut(&str, &mut dyn Read) -> Result<(), VolumeError>,
    ) -> Result<(), VolumeError>;

    /// The set as people name it.
    fn label(&self, set: SetIndex) -> Arc<str>;

    /// What is recalled from the index and what is kept there.
    fn index(&self) -> RequestIndex<'_>;
}

/// What the content layer has learnt before.
#[derive(Clone, Copy, Debug)]
pub struct RequestIndex<'a> {
    repository: &'a Repository,
    /// Whether the disk may be asked.
    waiting: bool,
}

impl RequestIndex<'_> {
    /// Whether anything can be kept.
    pub fn is_enabled(&self) -> bool {
        self.repository.index().is_some()
    }

    /// Whether anything can be recalled now.
    pub fn may_load(&self) -> bool {
        self.waiting && self.is_enabled()
    }

    /// The identity of all that the set stores.
    pub fn identity(&self, set: SetIndex) -> Option<Identity> {
        self.repository.stored_identity(set)
    }

    /// The record of `key`; `None` also where it would have to be waited for.
    pub fn load(&self, key: Identity) -> Option<Vec<u8>> {
        self.repository.index().filter(|_| self.waiting)?.get(key)
    }

    /// Keeps a record that is of use as long as `set` is there.
    pub fn store(&self, key: Identity, set: SetIndex, record: Vec<u8>) {
        if let Some(index) = self.repository.index() {
            index.put(key, self.repository.group(set), record);
        }
    }

    /// Keeps the exact size of the file at place `at` in the signature archive of `set`.
    pub fn store_size(&self, set: SetIndex, at: u32, size: u64) {
        if let Some(index) = self.repository.index()
            && let Some(key) = self.repository.sizes_key(set)
        {
            index.put_number(key, self.repository.group(set), at, size);
        }
    }
}

/// The volumes of a repository within the limits of one request.
#[derive(Clone, Copy, Debug)]
pub struct RequestVolumes<'a> {
    repository: &'a Arc<Repository>,
    context: &'a RequestContext,
}

impl<'a> RequestVolumes<'a> {
    /// The volumes of `repository` for a request with this `context`.
    pub fn new(repository: &'a Arc<Repository>, context: &'a RequestContext) -> Self {
        Self { repository, context }
    }
}

impl Volumes for RequestVolumes<'_> {
    fn context(&self) -> &RequestContext {
        self.context
    }

    fn stored_len(&self, id: VolumeId) -> u64 {
        let set = self.repository.set(id.set).ok();
        set.and_then(|set| set.volumes.get(&id.number).map(|object| object.size)).unwrap_or(0)
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
        reader: ReadHint,
        out: &mut Vec<u8>,
    ) -> Result<(), VolumeError> {
        if self.context.may_block() {
            self.repository.read_volume(id, range, reader, out, self.context)
        } else {
            self.repository.read_cached(id, range, reader, out)
        }
    }

    fn note_lookup(&self, id: VolumeId, range: ByteRange, reader: ReadHint) {
        self.repository.note_read(id, range, reader);
    }

    fn signatures(
        &self,
        set: SetIndex,
        consume: &mut dyn FnMut(&str, &mut dyn Read) -> Result<(), VolumeError>,
    ) -> Result<(), VolumeError> {
        if !self.context.may_block() {
            return Err(Stopped::WouldBlock.into());
        }
        self.repository.stream_stored_signatures(set, self.context, consume)
    }

    fn label(&self, set: SetIndex) -> Arc<str> {
        self.repository.label(set)
    }

    fn index(&self) -> RequestIndex<'_> {
        RequestIndex { repository: self.repository, waiting: self.context.may_block() }
    }
}
