//! Side tables of a [`super::Table`]: what many versions share or few have, so that a version stays small.

use std::collections::HashMap;

use super::TreeError;
use super::table::{index, number};
use crate::types::{EntryKind, EntryMeta};

/// Kinds packed small; link targets and device numbers live in side tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packed {
    Deleted,
    File,
    Dir,
    Symlink(u32),
    Fifo,
    Char(u32),
    Block(u32),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Owner {
    uid: u32,
    gid: u32,
    uname: Box<[u8]>,
    gname: Box<[u8]>,
}

/// Owners, link targets and device numbers by their number.
#[derive(Debug, Default)]
pub(super) struct Side {
    owners: Vec<Owner>,
    owner_ids: HashMap<Owner, u32>,
    links: Vec<Box<[u8]>>,
    devices: Vec<(u32, u32)>,
}

impl Side {
    /// The number of the owner and the packed kind of `meta`.
    ///
    /// # Errors
    /// [`TreeError::TooLarge`] beyond 2^32 of either.
    pub(super) fn pack(&mut self, meta: EntryMeta) -> Result<(u32, Packed), TreeError> {
        let kind = match meta.kind {
            EntryKind::File => Packed::File,
            EntryKind::Dir => Packed::Dir,
            EntryKind::Fifo => Packed::Fifo,
            EntryKind::Symlink(target) => Packed::Symlink(push(&mut self.links, target)?),
            EntryKind::CharDevice(major, minor) => Packed::Char(push(&mut self.devices, (major, minor))?),
            EntryKind::BlockDevice(major, minor) => Packed::Block(push(&mut self.devices, (major, minor))?),
        };
        let owner = Owner { uid: meta.uid, gid: meta.gid, uname: meta.uname, gname: meta.gname };
        if let Some(&id) = self.owner_ids.get(&owner) {
            return Ok((id, kind));
        }
        let id = push(&mut self.owners, owner.clone())?;
        self.owner_ids.insert(owner, id);
        Ok((id, kind))
    }

    /// The metadata that was packed; `None` for deletions.
    pub(super) fn unpack(&self, owner: u32, kind: Packed, mode: u16, mtime: i64) -> Option<EntryMeta> {
        let device = |i: u32| self.devices.get(index(i)).copied();
        let kind = match kind {
            Packed::Deleted => return None,
            Packed::File => EntryKind::File,
            Packed::Dir => EntryKind::Dir,
            Packed::Symlink(i) => EntryKind::Symlink(self.links.get(index(i))?.clone()),
            Packed::Fifo => EntryKind::Fifo,
            Packed::Char(i) => device(i).map(|(major, minor)| EntryKind::CharDevice(major, minor))?,
            Packed::Block(i) => device(i).map(|(major, minor)| EntryKind::BlockDevice(major, minor))?,
        };
        let Owner { uid, gid, uname, gname } = self.owners.get(index(owner))?.clone();
        Some(EntryMeta { kind, mode, uid, gid, uname, gname, mtime })
    }
}

fn push<T>(table: &mut Vec<T>, value: T) -> Result<u32, TreeError> {
    let id = number(table.len())?;
    table.push(value);
    Ok(id)
}
