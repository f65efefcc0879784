//! Feeds arbitrary bytes to `dupfs_format::difftar`. The checked properties are in `dupfs_format::fuzz_entry`.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| dupfs_format::fuzz_entry::fuzz_difftar(data));
