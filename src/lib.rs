//! dupfs mounts duplicity backups as an ordinary read-only directory tree.
//!
//! Modules are layered by rank; a module imports only from lower ranks, and `tests/layering.rs` enforces it.
//!
//! | rank | module | what it holds |
//! |---|---|---|
//! | 0 | [`types`] | shared vocabulary: paths in component order, times, identities, error classes |
//! | 1 | [`mod@format`] | sans-IO parsers of what duplicity writes |
//! | 1 | [`storage`] | where the objects of a backup are: list, and read a range as a stream |
//! | 2 | [`codec`] | gzip and OpenPGP, as readers over readers |
//! | 2 | [`cache`] | bounded blocks, sealed spill, single flight |
//! | 2 | [`collection`] | names to sets to chains to snapshots, with every problem reported |
//! | 2 | [`index`] | what was learnt, on disk: trees whole, all else by key |
//! | 3 | [`volume`] | a volume as verified random-access plaintext and its member table |
//! | 4 | [`tree`] | signature archives to one table of versions per path |
//! | 5 | [`content`] | a file at a snapshot as extents over volumes, and their bytes |
//! | 5 | [`unpack`] | archives as trees, compressed files as plain bytes; knows nothing of backups |
//! | 6 | [`vfs`] | lookup, getattr, readdir, read: what a file system answers, without FUSE types |
//! | 7 | [`fuse`] | the only module that knows the FUSE crate |
//! | 8 | [`cli`] | commands; wires the layers |

pub mod cache;
pub mod cli;
pub mod codec;
pub mod collection;
pub mod content;
pub mod format;
pub mod fuse;
pub mod index;
pub mod storage;
pub mod tree;
pub mod types;
pub mod unpack;
pub mod vfs;
pub mod volume;
