//! Rank 3: a volume as verified random-access plaintext and its member table.
//!
//! The unit of work is the volume, as neither gzip nor OpenPGP seeks. A pass fetches, hashes, decrypts, inflates and
//! indexes one volume; nothing it saw is served before the manifest's hash, the integrity code and the tar structure were
//! found right. Concurrent readers share one pass.

mod ahead;
mod archive;
mod error;
mod flat;
mod keep;
mod members;
mod pass;
mod read;
mod refresh;
mod repository;
mod source;
mod trail;
mod verified;

pub use ahead::Reader;
pub use archive::ArchiveDir;
pub use error::VolumeError;
pub use keep::IndexPlace;
pub(crate) use pass::feed;

pub use members::{MemberTable, Part, Run};
pub use refresh::{RefreshError, Refreshed};
pub use repository::{Repository, RepositoryLimits};
pub use source::{Learnt, RequestVolumes, Volumes};

/// For the fuzz target: bytes that are a member table can be searched.
pub fn fuzz_members(data: &[u8]) {
    if let Some(table) = MemberTable::from_bytes(data) {
        for run in table.runs() {
            assert!(table.runs_of(&run.path).count() > 0, "a run is not found by its path");
        }
    }
}
