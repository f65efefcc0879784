//! Support for the integration tests: scratch directories, processes, gpg homes, real duplicity, mounts through the
//! kernel, and the comparison of two trees.
//!
//! A test that needs a missing component (duplicity, gpg, /dev/fuse, fusermount3) fails with a message that
//! `scripts/test` installs it.
#![allow(dead_code, unreachable_pub)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
#![allow(clippy::cast_possible_truncation)]

pub mod copies;
pub mod dated_sets;
pub mod duplicity;
pub mod exec;
pub mod fixtures;
pub mod gpg;
pub mod maker;
pub mod memory;
pub mod mount;
pub mod proxy;
pub mod remote_servers;
pub mod s3;
pub mod source;
pub mod terminal;
pub mod tree;

use std::path::{Path, PathBuf};

/// A directory of this test alone, removed when dropped; short, because gpg's socket is below it.
pub struct Scratch {
    dir: tempfile::TempDir,
}

impl Scratch {
    /// A new empty directory under the system's temporary directory.
    pub fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("dupfs-").tempdir().expect("a temporary directory");
        Self { dir }
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Returns the directory `name` below it, and creates it if it is missing.
    pub fn dir(&self, name: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::create_dir_all(&path).expect("a directory in the scratch directory");
        path
    }
}

/// Deterministic bytes: the same seed gives the same bytes on every machine.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    out.truncate(len);
    out
}

/// Deterministic text that compresses as a dump does.
pub fn dump(seed: u64, len: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(len + 100);
    let mut row = seed * 1000;
    while out.len() < len {
        row += 1;
        let line =
            format!("INSERT INTO `t` VALUES ({row},'{:x}','lorem ipsum dolor');\n", row.wrapping_mul(2_654_435_761));
        out.extend_from_slice(line.as_bytes());
    }
    out.truncate(len);
    out
}
