//! dupfs mounts duplicity backups as an ordinary read-only directory tree.
//!
//! The layers below are separate crates: `dupfs-base`, `dupfs-format`, `dupfs-cache`, `dupfs-unpack` and `dupfs-read`.
//! docs/ARCHITECTURE.md describes them. A module here imports only from those above it in this table.
//!
//! | module | contents |
//! |---|---|
//! | [`vfs`] | lookup, getattr, readdir, read: the answers of a file system, without FUSE types |
//! | [`fuse`] | the only module that uses the FUSE crate |
//! | [`cli`] | commands; wires the layers |

pub mod cli;
pub mod fuse;
pub mod vfs;
