//! Feeds arbitrary bytes to the parser of `format::manifest`; what it must hold to is in `format::fuzz_entry`.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| dupfs_format::fuzz_entry::fuzz_manifest(data));
