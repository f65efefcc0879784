//! Reads what duplicity writes: sans-IO parsers of its files, and backup sets, chains and snapshots from a listing.
//!
//! | module | what it reads | FORMAT.md |
//! |---|---|---|
//! | [`name`] | file names to backup sets, volumes, manifests, signatures | 1, 10 |
//! | [`manifest`] | which volume holds which part of which path | 2 |
//! | [`tar`] | tar streams, pushed in by chunks of any size | 3, 4.1 |
//! | [`sigtar`] | signature archives: names, metadata, size bounds | 5 |
//! | [`difftar`] | names of volume entries, mangled names | 4, 4.3 |
//! | [`delta`] | librsync delta commands | 6 |
//! | [`timespec`] | duplicity's time strings | 7 |
//! | [`collection`] | a listing to sets, chains and snapshots, with every problem reported | 7 |
//!
//! Every parser takes untrusted bytes: bounded in memory, never panicking, and its errors carry byte offsets.

pub mod collection;
pub mod delta;
pub mod difftar;
mod entry;
mod error;
#[doc(hidden)]
pub mod fuzz_entry;
mod ids;
pub mod manifest;
pub mod name;
mod object;
mod path;
pub mod sigtar;
mod stamp;
pub mod tar;
mod time;
pub mod timespec;

#[cfg(test)]
mod mutation_tests;
#[cfg(any(test, feature = "test-support"))]
pub mod test_tar;

pub use entry::{EntryKind, EntryMeta};
pub use error::FormatError;
pub use ids::{SetIndex, VolumeId, VolumeNumber};
pub use object::ObjectInfo;
pub use path::{ArchivePath, PathError};
pub use time::BackupTime;
