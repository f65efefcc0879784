//! Rank 3: a volume as verified random-access plaintext and its member table.
//!
//! The unit of work is the volume, as neither gzip nor OpenPGP seeks. A pass fetches, hashes, decrypts, inflates and
//! indexes one volume; nothing it saw is served before the manifest's hash, the integrity code and the tar structure were
//! found right. Concurrent readers share one pass.

mod ahead;
mod error;
mod members;
mod pass;
mod read;
mod refresh;
mod repository;
mod source;
mod verified;

pub use ahead::Reader;
pub use error::VolumeError;
pub(crate) use pass::feed;

pub use members::{MemberTable, Part, Run};
pub use refresh::{RefreshError, Refreshed};
pub use repository::{Repository, RepositoryLimits};
pub use source::{AtHand, Volumes};
