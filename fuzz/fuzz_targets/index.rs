//! Feeds arbitrary bytes to the parsers of what the index keeps.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    dupfs::index::fuzz_entry::fuzz_whole(data);
    dupfs::index::fuzz_entry::fuzz_segment(data);
    dupfs::index::fuzz_entry::fuzz_fields(data);
    dupfs::tree::fuzz_flat(data);
    dupfs::volume::fuzz_members(data);
});
