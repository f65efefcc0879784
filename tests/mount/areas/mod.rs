//! Tests of the directories beside the snapshots (`at/`, `versions/`) and of new backups during a mount. Real
//! duplicity writes the backups, and its restores are the expected state.
//!
//! Needs root, duplicity, gpg, /dev/fuse and fusermount3, which `scripts/test` installs.

mod at;
mod daemon;
mod refresh;
mod versions;
