//! Locating a chain of deltas: each is found by what its own set says, so several sets are asked side by side. One after the
//! other, a file thirty increments deep would cost sixty times the store's latency.

use super::Content;
use super::file::FileRef;
use crate::volume::Volumes;
use dupfs_format::VolumeId;

/// Versions located side by side.
const WIDTH: usize = 8;
/// A version that may not be needed, as a newer delta may copy nothing of it, is located ahead if its volumes have at most so many
/// bytes in the store.
const MOST_AHEAD: u64 = 8 << 20;

impl Content {
    /// Locates the version at `index` of the file's history and those behind it, side by side. Gives the index of the first
    /// that was not tried. What fails is met again by whoever needs it.
    pub(super) fn locate_ahead(&self, volumes: &dyn Volumes, file: &FileRef, index: usize) -> usize {
        let end = index.saturating_add(WIDTH).min(file.history.len());
        if !volumes.context().may_block() || index.saturating_add(1) >= end {
            return end;
        }
        std::thread::scope(|scope| {
            for at in index..end {
                let work = move || {
                    if at == index || self.is_small(volumes, file, at) {
                        let _ = self.locate_base(volumes, file, at);
                    }
                };
                // Without a thread it is located when its turn comes.
                let _ = std::thread::Builder::new().name("dupfs-chain".into()).spawn_scoped(scope, work);
            }
        });
        end
    }

    /// Whether little is fetched for the version at `index` of the file's history. Reads its set's manifest, which is needed
    /// also of the oldest.
    fn is_small(&self, volumes: &dyn Volumes, file: &FileRef, index: usize) -> bool {
        let position = file.history.get(index).map(|version| version.position);
        let Some(set) = position.and_then(|position| file.line.set_at(position)) else { return false };
        let Ok(manifest) = volumes.manifest(set) else { return false };
        let listed = manifest.volumes_of(&file.path);
        let lens = listed.iter().map(|volume| volumes.stored_len(VolumeId { set, number: volume.number }));
        lens.fold(0u64, u64::saturating_add) <= MOST_AHEAD
    }
}
