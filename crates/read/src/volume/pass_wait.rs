//! The time that a request waits for a pass over a volume.

use std::sync::{Arc, Mutex};

use super::running_volume::RunningVolume;
use dupfs_base::sync::lock;

/// The time that a request waits for a pass.
#[derive(Clone, Copy, Debug)]
pub(super) enum PassWait<'a> {
    /// Until its volume is verified.
    ToItsEnd,
    /// Until it is slow. Then the result is [`super::VolumeError::Slow`], and the volume is put here.
    UntilSlow(&'a SlowVolume),
}

/// The volume whose pass was found to be slow last.
#[derive(Debug, Default)]
pub(super) struct SlowVolume(Mutex<Option<Arc<RunningVolume>>>);

impl SlowVolume {
    /// Puts `volume` in the place of an earlier one.
    pub(super) fn set(&self, volume: RunningVolume) {
        let earlier = lock(&self.0).replace(Arc::new(volume));
        // Its pass may end with it.
        drop(earlier);
    }

    /// The volume.
    pub(super) fn get(&self) -> Option<Arc<RunningVolume>> {
        lock(&self.0).clone()
    }
}
