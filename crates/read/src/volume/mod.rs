//! Rank 3: a volume as verified random-access plaintext and its member table.
//!
//! The unit of work is the volume, as neither gzip nor OpenPGP seeks. A pass fetches, hashes, decrypts, inflates and
//! indexes one volume; nothing it saw is served before the manifest's hash, the integrity code and the tar structure were
//! found right. Concurrent readers share one pass.

mod archive_dir;
mod drop_behind;
mod error;
mod member_table;
mod member_table_encoding;
mod pass;
mod prefetcher;
mod read;
mod refresh;
mod repository;
mod repository_index;
mod request_volumes;
mod verified_blocks;

pub use archive_dir::ArchiveDir;
pub use error::VolumeError;
pub(crate) use pass::feed;
pub use prefetcher::ReadHint;
pub use repository_index::IndexLocation;

pub use member_table::{MemberPart, MemberRun, MemberTable};
pub use refresh::{RefreshError, Refreshed};
pub use repository::{Repository, RepositoryConfig};
pub use request_volumes::{RequestIndex, RequestVolumes, Volumes};

/// For the fuzz target: bytes that are a member table can be searched.
pub fn fuzz_members(data: &[u8]) {
    if let Some(table) = MemberTable::decode(data) {
        for run in table.runs() {
            assert!(table.runs_of(&run.path).count() > 0, "a run is not found by its path");
        }
    }
}
