//! Feeds arbitrary bytes to the parsers of rclone's answers. The checked properties are in `dupfs_read::storage::fuzz_entry`.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((kind, data)) = data.split_first() else { return };
    match kind % 3 {
        0 => dupfs_read::storage::fuzz_entry::fuzz_head(data),
        1 => dupfs_read::storage::fuzz_entry::fuzz_listing(data),
        _ => dupfs_read::storage::fuzz_entry::fuzz_text(data),
    }
});
