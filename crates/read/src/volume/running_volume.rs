//! A volume whose pass has not ended, for a request that can prove the content itself.

use std::sync::Arc;

use super::block_store::BlockStore;
use super::error::VolumeError;
use super::member_table::MemberTable;
use super::pass_join::JoinedPass;
use super::signed_blocks::Unverified;
use super::volume_progress::{VolumeInterest, VolumeProgress};
use dupfs_base::{ByteRange, RequestContext};
use dupfs_format::{ArchivePath, VolumeId};

/// A volume whose pass has not ended. Nothing of it is verified: members may be wrong, and its bytes are `Unverified`. The pass
/// continues as long as this exists.
#[derive(Debug)]
pub struct RunningVolume {
    pub(super) id: VolumeId,
    pub(super) object: Arc<str>,
    /// Bytes of the volume in the store.
    pub(super) stored_len: u64,
    pub(super) is_encrypted: bool,
    pub(super) blocks: Arc<BlockStore>,
    pub(super) joined: JoinedPass,
    pub(super) _interest: VolumeInterest,
}

impl RunningVolume {
    /// The name of the volume in the store.
    pub fn object(&self) -> &str {
        &self.object
    }

    /// The volume.
    pub(crate) fn id(&self) -> VolumeId {
        self.id
    }

    /// Bytes of the volume in the store.
    pub(crate) fn stored_len(&self) -> u64 {
        self.stored_len
    }

    /// Returns true if only an encrypted signature archive proves its content.
    pub(crate) fn is_encrypted(&self) -> bool {
        self.is_encrypted
    }

    /// Returns true once the pass has ended.
    pub(crate) fn is_ended(&self) -> bool {
        self.progress().is_ended()
    }

    fn progress(&self) -> &Arc<VolumeProgress> {
        self.joined.shared()
    }

    /// Waits until `look` finds a value of the object at `path` in the members that were decoded so far. `None` if the pass ends
    /// first, if there is none before the next path, or if the members are not in order.
    ///
    /// # Errors
    /// [`VolumeError`] if the pass fails, or for the end of the request.
    pub(crate) fn find<T>(
        &self,
        context: &RequestContext,
        path: &ArchivePath,
        mut look: impl FnMut(&MemberTable) -> Option<T>,
    ) -> Result<Option<T>, VolumeError> {
        let _waiting = context.awaiting(|| Arc::clone(&self.object));
        let mut seen = 0;
        loop {
            let Some(decoded) = self.wait_beyond(seen, context)? else { return self.ended(context) };
            seen = decoded;
            let newest = self.progress().newest_path();
            if newest.as_ref().is_none_or(|newest| newest < path) {
                continue;
            }
            let Some(members) = self.progress().members_so_far() else { return Ok(None) };
            if let Some(found) = look(&members) {
                return Ok(Some(found));
            }
            if newest.is_some_and(|newest| newest > *path) {
                return Ok(None);
            }
        }
    }

    /// Waits until the bytes `range` of the plaintext are decoded and appends them to `out`. Returns false if the pass ends first,
    /// or if the blocks are not cached: there was no room for them.
    ///
    /// # Errors
    /// [`VolumeError`] if the pass fails, or for the end of the request.
    pub(crate) fn append(
        &self,
        range: ByteRange,
        context: &RequestContext,
        out: &mut Unverified,
    ) -> Result<bool, VolumeError> {
        if range.is_empty() {
            return Ok(true);
        }
        let _waiting = context.awaiting(|| Arc::clone(&self.object));
        if self.wait_beyond(range.end.saturating_sub(1), context)?.is_none() {
            return self.ended::<()>(context).map(|_| false);
        }
        let Some(pass) = self.progress().pass() else { return Ok(false) };
        let Some(blocks) = self.blocks.get_unverified(self.id, pass, range) else { return Ok(false) };
        Ok(out.extend(self.is_encrypted, |bytes| blocks.append_to(range, bytes)))
    }

    /// Records that a part of the file at `path`, with the number `file` in read hints, was served: the pass continues a while.
    pub(super) fn record_answer(&self, file: u64, path: &ArchivePath) {
        self.progress().answered(file, path);
    }

    /// About the length of the whole plaintext; `None` at the beginning.
    pub(super) fn likely_plain_len(&self) -> Option<u64> {
        self.progress().likely_plain_len()
    }

    /// Returns true once most of the volume was read.
    pub(super) fn is_mostly_read(&self) -> bool {
        self.progress().is_mostly_read()
    }

    fn wait_beyond(&self, seen: u64, context: &RequestContext) -> Result<Option<u64>, VolumeError> {
        let waited = self.progress().wait_beyond(seen, context);
        waited.map_err(|stopped| VolumeError::from(stopped).while_waiting_for(&self.object))
    }

    /// The result for a pass that has ended: `None` if it succeeded, because the volume is cached now, or if it was a prefetch.
    fn ended<T>(&self, context: &RequestContext) -> Result<Option<T>, VolumeError> {
        match self.joined.wait(context) {
            Ok(_) | Err(VolumeError::Prefetch(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }
}
