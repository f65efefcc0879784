//! Feeds arbitrary bytes to the bzip2 decoder of `unpack`. The checked properties are in `dupfs_unpack::fuzz_entry`.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| dupfs_unpack::fuzz_entry::fuzz_bzip2(data));
