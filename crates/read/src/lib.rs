//! The read path: from the objects of a store to the bytes of a file at a snapshot.
//!
//! | module | contents |
//! |---|---|
//! | [`storage`] | where the objects of a backup are: list, and read a range as a stream |
//! | [`codec`] | gzip and OpenPGP, as readers over readers |
//! | [`volume`] | a volume as verified random-access plaintext, and its member table |
//! | [`tree`] | signature archives to one table of versions per path |
//! | [`content`] | a file at a snapshot as extents over volumes, and their bytes |

pub mod codec;
pub mod content;
mod meta_encoding;
pub mod storage;
pub mod tree;
pub mod volume;

pub use meta_encoding::fuzz_meta;
