//! Inode numbers below `unpacked/`: the upper half is a space, of a snapshot's tree or of an archive that was entered, the
//! lower half a node in it. Spaces are numbered as they are met and kept for the life of the mount, so that a number never
//! changes its meaning and none has to be forgotten: memory grows with the archives that were looked into, not with what is
//! in them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use super::super::ops::Ino;
use super::entered::Gate;
use dupfs_base::sync::lock;
use dupfs_unpack::NodeKey;

/// The upper half of the first space's numbers. No snapshot and no line has a tag from here to [`END`].
const BASE: u32 = 1 << 22;
const END: u32 = 1 << 24;
/// The bit of node numbers that marks the stored bytes of a node. No archive has so many nodes.
pub(super) const STORED: u32 = 1 << 31;

/// `unpacked/` itself.
pub(super) const TOP_INO: Ino = (BASE as u64) << 32;

/// What an inode number below `unpacked/` stands for.
#[derive(Clone, Debug)]
pub(super) enum Place {
    /// `unpacked/`.
    Top,
    /// `unpacked/latest`, as a mirror of the link below of this number.
    Latest(Ino),
    /// The inode of the file system below of this number.
    Mirror(Ino),
    /// A node in an archive; never its root, which has the number of the archive's file.
    Member(Arc<Gate>, NodeKey),
    /// The stored bytes of a compressed file in an archive, which has a number of its own for its decompressed content.
    StoredMember(Arc<Gate>, NodeKey),
}

enum Space {
    Own,
    /// Inodes below whose upper half is this.
    Mirror(u64),
    Archive(Arc<Gate>),
}

/// All spaces.
pub(super) struct Spaces {
    state: Mutex<State>,
}

struct State {
    spaces: Vec<Space>,
    mirrors: HashMap<u64, u32>,
    /// By the number of the file, and that of its entry if it is a member of an archive.
    archives: HashMap<(Ino, Option<u32>), Arc<Gate>>,
    /// The links below that `unpacked/latest` has mirrored: each has a number of its own, as the kernel keeps targets of links.
    latest: Vec<Ino>,
}

impl Spaces {
    pub(super) fn new() -> Self {
        let (mirrors, archives, latest) = Default::default();
        Self { state: Mutex::new(State { spaces: vec![Space::Own], mirrors, archives, latest }) }
    }

    /// What `ino` stands for; `None` if it is not below `unpacked/` or was never given out.
    pub(super) fn resolve(&self, ino: Ino) -> Option<Place> {
        let low = ino & u64::from(u32::MAX);
        let id = u32::try_from(ino >> 32).ok()?.checked_sub(BASE)?;
        let state = lock(&self.state);
        match state.spaces.get(id as usize)? {
            Space::Own => match usize::try_from(low).ok()?.checked_sub(1) {
                None => Some(Place::Top),
                Some(at) => state.latest.get(at).copied().map(Place::Latest),
            },
            Space::Mirror(high) => Some(Place::Mirror((high << 32) | low)),
            Space::Archive(gate) => {
                let (gate, low) = (Arc::clone(gate), u32::try_from(low).ok()?);
                let key = NodeKey(low & !STORED);
                Some(if low & STORED == 0 { Place::Member(gate, key) } else { Place::StoredMember(gate, key) })
            }
        }
    }

    /// Whether `ino` is one of a space.
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
                state.spaces.push(Space::Mirror(high));
                state.mirrors.insert(high, id);
                id
            }
        };
        drop(state);
        Some(number(id, below & u64::from(u32::MAX)))
    }

    /// The gate of the archive in `file`, a file and its entry, made by `make` if nobody entered it before; `None` if there are
    /// too many.
    pub(super) fn gate(&self, file: (Ino, Option<u32>), make: impl FnOnce(u32) -> Gate) -> Option<Arc<Gate>> {
        let mut state = lock(&self.state);
        if let Some(gate) = state.archives.get(&file) {
            return Some(Arc::clone(gate));
        }
        let id = next(&state.spaces)?;
        let gate = Arc::new(make(id));
        state.spaces.push(Space::Archive(Arc::clone(&gate)));
        state.archives.insert(file, Arc::clone(&gate));
        Some(gate)
    }
}

fn next(spaces: &[Space]) -> Option<u32> {
    u32::try_from(spaces.len()).ok().filter(|id| *id < END - BASE)
}

/// The number of node `low` in space `id`.
pub(super) fn number(id: u32, low: u64) -> Ino {
    (u64::from(BASE + id) << 32) | low
}

impl std::fmt::Debug for Spaces {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Spaces").field("spaces", &lock(&self.state).spaces.len()).finish()
    }
}
