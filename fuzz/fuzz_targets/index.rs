//! Feeds arbitrary bytes to the parsers of the index: its files, segments and fields.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    dupfs_cache::index::fuzz_entry::fuzz_file(data);
    dupfs_cache::index::fuzz_entry::fuzz_segment(data);
    dupfs_cache::index::fuzz_entry::fuzz_fields(data);
});
