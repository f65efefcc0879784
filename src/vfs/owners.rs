//! Whom files appear to belong to: names are mapped to this machine's numbers as duplicity maps them on restore
//! (FORMAT.md 4.2; `path.py`, `fromtar`): by name where the name exists here, else by the archived number.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use nix::unistd::{Group, User};

use dupfs_format::EntryMeta;

/// How archived owners and modes are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OwnerOptions {
    /// Show archived numbers, not this machine's numbers of the archived names.
    pub numeric: bool,
    /// Show this owner for everything.
    pub uid: Option<u32>,
    /// Show this group for everything.
    pub gid: Option<u32>,
    /// Mode bits to take away from everything.
    pub umask: u16,
}

/// Maps owners, each name once.
#[derive(Debug)]
pub(super) struct Owners {
    options: OwnerOptions,
    users: Mutex<HashMap<Box<[u8]>, Option<u32>>>,
    groups: Mutex<HashMap<Box<[u8]>, Option<u32>>>,
}

impl Owners {
    pub(super) fn new(options: OwnerOptions) -> Self {
        Self { options, users: Mutex::default(), groups: Mutex::default() }
    }

    /// The owner and group to show for `meta`.
    pub(super) fn of(&self, meta: &EntryMeta) -> (u32, u32) {
        let user = |name: &str| User::from_name(name).ok().flatten().map(|u| u.uid.as_raw());
        let group = |name: &str| Group::from_name(name).ok().flatten().map(|g| g.gid.as_raw());
        let uid = self.options.uid.or_else(|| self.by_name(&self.users, &meta.uname, user)).unwrap_or(meta.uid);
        let gid = self.options.gid.or_else(|| self.by_name(&self.groups, &meta.gname, group)).unwrap_or(meta.gid);
        (uid, gid)
    }

    /// The mode bits to show for `mode`.
    pub(super) fn mode(&self, mode: u16) -> u16 {
        mode & 0o7777 & !self.options.umask
    }

    fn by_name(
        &self,
        known: &Mutex<HashMap<Box<[u8]>, Option<u32>>>,
        name: &[u8],
        look_up: impl Fn(&str) -> Option<u32>,
    ) -> Option<u32> {
        if self.options.numeric || name.is_empty() {
            return None;
        }
        if let Some(id) = known.lock().unwrap_or_else(PoisonError::into_inner).get(name) {
            return *id;
        }
        // The user database may be on the network: no lock is held while it is asked.
        let id = std::str::from_utf8(name).ok().and_then(look_up);
        known.lock().unwrap_or_else(PoisonError::into_inner).insert(name.into(), id);
        id
    }
}
