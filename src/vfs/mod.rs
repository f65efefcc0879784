//! Rank 6: what a file system answers: lookup, getattr, readdir, open, read. No FUSE types.

mod error;
mod ops;

pub use error::FsError;
pub use ops::{Attr, DirEntry, FileSystem, FsStats, Ino, NodeKind, Opened, ROOT_INO, Wait};
