//! Feeds arbitrary bytes to the decoders of stored objects, and as messages that are encrypted under a fixed key. The checked
//! properties are in `dupfs_read::codec::fuzz_entry`.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    dupfs_read::codec::fuzz_entry::fuzz_object(data);
    dupfs_read::codec::fuzz_entry::fuzz_message(data);
});
