//! The passes that have answered requests before their end. They continue or are suspended, although no request waits for them,
//! so that the next read of the volume need not begin again.

use std::sync::{Arc, Mutex};

use super::object_reader::FetchGate;
use super::pass_join::JoinedPass;
use super::volume_progress::VolumeProgress;
use dupfs_base::sync::lock;

/// Upper bound of the passes. Each has a thread and the state of its decoder, some hundred KiB.
const MAX_PASSES: usize = 4;

/// The passes, the one that was used last at the end.
#[derive(Debug, Default)]
pub(super) struct AnsweredPasses(Mutex<Vec<JoinedPass>>);

impl AnsweredPasses {
    /// Adds the pass that `join` joins, unless it is there. The one that was not used for the longest time is dropped.
    pub(super) fn add(&self, progress: &Arc<VolumeProgress>, join: impl FnOnce() -> JoinedPass) {
        let is_there = {
            let mut passes = lock(&self.0);
            let position = passes.iter().position(|pass| Arc::ptr_eq(pass.shared(), progress));
            if let Some(position) = position {
                let pass = passes.remove(position);
                passes.push(pass);
            }
            position.is_some()
        };
        if is_there {
            return;
        }
        let joined = join();
        let dropped: Vec<JoinedPass> = {
            let mut passes = lock(&self.0);
            passes.push(joined);
            let excess = passes.len().saturating_sub(MAX_PASSES);
            passes.drain(..excess).collect()
        };
        drop(dropped);
    }

    /// Records that the reader of `file` is gone.
    pub(super) fn leave(&self, file: u64) {
        lock(&self.0).iter().for_each(|pass| pass.shared().leave(file));
    }

    /// Removes the pass with this progress, which has ended.
    pub(super) fn remove(&self, progress: &Arc<VolumeProgress>) {
        self.drop_if(|pass| Arc::ptr_eq(pass.shared(), progress));
    }

    /// Number of the passes that are suspended: they have a thread, and use no processor.
    pub(super) fn suspended(&self) -> usize {
        lock(&self.0).iter().filter(|pass| !pass.shared().is_open()).count()
    }

    /// Ends all passes that no request waits for.
    pub(super) fn clear(&self) {
        self.drop_if(|_| true);
    }

    fn drop_if(&self, is_dropped: impl Fn(&JoinedPass) -> bool) {
        let dropped: Vec<JoinedPass> = {
            let mut passes = lock(&self.0);
            let (dropped, kept) = std::mem::take(&mut *passes).into_iter().partition(|pass| is_dropped(pass));
            *passes = kept;
            dropped
        };
        drop(dropped);
    }
}
