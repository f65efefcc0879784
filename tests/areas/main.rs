//! What a mount shows beside its snapshots, and how it follows the store: `at/`, `versions/`, new backups. Real duplicity writes,
//! and what it restores is the truth.
//!
//! Needs root, duplicity, gpg, /dev/fuse and fusermount3; `scripts/test` sees to all of them.
#![allow(unreachable_pub)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

#[path = "../support/mod.rs"]
mod support;
#[path = "../oracle/tools.rs"]
#[allow(dead_code)]
mod tools;

mod at;
mod daemon;
mod refresh;
mod versions;
