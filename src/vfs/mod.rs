//! Rank 6: what a file system answers: lookup, getattr, readdir, open, read. No FUSE types.

mod at;
mod dirs;
mod error;
mod inode;
#[cfg(test)]
pub(crate) mod memory_fs;
mod nodes;
mod ops;
mod owners;
mod tree_fs;
mod unpacked;
mod versions;
mod view;
mod xattr;

pub use error::FsError;
pub use ops::{Attr, DirEntry, FileSystem, FsStats, Ino, NodeKind, Opened, ROOT_INO};
pub use owners::OwnerOptions;
pub use tree_fs::{Root, TreeFs, TreeOptions};
pub use unpacked::UnpackedFs;
