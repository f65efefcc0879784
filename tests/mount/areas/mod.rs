//! What a mount shows beside its snapshots, and how it follows the store: `at/`, `versions/`, new backups. Real duplicity writes,
//! and what it restores is the truth.
//!
//! Needs root, duplicity, gpg, /dev/fuse and fusermount3; `scripts/test` sees to all of them.

mod at;
mod daemon;
mod refresh;
mod versions;
