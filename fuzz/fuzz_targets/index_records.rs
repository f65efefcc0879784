//! Feeds arbitrary bytes to the decoders of metadata, trees and member tables in the index.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    dupfs_read::fuzz_meta(data);
    dupfs_read::tree::fuzz_decode_table(data);
    dupfs_read::volume::fuzz_members(data);
});
