//! Archives as trees and compressed files as plain bytes. This crate is independent of backups and file systems.
//!
//! Everything is a [`ByteSource`], random access to bytes: a stored file, the [`DecompressedStream`] over it, and a
//! member of an [`Archive`]. So nesting is composition. A stream continues where a reader stopped (a cursor), starts
//! from seek points after a jump, and stores decoded bytes in the shared block cache. An archive reads its table of
//! members in one pass, for which readers need not wait. Lengths and seek points go to a [`PointStore`], which may
//! persist them unencrypted. Tables go to the block cache only, as they contain names from inside a backup.
//!
//! Every operation may wait for the source and for decoding: call it from threads that may wait.

mod archive;
mod archive_pass;
mod archive_table;
mod archive_table_store;
mod byte_source;
mod bzip2;
mod bzip2_bits;
mod bzip2_block;
mod bzip2_sections;
mod content_check;
mod decode_context;
mod decode_cursor;
mod decode_workers;
mod decoder_input;
mod decoder_memory;
mod decompressed_stream;
mod deflate64;
mod error;
pub mod fuzz_entry;
mod gzip;
mod limits;
mod links;
mod member_source;
mod memory_source;
mod point_store;
mod seek_points;
mod stream_codec;
mod stream_decoder;
mod suffix_hint;
mod tar;
#[cfg(test)]
mod test_support;
mod unpacker;
mod xz;
mod zip;
mod zip_method;
mod zip_names;
mod zstd;

pub use archive::{Archive, dir_mode};
pub use archive_pass::{PassInterest, PassProgress};
pub use archive_table::member::{ArchiveEntry, EntryNumber, MemberData};
pub use archive_table::{ArchiveNode, ArchiveTable, NodeKey};
pub use byte_source::{ByteSource, StoredOrigin};
pub use content_check::content_matches;
pub use decompressed_stream::DecompressedStream;
pub use error::UnpackError;
pub use limits::UnpackLimits;
pub use memory_source::MemorySource;
pub use point_store::{IndexPointStore, MemoryPointStore, PointStore};
pub use stream_codec::StreamCodec;
pub use suffix_hint::{ArchiveFormat, SUFFIXES, SuffixHint, UnpackKind, suffix_hint};
pub use unpacker::Unpacker;
pub use zip_method::{StatedContent, ZipMethod};
pub use zip_names::NameEncoding;
