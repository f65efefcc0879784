//! Side tables of a [`super::Table`]: what many versions share or few have, so that a version stays small.

use std::collections::HashMap;

use super::TreeError;
use super::table::{index, number};
use dupfs_format::{EntryKind, EntryMeta};

/// What a version is; `aux` of the version is a number whose meaning depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Deleted,
    File,
    Dir,
    /// `aux` numbers the target.
    Symlink,
    Fifo,
    /// `aux` numbers the device.
    Char,
    /// `aux` numbers the device.
    Block,
}

impl Kind {
    const ALL: [Self; 7] = [Self::Deleted, Self::File, Self::Dir, Self::Symlink, Self::Fifo, Self::Char, Self::Block];

    /// The kind as a number; [`Self::of_tag`] takes it back.
    pub(super) fn tag(self) -> u8 {
        self as u8
    }

    /// The kind of that number, if it is one's.
    pub(super) fn of_tag(tag: u8) -> Option<Self> {
        Self::ALL.get(usize::from(tag)).copied()
    }
}

/// An owner as headers name it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Owner {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) uname: Box<[u8]>,
    pub(super) gname: Box<[u8]>,
}

/// Byte strings by their number, in one piece of memory.
#[derive(Debug, Default)]
pub(super) struct Strings {
    bytes: Vec<u8>,
    ends: Vec<u32>,
}

impl Strings {
    /// Adds `text` and gives its number.
    ///
    /// # Errors
    /// [`TreeError::TooLarge`] beyond 4 GiB of them.
    pub(super) fn push(&mut self, text: &[u8]) -> Result<u32, TreeError> {
        let id = number(self.ends.len())?;
        let end = number(self.bytes.len().saturating_add(text.len()))?;
        self.bytes.extend_from_slice(text);
        self.ends.push(end);
        Ok(id)
    }

    /// The string numbered `id`.
    pub(super) fn get(&self, id: u32) -> Option<&[u8]> {
        let end = index(*self.ends.get(index(id))?);
        let start = id.checked_sub(1).and_then(|before| self.ends.get(index(before))).map_or(0, |&end| index(end));
        self.bytes.get(start..end)
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }
}

/// Owners, link targets and device numbers by their number.
#[derive(Debug, Default)]
pub(super) struct Side {
    pub(super) owners: Vec<Owner>,
    owner_ids: HashMap<Owner, u32>,
    /// The owner asked for last: runs of entries have the same.
    last_owner: u32,
    pub(super) links: Strings,
    pub(super) devices: Vec<(u32, u32)>,
}

impl Side {
    /// The number of the owner of `meta`, and its kind with what goes with it.
    ///
    /// # Errors
    /// [`TreeError::TooLarge`] beyond 2^32 of either.
    pub(super) fn pack(&mut self, meta: EntryMeta) -> Result<(u32, Kind, u32), TreeError> {
        let (kind, aux) = match meta.kind {
            EntryKind::File => (Kind::File, 0),
            EntryKind::Dir => (Kind::Dir, 0),
            EntryKind::Fifo => (Kind::Fifo, 0),
            EntryKind::Symlink(target) => (Kind::Symlink, self.links.push(&target)?),
            EntryKind::CharDevice(major, minor) => (Kind::Char, push(&mut self.devices, (major, minor))?),
            EntryKind::BlockDevice(major, minor) => (Kind::Block, push(&mut self.devices, (major, minor))?),
        };
        let owner = Owner { uid: meta.uid, gid: meta.gid, uname: meta.uname, gname: meta.gname };
        Ok((self.owner(owner)?, kind, aux))
    }

    /// The number of `owner`.
    ///
    /// # Errors
    /// [`TreeError::TooLarge`] beyond 2^32 of them.
    pub(super) fn owner(&mut self, owner: Owner) -> Result<u32, TreeError> {
        if self.owners.get(index(self.last_owner)) == Some(&owner) {
            return Ok(self.last_owner);
        }
        let id = match self.owner_ids.get(&owner) {
            Some(&id) => id,
            None => {
                let id = push(&mut self.owners, owner.clone())?;
                self.owner_ids.insert(owner, id);
                id
            }
        };
        self.last_owner = id;
        Ok(id)
    }

    /// The metadata that was packed; `None` for deletions.
    pub(super) fn unpack(&self, owner: u32, (kind, aux): (Kind, u32), mode: u16, mtime: i64) -> Option<EntryMeta> {
        let device = || self.devices.get(index(aux)).copied();
        let kind = match kind {
            Kind::Deleted => return None,
            Kind::File => EntryKind::File,
            Kind::Dir => EntryKind::Dir,
            Kind::Symlink => EntryKind::Symlink(self.links.get(aux)?.into()),
            Kind::Fifo => EntryKind::Fifo,
            Kind::Char => device().map(|(major, minor)| EntryKind::CharDevice(major, minor))?,
            Kind::Block => device().map(|(major, minor)| EntryKind::BlockDevice(major, minor))?,
        };
        let Owner { uid, gid, uname, gname } = self.owners.get(index(owner))?.clone();
        Some(EntryMeta { kind, mode, uid, gid, uname, gname, mtime })
    }

    /// Whether a version of this kind may have this `aux`.
    pub(super) fn knows(&self, kind: Kind, aux: u32) -> bool {
        match kind {
            Kind::Deleted | Kind::File | Kind::Dir | Kind::Fifo => true,
            Kind::Symlink => index(aux) < self.links.len(),
            Kind::Char | Kind::Block => index(aux) < self.devices.len(),
        }
    }
}

fn push<T>(table: &mut Vec<T>, value: T) -> Result<u32, TreeError> {
    let id = number(table.len())?;
    table.push(value);
    Ok(id)
}
