//! Attributes as columns of text.

use std::collections::HashMap;

use nix::unistd::{Gid, Group, Uid, User};

use crate::vfs::{Attr, NodeKind};
use dupfs_base::escape_bytes;
use dupfs_format::BackupTime;

/// Names of owners on this machine, each looked up once.
pub(super) struct OwnerNames {
    /// Owners are numbers even if this machine has names for them.
    numeric: bool,
    users: HashMap<u32, String>,
    groups: HashMap<u32, String>,
}

impl OwnerNames {
    /// The names of this machine; none with `numeric`.
    pub(super) fn new(numeric: bool) -> Self {
        Self { numeric, users: HashMap::new(), groups: HashMap::new() }
    }

    /// The columns of the owner and the group.
    pub(super) fn text(&mut self, attr: &Attr) -> String {
        if self.numeric {
            return format!("{:<8} {:<8}", attr.uid, attr.gid);
        }
        let user = self.user(attr.uid).to_owned();
        format!("{user:<8} {:<8}", self.group(attr.gid))
    }

    fn user(&mut self, uid: u32) -> &str {
        self.users.entry(uid).or_insert_with(|| {
            let user = User::from_uid(Uid::from_raw(uid)).ok().flatten();
            user.map_or_else(|| uid.to_string(), |user| escape_bytes(user.name.as_bytes()))
        })
    }

    fn group(&mut self, gid: u32) -> &str {
        self.groups.entry(gid).or_insert_with(|| {
            let group = Group::from_gid(Gid::from_raw(gid)).ok().flatten();
            group.map_or_else(|| gid.to_string(), |group| escape_bytes(group.name.as_bytes()))
        })
    }
}

/// The size; of devices their numbers, as `ls` has it. `<=` before an upper bound.
pub(super) fn size_text(attr: &Attr) -> String {
    match attr.kind {
        NodeKind::CharDevice | NodeKind::BlockDevice => format!("{}, {}", attr.rdev.0, attr.rdev.1),
        _ if !attr.exact => format!("<={}", attr.size),
        _ => attr.size.to_string(),
    }
}

/// The modification time in UTC.
pub(super) fn mtime_text(attr: &Attr) -> String {
    match jiff::Timestamp::from_second(attr.mtime) {
        Ok(time) => time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        Err(_) => BackupTime(attr.mtime).to_string(),
    }
}

/// Type and mode as `ls` has them.
pub(super) fn mode_text(attr: &Attr) -> String {
    let kind = match attr.kind {
        NodeKind::File => '-',
        NodeKind::Dir => 'd',
        NodeKind::Symlink => 'l',
        NodeKind::Fifo => 'p',
        NodeKind::CharDevice => 'c',
        NodeKind::BlockDevice => 'b',
    };
    let mut text = String::from(kind);
    for (shift, special, set, unset) in [(6, 0o4000, 's', 'S'), (3, 0o2000, 's', 'S'), (0, 0o1000, 't', 'T')] {
        let bits = attr.perm >> shift;
        let execute = match (bits & 1 != 0, attr.perm & special != 0) {
            (true, true) => set,
            (false, true) => unset,
            (true, false) => 'x',
            (false, false) => '-',
        };
        let read = if bits & 4 != 0 { 'r' } else { '-' };
        let write = if bits & 2 != 0 { 'w' } else { '-' };
        text.extend([read, write, execute]);
    }
    text
}
