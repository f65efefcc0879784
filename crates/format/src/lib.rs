//! Readers of the files of [duplicity](https://duplicity.gitlab.io/) backups: names, manifests, volumes, signature
//! archives, deltas and time strings; and the backup sets, chains and snapshots that a listing of names shows.
//!
//! The crate does no I/O. Every parser takes bytes from the caller, in chunks of any size. Decryption and decompression
//! are the caller's task, too.
//!
//! | module | input and result | docs/FORMAT.md |
//! |---|---|---|
//! | [`name`] | a file name: its backup set, and its role as volume, manifest or signature archive | 1, 10 |
//! | [`collection`] | a listing: sets, chains, snapshots, and everything that is wrong with them | 7 |
//! | [`manifest`] | a manifest: the volumes of a set, and the volume of each part of each path | 2 |
//! | [`sigtar`] | a signature archive: changed paths, their metadata, bounds of file sizes | 5 |
//! | [`tar`] | a tar stream, such as a decoded volume: entries and their data | 3, 4.1 |
//! | [`difftar`] | the name of an entry in a volume, also in the forms that old writers mangled | 4, 4.3 |
//! | [`delta`] | a librsync delta: its commands | 6 |
//! | [`timespec`] | a time string of duplicity's `--time` | 7 |
//!
//! Every parser accepts untrusted bytes. Memory is bounded, no input causes a panic, and errors have the byte offset of
//! the damage. Fuzz targets and mutation tests check this.
//!
//! ```
//! use dupfs_format::collection::{Collection, PrefixOptions};
//! use dupfs_format::ObjectInfo;
//!
//! let object = |name: &str| ObjectInfo { name: name.into(), size: 100, version: "1".into(), class: None, archived: None };
//! let listing = [
//!     object("duplicity-full.20261122T131029Z.manifest"),
//!     object("duplicity-full.20261122T131029Z.vol1.difftar.gz"),
//!     object("duplicity-full-signatures.20261122T131029Z.sigtar.gz"),
//! ];
//! let collection = Collection::from_listing(&listing, &PrefixOptions::default())?;
//! assert_eq!(&*collection.latest().unwrap().name, "20261122T131029Z");
//! assert!(collection.problems().is_empty());
//! # Ok::<(), dupfs_format::collection::CollectionError>(())
//! ```

mod backup_time;
mod civil_time;
pub mod collection;
pub mod delta;
pub mod difftar;
mod entry;
mod error;
#[doc(hidden)]
pub mod fuzz_entry;
mod ids;
mod last_owner_names;
pub mod manifest;
pub mod name;
mod object;
mod path;
mod signature_binding;
pub mod sigtar;
pub mod tar;
pub mod timespec;

#[cfg(test)]
mod mutation_tests;

pub use backup_time::BackupTime;
pub use entry::{EntryKind, EntryMeta};
pub use error::FormatError;
pub use ids::{SetIndex, VolumeId, VolumeNumber};
pub use last_owner_names::LastOwnerNames;
pub use object::ObjectInfo;
pub use path::{ArchivePath, MAX_PATH_LEN, PathError};
pub use signature_binding::{BindingMismatch, SignatureBinding};

/// Compiles and runs the example in the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadmeExample;
