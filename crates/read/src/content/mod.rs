//! A file at a snapshot as extents over volumes, and their bytes.
//!
//! A full snapshot of a file is a stream of 64 KiB parts; *offset to part to volume* is arithmetic over the manifest. A
//! delta's copies are slices of the version before, its literals ranges of the delta's own stream: a chain of deltas
//! composes into one flat list of extents.

mod content_index;
mod content_resolver;
mod delta_memory;
mod error;
mod extent;
mod extent_map;
mod extent_map_codec;
mod file_beginning;
mod file_content;
mod file_ref;
mod needed_volumes;
mod parsed_delta;
mod part_finder;
mod part_layout;
mod proof;
mod proved_read;
mod signature_check;
mod sized_content;
mod stored_stream;
mod version_locator;

pub use content_resolver::ContentResolver;
pub use error::ContentError;
pub use extent_map::ExtentMap;
pub use file_content::FileContent;
pub use file_ref::{FileRef, hint_number};
pub use needed_volumes::{NeededVolumes, size_volume};
pub use parsed_delta::MAX_FILE_BYTES;
