//! Which blocks of which volumes were verified, and by which pass.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use dupfs_base::sync::lock;
use dupfs_format::VolumeId;

/// For each volume that was verified, the pass whose copy of each block counts.
#[derive(Debug, Default)]
pub(super) struct VerifiedBlocks {
    next_pass: AtomicU32,
    volumes: Mutex<HashMap<VolumeId, Vec<u32>>>,
}

impl VerifiedBlocks {
    /// A number for a new pass, unlike all before it.
    pub(super) fn begin(&self) -> u32 {
        self.next_pass.fetch_add(1, Ordering::Relaxed)
    }

    /// The pass that vouches for block `index` of `volume`.
    pub(super) fn pass_of(&self, volume: VolumeId, index: u32) -> Option<u32> {
        lock(&self.volumes).get(&volume)?.get(index as usize).copied()
    }

    /// Marks the blocks in `stored` as vouched for by `pass`; the others keep the pass they had. `blocks` is the
    /// number of blocks of the volume.
    pub(super) fn publish(&self, volume: VolumeId, pass: u32, blocks: u32, stored: &[u32]) {
        let mut volumes = lock(&self.volumes);
        let passes = volumes.entry(volume).or_default();
        passes.resize(blocks as usize, pass);
        for &index in stored {
            if let Some(slot) = passes.get_mut(index as usize) {
                *slot = pass;
            }
        }
    }
}
