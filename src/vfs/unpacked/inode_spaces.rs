//! Inode numbers below `unpacked/`: the upper half is a space, of a snapshot's tree or of an archive that was opened, the
//! lower half a node in it. Spaces are numbered as they are found and retained for the life of the mount, so that a number never
//! changes its meaning and none has to be removed: memory grows with the archives that were visited, not with what is in them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use super::super::ops::Ino;
use super::archive_slot::ArchiveSlot;
use super::inode_number::{BASE, END, STORED, TOP_INO, number};
use dupfs_base::sync::lock;
use dupfs_unpack::{EntryNumber, NodeKey};

/// The object that an inode number below `unpacked/` represents.
#[derive(Clone, Debug)]
pub(super) enum InodeTarget {
    /// `unpacked/`.
    Top,
    /// `unpacked/latest`, as a mirror of the link below of this number.
    Latest(Ino),
    /// The inode of the file system below of this number.
    Mirror(Ino),
    /// A node in an archive; never its root, which has the number of the archive's file.
    Member(Arc<ArchiveSlot>, NodeKey),
    /// The stored bytes of a compressed file in an archive, whose decompressed content has another number.
    StoredMember(Arc<ArchiveSlot>, NodeKey),
}

enum InodeSpace {
    Own,
    /// Inodes below whose upper half is this.
    Mirror(u64),
    Archive(Arc<ArchiveSlot>),
}

/// All spaces.
pub(super) struct InodeSpaces {
    state: Mutex<SpacesState>,
}

struct SpacesState {
    spaces: Vec<InodeSpace>,
    mirrors: HashMap<u64, u32>,
    /// By the number of the file, and that of its entry if it is a member of an archive.
    archives: HashMap<(Ino, Option<EntryNumber>), Arc<ArchiveSlot>>,
    /// The links below that `unpacked/latest` has mirrored: each has its own number, because the kernel caches targets
    /// of links.
    latest: Vec<Ino>,
}

impl InodeSpaces {
    pub(super) fn new() -> Self {
        let (mirrors, archives, latest) = Default::default();
        Self { state: Mutex::new(SpacesState { spaces: vec![InodeSpace::Own], mirrors, archives, latest }) }
    }

    /// The target of `ino`; `None` if it is not below `unpacked/` or was never given out.
    pub(super) fn resolve(&self, ino: Ino) -> Option<InodeTarget> {
        let low = ino & u64::from(u32::MAX);
        let id = u32::try_from(ino >> 32).ok()?.checked_sub(BASE)?;
        let state = lock(&self.state);
        match state.spaces.get(id as usize)? {
            InodeSpace::Own => match usize::try_from(low).ok()?.checked_sub(1) {
                None => Some(InodeTarget::Top),
                Some(at) => state.latest.get(at).copied().map(InodeTarget::Latest),
            },
            InodeSpace::Mirror(high) => Some(InodeTarget::Mirror((high << 32) | low)),
            InodeSpace::Archive(slot) => {
                let (slot, low) = (Arc::clone(slot), u32::try_from(low).ok()?);
                let key = NodeKey(low & !STORED);
                Some(if low & STORED == 0 {
                    InodeTarget::Member(slot, key)
                } else {
                    InodeTarget::StoredMember(slot, key)
                })
            }
        }
    }

    /// Returns true if `ino` is below `unpacked/`.
    pub(super) fn is_ours(ino: Ino) -> bool {
        (u64::from(BASE)..u64::from(END)).contains(&(ino >> 32))
    }

    /// The number of `unpacked/latest` while it mirrors the link `below`.
    pub(super) fn latest(&self, below: Ino) -> Ino {
        let latest = &mut lock(&self.state).latest;
        let at = latest.iter().position(|&link| link == below).unwrap_or_else(|| {
            latest.push(below);
            latest.len().saturating_sub(1)
        });
        TOP_INO.saturating_add(1).saturating_add(at as u64)
    }

    /// The number below `unpacked/` of the inode `below`; `None` if there are too many.
    pub(super) fn mirror(&self, below: Ino) -> Option<Ino> {
        let high = below >> 32;
        let mut state = lock(&self.state);
        let id = match state.mirrors.get(&high) {
            Some(id) => *id,
            None => {
                let id = next(&state.spaces)?;
                state.spaces.push(InodeSpace::Mirror(high));
                state.mirrors.insert(high, id);
                id
            }
        };
        drop(state);
        Some(number(id, below & u64::from(u32::MAX)))
    }

    /// The slot of the archive in `file`, a file and its entry, made by `make` if it was not visited before; `None` if
    /// there are too many.
    pub(super) fn slot(
        &self,
        file: (Ino, Option<EntryNumber>),
        make: impl FnOnce(u32) -> ArchiveSlot,
    ) -> Option<Arc<ArchiveSlot>> {
        let mut state = lock(&self.state);
        if let Some(slot) = state.archives.get(&file) {
            return Some(Arc::clone(slot));
        }
        let id = next(&state.spaces)?;
        let slot = Arc::new(make(id));
        state.spaces.push(InodeSpace::Archive(Arc::clone(&slot)));
        state.archives.insert(file, Arc::clone(&slot));
        Some(slot)
    }
}

fn next(spaces: &[InodeSpace]) -> Option<u32> {
    u32::try_from(spaces.len()).ok().filter(|id| *id < END - BASE)
}

impl std::fmt::Debug for InodeSpaces {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InodeSpaces").field("spaces", &lock(&self.state).spaces.len()).finish()
    }
}
