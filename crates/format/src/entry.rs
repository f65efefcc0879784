//! The type and metadata of an object in a backup.

use std::sync::Arc;

/// The type of an object in a backup, with the data that only that type has.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link and its target, raw bytes.
    Symlink(Box<[u8]>),
    /// A named pipe.
    Fifo,
    /// A character device: major, minor.
    CharDevice(u32, u32),
    /// A block device: major, minor.
    BlockDevice(u32, u32),
}

/// Metadata of an object as stored in signature and volume headers (docs/FORMAT.md section 4.2).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EntryMeta {
    /// Type of the object.
    pub kind: EntryKind,
    /// The low 12 bits of the mode.
    pub mode: u16,
    /// Numeric owner.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
    /// Owner's name in raw bytes. Empty if it was unknown.
    pub uname: Arc<[u8]>,
    /// Group's name in raw bytes. Empty if it was unknown.
    pub gname: Arc<[u8]>,
    /// Modification time, whole seconds since 1970-01-01 UTC.
    pub mtime: i64,
}

impl EntryMeta {
    /// Returns the metadata without the texts that some writers mangle in volumes (docs/FORMAT.md section 4.3): names of
    /// owners and targets of links that are not of ASCII, or that have the `?` which replaces other bytes.
    #[must_use]
    pub fn unmangled(&self) -> Self {
        let is_certain = |text: &[u8]| text.is_ascii() && !text.contains(&b'?');
        let name = |name: &Arc<[u8]>| if is_certain(name) { Arc::clone(name) } else { Arc::default() };
        let kind = match &self.kind {
            EntryKind::Symlink(target) if !is_certain(target) => EntryKind::Symlink(Box::default()),
            kind => kind.clone(),
        };
        Self { kind, uname: name(&self.uname), gname: name(&self.gname), ..*self }
    }
}
