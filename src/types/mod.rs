//! Rank 0: the vocabulary that every layer shares, so that no import cycle has a reason.

mod class;
mod entry;
mod ids;
mod path;
mod secret;
mod time;

pub use class::{Classified, ErrorClass};
pub use entry::{EntryKind, EntryMeta};
pub use ids::{ByteRange, SetIndex, VolumeId, VolumeNumber};
pub use path::{ArchivePath, PathError, escape_bytes};
pub use secret::Secret;
pub use time::BackupTime;
