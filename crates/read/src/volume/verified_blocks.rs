//! The verified blocks of each volume, and the pass that verified them.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use dupfs_base::sync::lock;
use dupfs_cache::BlockIndex;
use dupfs_format::VolumeId;

/// The number of a pass over a volume; no two passes of a process have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct PassId(u64);

/// For each verified volume the pass whose copy of each block is served.
#[derive(Debug, Default)]
pub(super) struct VerifiedBlocks {
    next_pass: AtomicU64,
    volumes: Mutex<HashMap<VolumeId, Vec<PassId>>>,
}

impl VerifiedBlocks {
    /// The number of a new pass.
    pub(super) fn begin_pass(&self) -> PassId {
        PassId(self.next_pass.fetch_add(1, Ordering::Relaxed))
    }

    /// The pass that verified block `index` of `volume`.
    pub(super) fn pass_of(&self, volume: VolumeId, index: BlockIndex) -> Option<PassId> {
        let index = usize::try_from(index.number()).ok()?;
        lock(&self.volumes).get(&volume)?.get(index).copied()
    }

    /// Marks the blocks in `stored` as verified by `pass`; the other blocks keep the pass they had. `blocks` is the number of
    /// blocks of the volume.
    pub(super) fn publish(&self, volume: VolumeId, pass: PassId, blocks: usize, stored: &[BlockIndex]) {
        let mut volumes = lock(&self.volumes);
        let passes = volumes.entry(volume).or_default();
        passes.resize(blocks, pass);
        for index in stored {
            if let Some(slot) = usize::try_from(index.number()).ok().and_then(|index| passes.get_mut(index)) {
                *slot = pass;
            }
        }
    }
}
