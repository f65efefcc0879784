//! Attributes, types and names as JSON has them. Keys are stable (docs/CLI.md).

use serde::Serialize;

use crate::vfs::{Attr, NodeKind};
use dupfs_base::hex;

/// The attributes of an object.
#[derive(Debug, Serialize)]
pub(super) struct AttrJson {
    mode: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    nlink: Option<u32>,
    uid: u32,
    gid: u32,
    size: Option<u64>,
    size_is_exact: bool,
    mtime: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_hex: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<(u32, u32)>,
}

impl AttrJson {
    /// The attributes of an object, and the target of a symbolic link.
    pub(super) fn of(attr: &Attr, target: Option<&[u8]>) -> Self {
        let target = target.map(json_bytes);
        let is_device = matches!(attr.kind, NodeKind::CharDevice | NodeKind::BlockDevice);
        Self {
            mode: format!("{:04o}", attr.perm),
            nlink: None,
            uid: attr.uid,
            gid: attr.gid,
            size: Some(attr.size),
            size_is_exact: attr.exact,
            mtime: attr.mtime,
            target_hex: target.as_ref().and_then(|(_, hex)| hex.clone()),
            target: target.map(|(text, _)| text),
            device: is_device.then_some(attr.rdev),
        }
    }

    /// The same with the number of links.
    pub(super) fn with_nlink(self, nlink: u32) -> Self {
        Self { nlink: Some(nlink), ..self }
    }

    /// The same for an object whose size could not be determined.
    pub(super) fn without_size(self) -> Self {
        Self { size: None, size_is_exact: false, ..self }
    }
}

/// The name of a type in JSON.
pub(super) fn json_type(kind: NodeKind) -> &'static str {
    match kind {
        NodeKind::File => "file",
        NodeKind::Dir => "dir",
        NodeKind::Symlink => "symlink",
        NodeKind::Fifo => "fifo",
        NodeKind::CharDevice => "char-device",
        NodeKind::BlockDevice => "block-device",
    }
}

/// Bytes as JSON has them: as they are if they are UTF-8; else with replacement characters, and the bytes in hex.
pub(super) fn json_bytes(bytes: &[u8]) -> (String, Option<String>) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (text.to_owned(), None),
        Err(_) => (String::from_utf8_lossy(bytes).into_owned(), Some(hex(bytes))),
    }
}
