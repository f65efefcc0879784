//! Feeds arbitrary bytes to what `unpack` reads; what it must hold to is in `unpack::fuzz_entry`.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| dupfs_unpack::fuzz_entry::fuzz_members(data));
