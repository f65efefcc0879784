//! Attributes that many versions share or that only few versions have. They are stored beside the versions, so that a
//! version stays small.

use std::collections::HashMap;
use std::sync::Arc;

use super::error::TreeError;
use super::ids::{checked_number, list_index};
use dupfs_format::{EntryKind, EntryMeta};

/// The kind of object that a version is; it determines the meaning of the version's number `aux`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum VersionKind {
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

impl VersionKind {
    const ALL: [Self; 7] = [Self::Deleted, Self::File, Self::Dir, Self::Symlink, Self::Fifo, Self::Char, Self::Block];

    /// The kind as a number; [`Self::of_tag`] takes it back.
    pub(super) fn tag(self) -> u8 {
        self as u8
    }

    /// The kind of that number, if there is one.
    pub(super) fn of_tag(tag: u8) -> Option<Self> {
        Self::ALL.get(usize::from(tag)).copied()
    }
}

/// An owner as headers name it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct OwnerRecord {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) uname: Arc<[u8]>,
    pub(super) gname: Arc<[u8]>,
}

/// Byte strings by their number, in one piece of memory.
#[derive(Debug, Default)]
pub(super) struct StringTable {
    bytes: Vec<u8>,
    ends: Vec<u32>,
}

impl StringTable {
    /// Adds `text` and gives its number.
    ///
    /// # Errors
    /// [`TreeError::TooLarge`] beyond 4 GiB of them.
    pub(super) fn push(&mut self, text: &[u8]) -> Result<u32, TreeError> {
        let id = checked_number(self.ends.len())?;
        let end = checked_number(self.bytes.len().saturating_add(text.len()))?;
        self.bytes.extend_from_slice(text);
        self.ends.push(end);
        Ok(id)
    }

    /// The string numbered `id`.
    pub(super) fn get(&self, id: u32) -> Option<&[u8]> {
        let end = list_index(*self.ends.get(list_index(id))?);
        let start =
            id.checked_sub(1).and_then(|before| self.ends.get(list_index(before))).map_or(0, |&end| list_index(end));
        self.bytes.get(start..end)
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }
}

/// Owners, link targets and device numbers by their number.
#[derive(Debug, Default)]
pub(super) struct AttributeTable {
    pub(super) owners: Vec<OwnerRecord>,
    owner_ids: HashMap<OwnerRecord, u32>,
    /// The owner requested last: runs of entries have the same.
    last_owner: u32,
    pub(super) links: StringTable,
    pub(super) devices: Vec<(u32, u32)>,
}

impl AttributeTable {
    /// The number of the owner of `meta`, and its kind with the number `aux`.
    ///
    /// # Errors
    /// [`TreeError::TooLarge`] beyond 2^32 of either.
    pub(super) fn pack(&mut self, meta: EntryMeta) -> Result<(u32, VersionKind, u32), TreeError> {
        let (kind, aux) = match meta.kind {
            EntryKind::File => (VersionKind::File, 0),
            EntryKind::Dir => (VersionKind::Dir, 0),
            EntryKind::Fifo => (VersionKind::Fifo, 0),
            EntryKind::Symlink(target) => (VersionKind::Symlink, self.links.push(&target)?),
            EntryKind::CharDevice(major, minor) => (VersionKind::Char, push(&mut self.devices, (major, minor))?),
            EntryKind::BlockDevice(major, minor) => (VersionKind::Block, push(&mut self.devices, (major, minor))?),
        };
        let owner = OwnerRecord { uid: meta.uid, gid: meta.gid, uname: meta.uname, gname: meta.gname };
        Ok((self.owner(owner)?, kind, aux))
    }

    /// The number of `owner`.
    ///
    /// # Errors
    /// [`TreeError::TooLarge`] beyond 2^32 of them.
    pub(super) fn owner(&mut self, owner: OwnerRecord) -> Result<u32, TreeError> {
        if self.owners.get(list_index(self.last_owner)) == Some(&owner) {
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
    pub(super) fn unpack(
        &self,
        owner: u32,
        (kind, aux): (VersionKind, u32),
        mode: u16,
        mtime: i64,
    ) -> Option<EntryMeta> {
        let device = || self.devices.get(list_index(aux)).copied();
        let kind = match kind {
            VersionKind::Deleted => return None,
            VersionKind::File => EntryKind::File,
            VersionKind::Dir => EntryKind::Dir,
            VersionKind::Symlink => EntryKind::Symlink(self.links.get(aux)?.into()),
            VersionKind::Fifo => EntryKind::Fifo,
            VersionKind::Char => device().map(|(major, minor)| EntryKind::CharDevice(major, minor))?,
            VersionKind::Block => device().map(|(major, minor)| EntryKind::BlockDevice(major, minor))?,
        };
        let OwnerRecord { uid, gid, uname, gname } = self.owners.get(list_index(owner))?.clone();
        Some(EntryMeta { kind, mode, uid, gid, uname, gname, mtime })
    }

    /// Returns true if the owner and the `aux` that a version of this kind has are numbers of items here.
    pub(super) fn has(&self, kind: VersionKind, owner: u32, aux: u32) -> bool {
        let owned = kind == VersionKind::Deleted || list_index(owner) < self.owners.len();
        owned
            && match kind {
                VersionKind::Deleted | VersionKind::File | VersionKind::Dir | VersionKind::Fifo => true,
                VersionKind::Symlink => list_index(aux) < self.links.len(),
                VersionKind::Char | VersionKind::Block => list_index(aux) < self.devices.len(),
            }
    }
}

fn push<T>(table: &mut Vec<T>, value: T) -> Result<u32, TreeError> {
    let id = checked_number(table.len())?;
    table.push(value);
    Ok(id)
}
