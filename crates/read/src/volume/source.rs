//! Volumes as the content layer reads them: waiting for what is not at hand, or saying that it is not.

use std::io::Read;
use std::sync::Arc;

use super::{MemberTable, Reader, Repository, VolumeError};
use dupfs_base::ByteRange;
use dupfs_cache::index::Identity;
use dupfs_format::manifest::Manifest;
use dupfs_format::{SetIndex, VolumeId};

/// Access to the volumes of a repository.
pub trait Volumes: Sync {
    /// Whether what is not at hand is fetched and waited for.
    fn waits(&self) -> bool;

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
    fn read_volume(&self, id: VolumeId, range: ByteRange, reader: Reader, out: &mut Vec<u8>)
    -> Result<(), VolumeError>;

    /// Takes note that `reader` asked where `range` of the volume is: who asks for the sizes of many files in stored order
    /// walks over the volumes as one who reads them does.
    fn note(&self, id: VolumeId, range: ByteRange, reader: Reader);

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
    fn learnt(&self) -> Learnt<'_>;
}

/// What the content layer has learnt before.
#[derive(Clone, Copy, Debug)]
pub struct Learnt<'a> {
    repository: &'a Repository,
    /// Whether the disk may be asked.
    waiting: bool,
}

impl Learnt<'_> {
    /// Whether anything can be kept.
    pub fn is_any(&self) -> bool {
        self.repository.index().is_some()
    }

    /// Whether anything can be recalled now.
    pub fn may_recall(&self) -> bool {
        self.waiting && self.is_any()
    }

    /// The identity of all that the set stores.
    pub fn identity(&self, set: SetIndex) -> Option<Identity> {
        self.repository.stored_identity(set)
    }

    /// The record of `key`; `None` also where it would have to be waited for.
    pub fn recall(&self, key: Identity) -> Option<Vec<u8>> {
        self.repository.index().filter(|_| self.waiting)?.get(key)
    }

    /// Keeps a record that is of use as long as `set` is there.
    pub fn keep(&self, key: Identity, set: SetIndex, record: Vec<u8>) {
        if let Some(index) = self.repository.index() {
            index.put(key, self.repository.group(set), record);
        }
    }

    /// Keeps the exact size of the file at place `at` in the signature archive of `set`.
    pub fn keep_size(&self, set: SetIndex, at: u32, size: u64) {
        if let Some(index) = self.repository.index()
            && let Some(key) = self.repository.sizes_key(set)
        {
            index.put_number(key, self.repository.group(set), at, size);
        }
    }
}

impl Volumes for Repository {
    fn waits(&self) -> bool {
        true
    }

    fn stored_len(&self, id: VolumeId) -> u64 {
        let set = self.set(id.set).ok();
        set.and_then(|set| set.volumes.get(&id.number).map(|object| object.size)).unwrap_or(0)
    }

    fn manifest(&self, set: SetIndex) -> Result<Arc<Manifest>, VolumeError> {
        Self::manifest(self, set)
    }

    fn members(&self, id: VolumeId) -> Result<Arc<MemberTable>, VolumeError> {
        Self::members(self, id)
    }

    fn read_volume(
        &self,
        id: VolumeId,
        range: ByteRange,
        reader: Reader,
        out: &mut Vec<u8>,
    ) -> Result<(), VolumeError> {
        Self::read_volume(self, id, range, reader, out)
    }

    fn note(&self, id: VolumeId, range: ByteRange, reader: Reader) {
        self.note_read(id, range, reader);
    }

    fn signatures(
        &self,
        set: SetIndex,
        consume: &mut dyn FnMut(&str, &mut dyn Read) -> Result<(), VolumeError>,
    ) -> Result<(), VolumeError> {
        self.stream_stored_signatures(set, consume)
    }

    fn label(&self, set: SetIndex) -> Arc<str> {
        self.set(set).map_or_else(|_| Arc::from("an unknown set"), |s| s.label().into())
    }

    fn learnt(&self) -> Learnt<'_> {
        Learnt { repository: self, waiting: true }
    }
}

/// The volumes of a repository as far as they are at hand: never fetches, never decodes; what is not at hand is
/// [`VolumeError::NotAtHand`].
#[derive(Clone, Copy, Debug)]
pub struct AtHand<'a>(pub &'a Repository);

impl Volumes for AtHand<'_> {
    fn waits(&self) -> bool {
        false
    }

    fn stored_len(&self, id: VolumeId) -> u64 {
        self.0.stored_len(id)
    }

    fn manifest(&self, set: SetIndex) -> Result<Arc<Manifest>, VolumeError> {
        self.0.cached_manifest(set).ok_or(VolumeError::NotAtHand)
    }

    fn members(&self, id: VolumeId) -> Result<Arc<MemberTable>, VolumeError> {
        self.0.cached_members(id).ok_or(VolumeError::NotAtHand)
    }

    fn read_volume(
        &self,
        id: VolumeId,
        range: ByteRange,
        reader: Reader,
        out: &mut Vec<u8>,
    ) -> Result<(), VolumeError> {
        self.0.read_at_hand(id, range, reader, out)
    }

    fn note(&self, id: VolumeId, range: ByteRange, reader: Reader) {
        self.0.note_read(id, range, reader);
    }

    fn signatures(
        &self,
        _: SetIndex,
        _: &mut dyn FnMut(&str, &mut dyn Read) -> Result<(), VolumeError>,
    ) -> Result<(), VolumeError> {
        Err(VolumeError::NotAtHand)
    }

    fn label(&self, set: SetIndex) -> Arc<str> {
        Volumes::label(self.0, set)
    }

    fn learnt(&self) -> Learnt<'_> {
        Learnt { repository: self.0, waiting: false }
    }
}
