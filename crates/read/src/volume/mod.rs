//! Volumes as verified random-access plaintext, and their member tables.
//!
//! The unit of work is the volume, because neither gzip nor OpenPGP can seek. A pass fetches, hashes, decrypts, decompresses
//! and indexes one volume. Its blocks are served only after the manifest's hash, the integrity code and the tar structure have
//! been verified. Concurrent requests share one pass. The content layer can prove blocks of a slow pass before that, by the sums
//! in the signature archive: it gets them as `Unverified`.

mod answered_passes;
mod archive_dir;
mod block_span;
mod block_store;
mod block_sums;
mod captured_archives;
mod compact_paths;
mod damaged_copies;
mod decode_volume;
mod drop_behind;
mod error;
mod expected_fetches;
mod fetch_log;
mod live_collection;
mod loaded_manifest;
mod manifest_rebuild;
mod manifest_store;
mod member_parts;
mod member_record;
mod member_table;
mod member_table_builder;
mod member_table_encoding;
mod object_reader;
mod pass_join;
mod pass_wait;
mod path_list;
mod plaintext;
mod prefetcher;
mod read_hint;
mod refused_objects;
mod repository;
mod repository_index;
mod request_index;
mod request_volumes;
mod running_volume;
mod scan;
mod set_comparison;
mod signature_archives;
mod signature_stream;
mod signed_blocks;
mod signed_contents;
mod signed_sets;
mod small_volumes;
mod stored_objects;
mod table_allowance;
mod verified_blocks;
mod volume_progress;
mod volume_store;
mod volumes;

pub use archive_dir::ArchiveDir;
pub(crate) use block_sums::BlockSums;
#[cfg(test)]
pub(crate) use block_sums::tests::HELLO;
pub use compact_paths::CompactPaths;
pub use damaged_copies::DamagedCopy;
pub use error::VolumeError;
pub use expected_fetches::{ExpectedFetch, ExpectedProgress};
pub use live_collection::{RefreshError, Refreshed};
pub use member_parts::MemberPart;
pub use member_table::{MemberRun, MemberTable};
pub use path_list::PathList;
pub(crate) use plaintext::feed;
pub use read_hint::ReadHint;
pub use repository::{Repository, RepositoryConfig, RepositoryStatus};
pub use repository_index::{IndexLocation, RepositoryIndex};
pub use request_index::RequestIndex;
pub use request_volumes::RequestVolumes;
pub use running_volume::RunningVolume;
pub use set_comparison::{ComparedSet, SetComparison};
pub use signature_stream::SignatureStream;
pub use signed_blocks::SignedBlocks;
pub(crate) use signed_blocks::Unverified;
pub use signed_contents::{ContentProof, SignedContent};
pub use signed_sets::SignedSets;
pub use table_allowance::{TableAllowance, TableMemory};
pub use volumes::Volumes;

/// Entry point of the fuzz target: decodes `data` as a member table and searches it.
pub fn fuzz_members(data: &[u8]) {
    if let Some(table) = MemberTable::decode(data) {
        for run in table.runs() {
            let found = table.runs_of(&run.path).any(|found| found == (run.index, run.kind));
            assert!(found, "a run is not found by its path");
            let parts = table.parts(&run);
            assert!(parts.take(64).all(|part| table.part(run.index, part.number) == Some(part)), "a part is not found");
        }
    }
}

#[cfg(test)]
mod tests;
