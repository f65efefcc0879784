//! Rank 1: sans-IO parsers of what duplicity writes.
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
//!
//! Every parser takes untrusted bytes: bounded in memory, never panicking, and its errors carry byte offsets.

pub mod delta;
pub mod difftar;
mod error;
#[doc(hidden)]
pub mod fuzz_entry;
pub mod manifest;
pub mod name;
pub mod sigtar;
mod stamp;
pub mod tar;
pub mod timespec;

#[cfg(test)]
mod mutation_tests;
#[cfg(test)]
pub(crate) mod test_tar;

pub use error::FormatError;
