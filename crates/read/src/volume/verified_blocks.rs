//! The verified blocks of each volume and signature archive, and the pass that verified them.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use dupfs_base::sync::lock;
use dupfs_cache::BlockIndex;
use dupfs_format::{SetIndex, VolumeId};

/// An object whose plaintext is cached in blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum DecodedObject {
    /// A volume.
    Volume(VolumeId),
    /// The stored signature archive of a set.
    Signatures(SetIndex),
}

impl From<VolumeId> for DecodedObject {
    fn from(id: VolumeId) -> Self {
        Self::Volume(id)
    }
}

/// The number of a pass over an object; no two passes of a process have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct PassId(u64);

/// For each verified object the pass whose copy of each block is served.
#[derive(Debug, Default)]
pub(super) struct VerifiedBlocks {
    next_pass: AtomicU64,
    objects: Mutex<HashMap<DecodedObject, Vec<PassId>>>,
}

impl VerifiedBlocks {
    /// The number of a new pass.
    pub(super) fn begin_pass(&self) -> PassId {
        PassId(self.next_pass.fetch_add(1, Ordering::Relaxed))
    }

    /// The pass that verified block `index` of `object`.
    pub(super) fn pass_of(&self, object: DecodedObject, index: BlockIndex) -> Option<PassId> {
        let index = usize::try_from(index.number()).ok()?;
        lock(&self.objects).get(&object)?.get(index).copied()
    }

    /// Marks the blocks in `stored` as verified by `pass`; the other blocks keep the pass they had. `blocks` is the number of
    /// blocks of the object.
    pub(super) fn publish(&self, object: DecodedObject, pass: PassId, blocks: usize, stored: &[BlockIndex]) {
        let mut objects = lock(&self.objects);
        let passes = objects.entry(object).or_default();
        passes.resize(blocks, pass);
        for index in stored {
            if let Some(slot) = usize::try_from(index.number()).ok().and_then(|index| passes.get_mut(index)) {
                *slot = pass;
            }
        }
    }
}
