//! Rank 5: archives as trees and compressed files as plain bytes. Knows nothing of backups nor of file systems.
//!
//! Everything is a [`Source`], random access to bytes: what is to be unpacked, the [`Stream`] that decompressing it gives,
//! and a member of an [`Archive`]. So nesting is composition. A stream reads on where a reader stopped (a cursor), starts
//! from seek points where somebody jumps, and keeps what it decoded in the shared block cache; an archive learns its table
//! of members in one pass that readers need not wait for. Lengths and seek points go to a [`PointStore`], which may persist
//! them in the clear; tables go to the block cache alone, as they hold names from inside a backup.
//!
//! All of it may wait for the source and for decoding: call it from threads that may.

mod archive;
mod bits;
mod bzip2;
mod cursor;
mod decoder;
mod error;
mod form;
pub mod fuzz_entry;
mod gzip;
mod idle;
mod input;
mod limits;
mod links;
mod pass;
mod point_store;
mod points;
mod recognise;
mod source;
mod stream;
mod table;
mod table_store;
mod tar;
#[cfg(test)]
mod test_support;
mod workers;
mod xz;
mod zip;
mod zstd;

pub use archive::{Archive, dir_mode};
pub use error::UnpackError;
pub use limits::Limits;
pub use pass::{PassInterest, Progress};
pub use point_store::{IndexPointStore, MemoryPointStore, PointStore};
pub use recognise::{Container, Kind, SUFFIXES, Shape, confirm, shape_of};
pub use source::{MemorySource, Source};
pub use stream::{Codec, Stream, Unpacker};
pub use table::{Data, Entry, Node, NodeKey, Table};
